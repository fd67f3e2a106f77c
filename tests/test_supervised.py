"""Supervised objectives: closed forms of linear and logistic regression, and what models may be."""

import copy
import weakref

import numpy as np
import oracles
import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import minimize
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import whence as wh
from whence.attribution import reductions
from whence.attribution.groups import group_influence
from whence.curvature.solvers import Damping
from whence.evaluation import suspects
from whence.samples import Samples

N, D, T = 24, 3, 5
RNG = np.random.default_rng(0)
X = RNG.standard_normal((N, D))
X1 = np.concatenate([X, np.ones((N, 1))], axis=1)
TEST = np.random.default_rng(1).standard_normal((T, D))
TEST1 = np.concatenate([TEST, np.ones((T, 1))], axis=1)
EXACT = 1e-10


def tensor(array):
    return torch.as_tensor(np.asarray(array, dtype=np.float64))


# --- linear regression -------------------------------------------------------------------------

Y = X @ [1.0, -2.0, 0.5] + 0.3 * RNG.standard_normal(N)
Y_TEST = RNG.standard_normal(T)


def ols(x, y):
    return np.linalg.lstsq(x, y, rcond=None)[0]


def linear(theta, outputs=1):
    model = nn.Linear(D, outputs, dtype=torch.float64)
    with torch.no_grad():
        model.weight.copy_(tensor(theta).reshape(outputs, -1)[:, :-1])
        model.bias.copy_(tensor(theta).reshape(outputs, -1)[:, -1])
    return model


@pytest.fixture(name="regression")
def _regression():
    model = linear(ols(X1, Y))
    return wh.Objective.supervised(model, (tensor(X), tensor(Y)[:, None]), nn.MSELoss())


@pytest.mark.parametrize("curvature", [None, "hessian"])
def test_linear_regression_influence_in_closed_form(regression, curvature):
    inverse, e = np.linalg.inv(X1.T @ X1), X1 @ ols(X1, Y) - Y
    found = wh.Influence(regression, damping=0.0, curvature=curvature)
    outputs = found.attribute(wh.Output(tensor(TEST)))
    oracles.close(outputs, TEST1 @ inverse @ (X1 * e[:, None]).T, EXACT)
    errors = (TEST1 @ ols(X1, Y) - Y_TEST)[:, None]
    losses = found.attribute(wh.Loss(tensor(TEST), tensor(Y_TEST)[:, None]))
    oracles.close(losses, 2 * errors * (TEST1 @ inverse @ (X1 * e[:, None]).T), EXACT)


def test_linear_regression_without_groups_is_exact(regression):
    groups = {"one": [3], "several": [0, 5, 9], "most": list(range(15))}
    found = group_influence(
        wh.Influence(regression, damping=0.0), wh.Output(tensor(TEST)), groups
    )
    for name, left_out in groups.items():
        kept = np.setdiff1d(np.arange(N), left_out)
        change = TEST1 @ (ols(X1[kept], Y[kept]) - ols(X1, Y))
        oracles.close(found.sel(group=name), change, EXACT)


def test_linear_regression_perturbation_is_the_derivative_of_the_fit(regression):
    found = wh.Influence(regression, damping=0.0).attribute(
        wh.Output(tensor(TEST)), effect="perturb"
    )
    assert found.dims == ("target", "point", "feature")
    theta, inverse = ols(X1, Y), np.linalg.inv(X1.T @ X1)
    e = Y - X1 @ theta
    for j in range(D):  # dθ = (XᵀX)⁻¹ (e·unit_j − x θ_j) for a unit of x_ij
        moved = inverse @ (np.eye(D + 1)[:, j : j + 1] * e - X1.T * theta[j])
        oracles.close(found.isel(feature=j), TEST1 @ moved, EXACT)


# --- logistic regression -----------------------------------------------------------------------

PENALTY = 0.02
LABELS = (X @ [2.0, -1.0, 0.0] + RNG.logistic(size=N) > 0).astype(int)
LABELS_TEST = RNG.integers(0, 2, T)


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def logistic_gradient(theta, x, y):
    """∇ of mean ℓ + (c/2)‖θ‖² over rows x with labels y."""
    return x.T @ (sigmoid(x @ theta) - y) / len(y) + PENALTY * theta


