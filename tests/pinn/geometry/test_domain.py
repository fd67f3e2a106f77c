import math
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from whence.catalogue import SAMPLINGS
from whence.pinn.geometry.domain import Difference, Disk, Interval, Product, Rectangle

# Quadratures choose their own number of points, for boxes: tests of their own have them.
SPREAD = [m for m in SAMPLINGS if not hasattr(SAMPLINGS[m], "weights")]

XY = ("x", "y")
LINE = Interval("x", -1, 1)
TIME = Interval("t", 0.1, 2.3)
BOX = Rectangle(XY, (0, 0), (22, 4.1))
DISK = Disk(XY, (2, 2), 0.5, "cylinder")
DOMAINS = {
    "line": LINE,
    "line and time": LINE * TIME,
    "box": BOX,
    "disk": DISK,
    "disk and time": DISK * TIME,
    "channel": BOX - DISK,
    "channel and time": (BOX - DISK) * TIME,
    "time and channel": TIME * (BOX - DISK),
    "two holes": BOX - DISK - Disk(XY, (6, 2), 1),
    "notch": BOX - Disk(XY, (22, 4.1), 2),
    "L": Rectangle(XY, (0, 0), (1, 1)) - Rectangle(XY, (0, 0), (0.5, 0.5)),
    "ring": Disk(XY, (0, 0), 2, "rim") - Disk(XY, (0, 0), 1, "hub"),
    "drilled": BOX * TIME - DISK * Interval("t", 0, 5),
}
EACH = pytest.mark.parametrize("domain", DOMAINS.values(), ids=DOMAINS.keys())


@EACH
@pytest.mark.parametrize("method", SPREAD)
def test_samples_are_inside_and_exactly_n(domain, method):
    for n in (1, 7, 200):
        if method == "grid" and n == 1:
            continue
        points = domain.sample(n, method, seed=0)
        assert points.dtype == torch.float64
        assert points.shape[1] == domain.dimension == len(domain.coordinates)
        assert len(points) <= n if method == "grid" else len(points) == n
        assert domain.contains(points).all()
        low, high = domain.bounds
        assert ((points.numpy() >= low) & (points.numpy() <= high)).all()


@EACH
@pytest.mark.parametrize("method", SPREAD)
def test_parts_are_on_the_boundary_with_outward_normals(domain, method):
    for part in domain.boundary:
        points = part.sample(40, method, seed=1)
        assert len(points) <= 40 if method == "grid" else len(points) == 40
        assert part.coordinates == domain.coordinates
        assert part.contains(points).all()
        assert domain.contains(points).all()
        normals = part.normals(points)
        assert torch.allclose(normals.norm(dim=1), torch.ones(len(points)).double())
        step = 1e-6 * normals
        assert not domain.contains(points + step).any()
        assert domain.contains(points - step).all()
        assert not part.contains(points - step).any()


@EACH
def test_boundary_is_closed(domain):
    """The flux of a constant field through a closed surface is zero."""
    flux = 0
    for part in domain.boundary:
        points = part.sample(2000)
        flux = flux + part.measure * part.normals(points).mean(dim=0)
    size = sum(part.measure for part in domain.boundary)
    assert flux.abs().max() < 2e-3 * size


@EACH
def test_divergence_theorem_gives_the_measure(domain):
    """The flux of the field x is d times the volume."""
    flux = 0.0
    for part in domain.boundary:
        points = part.sample(4000)
        flux += part.measure * float((part.normals(points) * points).sum(dim=1).mean())
    assert flux == pytest.approx(domain.dimension * domain.measure, rel=5e-3)


@pytest.mark.parametrize("method", SPREAD)
def test_seeds(method):
    domain, edge = BOX - DISK, (BOX - DISK).part(("x", "cylinder"))
    for region in (domain, edge):
        first, again, other = (region.sample(30, method, seed) for seed in (1, 1, 2))
        assert torch.equal(first, again)
        assert torch.equal(first, other) == (method == "grid")


def test_global_random_states_are_left_alone():
    state = torch.get_rng_state()
    (BOX - DISK).sample(20, "random", 0)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("method", SPREAD)
def test_disk_is_sampled_evenly(method):
    disk = Disk(XY, (3, -1), 2)
    away = disk.sample(2000, method, seed=0) - torch.tensor([3.0, -1.0])
    assert float(
        (away.norm(dim=1) < 2 / math.sqrt(2)).double().mean()
    ) == pytest.approx(0.5, abs=0.04)
    assert float((away[:, 0] > 0).double().mean()) == pytest.approx(0.5, abs=0.04)
    assert away.mean(dim=0).abs().max() < 0.1


