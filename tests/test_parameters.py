import pytest
import torch
from torch import nn

from whence.parameters import Parameters


def network():
    return nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1)).double()


def test_vector_is_every_parameter_in_order():
    module = network()
    parameters = Parameters(module)
    assert parameters.names == ("0.weight", "0.bias", "2.weight", "2.bias")
    assert parameters.size == 13
    expected = torch.nn.utils.parameters_to_vector(module.parameters())
    assert torch.equal(parameters.vector(), expected)
    assert (parameters.dtype, parameters.device) == (torch.float64, torch.device("cpu"))


def test_unflatten_inverts_flatten_and_gives_views():
    parameters = Parameters(network())
    theta = torch.arange(13.0, dtype=torch.float64)
    tree = parameters.unflatten(theta)
    assert tree["0.weight"].shape == (3, 2)
    assert torch.equal(parameters.flatten(tree), theta)
    theta[0] = 7.0
    assert tree["0.weight"][0, 0] == 7.0


def test_assign_writes_into_the_module_and_vector_is_a_copy():
    module = network()
    parameters = Parameters(module)
    before = parameters.vector()
    parameters.assign(torch.zeros(13, dtype=torch.float64))
    assert not torch.equal(before, parameters.vector())
    assert all(not p.any() for p in module.parameters())
    assert all(p.requires_grad for p in module.parameters())


@pytest.mark.parametrize(
    ("select", "names"),
    [
        ("2.*", ("2.weight", "2.bias")),
        ("*.bias", ("0.bias", "2.bias")),
        (lambda name, p: p.ndim == 2, ("0.weight", "2.weight")),
    ],
)
def test_selection(select, names):
    parameters = Parameters(network(), select)
    assert parameters.names == names
    substituted = parameters.substituted(
        torch.zeros(parameters.size, dtype=torch.float64)
    )
    assert set(substituted) == {"0.weight", "0.bias", "2.weight", "2.bias"}
    assert all(not substituted[n].any() for n in names)
    assert all(parameters.live()[n].requires_grad == (n in names) for n in substituted)


def test_frozen_parameters_are_not_selected():
    module = network()
    module[0].weight.requires_grad_(False)
    assert "0.weight" not in Parameters(module).names


def test_tied_weights_count_once():
    module = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    module[1].weight = module[0].weight
    assert Parameters(module).size == 4 + 2 + 2


def test_selecting_nothing_names_what_there_is():
    with pytest.raises(ValueError, match=r"did you mean '2.weight'.*0.weight, 0.bias"):
        Parameters(network(), "3.weight")


def test_mixed_dtypes_are_an_error():
    module = nn.Sequential(nn.Linear(2, 2).double(), nn.Linear(2, 2))
    with pytest.raises(ValueError, match=r"mix dtypes: torch.float32, torch.float64"):
        Parameters(module)


@pytest.mark.parametrize("shape", [(12,), (13, 1), ()])
def test_wrong_shape_is_an_error(shape):
    with pytest.raises(ValueError, match=r"shape \(13,\)"):
        Parameters(network()).unflatten(torch.zeros(shape))
