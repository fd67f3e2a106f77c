"""captum's names: values against formulas written out; captum's own where it is installed."""

import inspect
import pickle

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from whence.compat import captum as ours
from whence.compat.loaded_checkpoints import checkpoint_list, load_state

N, T, D, CLASSES = 11, 3, 4, 3
GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(N, D, generator=GENERATOR, dtype=torch.float64)
Y = torch.randint(0, CLASSES, (N,), generator=GENERATOR)
X_TEST = torch.randn(T, D, generator=GENERATOR, dtype=torch.float64)
Y_TEST = torch.randint(0, CLASSES, (T,), generator=GENERATOR)
TRAIN = TensorDataset(X, Y)
RATES = {"a": 0.5, "b": 2.0}
EXACT = 1e-10


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(D, 5)
        self.fc2 = nn.Linear(5, CLASSES)

    def forward(self, x):
        return self.fc2(torch.tanh(self.fc1(x)))


def network(seed=0):
    torch.manual_seed(seed)
    return Net().double()


STATES = {"a": network(1).state_dict(), "b": network(2).state_dict()}


def load(model, name):
    model.load_state_dict(STATES[name])
    return RATES[name]


def rows(model, x, y, names=None, loss=F.cross_entropy):
    """Return the gradient of every example's loss, one backward pass each."""
    parts = []
    parameters = [p for n, p in model.named_parameters() if names is None or n in names]
    for k in range(len(x)):
        value = loss(model(x[k : k + 1]), y[k : k + 1]).sum()
        grads = torch.autograd.grad(value, parameters)
        parts.append(torch.cat([g.reshape(-1) for g in grads]))
    return torch.stack(parts)


def tracin(names=None, test_loss=F.cross_entropy):
    total = 0
    for name, rate in RATES.items():
        model = network()
        load(model, name)
        test = rows(model, X_TEST, Y_TEST, names, test_loss)
        total = total + rate * test @ rows(model, X, Y, names).T
    return total


def close(values, expected, tolerance=EXACT):
    assert values.shape == expected.shape
    assert float((values - expected).abs().max() / expected.abs().max()) <= tolerance


def method(loss=None, **options):
    loss = loss or nn.CrossEntropyLoss(reduction="none")
    return ours.TracInCP(network(), TRAIN, ["a", "b"], load, loss_fn=loss, **options)


# --- TracIn ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "loss",
    [
        nn.CrossEntropyLoss(reduction="none"),
        nn.CrossEntropyLoss(reduction="sum"),
        nn.CrossEntropyLoss(),
        lambda output, target: F.cross_entropy(output, target),
        lambda output, target: F.cross_entropy(output, target, reduction="none"),
    ],
)
def test_a_sum_over_checkpoints_with_rates_and_without_n(loss):
    close(method(loss).influence((X_TEST, Y_TEST)), tracin())


def test_the_most_influential_are_sorted():
    found = method()
    scores = found.influence((X_TEST, Y_TEST))
    best = found.influence((X_TEST, Y_TEST), k=4)
    worst = found.influence((X_TEST, Y_TEST), k=N + 9, proponents=False)
    indices, values = best
    assert torch.equal(indices, scores.argsort(dim=1, descending=True)[:, :4])
    assert torch.equal(values, scores.gather(1, best.indices))
    assert torch.equal(worst.influence_scores, scores.sort(dim=1).values)


def test_aggregated_they_are_those_on_the_sum():
    loader = DataLoader(TensorDataset(X_TEST, Y_TEST), 2)
    values = method().influence(loader, aggregate=True)
    close(values, tracin().sum(0, keepdim=True))


@pytest.mark.parametrize("inputs", [None, (X_TEST, Y_TEST)])
def test_self_influence_is_a_square_with_rates(inputs):
    x, y = inputs or (X, Y)
    expected = 0
    for name, rate in RATES.items():
        model = network()
        load(model, name)
        expected = expected + rate * rows(model, x, y).square().sum(1)
    close(method().self_influence(inputs), expected)