def test_low_discrepancy_integrates_better_than_random():
    domain = (Rectangle(XY, (-1, -1), (1, 1)) - Disk(XY, (0, 0), 0.5)) * Interval(
        "t", 0, 1
    )
    exact = 4 / 3 * 2 - math.pi * 0.5**4 / 2  # the integral of x² + y²

    def error(method, seed):
        points = domain.sample(1000, method, seed)
        return abs(
            float(points[:, :2].square().sum(dim=1).mean()) * domain.measure - exact
        )

    random = np.mean([error("random", s) for s in range(8)])
    for method in ("hammersley", "sobol", "halton"):
        assert np.mean([error(method, s) for s in range(8)]) < random / 2


@settings(max_examples=40, deadline=None)
@given(
    low=st.floats(-1e3, 1e3),
    length=st.floats(1e-2, 1e3),
    n=st.integers(1, 50),
    method=st.sampled_from(SPREAD),
)
def test_ends_are_exact(low, length, n, method):
    domain = Interval("x", low, low + length) * Interval("t", 0, 1)
    high = domain.bounds[1, 0]
    assert (domain.part("x_min").sample(n, method)[:, 0] == low).all()
    points = domain.part(lambda x: x == high).sample(n, method)
    assert (points[:, 0] == high).all()
    assert domain.contains(domain.sample(n, method), tolerance=0).all()


def test_initial_slice_and_points():
    initial = (LINE * TIME).part("t_min")
    assert (initial.sample(9)[:, 1] == 0.1).all()
    assert initial.sample(9)[:, 0].tolist() == LINE.sample(9)[:, 0].tolist()
    assert LINE.part("x_max").sample(5).tolist() == [[1.0]] * 5
    assert LINE.part("x_max").sample(5, "grid").tolist() == [[1.0]]


def test_measures():
    parts = {
        part.name: part.measure
        for part in ((BOX - DISK) * Interval("t", 0, 2)).boundary
    }
    area = 22 * 4.1 - math.pi * 0.25
    assert parts == pytest.approx(
        {
            "x_min": 8.2, "x_max": 8.2, "y_min": 44, "y_max": 44,
            "cylinder": 2 * math.pi, "t_min": area, "t_max": area,
        }
    )  # fmt: skip
    notch = DOMAINS["notch"]
    assert notch.measure == pytest.approx(22 * 4.1 - math.pi, rel=1e-2)
    assert notch.part("x_max").measure == pytest.approx(2.1, rel=1e-2)
    assert notch.part("disk").measure == pytest.approx(math.pi, rel=1e-2)


def test_unions_share_the_points_by_measure():
    domain = Rectangle(XY, (0, 0), (3, 1))
    points = domain.part(("x_min", "y_max")).sample(40)
    assert int((points[:, 0] == 0).sum()) == 10
    assert int((points[:, 1] == 1).sum()) == 30
    both = domain.part("x").sample(21)
    assert sorted([int((both[:, 0] == v).sum()) for v in (0, 3)]) == [10, 11]
    assert domain.part(("x", "x_min", "y_max")).measure == 5
    needle = Rectangle(XY, (0, 0), (1000, 0.001)).part(XY).sample(4)
    assert [int((needle[:, 0] == v).sum()) for v in (0, 1000)] == [1, 1]


def test_pieces_of_a_union_do_not_repeat_one_pattern():
    points = Rectangle(XY, (0, 0), (1, 1)).part("x").sample(20, "random", 0)
    assert not torch.allclose(points[:10, 1], points[10:, 1])


def test_how_many_points_a_part_has():
    assert [LINE.part(on).size for on in ("x_min", "x")] == [1, 2]
    assert (LINE * TIME).part("x_min").size is None
    assert DISK.part("cylinder").size is None


def test_selection_by_function():
    domain = BOX - DISK
    outflow = domain.part(lambda x, y: x == 22.0)
    assert outflow.name == "x_max"
    assert outflow.measure == 4.1
    half = domain.part(lambda y: y <= 2)
    points = half.sample(500, seed=3)
    assert (points[:, 1] <= 2).all()
    assert half.contains(points).all()
    assert half.name == "x_min + x_max + y_min + cylinder"
    assert half.measure == pytest.approx(22 + 4 + math.pi / 2, rel=1e-3)
    late = (domain * Interval("t", 0, 1)).part(
        lambda x, t, fraction=0.5: (x == 0) & (t > fraction)
    )
    assert (late.sample(100)[:, 2] > 0.5).all()
    assert (late.sample(100)[:, 0] == 0).all()


