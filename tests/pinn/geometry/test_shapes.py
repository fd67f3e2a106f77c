"""Shapes and their combinations against closed forms, and what holds for all of them."""

import copy
import math
import pickle

import numpy as np
import pytest
import torch
import trimesh

from whence import pinn
from whence.pinn.geometry.domain import Domain

XY = ("x", "y")
XYZ = ("x", "y", "z")
TIME = pinn.Interval("t", 0, 2)
CORNER = [(0, 0), (2, 0), (2, 1), (1, 1), (1, 2), (0, 2)]
STAR = []
for k in range(10):
    radius, angle = (1 if k % 2 else 0.45), math.pi * k / 5
    STAR.append((radius * math.cos(angle), radius * math.sin(angle)))


def rectangle(low, high):
    return pinn.Rectangle(XY, low, high)


def lens(a, b, distance):
    """Area that two disks of radius one have in common."""
    half = distance / 2
    return 2 * (math.acos(half) - half * math.sqrt(1 - half**2))


BALL = trimesh.creation.icosphere(subdivisions=2)
LEMON = pinn.Level(
    XY, lambda x, y: (x**2 + y**2) ** 2 - 2 * (x**2 - y**2) - 0.3, ((-2, -1), (2, 1))
)
A, B = pinn.Disk(XY, (0, 0), 1, "a"), pinn.Disk(XY, (1, 0), 1, "b")
DOMAINS = {
    "corner": pinn.Polygon(XY, CORNER),
    "star": pinn.Polygon(XY, STAR[::-1], "star"),
    "triangle": pinn.Triangle(XY, (0, 0), (3, 0), (1, 2)),
    "ellipse": pinn.Ellipse(XY, (1, 2), (2, 0.5), 30),
    "box": pinn.Box(XYZ, (0, 0, 0), (1, 2, 3)),
    "sphere": pinn.Sphere(XYZ, (1, 0, -2), 2),
    "cylinder": pinn.Cylinder(XYZ, (1, 0, 0), 1, 2, axis="y"),
    "cube": pinn.Mesh(trimesh.creation.box()),
    "ball": pinn.Mesh(BALL, name="ball"),
    "level in 2-D": LEMON,
    "level in 3-D": pinn.Level(
        XYZ, lambda x, y, z: x**2 + y**2 / 4 + z**2 - 1, ((-1.2, -2.2, -1.2), (1.2, 2.2, 1.2))
    ),
    "union": A | B,
    "L": rectangle((0, 0), (2, 1)) | rectangle((0, 0), (1, 2)),
    "touching": rectangle((0, 0), (1, 1)) | rectangle((1, 0), (2, 1)),
    "apart": A | pinn.Disk(XY, (5, 0), 0.5),
    "intersection": A & B,
    "same edge": rectangle((0, 0), (2, 2)) & rectangle((0, 0), (1, 3)),
    "annulus": pinn.Disk(XY, (0, 0), 1, "rim") - pinn.Disk(XY, (0, 0), 0.5, "hub"),
    "nested": (rectangle((-2, -2), (2, 2)) - (A | pinn.Ellipse(XY, (1, 1), (0.8, 0.3), 20)))
    & pinn.Disk(XY, (0, 0), 2.2, "rim"),
    "turned": rectangle((0, 0), (2, 1)).rotated(30),
    "moved": (A - B).rotated(30).scaled(2).translated((1, 1)),
    "drilled": pinn.Sphere(XYZ, (0, 0, 0), 1) - pinn.Cylinder(XYZ, (0, 0, -2), 0.4, 4),
    "tiny": pinn.Disk(XY, (0, 0), 1e-6) - pinn.Disk(XY, (0, 0), 5e-7, "hub"),
    "far": pinn.Polygon(XY, [(x + 1e4, y - 1e4) for x, y in CORNER]),
}  # fmt: skip
AREAS = {
    "corner": 3,
    "triangle": 3,
    "ellipse": math.pi,
    "box": 6,
    "sphere": 32 / 3 * math.pi,
    "cylinder": 2 * math.pi,
    "cube": 1,
    "ball": BALL.volume,
    "level in 3-D": 8 / 3 * math.pi,
    "union": 2 * math.pi - lens(A, B, 1),
    "L": 3,
    "touching": 2,
    "apart": math.pi * 1.25,
    "intersection": lens(A, B, 1),
    "same edge": 2,
    "annulus": 0.75 * math.pi,
    "turned": 2,
    "moved": 4 * (math.pi - lens(A, B, 1)),
    # What is left of a drilled ball of radius R: 4/3·π·(R² − r²)^(3/2).
    "drilled": 4 / 3 * math.pi * (1 - 0.4**2) ** 1.5,
    "tiny": 0.75e-12 * math.pi,
    "far": 3,
}
LENGTHS = {
    "corner": 8,
    "ellipse": 8.578421775,
    "box": 22,
    "sphere": 16 * math.pi,
    "cylinder": 6 * math.pi,
    "cube": 6,
    "ball": BALL.area,
    "union": 8 * math.pi / 3,
    "L": 8,
    "touching": 6,
    "apart": 3 * math.pi,
    "intersection": 4 * math.pi / 3,
    "same edge": 6,
    "annulus": 3 * math.pi,
    "turned": 6,
    "far": 8,
}
EACH = pytest.mark.parametrize("name", DOMAINS)


