"""What all methods share, and gradient products, EmpiricalIF, reductions and zarr, on one model."""

import numpy as np
import oracles
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
import xarray as xr
from safetensors.torch import save_file
from torch import nn

import whence as wh
from whence.attribution import reductions
from whence.attribution.method import Method
from whence.attribution.tiles import Solved

N, T = 14, 5
EXACT = 1e-10


def network(scale=1.0):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(4, 6), nn.Tanh(), nn.BatchNorm1d(6), nn.Linear(6, 3)
    ).double()
    with torch.no_grad():
        model[2].running_mean.uniform_(-1, 1)
        for parameter in model.parameters():
            parameter *= scale
    return model


def data(n, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 4, generator=generator, dtype=torch.float64)
    return x, torch.arange(n) % 3


TRAIN, TEST = data(N, 1), data(T, 2)
QUANTITY = wh.Loss(*TEST)


def objective(model=None):
    return wh.Objective.supervised(model or network(), TRAIN, nn.CrossEntropyLoss())


def gradients(model, x, y):
    model = model.eval()
    rows = []
    for i in range(len(x)):
        loss = F.cross_entropy(model(x[i : i + 1]), y[i : i + 1])
        rows.append(
            torch.cat(
                [g.reshape(-1) for g in torch.autograd.grad(loss, model.parameters())]
            )
        )
    return torch.stack(rows).numpy()


def states():
    found = [network(scale).state_dict() for scale in (0.5, 1.0, 2.0)]
    found[0]["2.running_mean"] = found[0]["2.running_mean"] + 1.0
    return found


METHODS = {
    "influence": lambda o: wh.Influence(o, damping=1e-2),
    "hessian": lambda o: wh.Influence(o, damping=wh.Damping(3.0, relative=False),
                                      curvature="hessian"),
    "grad_dot": wh.GradDot,
    "grad_cos": wh.GradCos,
    "tracin": lambda o: wh.TracIn(o, states(), [0.1, 0.2, 0.3]),
    "empirical": wh.EmpiricalInfluence,
    "random": lambda o: wh.EmpiricalInfluence(o, directions=20, radius=0.1),
}  # fmt: skip
LINEAR = ["influence", "hessian", "grad_dot", "tracin"]


@pytest.fixture(params=METHODS, name="method")
def _method(request):
    return METHODS[request.param](objective())


# --- what each is ------------------------------------------------------------------------------


def test_grad_dot_and_grad_cos():
    test, train = gradients(network(), *TEST), gradients(network(), *TRAIN)
    oracles.close(
        wh.GradDot(objective()).attribute(QUANTITY), test @ train.T / N, EXACT
    )
    unit_test, unit_train = (
        g / np.linalg.norm(g, axis=1, keepdims=True) for g in (test, train)
    )
    found = wh.GradCos(objective()).attribute(QUANTITY)
    oracles.close(found, unit_test @ unit_train.T, EXACT)


def test_a_zero_gradient_has_no_cosine():
    ignored = wh.Objective.supervised(
        network(),
        (TRAIN[0], torch.where(torch.arange(N) == 3, -100, TRAIN[1])),
        wh.CrossEntropy(),
    )
    found = wh.GradCos(ignored).attribute(QUANTITY)
    assert (found.isel(point=3) == 0).all()
    assert (found.isel(point=4) != 0).all()
    assert (
        wh.GradCos(ignored).self_influence().values.tolist()
        == [1.0] * 3 + [0.0] + [1.0] * 10
    )


@pytest.mark.parametrize("on_disk", [False, True])
def test_tracin_sums_over_checkpoints(on_disk, tmp_path):
    model, given, expected = network(), states(), 0
    for rate, state in zip((0.1, 0.2, 0.3), given, strict=True):
        other = network()
        other.load_state_dict(state)
        expected += rate * gradients(other, *TEST) @ gradients(other, *TRAIN).T / N
    if on_disk:
        for k, state in enumerate(given):
            save_file(state, tmp_path / f"{k}.safetensors")
        given = [tmp_path / f"{k}.safetensors" for k in range(3)]
    before = {n: t.clone() for n, t in model.state_dict().items()}
    method = wh.TracIn(objective(model), given, [0.1, 0.2, 0.3])
    oracles.close(method.attribute(QUANTITY), expected, EXACT)
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())


def test_tracin_of_more_targets_than_a_block_holds(monkeypatch):
    method = METHODS["tracin"](objective())
    expected = method.attribute(QUANTITY).values
    monkeypatch.setattr("whence.attribution.tiled.TARGET_BLOCK", 2)
    monkeypatch.setattr("whence.points.MAX_LINEARIZED", 3)
    oracles.close(method.attribute(QUANTITY), expected, 1e-12)


