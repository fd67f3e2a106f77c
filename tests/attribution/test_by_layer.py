"""Attributions layer by layer, and influences at another damping."""

import numpy as np
import pytest
import torch
from residual_networks import images, network, objective
from torch import nn

import whence as wh
from whence.attribution.by_layer import layer_names

pytestmark = pytest.mark.filterwarnings("ignore::whence.FarFromMinimum")
TARGETS = wh.Loss(*images(n=3, seed=1))


def tracin(made):
    model = made.network
    states = [{k: v.clone() for k, v in model.state_dict().items()} for _ in range(2)]
    states[1]["head.weight"] += 0.1
    return wh.TracIn(made, states, [0.1, 0.2])


METHODS = {
    "exact": lambda made: wh.Influence(made, damping=1e-3),
    "ekfac": lambda made: wh.Influence(made, damping=1e-3, solver=wh.EKFAC()),
    "grad_dot": wh.GradDot,
    "tracin": tracin,
}


@pytest.mark.parametrize("effect", ["remove", "add"])
@pytest.mark.parametrize("name", METHODS)
def test_layers_add_up(name, effect):
    method = METHODS[name](objective())
    whole = method.attribute(TARGETS, effect=effect)
    by_layer = method.attribute(TARGETS, effect=effect, by_layer=True)
    assert by_layer.dims == ("target", "point", "layer")
    assert list(by_layer["layer"].values) == ["stem", "norm", "inner", "last", "head"]
    np.testing.assert_allclose(by_layer.sum("layer").values, whole.values, rtol=1e-9)
    assert by_layer.attrs["sign"] == whole.attrs["sign"]


def test_a_layer_alone_is_its_part():
    """GradDot of one layer's parameters is that layer's part of GradDot."""
    by_layer = wh.GradDot(objective()).attribute(TARGETS, by_layer=True)
    alone = wh.GradDot(
        network(), images(), nn.CrossEntropyLoss(), parameters="inner.*"
    ).attribute(TARGETS)
    np.testing.assert_allclose(
        by_layer.sel(layer="inner").values, alone.values, rtol=1e-10
    )


def test_points_of_ones_own_and_their_weights():
    method = wh.GradDot(objective())
    chosen = wh.TrainingPoints([4, 1])
    found = method.attribute(TARGETS, chosen, by_layer=True)
    expected = method.attribute(TARGETS, by_layer=True).isel(point=[1, 4])
    order = np.argsort(found["index"].values)
    np.testing.assert_allclose(found.values[:, order], expected.values)


def test_methods_that_are_no_sums_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no sums over layers"):
        wh.GradCos(objective()).attribute(TARGETS, by_layer=True)
    with pytest.raises(ValueError, match="by_layer"):
        wh.GradDot(objective()).attribute(
            TARGETS, by_layer=True, out=tmp_path / "a.zarr"
        )


def test_parameters_of_the_network_itself_are_layers():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1))
            self.inner = nn.Linear(2, 1)

    names = layer_names(wh.Parameters(Scaled()))
    assert list(names) == ["scale", "inner"]


# --- another damping -----------------------------------------------------------------------------

SOLVERS = [
    wh.Exact("primal"),
    wh.Exact("dual"),
    wh.EKFAC(coupled=30),
    wh.Nystrom(5),
    wh.Sketched(),
]


@pytest.mark.parametrize("solver", SOLVERS, ids=lambda solver: solver.name)
def test_another_damping(solver):
    made = objective()
    influence = wh.Influence(made, solver=solver, damping=1e-3)
    before = influence.attribute(TARGETS).values
    other = influence.with_damping(0.1)
    fresh = wh.Influence(made, solver=solver, damping=0.1).attribute(TARGETS)
    found = other.attribute(TARGETS)
    np.testing.assert_allclose(found.values, fresh.values, rtol=1e-6, atol=1e-9)
    assert found.attrs["damping"] == pytest.approx(fresh.attrs["damping"])
    np.testing.assert_array_equal(influence.attribute(TARGETS).values, before)


def test_another_damping_factors_nothing_again(monkeypatch):
    influence = wh.Influence(objective(), solver=wh.Exact("dual"), damping=1e-3)
    influence.state()

    def again(*arguments):
        pytest.fail("factored again")

    monkeypatch.setattr(wh.Exact, "factor", again)
    other = influence.with_damping(wh.Damping(1e-2, relative=False))
    assert other.state().spectrum.damping == 1e-2


def test_another_damping_with_a_penalty():
    made = objective().with_weight_decay(1e-2)
    influence = wh.Influence(made, damping=1e-3)
    influence.state()
    other = influence.with_damping(0.1)
    fresh = wh.Influence(made, damping=0.1)
    assert other.state().spectrum.damping == fresh.state().spectrum.damping