def test_products_of_intermediate_quantities_are_influences():
    found = method()
    train = found.compute_intermediate_quantities((X, Y))
    test = found.compute_intermediate_quantities((X_TEST, Y_TEST))
    close(test @ train.T, tracin())
    total = found.compute_intermediate_quantities((X_TEST, Y_TEST), aggregate=True)
    close(total, test.sum(0, keepdim=True))


def test_another_loss_for_test_examples():
    def first_logit(output, target):
        return output[:, 0]

    found = method(test_loss_fn=first_logit)
    values = found.influence((X_TEST, Y_TEST))
    close(values, tracin(test_loss=first_logit))


def test_layers_by_name():
    found = method(layers=["fc1"])
    close(
        found.influence((X_TEST, Y_TEST)),
        tracin({"fc1.weight", "fc1.bias"}),
    )


@pytest.mark.parametrize("layer", ["fc2", Net.__name__])
def test_fast_counts_weight_and_bias_of_the_last_layer(layer):
    model = network()
    last = "fc2" if layer == "fc2" else model.fc2
    loss = nn.CrossEntropyLoss(reduction="sum")
    found = ours.TracInCPFast(model, last, TRAIN, ["a", "b"], load, loss, 7)
    close(found.influence((X_TEST, Y_TEST)), tracin({"fc2.weight", "fc2.bias"}))

    # Without the bias, as captum, where it requires no gradient.
    model.fc2.bias.requires_grad_(False)
    found = ours.TracInCPFast(model, last, TRAIN, ["a", "b"], load, loss, 7)
    close(found.influence((X_TEST, Y_TEST)), tracin({"fc2.weight"}))


def test_the_model_stays_as_it_was():
    found = method()
    before = {
        name: t.clone() for name, t in found.objective.network.state_dict().items()
    }
    found.influence((X_TEST, Y_TEST))
    after = found.objective.network.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


# --- Arnoldi -----------------------------------------------------------------------------------


def hessian_of_sum(model, x, y):
    parameters = dict(model.named_parameters())
    theta = torch.cat([p.detach().reshape(-1) for p in parameters.values()])

    def loss(vector):
        tensors, start = {}, 0
        for name, p in parameters.items():
            tensors[name] = vector[start : start + p.numel()].view(p.shape)
            start += p.numel()
        output = torch.func.functional_call(model, tensors, (x,))
        return F.cross_entropy(output, y, reduction="sum")

    return torch.func.hessian(loss)(theta)


@pytest.mark.parametrize("rank", [6, 50])
@pytest.mark.parametrize("other", [False, True])
def test_arnoldi_inverts_the_sum_of_hessians(rank, other):
    x, y = (X[:7], Y[:7]) if other else (X, Y)
    model = network()
    found = ours.ArnoldiInfluenceFunction(
        model,
        TRAIN,
        "a",
        load,
        loss_fn=nn.CrossEntropyLoss(reduction="none"),
        hessian_dataset=TensorDataset(x, y) if other else None,
        projection_dim=rank,
        hessian_reg=0.3,
    )
    load(model, "a")
    values, vectors = torch.linalg.eigh(hessian_of_sum(model, x, y))
    kept = values.argsort(descending=True)[:rank]
    kept = kept[values[kept] + 0.3 > 1e-4]
    assert (values < -0.31).any()  # what is dropped
    inverse = (vectors[:, kept] / (values[kept] + 0.3)) @ vectors[:, kept].T
    train = rows(model, X, Y)
    expected = rows(model, X_TEST, Y_TEST) @ inverse @ train.T
    close(found.influence((X_TEST, Y_TEST)), expected, 1e-8)
    close(found.self_influence(), (train @ inverse * train).sum(1), 1e-8)
    assert found.influence((X_TEST, Y_TEST), k=2).indices.shape == (T, 2)


# --- checkpoints -------------------------------------------------------------------------------