def test_the_network_comes_back_after_an_interrupt():
    model = network()
    method = wh.TracIn(objective(model), states(), 0.1)
    before = {n: t.clone() for n, t in model.state_dict().items()}
    tiles = method.tiles(QUANTITY)
    next(tiles)
    with pytest.raises(KeyboardInterrupt):
        tiles.throw(KeyboardInterrupt)
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())


def losses(model, theta, x, y):
    model.load_state_dict(model.state_dict())
    torch.nn.utils.vector_to_parameters(torch.as_tensor(theta), model.parameters())
    with torch.no_grad():
        return F.cross_entropy(model.eval()(x), y, reduction="none").numpy()


def test_empirical_influence_by_hand():
    model, radius = network(), 0.05
    theta = (
        torch.nn.utils.parameters_to_vector(model.parameters()).detach().numpy().copy()
    )
    expected = np.zeros((T, N))
    for k, gradient in enumerate(gradients(network(), *TEST)):
        for sign in (1, -1):
            moved = theta + sign * radius * gradient / np.linalg.norm(gradient)
            f = losses(model, moved, *TEST)[k] - losses(model, theta, *TEST)[k]
            change = losses(model, moved, *TRAIN) - losses(model, theta, *TRAIN)
            expected[k] += 0.5 * f * change / N
    found = wh.EmpiricalInfluence(objective(), radius=radius).attribute(QUANTITY)
    oracles.close(found, expected, EXACT)


def test_steps_of_a_learning_rate_are_those_of_a_loop_over_targets():
    rate = 0.3
    model = network()
    theta = torch.nn.utils.parameters_to_vector(model.parameters()).detach().numpy()
    expected = np.zeros((T, N))
    for k, gradient in enumerate(gradients(network(), *TEST)):
        for step in (rate * gradient, -rate * gradient):
            f = losses(model, theta + step, *TEST)[k] - losses(model, theta, *TEST)[k]
            change = losses(model, theta + step, *TRAIN) - losses(model, theta, *TRAIN)
            expected[k] += 0.5 * f * change / N

    method = wh.EmpiricalInfluence(objective(), learning_rate=rate)
    found = method.attribute(QUANTITY)
    oracles.close(found, expected, EXACT)
    assert found.attrs["learning_rate"] == rate

    # The same as with a radius of its own for each target.
    for k, gradient in enumerate(gradients(network(), *TEST)):
        radius = rate * float(np.linalg.norm(gradient))
        target = wh.Loss(TEST[0][k : k + 1], TEST[1][k : k + 1])
        row = wh.EmpiricalInfluence(objective(), radius=radius).attribute(target)
        oracles.close(row, found.values[k : k + 1], EXACT)


@pytest.mark.parametrize("directions", ["gradient", 400])
def test_small_steps_of_empirical_influence_are_gradient_products(directions):
    """Along gradients exactly, over random directions on average."""
    method = wh.EmpiricalInfluence(objective(), radius=1e-5, directions=directions)
    found = method.attribute(QUANTITY).values / 1e-10
    expected = wh.GradDot(objective()).attribute(QUANTITY).values
    correlation = np.corrcoef(found.ravel(), expected.ravel())[0, 1]
    assert correlation > (0.9999 if directions == "gradient" else 0.95)
    if directions == "gradient":
        oracles.close(found, expected, 1e-4)


# --- one interface -----------------------------------------------------------------------------


def test_labels_and_sign(method):
    found = method.attribute(QUANTITY)
    assert found.dims == ("target", "point")
    assert found.label.values.tolist() == TRAIN[1].tolist()
    assert found.target_label.values.tolist() == TEST[1].tolist()
    assert found.index.values.tolist() == list(range(N))
    assert "removed from training" in found.attrs["sign"]
    assert str(found.quality())
    oracles.close(method.attribute(QUANTITY, effect="add"), -found.values, EXACT)
    own = method.attribute(wh.Loss())
    assert (np.diag(own) > 0).all(), "removing a sample raises its own loss"


def test_the_diagonal(method):
    if getattr(method, "directions", "gradient") != "gradient":
        pytest.skip("one sample has directions of its own")
    own = method.attribute(wh.Loss())
    oracles.close(method.self_influence(), np.diag(own), EXACT)
    points = TRAIN[0][2:5], TRAIN[1][2:5]
    oracles.close(method.self_influence(points), np.diag(own)[2:5], EXACT)