def logistic(x, y):
    """Newton's method to the last digit."""
    theta = np.zeros(x.shape[1])
    for _ in range(50):
        p = sigmoid(x @ theta)
        hessian = (x * (p * (1 - p))[:, None]).T @ x / len(y) + PENALTY * np.eye(
            x.shape[1]
        )
        theta = theta - np.linalg.solve(hessian, logistic_gradient(theta, x, y))
    return theta


@pytest.mark.parametrize(
    "loss", [wh.BinaryCrossEntropy(), nn.BCEWithLogitsLoss(), "function"]
)
def test_logistic_regression_in_closed_form(loss):
    if loss == "function":

        def loss(z, y):
            return F.softplus(z[:, 0]) - y[:, 0] * z[:, 0]

    theta = logistic(X1, LABELS)
    data = tensor(X), tensor(LABELS)[:, None]
    objective = wh.Objective.supervised(linear(theta), data, loss)
    damping = Damping(PENALTY, relative=False)
    p, q = sigmoid(X1 @ theta), sigmoid(TEST1 @ theta)
    hessian = (X1 * (p * (1 - p))[:, None]).T @ X1 / N + PENALTY * np.eye(D + 1)
    train, test = X1 * (p - LABELS)[:, None], TEST1 * (q - LABELS_TEST)[:, None]
    expected = test @ np.linalg.solve(hessian, train.T) / N
    quantity = wh.Loss(tensor(TEST), tensor(LABELS_TEST)[:, None])
    for curvature in ("gauss_newton", "hessian"):
        found = wh.Influence(objective, damping=damping, curvature=curvature).attribute(
            quantity
        )
        oracles.close(found, expected, EXACT)


def test_logistic_regression_perturbation_is_the_derivative_of_the_fit():
    theta = logistic(X1, LABELS)
    data = tensor(X), tensor(LABELS)[:, None]
    objective = wh.Objective.supervised(linear(theta), data, wh.BinaryCrossEntropy())
    influence = wh.Influence(objective, damping=Damping(PENALTY, relative=False))
    found = influence.attribute(wh.Output(tensor(TEST)), effect="perturb")
    p = sigmoid(X1 @ theta)
    hessian = (X1 * (p * (1 - p))[:, None]).T @ X1 / N + PENALTY * np.eye(D + 1)
    for j in range(D):
        cross = np.eye(D + 1)[:, j : j + 1] * (p - LABELS) + X1.T * (
            p * (1 - p) * theta[j]
        )
        oracles.close(
            found.isel(feature=j), -TEST1 @ np.linalg.solve(hessian, cross) / N, EXACT
        )
    step, i, j = 1e-5, 4, 1  # and a real refit agrees
    changes = []
    for sign in (1, -1):
        moved = X1.copy()
        moved[i, j] += sign * step
        changes.append(TEST1 @ logistic(moved, LABELS))
    oracles.close(
        found.isel(point=i, feature=j), (changes[0] - changes[1]) / (2 * step), 1e-6
    )


def test_leaving_out_a_sample_of_logistic_regression_to_first_order():
    """The prediction's error falls as the square of the weight that is taken away."""
    theta = logistic(X1, LABELS)
    data = tensor(X), tensor(LABELS)[:, None]
    objective = wh.Objective.supervised(linear(theta), data, wh.BinaryCrossEntropy())
    influence = wh.Influence(objective, damping=Damping(PENALTY, relative=False))
    predicted = influence.attribute(wh.Output(tensor(TEST))).values[:, 7]
    errors = []
    for weight in (1e-2, 1e-3):

        def gradient(t, weight=weight):
            lost = X1[7] * (sigmoid(X1[7] @ t) - LABELS[7]) / N
            return logistic_gradient(t, X1, LABELS) - weight * lost

        t = theta.copy()
        for _ in range(60):
            p = sigmoid(X1 @ t)
            scale = np.where(np.arange(N) == 7, 1 - weight, 1.0)
            hessian = (
                X1 * (scale * p * (1 - p))[:, None]
            ).T @ X1 / N + PENALTY * np.eye(D + 1)
            t = t - np.linalg.solve(hessian, gradient(t))
        errors.append(np.abs(TEST1 @ (t - theta) - weight * predicted).max())
    assert 80 < errors[0] / errors[1] < 120