def boundary_size(domain):
    return sum(part.measure for part in domain.boundary)


@pytest.mark.parametrize("name", AREAS)
def test_measures_are_those_of_closed_forms(name):
    assert DOMAINS[name].measure == pytest.approx(AREAS[name], rel=3e-3)
    if name in LENGTHS:
        assert boundary_size(DOMAINS[name]) == pytest.approx(LENGTHS[name], rel=2e-3)


UNCUT = [
    "corner",
    "ellipse",
    "box",
    "sphere",
    "cylinder",
    "cube",
    "touching",
    "annulus",
    "turned",
]


@pytest.mark.parametrize("name", UNCUT)
def test_measures_without_cuts_are_exact(name):
    assert DOMAINS[name].measure == pytest.approx(AREAS[name], rel=1e-12)
    assert (DOMAINS[name] * TIME).measure == 2 * DOMAINS[name].measure


@EACH
@pytest.mark.parametrize("with_time", [False, True])
def test_samples_are_inside_exactly_n_and_repeat(name, with_time):
    domain = DOMAINS[name] * TIME if with_time else DOMAINS[name]
    for method in ("hammersley", "sobol", "random"):
        points = domain.sample(200, method, seed=3)
        assert points.shape == (200, domain.dimension)
        assert len(points.unique(dim=0)) == 200
        assert bool(domain.contains(points).all())
        low, high = domain.bounds
        slack = domain.rounding
        assert (
            (points.numpy() >= low - slack) & (points.numpy() <= high + slack)
        ).all()
        assert torch.equal(points, domain.sample(200, method, seed=3))


@EACH
@pytest.mark.parametrize("with_time", [False, True])
def test_normals_point_out_of_the_body(name, with_time):
    domain = DOMAINS[name] * TIME if with_time else DOMAINS[name]
    step = 1e3 * domain.rounding
    for part in domain.boundary:
        points = part.sample(100, seed=1)
        normals = part.normals(points)
        assert bool(part.contains(points).all())
        assert bool(domain.contains(points).all())
        assert torch.allclose(normals.norm(dim=1), torch.ones(100).double())
        # A point may fall within a step of a corner.
        assert domain.contains(points + step * normals).sum() <= 1
        assert domain.contains(points - step * normals).sum() >= 99
        assert not part.contains(points - step * normals).any()


@EACH
def test_the_boundary_is_closed_and_encloses_the_measure(name):
    """The flux of a constant field is zero, that of the field x is d times the volume."""
    domain = DOMAINS[name]
    middle = torch.from_numpy(domain.bounds.mean(axis=0))
    constant, radial = 0, 0.0
    for part in domain.boundary:
        points = part.sample(3000, seed=0)
        normals = part.normals(points)
        constant = constant + part.measure * normals.mean(dim=0)
        radial += part.measure * float((normals * (points - middle)).sum(dim=1).mean())
    assert constant.abs().max() < 4e-3 * boundary_size(domain)
    assert radial == pytest.approx(domain.dimension * domain.measure, rel=1e-2)


def moments(points):
    return torch.cat([points.mean(dim=0), points.square().mean(dim=0)])