def test_any_points_and_any_order(method):
    whole = method.attribute(QUANTITY).values
    order = torch.randperm(N, generator=torch.Generator().manual_seed(0))
    found = method.attribute(QUANTITY, (TRAIN[0][order], TRAIN[1][order]))
    oracles.close(found, whole[:, order.numpy()], EXACT)


def test_blocks_and_chunks(method, monkeypatch):
    whole = method.attribute(QUANTITY).values
    monkeypatch.setattr("whence.attribution.tiled.TARGET_BLOCK", 3)
    monkeypatch.setattr("whence.points.MAX_LINEARIZED", 4)
    oracles.close(method.attribute(QUANTITY), whole, EXACT)
    blocks = list(method.attribute_blocks(QUANTITY, block=2))
    assert [len(b) for b in blocks] == [2, 2, 1]
    oracles.close(torch.cat(blocks), whole, EXACT)


def test_sums(method):
    if method.name not in ("influence", "grad_dot", "tracin"):
        pytest.skip("not linear in the target")
    whole = method.attribute(QUANTITY).values
    oracles.close(method.attribute_sum(QUANTITY), whole.sum(0), EXACT)


@pytest.mark.parametrize("name", LINEAR)
def test_moving_inputs_by_finite_differences(name):
    """The effect of moving an input is the derivative of the sum over points by that input."""
    method = METHODS[name](objective())
    found = method.attribute(QUANTITY, effect="perturb")
    step, i, j = 1e-5, 3, 2
    values = []
    for sign in (1, -1):
        x = TRAIN[0].clone()
        x[i, j] += sign * step
        values.append(method.attribute(QUANTITY, (x, TRAIN[1])).values[:, i])
    oracles.close(
        found.isel(point=i, feature=j), -(values[0] - values[1]) / (2 * step), 1e-6
    )


def test_moving_a_collocation_point():
    case = oracles.burgers_hard(n=12, widths=(2, 5, 1))
    method = wh.Influence(case.objective, damping=1e-4)
    quantity = wh.Output(oracles.target_points(case))
    found = method.attribute(quantity, effect="perturb")
    assert found.feature.values.tolist() == ["x", "t"]
    points, step = case.objective.term("pde").points, 1e-5
    for j in range(2):
        values = []
        for sign in (1, -1):
            moved = points.clone()
            moved[4, j] += sign * step
            values.append(method.attribute(quantity, {"pde": moved}).values[:, 4])
        expected = -(values[0] - values[1]) / (2 * step)
        oracles.close(found.isel(point=4, feature=j), expected, 1e-6)


@pytest.mark.parametrize("name", ["grad_cos", "empirical"])
def test_methods_that_predict_no_change_move_nothing(name):
    with pytest.raises(ValueError, match="does not predict a change"):
        METHODS[name](objective()).attribute(QUANTITY, effect="perturb")


# --- reductions and zarr -----------------------------------------------------------------------


def test_extremes(method, monkeypatch):
    whole = method.attribute(QUANTITY).values
    monkeypatch.setattr("whence.points.MAX_LINEARIZED", 4)
    found = reductions.top(method, QUANTITY, k=3)
    order = np.argsort(-whole, axis=1)
    assert found.highest_point.values.tolist() == order[:, :3].tolist()
    assert found.lowest_point.values.tolist() == order[:, :-4:-1].tolist()
    oracles.close(found.highest, np.take_along_axis(whole, order[:, :3], 1), EXACT)
    assert (
        found.lowest_label.values.tolist() == (found.lowest_point.values % 3).tolist()
    )
    assert reductions.top(method, QUANTITY, k=100).sizes["rank"] == N


@pytest.mark.parametrize("how", ["mean", "sum", "mean_abs"])
def test_means_and_sums(method, how, monkeypatch):
    whole = method.attribute(QUANTITY).values
    monkeypatch.setattr("whence.points.MAX_LINEARIZED", 4)
    made = {
        "mean": np.mean,
        "sum": np.sum,
        "mean_abs": lambda a, axis: np.abs(a).mean(axis),
    }[how]
    oracles.close(reductions.reduced(method, QUANTITY, how), made(whole, axis=0), EXACT)
    found = reductions.reduced(method, QUANTITY, how, over="point")
    oracles.close(found, made(whole, axis=1), EXACT)
    found = reductions.reduced(method, QUANTITY, how, over="point", by="label")
    expected = np.stack(
        [made(whole[:, TRAIN[1] == c], axis=1) for c in range(3)], axis=1
    )
    assert found.dims == ("target", "label")
    oracles.close(found, expected, EXACT)
    found = reductions.reduced(method, QUANTITY, how, by="target_label")
    expected = np.stack([made(whole[TEST[1] == c], axis=0) for c in range(3)], axis=1)
    oracles.close(found, expected, EXACT)