def test_softmax_regression_in_closed_form():
    y = RNG.integers(0, 3, N)

    def value(flat):
        z = X1 @ flat.reshape(3, -1).T
        nll = np.log(np.exp(z).sum(1)) - z[np.arange(N), y]
        return nll.mean() + PENALTY / 2 * flat @ flat

    start = minimize(value, np.zeros(3 * (D + 1)), method="BFGS").x
    objective = wh.Objective.supervised(linear(start, 3), (tensor(X), torch.as_tensor(y)),
                                        nn.CrossEntropyLoss())  # fmt: skip
    z = X1 @ start.reshape(3, -1).T
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    rows = [np.kron(p[i] - np.eye(3)[y[i]], X1[i]) for i in range(N)]
    hessian = sum(
        np.kron(np.diag(p[i]) - np.outer(p[i], p[i]), np.outer(X1[i], X1[i]))
        for i in range(N)
    ) / N + PENALTY * np.eye(3 * (D + 1))
    expected = np.stack(rows) @ np.linalg.solve(hessian, np.stack(rows).T) / N
    # θ of the model is weights first, then biases: a permutation, of which influences know nothing.
    damping = Damping(PENALTY, relative=False)
    for form in ("primal", "dual"):
        influence = wh.Influence(objective, damping=damping, solver=wh.Exact(form=form))
        oracles.close(influence.attribute(wh.Loss()), expected, EXACT)
        oracles.close(influence.self_influence(), np.diag(expected), EXACT)


# --- what models and data may be ---------------------------------------------------------------


class Model(nn.Module):
    """Dropout, BatchNorm, tied weights, a frozen layer, an unused one and two inputs."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(6, 4)
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 3)
        self.tied = nn.Linear(4, 4)
        self.tied.weight = self.a.weight
        self.norm, self.drop = nn.BatchNorm1d(4), nn.Dropout(0.5)
        self.frozen, self.unused = (
            nn.Linear(4, 4).requires_grad_(False),
            nn.Linear(2, 2),
        )

    def forward(self, x, words):
        h = torch.tanh(self.a(x)) + self.embed(words).mean(1)
        return self.b(self.drop(self.norm(self.frozen(torch.tanh(self.tied(h))))))


def model_and_data(n=9):
    torch.manual_seed(0)
    model = Model().double()
    with torch.no_grad():
        model.norm.running_mean.uniform_(-1, 1)
        model.norm.running_var.uniform_(0.5, 2)
    data = torch.randn(n, 4).double(), torch.randint(0, 6, (n, 2)), torch.arange(n) % 3
    return model, data


def gradients(model, data, select=lambda name: True):
    """Per-sample gradients by a loop of ``torch.autograd.grad``."""
    evaluated = copy.deepcopy(model).eval()
    chosen = [
        p for n, p in evaluated.named_parameters() if p.requires_grad and select(n)
    ]
    rows = []
    for i in range(len(data[-1])):
        loss = F.cross_entropy(
            evaluated(*(t[i : i + 1] for t in data[:-1])), data[-1][i : i + 1]
        )
        grads = torch.autograd.grad(
            loss, chosen, allow_unused=True, materialize_grads=True
        )
        rows.append(torch.cat([g.reshape(-1) for g in grads]))
    return torch.stack(rows)


@pytest.mark.parametrize("training", [True, False])
def test_gradients_are_those_of_a_loop_in_evaluation_mode(training):
    model, data = model_and_data()
    model.train(training)
    before = copy.deepcopy(model.state_dict())
    objective = wh.Objective.supervised(model, data, nn.CrossEntropyLoss())
    rows = gradients(model, data)
    found = wh.GradDot(objective).attribute(wh.Loss())
    oracles.close(found, (rows @ rows.T / len(rows)).numpy(), EXACT)
    assert model.training is training
    assert all(module.training is training for module in model.modules())
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
    assert found.attrs["mode"].startswith("evaluation")


@pytest.mark.parametrize(
    ("select", "names"),
    [("b.*", ("b.weight", "b.bias")), (("b.weight", "embed.*"), ("embed.weight", "b.weight")),
     (lambda name, p: p.ndim == 1 and name != "unused.bias",
      ("a.bias", "b.bias", "tied.bias", "norm.weight", "norm.bias"))],
)  # fmt: skip
def test_selected_parameters(select, names):
    model, data = model_and_data()
    objective = wh.Objective.supervised(
        model, data, nn.CrossEntropyLoss(), parameters=select
    )
    assert objective.parameters.names == names
    rows = gradients(model, data, lambda n: n in names)
    found = wh.GradDot(objective).attribute(wh.Loss())
    oracles.close(found, (rows @ rows.T / len(rows)).numpy(), EXACT)


def test_a_module_selects_its_parameters():
    model, data = model_and_data()
    objective = wh.Objective.supervised(
        model, data, nn.CrossEntropyLoss(), parameters=model.b
    )
    assert objective.parameters.names == ("b.weight", "b.bias")
    with pytest.raises(ValueError, match="selects none"):
        wh.Objective.supervised(
            model, data, nn.CrossEntropyLoss(), parameters=nn.Linear(1, 1)
        )


class Words(torch.utils.data.Dataset):
    """As a dataset of the user's own is: one sample at a time."""

    def __init__(self, data):
        self.data, self.reads = data, 0

    def __len__(self):
        return len(self.data[-1])

    def __getitem__(self, i):
        self.reads += 1
        return tuple(t[i] for t in self.data)


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize("kind", ["tensors", "arrays", "dataset", "own", "loader"])
def test_every_kind_of_data_gives_the_same(kind, in_memory, monkeypatch):
    if not in_memory:
        monkeypatch.setattr("whence.samples.IN_MEMORY_BYTES", 0)
    model, data = model_and_data()
    given = {
        "tensors": data,
        "arrays": tuple(t.numpy() for t in data),
        "dataset": TensorDataset(*data),
        "own": Words(data),
        "loader": DataLoader(Words(data), batch_size=4),
    }[kind]
    objective = wh.Objective.supervised(
        model, given, nn.CrossEntropyLoss(), batch_size=2
    )
    assert len(objective.term("data").points) == 9
    expected = wh.Influence(
        wh.Objective.supervised(model, data, nn.CrossEntropyLoss()), damping=1e-3
    )
    found = wh.Influence(objective, damping=1e-3)
    oracles.close(
        found.attribute(wh.Loss()), expected.attribute(wh.Loss()).values, EXACT
    )
    quantity = wh.Loss(given)
    some = found.attribute(quantity)
    oracles.close(some, expected.attribute(wh.Loss()).values, EXACT)
    assert some.label.values.tolist() == (torch.arange(9) % 3).tolist()
    assert some.target_label.values.tolist() == (torch.arange(9) % 3).tolist()


