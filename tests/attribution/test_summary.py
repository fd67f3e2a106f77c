"""Terms on terms and terms in regions: the sums of the dense matrix, which is never held."""

import numpy as np
import oracles
import pytest
import torch

import whence as wh
from whence import pinn
from whence.attribution.tiles import Tile

pytestmark = pytest.mark.filterwarnings(
    "ignore::whence.attribution.quality.FarFromMinimum"
)

EXACT = 1e-10


@pytest.fixture(name="case", scope="module")
def _case():
    return oracles.burgers_soft(n=9, widths=(2, 8, 1))


@pytest.fixture(name="dense", scope="module")
def _dense(case):
    """The influence of each point on the loss of each term, w_i ∇ℓ̄_i, by dense algebra."""
    rows, scales = oracles.loss_gradients(case)
    terms = terms_of(case)
    # ∇(w_i mean ℓ_i) = Σ (w/N) ∇ℓ(z) over its points
    gradients = [(scales[:, None] * rows)[terms == name].sum(0) for name in NAMES]
    return oracles.influence(case, np.stack(gradients), 1e-4)


NAMES = ("pde", "initial", "periodic")


def terms_of(case):
    sizes = [len(term.points) for term in case.objective.terms.values()]
    return np.repeat(NAMES, sizes)


def test_terms_on_terms_against_dense_algebra(case, dense):
    influence = wh.Influence(case.objective, damping=1e-4)
    table = wh.term_matrix(influence)
    terms = terms_of(case)
    signed = np.stack([dense[:, terms == name].sum(1) for name in NAMES], axis=1)
    sizes = np.stack([abs(dense)[:, terms == name].sum(1) for name in NAMES], axis=1)
    oracles.close(table.influence, signed, EXACT)
    oracles.close(table.magnitude, sizes, EXACT)
    oracles.close(table.share, sizes / sizes.sum(1, keepdims=True), EXACT)
    assert table["quantity"].values.tolist() == [f"loss {name}" for name in NAMES]
    assert table["term"].values.tolist() == list(NAMES)
    assert table.points.values.tolist() == [9, 5, 4]
    losses = {name: float(v) for name, v in case.objective.losses().items()}
    weighted = [losses[name] * w for name, w in zip(NAMES, (1, 10, 0.5), strict=True)]
    oracles.close(table.loss, weighted, 1e-12)
    oracles.close(table.loss_share, np.array(weighted) / sum(weighted), 1e-12)
    oracles.close(table.value, weighted, 1e-12)
    assert table.attrs["method"] == "influence"
    assert table.attrs["solver_converged"] == 1

    added = wh.term_matrix(influence, effect="add")
    oracles.close(added.influence, -signed, EXACT)
    oracles.close(added.magnitude, sizes, EXACT)


METHODS = {
    "influence": lambda objective: wh.Influence(objective, damping=1e-4),
    "conjugate_gradient": lambda objective: wh.Influence(
        objective, damping=1e-2, solver=wh.ConjugateGradient(rtol=1e-12)
    ),
    "grad_dot": wh.GradDot,
    "grad_cos": wh.GradCos,
    "empirical": wh.EmpiricalInfluence,
}


def several(case):
    points = oracles.target_points(case, 30)
    mean = wh.Functional(lambda field: field("u", points).mean(), name="mean of u")
    return [wh.Output(points, "u"), wh.Derivative(points[:4], "u_x"), mean]


@pytest.mark.parametrize("method", METHODS)
def test_rows_of_any_quantity_and_method(case, method):
    asked = METHODS[method](case.objective)
    quantity = several(case)
    table = wh.term_matrix(asked, quantity)
    whole = asked.attribute(quantity)
    assert table["quantity"].values.tolist() == ["u", "u_x", "mean of u"]
    for name in ("u", "u_x", "mean of u"):
        rows = whole.values[whole["quantity"].values == name]
        for term in NAMES:
            part = rows[:, terms_of(case) == term]
            found = table.sel(quantity=name, term=term)
            oracles.close(found.influence, part.sum(1).mean(), 1e-9)
            oracles.close(found.magnitude, abs(part).sum(1).mean(), 1e-9)


def regions():
    return {
        "left": {"x": (-1.0, 0.0)},
        "ball": pinn.Disk(("x", "t"), (0.0, 0.5), 0.6),
        "late": lambda t: t > 0.3,
    }


def inside_by_hand(x, t):
    ball = x**2 + (t - 0.5) ** 2 <= 0.36
    return {"left": x <= 0, "ball": ball, "late": t > 0.3}