def test_what_cannot_be_reduced():
    method = wh.GradDot(objective())
    with pytest.raises(
        ValueError, match=r"coordinate to group by 'labels'.*did you mean 'label'"
    ):
        reductions.reduced(method, QUANTITY, over="point", by="labels")


def test_zarr(method, tmp_path, monkeypatch):
    whole = method.attribute(QUANTITY)
    monkeypatch.setattr("whence.points.MAX_LINEARIZED", 4)
    method.memory_budget = 1 if method.name != "empirical" else method.memory_budget
    if method.memory_budget == 1:
        with pytest.raises(MemoryError, match=r"give out='name.zarr'"):
            method.attribute(QUANTITY)
    found = method.attribute(QUANTITY, out=tmp_path / "a" / "scores.zarr")
    oracles.close(found, whole.values, EXACT)
    for name in whole.coords:
        assert found[name].values.tolist() == whole[name].values.tolist(), name
    assert found.attrs["method"] == whole.attrs["method"]
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["scores.zarr"]
    again = xr.open_dataset(
        tmp_path / "a" / "scores.zarr", engine="zarr", consolidated=False
    )
    oracles.close(again.influence.sel(target=2), whole.values[2], EXACT)
    with pytest.raises(FileExistsError, match="exists already"):
        method.attribute(QUANTITY, out=tmp_path / "a" / "scores.zarr")


# --- first calls -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cls", "arguments"),
    [
        (wh.Influence, ()),
        (wh.GradDot, ()),
        (wh.GradCos, ()),
        (wh.EmpiricalInfluence, ()),
        (wh.TracIn, (states(), 0.1)),
    ],
)
def test_a_model_with_data_and_loss_is_its_objective(cls, arguments):
    """As captum and pyDVL are called, and with a selection of parameters."""
    selected = wh.Objective.supervised(
        network(), TRAIN, nn.CrossEntropyLoss(), parameters="0.*"
    )
    expected = cls(selected, *arguments).attribute(QUANTITY)
    options = {"data": TRAIN, "loss": nn.CrossEntropyLoss(), "parameters": "0.*"}
    found = cls(network(), *arguments, **options).attribute(QUANTITY)
    xr.testing.assert_identical(found, expected)
    if not arguments:
        method = cls(network(), TRAIN, nn.CrossEntropyLoss(), parameters="0.*")
        xr.testing.assert_identical(method.attribute(QUANTITY), expected)


@pytest.mark.parametrize("convert", [np.asarray, lambda t: t.tolist()])
def test_samples_may_be_arrays_and_lists(method, convert):
    expected = method.attribute(QUANTITY, (TRAIN[0][:3], TRAIN[1][:3]))
    few = np.asarray(TRAIN[0][:3]), np.asarray(TRAIN[1][:3])
    quantity = wh.Loss(convert(TEST[0]), convert(TEST[1]))
    xr.testing.assert_identical(method.attribute(quantity, few), expected)


def test_collocation_points_may_be_arrays_lists_and_data_frames():
    case = oracles.burgers_hard(n=12, widths=(2, 5, 1))
    method = wh.GradDot(case.objective)
    points = np.random.default_rng(0).uniform([-1, 0], [1, 1], (4, 2))
    expected = method.attribute(wh.Output(torch.as_tensor(points)))
    some = method.attribute(wh.Output(points), {"pde": torch.as_tensor(points)})
    frame = pd.DataFrame({"t": points[:, 1], "id": range(4), "x": points[:, 0]})
    for same in (points, points.tolist(), frame):
        xr.testing.assert_identical(method.attribute(wh.Output(same)), expected)
        xr.testing.assert_identical(method.attribute(wh.Output(same), same), some)


class HalfProducts(Method):
    """All that a stranger writes."""

    name = "half_products"

    def transform_gradients(self, gradients):
        return gradients / 2, Solved(1e-3)

    def description(self):
        return {"share": 0.5}


def test_a_method_of_ones_own():
    method = HalfProducts(network(), TRAIN, nn.CrossEntropyLoss())
    found = method.attribute(QUANTITY)
    whole = wh.GradDot(objective()).attribute(QUANTITY).values
    oracles.close(found, whole / 2, EXACT)
    assert found.attrs["share"] == 0.5
    assert "Method half_products" in str(found.quality())
    oracles.close(
        method.attribute(QUANTITY, effect="perturb"),
        wh.GradDot(objective()).attribute(QUANTITY, effect="perturb").values / 2,
        EXACT,
    )