@EACH
def test_points_are_spread_evenly(name):
    """First and second moments are those of rejection from the bounding box, by other points."""
    domain = DOMAINS[name]
    low, high = (torch.from_numpy(row) for row in domain.bounds)
    unit = torch.rand(
        40_000, domain.dimension, generator=torch.Generator().manual_seed(0)
    ).double()
    inside = unit[domain.contains(low + unit * (high - low))]
    sampled = (domain.sample(4000, seed=0) - low) / (high - low)
    assert (moments(sampled) - moments(inside)).abs().max() < 0.012
    # The share of the box that the body fills is its measure.
    share = len(inside) / len(unit) * float((high - low).prod())
    assert share == pytest.approx(domain.measure, rel=0.03)


def test_boundary_points_are_spread_evenly():
    angle = torch.linspace(0, 2 * math.pi, 20_001).double()[:-1]
    speed = (4 * angle.sin() ** 2 + 0.25 * angle.cos() ** 2).sqrt()
    exact = (
        4 * angle.cos() ** 2 * speed
    ).sum() / speed.sum()  # the mean of x² by arc length
    plain = pinn.Ellipse(XY, (0, 0), (2, 0.5))
    points = plain.part("ellipse").sample(500)
    assert float(points[:, 0].square().mean()) == pytest.approx(float(exact), rel=1e-4)
    gaps = (points - points.roll(1, dims=0)).norm(dim=1)
    assert gaps.max() < 1.001 * gaps.median()

    ball = DOMAINS["level in 3-D"].part("level").sample(4000)
    scaled = ball / torch.tensor([1.0, 2.0, 1.0])
    # By symmetry in x and z.
    assert float((scaled[:, 0] ** 2 - scaled[:, 2] ** 2).mean().abs()) < 0.01
    cube = DOMAINS["cube"].part("mesh").sample(600)
    on_top = (cube[:, 2] > 0.5 - 1e-9).sum()
    assert abs(int(on_top) - 100) <= 6


def test_pieces_get_points_by_their_measure():
    points = (
        pinn.Polygon(XY, [(0, 0), (3, 0), (3, 1), (0, 1)]).part("polygon").sample(80)
    )
    counts = [
        int(mask.sum())
        for mask in (points[:, 1] == 0, points[:, 0] == 3, points[:, 1] == 1)
    ]
    assert counts == [30, 10, 30]
    bottom = points[points[:, 1] == 0][:, 0].sort().values
    assert (bottom.diff() - 0.1).abs().max() < 1e-12


# --- single shapes ---


def test_normals_are_gradients_of_level_functions():
    rotated = pinn.Ellipse(XY, (0, 0), (2, 0.5), 30)
    level = pinn.Level(
        XY,
        lambda x, y: (x * math.cos(math.pi / 6) + y * math.sin(math.pi / 6)) ** 2 / 4
        + 4 * (y * math.cos(math.pi / 6) - x * math.sin(math.pi / 6)) ** 2 - 1,
        ((-2, -2), (2, 2)),
    )  # fmt: skip
    points = level.part("level").sample(100)
    assert bool(rotated.part("ellipse").contains(points).all())
    expected = rotated.part("ellipse").normals(points)
    assert torch.allclose(level.part("level").normals(points), expected, atol=1e-9)
    cylinder = DOMAINS["cylinder"]
    side = cylinder.part("side").sample(50)
    away = side - torch.tensor([1.0, 0.0, 0.0])
    away[:, 1] = 0
    assert torch.allclose(cylinder.part("side").normals(side), away, atol=1e-12)
    assert cylinder.part("bottom").normals(
        cylinder.part("bottom").sample(1)
    ).tolist() == [[0, -1, 0]]