def test_keyword_inputs():
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(3, 2)

        def forward(self, *, x, factor):
            return self.a(x) * factor

    torch.manual_seed(0)
    x, factor, y = torch.randn(6, 3), torch.rand(6, 1), torch.arange(6) % 2
    objective = wh.Objective.supervised(
        Named(), ({"x": x, "factor": factor}, y), wh.CrossEntropy()
    )
    output = objective.network(x=x, factor=factor)
    assert float(objective.loss()) == pytest.approx(float(F.cross_entropy(output, y)))
    quantity = wh.Loss({"x": x[:2], "factor": factor[:2]}, y[:2])
    assert wh.GradDot(objective).attribute(quantity).shape == (2, 6)


def test_gauss_newton_where_the_loss_is_convex_else_the_hessian():
    model, x = linear(ols(X1, Y)), tensor(X)
    y = tensor(Y)[:, None] + 0.1

    def chosen(loss):
        return wh.Influence(wh.Objective.supervised(model, (x, y), loss)).curvature

    for loss in (nn.MSELoss(), nn.HuberLoss(), lambda z, t: (z - t)[:, 0] ** 4):
        assert chosen(loss) == "gauss_newton"
    for loss in (nn.L1Loss(), lambda z, t: torch.cos(z - t)[:, 0]):
        assert chosen(loss) == "hessian"
    objective = wh.Objective.supervised(model, (x, y), nn.L1Loss())
    with pytest.raises(ValueError, match="use curvature='hessian'"):
        wh.Influence(objective, curvature="gauss_newton")


# --- what there is for all objectives -------------------------------------------------------------


@pytest.fixture(name="softmax")
def _softmax():
    """Three overlapping classes: the minimum exists, and refits find it to the last digit."""
    rng = np.random.default_rng(3)
    x, y = rng.standard_normal((40, 2)), rng.integers(0, 3, 40)
    model = nn.Linear(2, 3, dtype=torch.float64)
    data = tensor(x), torch.as_tensor(y)
    objective = wh.Objective.supervised(model, data, wh.CrossEntropy())
    objective.parameters.assign(wh.refit(objective).theta)
    return objective