def test_files_are_loaded_in_the_order_of_their_numbers(tmp_path):
    for epoch, name in ((10, "b"), (9, "a")):
        content = {"model_state_dict": STATES[name], "learning_rate": RATES[name]}
        torch.save(content, tmp_path / f"epoch-{epoch}.pt")
    loss = nn.CrossEntropyLoss()
    found = ours.TracInCP(network(), TRAIN, str(tmp_path), loss_fn=loss)
    assert [path.split("-")[-1] for path in found.checkpoints] == ["9.pt", "10.pt"]
    close(found.influence((X_TEST, Y_TEST)), tracin())


def test_a_plain_state_of_parallel_training_and_safetensors(tmp_path):
    state = {f"module.{name}": t for name, t in STATES["a"].items()}
    torch.save(state, tmp_path / "a.pt")
    save_file(STATES["b"], tmp_path / "b.safetensors")
    for name, file in (("a", "a.pt"), ("b", "b.safetensors")):
        model = network()
        assert load_state(model, str(tmp_path / file)) == 1.0
        assert torch.equal(model.fc1.weight, STATES[name]["fc1.weight"])


def test_a_file_that_would_run_code_is_refused(tmp_path):
    torch.save({"model": nn.Linear(2, 2)}, tmp_path / "whole.pt")
    with pytest.raises(pickle.UnpicklingError, match="Weights only"):
        load_state(network(), str(tmp_path / "whole.pt"))


# --- bad input ---------------------------------------------------------------------------------


def test_bad_input_is_an_error_that_says_what_to_do(tmp_path):
    loss = nn.CrossEntropyLoss()
    with pytest.raises(ValueError, match="loss_fn is needed"):
        ours.TracInCP(network(), TRAIN, ["a"], load)
    shuffled = DataLoader(TRAIN, 4, shuffle=True)
    with pytest.raises(ValueError, match="shuffle=False"):
        ours.TracInCP(network(), shuffled, ["a"], load, loss_fn=loss)
    with pytest.raises(ValueError, match="there are no checkpoints"):
        checkpoint_list(str(tmp_path))
    with pytest.raises(ValueError, match="must return the learning rate"):
        ours.TracInCP(network(), TRAIN, ["a"], lambda *_: None, loss_fn=loss)
    with pytest.raises(ValueError, match=r"layer.*'fc9'"):
        ours.TracInCP(network(), TRAIN, ["a"], load, ["fc9"], loss)
    with pytest.raises(ValueError, match="k"):
        method().influence((X_TEST, Y_TEST), k=0)
    torch.save({"epoch": 3}, tmp_path / "empty.pt")
    with pytest.raises(ValueError, match="no tensors of a model"):
        load_state(network(), str(tmp_path / "empty.pt"))


# --- beside captum -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["TracInCP", "TracInCPFast", "ArnoldiInfluenceFunction"]
)
def test_constructors_and_methods_take_what_captums_take(name):
    pytest.importorskip("captum")
    from captum.influence import TracInCP, TracInCPFast
    from captum.influence._core import arnoldi_influence_function as arnoldi

    theirs = {
        "TracInCP": TracInCP,
        "TracInCPFast": TracInCPFast,
        "ArnoldiInfluenceFunction": arnoldi.ArnoldiInfluenceFunction,
    }[name]
    for call in ("__init__", "influence", "self_influence"):
        expected = inspect.signature(inspect.unwrap(getattr(theirs, call))).parameters
        own = inspect.signature(getattr(getattr(ours, name), call)).parameters
        assert list(own)[: len(expected)] == list(expected), call


def test_values_agree_with_captum():
    theirs = pytest.importorskip("captum.influence").TracInCP
    loss = nn.CrossEntropyLoss(reduction="none")
    found = theirs(network(), TRAIN, ["a", "b"], load, loss_fn=loss, batch_size=4)
    close(method().influence((X_TEST, Y_TEST)), found.influence((X_TEST, Y_TEST)))


def test_captums_fast_scores_are_those_without_the_bias():
    theirs = pytest.importorskip("captum.influence").TracInCPFast
    loss = nn.CrossEntropyLoss(reduction="sum")
    found = theirs(network(), "fc2", TRAIN, ["a", "b"], load, loss, 4)
    scores = found.influence((X_TEST, Y_TEST))
    close(scores, tracin({"fc2.weight"}))