def test_distance_from_polygons_and_meshes():
    """Against the distance from many boundary points, and the winding number."""
    rng = np.random.default_rng(0)
    for domain in (
        DOMAINS["star"],
        DOMAINS["ball"],
        pinn.Mesh(trimesh.creation.torus(1, 0.4)),
    ):
        low, high = domain.bounds
        points = rng.uniform(low - 0.1, high + 0.1, (300, domain.dimension))
        boundary = torch.cat(
            [p.sample(20_000 // len(domain.boundary)) for p in domain.boundary]
        )
        nearest = (
            torch.cdist(torch.from_numpy(points), boundary).min(dim=1).values.numpy()
        )
        level = domain.level(points)
        close = nearest < 0.1
        assert close.sum() > 40
        assert np.abs(np.abs(level) - nearest)[close].max() < 0.03
        assert (np.abs(level) > nearest - 0.1).all()
        assert np.array_equal(
            level < 0, np.array([winding(domain, p) for p in points]) > 0.5
        )


def winding(domain, point):
    """How often the boundary goes around a point (van Oosterom and Strackee, 1983)."""
    if domain.dimension == 2:
        corners = np.array(domain.vertices) - point
        turn = np.angle(np.roll(corners, -1, axis=0) @ [1, 1j] / (corners @ [1, 1j]))
        return abs(turn.sum()) / (2 * np.pi)
    mesh = domain.source
    a, b, c = (mesh.vertices[mesh.faces] - point).transpose(1, 0, 2)
    la, lb, lc = (np.linalg.norm(side, axis=1) for side in (a, b, c))
    dots = (a * b).sum(1) * lc + (b * c).sum(1) * la + (c * a).sum(1) * lb
    return np.arctan2((a * np.cross(b, c)).sum(1), la * lb * lc + dots).sum() / (
        2 * np.pi
    )


@pytest.mark.parametrize("m", [3, 17, 60])
def test_random_polygons_are_cut_into_triangles(m):
    rng = np.random.default_rng(m)
    angle = np.sort(rng.uniform(0, 2 * np.pi, m)) if m > 3 else np.array([0, 2, 4.0])
    radius = rng.uniform(0.2, 1, m)
    corners = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    polygon = pinn.Polygon(XY, corners)
    points = polygon.sample(2000)
    assert bool(polygon.contains(points).all())
    assert polygon.chart.size == pytest.approx(polygon.measure, rel=1e-12)
    assert polygon.boundary[1].normals(polygon.boundary[1].sample(1)).shape == (1, 2)


@pytest.mark.parametrize("suffix", ["stl", "ply", "obj"])
def test_meshes_from_files_and_arrays_are_the_same(tmp_path, suffix):
    path = tmp_path / f"ball.{suffix}"
    BALL.export(path)
    mesh = pinn.Mesh(path)
    assert mesh.measure == pytest.approx(BALL.volume, rel=1e-6)
    assert mesh.part("mesh").measure == pytest.approx(BALL.area, rel=1e-6)
    inside_out = pinn.Mesh((BALL.vertices, BALL.faces[:, ::-1]), names=("a", "b", "c"))
    assert inside_out.measure == pytest.approx(BALL.volume)
    points = inside_out.part("mesh").sample(50)
    assert ((inside_out.part("mesh").normals(points) * points).sum(dim=1) > 0.9).all()


def test_level_of_a_distance_is_a_distance():
    disk = pinn.Level(XY, lambda x, y: (x**2 + y**2).sqrt() - 0.7, ((-1, -1), (1, 1)))
    points = torch.rand(200, 2).double() * 2 - 1
    exact = points.norm(dim=1) - 0.7
    assert np.allclose(disk.level(points.numpy()), exact, atol=1e-12)
    assert disk.measure == pytest.approx(math.pi * 0.49, rel=1e-4)
    assert disk.part("level").sample(100).norm(dim=1).sub(0.7).abs().max() < 1e-12
    square = pinn.Level(
        XY, lambda x, y: torch.maximum(x.abs(), y.abs()) - 1, ((-2, -2), (2, 2))
    )
    edge = square.part("level").sample(400).abs().max(dim=1).values
    assert (edge - 1).abs().max() < 1e-12


def test_a_cloud_is_sampled_from_its_points():
    star = DOMAINS["star"]
    inside, edge = star.sample(500), star.part("star").sample(40)
    cloud = pinn.PointCloud(
        XY, inside, boundary=edge, normals=3 * star.part("star").normals(edge)
    )
    rows = {tuple(row) for row in inside.tolist()}
    for method in ("hammersley", "random", "grid"):
        for n in (7, 250, 500):
            points = cloud.sample(n, method, seed=2)
            assert len({tuple(row) for row in points.tolist()} & rows) == n
    assert (cloud.sample(100).mean(dim=0) - inside.mean(dim=0)).abs().max() < 0.05
    part = cloud.part("cloud")
    assert part.size == 40
    assert torch.allclose(part.normals(edge), star.part("star").normals(edge))
    assert bool(cloud.contains(inside).all())
    assert not cloud.contains(torch.tensor([[0.95, 0.0]]).double()).any()
    assert len(cloud.where(lambda x: x > 0.6).sample(3)) == 3
    assert pinn.PointCloud(XY, inside, measure=1.5).measure == 1.5
    assert star.measure < cloud.measure < 1.7 * star.measure
    moving = cloud * TIME
    assert moving.sample(1000).shape == (1000, 3)
    assert moving.part("cloud").sample(100).shape == (100, 3)
    with pytest.raises(ValueError, match="has 500 points, too few to draw 501"):
        cloud.sample(501)
    bare = pinn.PointCloud(XY, inside, boundary={"edge": edge})
    with pytest.raises(ValueError, match="'edge' was given without normals"):
        bare.part("edge").normals(edge)


# --- combinations ---


def test_shared_edges_count_once_or_not_at_all():
    names = {part.name: part.measure for part in DOMAINS["L"].boundary}
    assert names["x_min"] == 1
    assert names["other_x_min"] == pytest.approx(1, rel=1e-3)
    assert "other_y_min" not in names
    touching = {part.name: part.measure for part in DOMAINS["touching"].boundary}
    assert "other_x_min" not in touching
    assert (DOMAINS["touching"].part("x_max").sample(5)[:, 0] == 2).all()
    assert DOMAINS["L"].part(("x", "y")).measure == pytest.approx(8, rel=1e-3)
    cut = rectangle((0, 0), (2, 2)) - pinn.Polygon(
        XY, [(1, -1), (3, -1), (3, 3), (1, 3)]
    )
    assert boundary_size(cut) == pytest.approx(6, rel=1e-3)


def test_membership_is_that_of_the_sets():
    points = (
        torch.rand(500, 2, generator=torch.Generator().manual_seed(1)).double() * 4 - 2
    )
    inside_a, inside_b = A.contains(points), B.contains(points)
    assert torch.equal((A | B).contains(points), inside_a | inside_b)
    assert torch.equal((A & B).contains(points), inside_a & inside_b)
    assert torch.equal((A - B).contains(points), inside_a & ~inside_b)
    three = A | B | pinn.Disk(XY, (0, 1), 1, "c")
    assert [part.name for part in three.boundary] == ["a", "b", "c"]


def test_a_union_is_as_dense_where_shapes_overlap():
    points = (A | B).sample(6000)
    both = (A.contains(points) & B.contains(points)).double().mean()
    assert float(both) == pytest.approx(lens(A, B, 1) / AREAS["union"], rel=0.02)


def test_moves():
    body = (rectangle((0, 0), (2, 1)) - pinn.Disk(XY, (0.5, 0.5), 0.2)) | pinn.Ellipse(
        XY, (2, 0.5), (1, 0.4)
    )
    points = (
        torch.rand(400, 2, generator=torch.Generator().manual_seed(1)).double() * 6 - 2
    )
    turn = torch.tensor([[0.6, -0.8], [0.8, 0.6]], dtype=torch.float64)
    moved = (
        body.rotated(turn.numpy(), about=(1, 0))
        .scaled(1.5, about=(0, 1))
        .translated((0.1, 0.2))
    )
    center, origin = torch.tensor([1.0, 0]).double(), torch.tensor([0, 1.0]).double()
    images = (points - center) @ turn.T + center
    images = 1.5 * (images - origin) + origin + torch.tensor([0.1, 0.2])
    assert torch.equal(moved.contains(images), body.contains(points))
    assert moved.measure == pytest.approx(2.25 * body.measure, rel=2e-3)
    assert [p.name for p in moved.boundary] == [
        f"rotated_{p.name}" if p.name[0] in "xy" else p.name for p in body.boundary
    ]
    shifted = rectangle((0, 0), (2, 1)).translated((1, 1)) * TIME
    assert shifted.bounds.tolist() == [[1, 1, 0], [3, 2, 2]]
    assert shifted.part("x_min").sample(3)[:, 0].tolist() == [1, 1, 1]
    mesh = pinn.Mesh(BALL).scaled(2).translated((5, 0, 0))
    assert mesh.measure == pytest.approx(8 * BALL.volume)
    flipped = pinn.Ellipse(XY, (0, 0), (2, 1), 30).rotated(
        [[1, 0], [0, -1]], about=(0, 0)
    )
    same = pinn.Ellipse(XY, (0, 0), (2, 1), -30)
    assert torch.equal(flipped.contains(points), same.contains(points))
    x, y = 1 / math.sqrt(2), 1 / math.sqrt(2)
    bar = pinn.Box(XYZ, (0, 0, 0), (1, 1, 1)).rotated(
        [[x, -y, 0], [y, x, 0], [0, 0, 1]]
    )
    assert np.ptp(bar.bounds, axis=0) == pytest.approx([2**0.5, 2**0.5, 1])


def test_domains_can_be_copied_and_pickled():
    for name in ("corner", "ellipse", "cylinder", "L", "drilled", "turned", "ball"):
        domain = DOMAINS[name]
        assert domain.boundary
        again = pickle.loads(pickle.dumps(domain))
        assert torch.equal(again.sample(5), domain.sample(5))
        assert copy.deepcopy(domain).measure == domain.measure


@pytest.mark.parametrize(
    "name", ["corner", "ellipse", "sphere", "ball", "level in 2-D", "L"]
)
def test_single_precision(name):
    domain = DOMAINS[name]
    assert bool(domain.contains(domain.sample(50).float()).all())
    for part in domain.boundary:
        points = part.sample(50)
        single = points.float()
        assert part.normals(single).dtype == torch.float32
        assert bool(part.contains(single).all())
        # On a side of a mesh's triangle, rounding may choose the other triangle.
        error = (part.normals(single).double() - part.normals(points)).norm(dim=1)
        assert (error < 1e-4).sum() >= 47


# --- subdomains and surfaces inside ---


def test_where():
    late = (A * TIME).where(lambda x, t: (x > 0) & (t > 1.5), name="late")
    points = late.sample(500, "sobol", seed=0)
    assert bool(((points[:, 0] > 0) & (points[:, 2] > 1.5)).all())
    assert late.measure == pytest.approx(math.pi / 4, rel=1e-2)
    assert [part.name for part in late.boundary] == ["a", "t_max"]
    assert late.part("a").measure == pytest.approx(math.pi / 2, rel=1e-2)
    assert not late.contains(torch.tensor([[-0.5, 0.0, 1.7], [0.5, 0.0, 1.0]])).any()
    rare = A.where(lambda x: (x - 0.3).abs() < 1e-4)
    assert rare.measure == pytest.approx(2e-4 * 2 * math.sqrt(1 - 0.09), rel=0.3)
    assert len(rare.sample(20)) == 20
    with pytest.raises(ValueError, match="subdomain 'none' is empty"):
        A.where(lambda x: x > 2, name="none")


def test_sections():
    channel = (rectangle((0, 0), (4, 1)) - pinn.Disk(XY, (1, 0.5), 0.25)) * TIME
    part = channel.section(y=0.5)
    assert part.measure == pytest.approx(2 * 3.5, rel=1e-3)
    points = part.sample(200)
    assert (points[:, 1] == 0.5).all()
    assert bool(channel.contains(points).all())
    assert part.normals(points[:1]).tolist() == [[0, 1, 0]]
    assert bool(part.contains(points).all())
    assert not part.contains(torch.tensor([[1.0, 0.5, 1.0], [3.0, 0.6, 1.0]])).any()
    assert channel.part({"y": 0.5}).name == "y=0.5"
    point = channel.part({"x": 3, "y": 0.5, "t": 1})
    assert point.sample(1).tolist() == [[3, 0.5, 1]]
    assert point.size == 1
    line = channel.section(x=3, t=1)
    assert line.measure == 1
    with pytest.raises(ValueError, match="has no normal"):
        line.normals(line.sample(2))
    both = channel.part(("x_min", {"y": 0.5}))
    assert both.measure == pytest.approx(2 + 7, rel=1e-3)


def test_inner_surfaces():
    square = rectangle((-1, -1), (1, 1))
    edge = square.part(pinn.Disk(XY, (1, 0), 0.5, "front"))
    assert edge.measure == pytest.approx(math.pi / 2, rel=1e-3)
    points = edge.sample(100)
    assert (points[:, 0] < 1).all()
    away = points - torch.tensor([1.0, 0.0])
    assert torch.allclose(edge.normals(points), 2 * away)
    moving = (square * TIME).inner(pinn.Disk(XY, (0, 0), 0.5, "front"))
    assert moving.measure == pytest.approx(2 * math.pi)
    assert moving.coordinates == ("x", "y", "t")
    assert (square * TIME).part(moving) is moving
    half = square.inner(rectangle((-1, -1), (0, 1)))
    assert half.measure == 2
    assert half.normals(half.sample(1)).tolist() == [[1, 0]]


def test_an_interface_and_a_body_in_a_problem():
    domain = (
        rectangle((-1, -1), (1, 1)) - pinn.Polygon(XY, STAR, "star").scaled(0.4)
    ) * TIME
    problem = pinn.Problem(
        domain=domain,
        outputs=("u",),
        equations={"heat": lambda u_t, u_xx, u_yy: u_t - u_xx - u_yy},
        conditions=[
            pinn.Neumann(u=0.0, on="star"),
            pinn.Dirichlet(u=1.0, on={"y": -0.75}, name="line"),
            pinn.Neumann(u=0.0, on=pinn.Disk(XY, (0, 0), 0.8), name="ring"),
        ],
    )
    counts = {"heat": 50, "neumann_u": 40, "line": 20, "ring": 30}
    points = problem.sample(counts, seed=0)
    objective = problem.objective(pinn.MLP([3, 8, 1], seed=0), points)
    assert set(objective.losses()) == set(counts)
    assert bool(domain.contains(points["heat"]).all())
    network = pinn.MLP([3, 8, 1], seed=0, dtype=torch.float32)
    assert problem.objective(network, points).losses().keys() == counts.keys()


# --- mistakes ---

SPIKY = [(0, 0), (1, 0), (0.5, 0), (0.5, 1)]
OPEN = (BALL.vertices, BALL.faces[1:])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: pinn.Polygon(XY, [(0, 0), (1, 1), (1, 0), (0, 1)]),
            "crosses or touches itself",
        ),
        (lambda: pinn.Polygon(XY, [(0, 0), (1, 0)]), "three or more vertices.*got 2"),
        (lambda: pinn.Polygon(XY, [(0, 0), (1, 1), (2, 2)]), "has no area"),
        (
            lambda: pinn.Polygon(XY, [(0, 0), (1, 0), (1, 0), (0, 1)]),
            "crosses or touches|repeated",
        ),
        (lambda: pinn.Polygon(XY, SPIKY), "crosses or touches|run back"),
        (
            lambda: pinn.Polygon(XY, [(0, 0), (1, 0), (0, math.nan)]),
            "vertex 2 'y' must be a finite",
        ),
        (lambda: pinn.Polygon(XYZ, CORNER), "2 coordinates"),
        (
            lambda: pinn.Ellipse(XY, (0, 0), (1, 0)),
            "a radius must be a positive number, got 0.0",
        ),
        (
            lambda: pinn.Sphere(XYZ, (0, 0, 0), -1),
            "radius must be a positive number, got -1.0",
        ),
        (lambda: pinn.Sphere(XY, (0, 0), 1), "3 coordinates"),
        (
            lambda: pinn.Cylinder(XYZ, (0, 0, 0), 1, 0),
            "height must be a positive number",
        ),
        (lambda: pinn.Cylinder(XYZ, (0, 0, 0), 1, 1, axis="t"), "axis.*'t'"),
        (lambda: pinn.Box(XYZ, (0, 0, 0), (1, 1)), "high must have 3 entries"),
        (lambda: pinn.Mesh(OPEN), "not closed .watertight.: 3 of 480 edges"),
        (
            lambda: pinn.Mesh(
                (BALL.vertices, np.vstack([BALL.faces[1:], BALL.faces[:1, ::-1]]))
            ),
            "same way",
        ),
        (
            lambda: pinn.Mesh((BALL.vertices, BALL.faces + 1)),
            "name vertices 0 to 161, got 1 to 162",
        ),
        (
            lambda: pinn.Level(XY, lambda x, y: x**2 + y**2, ((-1, -1), (1, 1))),
            "the body is empty",
        ),
        (
            lambda: pinn.Level(XY, lambda x, y: x - 0.5, ((-1, -1), (1, 1))),
            "reaches over its bounds",
        ),
        (lambda: pinn.Level(XY, lambda x, z: x, ((-1, -1), (1, 1))), "'z'"),
        (
            lambda: pinn.Level(XY, lambda x, y: 1 / 0, ((-1, -1), (1, 1))),
            "raised ZeroDivisionError",
        ),
        (
            lambda: pinn.Level(XY, lambda x, y: x.sum(), ((-1, -1), (1, 1))),
            "must return a tensor of shape",
        ),
        (
            lambda: pinn.Level(
                XY,
                lambda x, y: x.detach() ** 2 - 0.5 + y.detach() ** 2,
                ((-1, -1), (1, 1)),
            ),
            "cannot be differentiated",
        ),
        (lambda: pinn.PointCloud(XY, [[0, 0], [0, 0]]), "must differ"),
        (lambda: pinn.PointCloud(XY, [[0, 0, 0]]), r"must have shape \(n, 2\)"),
        (
            lambda: pinn.PointCloud(XY, [[0, 0], [1, 1]], [[0, 1]], [[0, 0]]),
            "must not be zero",
        ),
        (lambda: A & pinn.Disk(XY, (5, 0), 1, "b"), "do not overlap"),
        (
            lambda: A | pinn.Disk(XY, (0.5, 0), 1, "a"),
            "called 'a'.*give one of the shapes another name",
        ),
        (lambda: A | pinn.Interval("x", 0, 1), "a union needs the same coordinates"),
        (lambda: A.rotated(30, about=(0,)), "about= must have 2 entries"),
        (lambda: (A * TIME).rotated(30), "before it is multiplied by time"),
        (lambda: A.rotated([[1, 0], [0, 2]]), "must be orthogonal"),
        (lambda: A.scaled(-1), "factor to scale by must be a positive number"),
        (lambda: A.where(lambda x: x[:, None] > 0), "must return a boolean tensor"),
        (
            lambda: A.where(lambda x: 1 / 0),
            "raised ZeroDivisionError: division by zero",
        ),
        (lambda: A.where(lambda q: q > 0), "'q'"),
        (lambda: A.section(), "fixes one or more coordinates"),
        (lambda: A.section(y=3), "section y=3 is empty"),
        (lambda: A.section(z=0), "coordinate 'z'"),
        (lambda: A.inner(pinn.Disk(XY, (9, 0), 1)), "lies inside"),
        (
            lambda: A.inner(pinn.Disk(("y", "x"), (0, 0), 0.5)),
            "same coordinates in the same order",
        ),
        (lambda: A.part((A * TIME).part("a")), r"has coordinates \('x', 'y', 't'\)"),
        (lambda: A.sample(2**63), "would not fit in memory: ask for at most"),
        (lambda: A.part("a").sample(2**63), "would not fit in memory: ask for at most"),
        (lambda: A.sample(1e12), "n must be a positive integer, got 1000000000000.0"),
        (
            lambda: A.contains(torch.zeros(1, 2), tolerance=math.nan),
            "tolerance must be a finite number",
        ),
        (
            lambda: A.part("a").contains(torch.zeros(1, 2), tolerance=math.nan),
            "tolerance must be a finite",
        ),
        (lambda: pinn.Interval("lambda", 0, 1), "no keyword.*'lambda'"),
        (
            lambda: pinn.Interval("x", 0, 1) * pinn.Interval("xx", 0, 1),
            "u_xx is one along xx, or along x and x",
        ),
        (
            lambda: pinn.Box(("x", "t", "xt"), (0, 0, 0), (1, 1, 1)),
            "u_xt is one along xt, or along x and t",
        ),
    ],
)
def test_mistakes_are_one_clear_error(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: A * 3, "can only be multiplied by another domain.*got 3; .*scaled"),
        (lambda: 3 * A, "can only be multiplied by another domain.*got 3"),
        (lambda: A - 3, "can only be reduced by another domain"),
        (lambda: A | "x", "can only be united with another domain.*got 'x'"),
        (lambda: A & None, "can only be intersected with another domain"),
        (lambda: A.part(3), "on must name parts of the boundary, be a function"),
        (lambda: A.where(3), "where takes a function of coordinates"),
        (lambda: A.inner("a"), "inner takes the domain"),
        (lambda: pinn.Mesh(3), "a file's path, or of a pair"),
    ],
)
def test_mistakes_of_kind_are_one_clear_error(make, message):
    with pytest.raises(TypeError, match=message):
        make()


def test_a_mesh_file_without_trimesh_says_what_to_install(tmp_path, monkeypatch):
    import sys

    path = tmp_path / "ball.stl"
    BALL.export(path)
    monkeypatch.setitem(sys.modules, "trimesh", None)
    with pytest.raises(ImportError, match="pip install trimesh"):
        pinn.Mesh(path)
    with pytest.raises(FileNotFoundError, match="there is no mesh file"):
        pinn.Mesh(tmp_path / "none.stl")


def test_distances_are_relative_to_the_size():
    """A domain of a millionth tells apart points that a fixed tolerance would not."""
    tiny = DOMAINS["tiny"]
    assert tiny.contains(
        torch.tensor([[0.999e-6, 0], [1.001e-6, 0]]).double()
    ).tolist() == [True, False]
    assert isinstance(tiny, Domain)