def test_leaving_out_samples_of_a_classifier_really(softmax):
    chosen = [0, 7, 11, 23, 38]
    quantity = wh.Loss(tensor(TEST[:, :2]), torch.arange(T) % 3)
    actual = wh.leave_one_out(softmax, quantity, chosen)
    influence = wh.Influence(softmax, damping=1e-9)
    first = influence.attribute(quantity).isel(point=chosen)
    exact = group_influence(influence, quantity, {str(k): [k] for k in chosen})
    for found in (first, exact):
        assert np.corrcoef(found.values.ravel(), actual.values.ravel())[0, 1] > 0.98
    errors = [np.abs(found.values - actual.values).max() for found in (first, exact)]
    assert errors[1] < errors[0], (
        "second-order terms of the leverage are taken into account"
    )


def test_leverage_and_distances_of_a_classifier(softmax):
    influence = wh.Influence(softmax, damping=1e-9)
    leverages = wh.leverage(influence)
    assert float(leverages.sum()) == pytest.approx(6, rel=1e-3), (
        "of 9, 3 leave the softmax alone"
    )
    assert (wh.cooks_distance(influence) > 0).all()


def test_any_functional_of_a_classifier(softmax):
    x = tensor(TEST[:, :2])
    margin = wh.Functional(
        lambda field: (field("output_0", x) - field("output_1", x)).mean()
    )
    found = wh.Influence(softmax).attribute(margin)
    outputs = [
        wh.Influence(softmax).attribute(wh.Output(x, f"output_{k}")) for k in (0, 1)
    ]
    oracles.close(
        found.values[0], (outputs[0] - outputs[1]).mean("target").values, EXACT
    )


SOLVERS = [wh.Exact("primal"), wh.Exact("dual"), wh.ConjugateGradient(), wh.Nystrom(9),
           wh.Arnoldi(9), wh.LiSSA(20_000)]  # fmt: skip


@pytest.mark.parametrize("solver", SOLVERS, ids=lambda solver: solver.name)
@pytest.mark.parametrize("in_memory", [True, False])
def test_every_solver_on_samples(solver, in_memory, softmax, monkeypatch):
    if not in_memory:
        monkeypatch.setattr("whence.samples.IN_MEMORY_BYTES", 0)
        data = softmax.term("data").points.batch
        given = Words((*data.inputs, data.target))
        softmax = wh.Objective.supervised(softmax.network, given, wh.CrossEntropy())
    expected = wh.Influence(softmax, damping=1e-2).attribute(wh.Loss())
    found = wh.Influence(softmax, damping=1e-2, solver=solver).attribute(wh.Loss())
    oracles.close(found, expected.values, 1e-6)


def test_data_that_are_read_when_used_are_not_kept(monkeypatch):
    """At any time a few samples are in memory, whatever is asked for."""
    monkeypatch.setattr("whence.samples.IN_MEMORY_BYTES", 0)
    monkeypatch.setattr("whence.samples.READ_AT_ONCE", 4)
    held, made, begin = [], weakref.WeakSet(), Samples._set

    def watched(self, *given):
        begin(self, *given)
        made.add(self)

    monkeypatch.setattr(Samples, "_set", watched)

    class Watched(Words):
        def __getitem__(self, i):
            held.append(
                sum(len(o) for o in made if o.in_memory and o._source is not None)
            )
            return super().__getitem__(i)

    n = 60
    torch.manual_seed(0)
    data = torch.randn(n, 3, dtype=torch.float64), torch.arange(n) % 2
    model, clean = nn.Linear(3, 2, dtype=torch.float64), (data[0][:2], data[1][:2])
    loss = wh.CrossEntropy()
    objective = wh.Objective.supervised(model, Watched(data), loss, batch_size=4)
    quantity = wh.Loss(*clean)
    for method in (
        wh.Influence(objective),
        wh.GradDot(objective),
        wh.GradCos(objective),
    ):
        method.attribute(quantity)
        method.self_influence()
        reductions.top(method, quantity, k=2)
        suspects(method, validation=clean)
    wh.EmpiricalInfluence(objective).attribute(quantity)
    objective.loss()
    assert max(held) <= 12