def test_shares_of_points_by_region_against_the_matrix(case):
    influence = wh.Influence(case.objective, damping=1e-4)
    quantity = several(case)
    table = wh.region_shares(influence, quantity, regions())
    whole = influence.attribute(quantity)
    inside = inside_by_hand(whole["x"].values, whole["t"].values)
    for name in ("u", "u_x", "mean of u"):
        rows = whole.values[whole["quantity"].values == name]
        for region, is_inside in inside.items():
            for term in NAMES:
                chosen = is_inside & (terms_of(case) == term)
                found = table.sel(quantity=name, region=region, term=term)
                size = abs(rows[:, chosen]).sum()
                oracles.close(found.share, size / abs(rows).sum(), 1e-9)
                oracles.close(found.influence, rows[:, chosen].sum(1).mean(), 1e-9)
                assert found["size"] == chosen.sum()


def test_shares_of_answers_by_region_against_the_matrix(case):
    influence = wh.Influence(case.objective, damping=1e-4)
    quantity = several(case)[:1]
    table = wh.region_shares(influence, quantity, regions(), over="target")
    whole = influence.attribute(quantity)
    inside = inside_by_hand(whole["target_x"].values, whole["target_t"].values)
    for region, is_inside in inside.items():
        rows = whole.values[is_inside]
        for term in NAMES:
            part = rows[:, terms_of(case) == term]
            found = table.sel(quantity="u", region=region, term=term)
            oracles.close(found.share, abs(part).sum() / abs(rows).sum(), 1e-9)
            oracles.close(found.influence, part.sum(1).mean(), 1e-9)
        assert table["size"].sel(quantity="u", region=region) == is_inside.sum()
    oracles.close(table.share.sum("term"), np.ones((1, 3)), 1e-12)


def test_tiles_of_any_shape_give_the_same(case, monkeypatch):
    """Each tile is used for itself: memory does not grow with targets times points."""
    influence = wh.Influence(case.objective, damping=1e-4)
    quantity = several(case)[:1]
    expected = wh.region_shares(influence, quantity, regions())
    whole = torch.from_numpy(influence.attribute(quantity).values)

    def small_tiles(self, quantity, points=None, effect="remove"):
        for t in range(0, 30, 7):
            for z in range(0, 18, 5):
                part = whole[t : t + 7, z : z + 5]
                rows, columns = part.shape
                yield Tile(slice(t, t + rows), slice(z, z + columns), part)

    monkeypatch.setattr(wh.Influence, "tiles", small_tiles)
    monkeypatch.setattr(wh.Influence, "attribute", None)
    table = wh.region_shares(influence, quantity, regions())
    oracles.close(table.share, expected.share, EXACT)


def test_a_quantity_without_influence_has_no_shares(case):
    zero = wh.Functional(
        lambda field: 0 * field("u", case.objective.terms["pde"].points).sum()
    )
    table = wh.term_matrix(wh.GradDot(case.objective), zero)
    assert table.share.values.tolist() == [[0.0, 0.0, 0.0]]


@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        (
            {"far": {"x": (5, 6)}},
            ValueError,
            "'far' has none of the 18 training points",
        ),
        ({"far": {"y": (0, 1)}}, ValueError, "unknown coordinate of the region 'far'"),
        ({"far": {"x": (0, 1, 2)}}, ValueError, "two entries"),
        (
            {"far": lambda z: z > 0},
            ValueError,
            "unknown coordinate of the region 'far'",
        ),
        ({"far": lambda x: x.sum()}, ValueError, "must return 18 booleans"),
        ({"far": 3}, TypeError, "a box such as"),
        ({}, ValueError, "regions must map names"),
    ],
)
def test_bad_regions(case, bad, error, message):
    influence = wh.Influence(case.objective)
    with pytest.raises(error, match=message):
        wh.region_shares(influence, wh.Loss(reduce="mean"), bad)


def test_samples_have_terms_but_no_regions():
    x, y = torch.rand(8, 3).double(), torch.arange(8) % 2
    model = torch.nn.Linear(3, 2).double()
    influence = wh.Influence(model, (x, y), torch.nn.CrossEntropyLoss())
    table = wh.term_matrix(influence, wh.Loss(x[:3], y[:3]))
    rows = influence.attribute(wh.Loss(x[:3], y[:3]))
    oracles.close(table.influence, [[rows.sum("point").mean()]], EXACT)
    assert table["term"].values.tolist() == ["data"]
    with pytest.raises(TypeError, match="samples"):
        wh.region_shares(influence, wh.Loss(), {"left": {"x": (0, 1)}})


def test_answers_that_are_nowhere(case):
    influence = wh.Influence(case.objective)
    place = {"left": {"x": (-1, 0)}}
    with pytest.raises(ValueError, match="'loss pde' have no coordinates"):
        wh.region_shares(influence, wh.TermLoss("pde"), place, over="target")
    with pytest.raises(
        ValueError, match="targets of 'mean of u', which lie in no place"
    ):
        wh.region_shares(influence, several(case), place, over="target")
    with pytest.raises(ValueError, match="unknown effect"):
        wh.term_matrix(influence, effect="perturb")