def test_shared_edges_are_left_out():
    assert [part.name for part in DOMAINS["L"].boundary] == [
        "x_min", "x_max", "y_min", "y_max", "inner_x_max", "inner_y_max",
    ]  # fmt: skip
    assert DOMAINS["L"].part("x_min").sample(50)[:, 1].min() > 0.5


def test_normals_on_corners_and_off_the_part():
    edges = Rectangle(XY, (0, 0), (1, 1)).part(("x", "y"))
    corner = torch.tensor([[1.0, 1.0], [0.5, 0.0]])
    assert edges.normals(corner).tolist() == [[1, 0], [0, -1]]
    assert edges.normals(corner).dtype == torch.float32
    assert isinstance(edges.normals(corner.double().numpy()), np.ndarray)
    with pytest.raises(ValueError, match=r"1 of 2 points .* row 1, x=0.5, y=0.5"):
        edges.normals(torch.tensor([[1.0, 1.0], [0.5, 0.5]]))


def test_contains_takes_arrays_and_tolerance():
    assert DISK.contains(np.array([[2.0, 2.5], [2.0, 2.51]])).tolist() == [True, False]
    assert DISK.contains(np.array([[2.0, 2.51]]), tolerance=0.02).tolist() == [True]
    assert DISK.contains(np.array([[2.0, 2.5]]), tolerance=-0.02).tolist() == [False]
    with pytest.raises(ValueError, match=r"\('x', 'y'\) must have shape \(n, 2\)"):
        DISK.contains(torch.zeros(3, 3))


def test_products_flatten_and_domains_are_values():
    nested = BOX * TIME
    assert nested.coordinates == ("x", "y", "t")
    assert len(nested.factors) == 3
    assert nested == Product((BOX, TIME)) == pickle.loads(pickle.dumps(nested))
    assert isinstance(BOX - DISK, Difference)
    assert len({BOX - DISK, BOX - DISK}) == 1
    with pytest.raises(TypeError):
        BOX * 3


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Interval("x", 1, 1), "'x' must have low < high, got low=1 and high=1"),
        (
            lambda: Interval("x", 0, math.inf),
            "high of 'x' must be a finite number, got inf",
        ),
        (lambda: Interval("x y", 0, 1), "must be a Python identifier.*'x y'"),
        (lambda: Rectangle(XY, (0, 0), (1,)), r"high must have two entries.*\(1,\)"),
        (lambda: Disk(XY, (0, 0), 0), "radius must be a positive number, got 0"),
        (lambda: Disk(XY, (0, 0, 0), 1), "center must have two entries"),
        (lambda: Disk(XY, (0, 0), 1, "x"), "called 'x'"),
        (lambda: LINE * LINE, "different coordinates, got 'x' more than once"),
        (lambda: Product(()), "at least one factor"),
        (
            lambda: DISK * Disk(("p", "q"), (0, 0), 1, "cylinder"),
            "called 'cylinder'.*another name",
        ),
        (lambda: BOX - Disk(XY, (1, 1), 0.1) - Disk(XY, (3, 1), 0.1), "called 'disk'"),
        (lambda: BOX * TIME - DISK, r"same coordinates.*\(a - b\) \* t"),
        (lambda: DISK - BOX, "is empty"),
        (lambda: BOX - Disk(XY, (-5, 0), 1), "nothing to subtract"),
        (lambda: BOX.sample(0), "n must be a positive integer, got 0"),
        (lambda: BOX.sample(5, "sobel"), "did you mean 'sobol'"),
        (lambda: BOX.part("x_min").sample(-1), "n must be a positive integer, got -1"),
        (lambda: BOX.part("xmin"), "part of the boundary 'xmin' .did you mean 'x_min'"),
        (
            lambda: BOX.part(("x_min", "z")),
            "part of the boundary 'z'.*'y_max', 'x', 'y'",
        ),
        (lambda: DISK.part("x"), "choose 'cylinder'"),
        (lambda: BOX.part(()), "on must name a part"),
        (lambda: BOX.part(lambda x, z: x == z), "unknown coordinate .* 'z'"),
        (lambda: BOX.part(lambda x: x == 21.0), r"selects no point.*x=\[0.0, 22.0\]"),
        (lambda: BOX.part(lambda x: True), "must return a boolean tensor of shape"),
        (
            lambda: BOX.part(lambda x: x),
            "must return a boolean tensor .* got torch.float64",
        ),
    ],
)
def test_mistakes_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
