"""The flow around a cylinder in a channel by finite elements, DFG benchmark 2D-1.

``python -m benchmarks.references.navier_stokes`` (needs the extra ``references``) solves the steady
Navier–Stokes equations by Taylor–Hood elements on two meshes, prints drag, lift and pressure
difference beside the published values (Schäfer & Turek 1996; to more digits John & Matthies 2001),
and writes the finer solution, taken at the nodes of the coarser mesh, where the zoo reads it.

Lengths are in diameters of the cylinder, speeds in mean speeds of the inflow, pressures in their
square times the density: ``u·∇u + ∇p = Δu/Re``, ``∇·u = 0``, Re = 20, in a channel of 22 × 4.1 with
a cylinder of diameter 1 at (2, 2).
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import skfem
from scipy.sparse import bmat
from scipy.sparse.linalg import splu
from scipy.spatial import cKDTree
from skfem.helpers import ddot, div, dot, grad, mul

from whence.pinn.zoo._triangles import TriangleFields

LENGTH = 22.0
WIDTH = 4.1
CENTER = (2.0, 2.0)
RADIUS = 0.5
REYNOLDS = 20.0
SPEED = 1.5
"""Highest speed of the inflow."""
BOX = 1.3
"""Half the side of the square around the cylinder that is meshed in rings."""
NEWTON_STEPS = 12
TOLERANCE = 1e-11

DRAG = 5.57953523384
LIFT = 0.010618948146
PRESSURE_DIFFERENCE = 0.11752016697 / 0.2**2
"""Published (Nabh 1998), the pressure in units of the square of the mean speed 0.2."""

FILE = (
    Path(__file__).parents[2] / "whence" / "pinn" / "zoo" / "data" / "navier_stokes.npz"
)


def graded(low: float, high: float, n: int, ratio: float) -> np.ndarray:
    """Return n + 1 numbers from low to high, each step ``ratio`` times the last."""
    steps = ratio ** np.arange(n)
    shares = np.concatenate([[0.0], np.cumsum(steps)]) / steps.sum()
    return low + (high - low) * shares


def mesh(side: int, rings: int, before: int, behind: int, beside: int) -> Any:
    """Return a mesh of curved triangles: rings around the cylinder, rows and columns elsewhere.

    Parameters
    ----------
    side:
        Cells along a side of the square around the cylinder; four times as many around it.
    rings:
        Rings from the cylinder to that square.
    before, behind, beside:
        Columns before it and behind it, and rows on each side of it.
    """
    x, y = CENTER
    columns = np.concatenate([
        graded(0, x - BOX, before, 1.0),
        np.linspace(x - BOX, x + BOX, side + 1)[1:],
        graded(x + BOX, LENGTH, behind, 1.03)[1:],
    ])  # fmt: skip
    rows = np.concatenate([
        graded(0, y - BOX, beside, 1.0),
        np.linspace(y - BOX, y + BOX, side + 1)[1:],
        graded(y + BOX, WIDTH, beside, 1.0)[1:],
    ])  # fmt: skip
    whole = skfem.MeshQuad.init_tensor(columns, rows)
    middle = whole.p[:, whole.t].mean(axis=1)
    inside = (abs(middle[0] - x) < BOX) & (abs(middle[1] - y) < BOX)
    outer = whole.remove_elements(np.nonzero(inside)[0])

    # Corners of the square are on the diagonals, and so are their feet on the circle.
    along = np.linspace(-BOX, BOX, side + 1)[:-1]
    edge = np.full(side, BOX)
    square = np.concatenate(
        [
            np.stack([edge, along]),
            np.stack([-along, edge]),
            np.stack([-edge, -along]),
            np.stack([along, -edge]),
        ],
        axis=1,
    )
    circle = RADIUS * square / np.linalg.norm(square, axis=0)
    n = square.shape[1]
    shares = graded(0, 1, rings, 1.06)
    nodes = [circle + share * (square - circle) for share in shares]
    points = np.concatenate(nodes, axis=1) + np.array(CENTER)[:, None]
    cells = []
    for ring in range(rings):
        first = ring * n + np.arange(n)
        next_ = ring * n + (np.arange(n) + 1) % n
        cells.append(np.stack([first, first + n, next_ + n, next_]))
    inner = skfem.MeshQuad(points, np.concatenate(cells, axis=1))

    # Nodes of both along the square are one.
    together = (outer + inner).to_meshtri()
    curved = skfem.MeshTri2.from_mesh(together)
    places = curved.doflocs.copy()
    away = places - np.array(CENTER)[:, None]
    distance = np.linalg.norm(away, axis=0)
    # Chords of the circle have their middle nodes within it: these go onto the circle.
    within = distance < RADIUS * (1 - 1e-12)
    places[:, within] = (
        np.array(CENTER)[:, None] + RADIUS * away[:, within] / distance[within]
    )
    return skfem.MeshTri2(places, curved.t)


@dataclass(frozen=True)
class Flow:
    """A solution on a mesh, and what it comes to."""

    velocity: Any
    pressure: Any
    u: np.ndarray
    p: np.ndarray
    drag: float
    lift: float
    pressure_difference: float


def inflow(y: np.ndarray) -> np.ndarray:
    """Return the speed of the inflow, a parabola."""
    return 4 * SPEED * y * (WIDTH - y) / WIDTH**2


def solve(of_mesh: Any) -> Flow:
    """Solve by Newton's method from the Stokes flow."""
    velocity = skfem.Basis(
        of_mesh, skfem.ElementVector(skfem.ElementTriP2()), intorder=6
    )
    pressure = velocity.with_element(skfem.ElementTriP1())

    @skfem.BilinearForm
    def viscous(u, v, w):
        return ddot(grad(u), grad(v)) / REYNOLDS

    @skfem.BilinearForm
    def carried(u, v, w):
        # The derivative of (w·∇)w along u.
        return dot(mul(grad(u), w["flow"]) + mul(grad(w["flow"]), u), v)

    @skfem.LinearForm
    def carried_now(v, w):
        return dot(mul(grad(w["flow"]), w["flow"]), v)

    @skfem.BilinearForm
    def divergence(u, q, w):
        return -div(u) * q

    stiffness = viscous.assemble(velocity)
    coupling = divergence.assemble(velocity, pressure)
    n = velocity.N

    def at(places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return places[0], places[1]

    def on(test: Any) -> np.ndarray:
        return velocity.get_dofs(
            of_mesh.facets_satisfying(test, boundaries_only=True)
        ).all()

    x, y = CENTER
    cylinder = on(lambda p: np.hypot(p[0] - x, p[1] - y) < 0.9 * BOX)
    walls = on(lambda p: (abs(p[1]) < 1e-9) | (abs(p[1] - WIDTH) < 1e-9))
    entry = on(lambda p: abs(p[0]) < 1e-9)
    fixed = np.unique(np.concatenate([cylinder, walls, entry]))
    solution = np.zeros(n + pressure.N)
    # Degrees of freedom come in pairs, the first of each along x.
    is_first = np.zeros(n, dtype=bool)
    is_first[velocity.split_indices()[0]] = True
    of_entry = entry[is_first[entry]]
    solution[of_entry] = inflow(velocity.doflocs[1, of_entry])
    solution[walls] = 0.0
    free = np.setdiff1d(np.arange(len(solution)), fixed)

    def residual_of(values: np.ndarray) -> np.ndarray:
        flow = velocity.interpolate(values[:n])
        momentum = stiffness @ values[:n] + coupling.T @ values[n:]
        if started:
            momentum = momentum + carried_now.assemble(velocity, flow=flow)
        return np.concatenate([momentum, coupling @ values[:n]])

    started = False
    for step in range(NEWTON_STEPS):
        residual = residual_of(solution)
        block = stiffness
        if started:
            flow = velocity.interpolate(solution[:n])
            block = stiffness + carried.assemble(velocity, flow=flow)
        matrix = bmat([[block, coupling.T], [coupling, None]]).tocsc()
        change = splu(matrix[free][:, free]).solve(-residual[free])
        solution[free] += change
        size = float(abs(change).max())
        print(f"  step {step}: largest change {size:.1e}", flush=True)
        if started and size < TOLERANCE:
            break
        started = True

    # The momentum that is left over at the cylinder's nodes is the force on it (Babuška & Miller).
    left = residual_of(solution)[:n]
    on_cylinder_x = cylinder[is_first[cylinder]]
    on_cylinder_y = cylinder[~is_first[cylinder]]
    force_x = -left[on_cylinder_x].sum()
    force_y = -left[on_cylinder_y].sum()
    u, p = solution[:n], solution[n:]
    # Both ends of the cylinder are corners of triangles.
    ends = [p[nearest(pressure.doflocs, (x + sign * RADIUS, y))] for sign in (-1, 1)]
    # Coefficients are 2F/(ρ U² L), all of which are one here.
    return Flow(
        velocity, pressure, u, p, 2 * force_x, 2 * force_y, float(ends[0] - ends[1])
    )


def nearest(places: np.ndarray, point: tuple[float, float]) -> int:
    """Return which of the places (2, n) a point is."""
    distance = np.hypot(places[0] - point[0], places[1] - point[1])
    found = int(distance.argmin())
    assert distance[found] < 1e-9
    return found


def report(name: str, flow: Flow) -> None:
    """Print what a flow comes to beside what is published."""
    print(f"{name}: {flow.u.size + flow.p.size} unknowns")
    for what, value, published in (
        ("drag", flow.drag, DRAG),
        ("lift", flow.lift, LIFT),
        ("pressure difference", flow.pressure_difference, PRESSURE_DIFFERENCE),
    ):
        print(
            f"  {what}: {value:.8g}, published {published:.8g}, off by {value / published - 1:+.2e}"
        )


def nodal(flow: Flow) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return nodes (n, 2), triangles (m, 6) and u, v, p at the nodes (n, 3)."""
    scalar = flow.velocity.with_element(skfem.ElementTriP2())
    first, second = flow.velocity.split_indices()
    places = scalar.doflocs.T
    triangles = scalar.element_dofs.T  # corners, then the middles of ab, bc and ac
    corners = flow.pressure.element_dofs.T

    # Linear pressure: at the middle of a side the mean of its ends.
    pressure = np.zeros(len(places))
    of_corners = flow.p[corners]
    pressure[triangles[:, :3]] = of_corners
    for middle, (a, b) in zip((3, 4, 5), ((0, 1), (1, 2), (0, 2)), strict=True):
        pressure[triangles[:, middle]] = (of_corners[:, a] + of_corners[:, b]) / 2
    velocities = _by_node(flow, scalar, first), _by_node(flow, scalar, second)
    return places, triangles, np.stack([*velocities, pressure], axis=1)


def _by_node(flow: Flow, scalar: Any, indices: np.ndarray) -> np.ndarray:
    """Return one component at the nodes of scalar elements."""
    tree = cKDTree(flow.velocity.doflocs[:, indices].T)
    distance, order = tree.query(scalar.doflocs.T)
    assert distance.max() < 1e-9
    return flow.u[indices][order]


def main() -> None:
    """Solve, compare, and write the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=FILE)
    parser.add_argument(
        "--fine",
        type=int,
        default=2,
        help="cells of the finer mesh, in units of the coarser",
    )
    given = parser.parse_args()

    coarse = mesh(20, 12, 6, 40, 7)
    k = given.fine
    fine = mesh(20 * k, 12 * k, 6 * k, 40 * k, 7 * k)
    on_coarse = solve(coarse)
    report("coarse", on_coarse)
    on_fine = solve(fine)
    report("fine", on_fine)

    places, triangles, of_coarse = nodal(on_coarse)
    fields = TriangleFields(*nodal(on_fine))
    values = fields.at(places)
    # What is known to be zero is zero, and on the circle no triangle has a node.
    x, y = CENTER
    at_rest = (places[:, 1] == 0) | (places[:, 1] == WIDTH)
    at_rest |= np.hypot(places[:, 0] - x, places[:, 1] - y) < RADIUS * (1 + 1e-9)
    values[at_rest, :2] = 0
    for k, name in enumerate("uvp"):
        off = np.linalg.norm(of_coarse[:, k] - values[:, k]) / np.linalg.norm(
            values[:, k]
        )
        print(f"coarse against fine at its nodes, {name}: {off:.1e}")

    given.out.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        given.out,
        places=places,
        triangles=triangles.astype(np.uint16),
        values=values.astype(np.float32),
        numbers=np.array([on_fine.drag, on_fine.lift, on_fine.pressure_difference]),
    )
    print(f"{given.out}: {len(places)} nodes, {given.out.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
