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
    outer = around(side, before, behind, beside)
    inner = in_rings(side, rings)
    # Nodes of both along the square are one.
    return rounded((outer + inner).to_meshtri())


def around(side: int, before: int, behind: int, beside: int) -> Any:
    """Return the rectangles of the channel outside of the square around the cylinder."""
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
    return whole.remove_elements(np.nonzero(inside)[0])


def in_rings(side: int, rings: int) -> Any:
    """Return rings of quadrilaterals from the cylinder to the square around it."""
    # Corners of the square are on the diagonals, and so are their feet on the circle.
    along = np.linspace(-BOX, BOX, side + 1)[:-1]
    edge = np.full(side, BOX)
    sides = [
        np.stack([edge, along]),
        np.stack([-along, edge]),
        np.stack([-edge, -along]),
        np.stack([along, -edge]),
    ]
    square = np.concatenate(sides, axis=1)
    circle = RADIUS * square / np.linalg.norm(square, axis=0)

    shares = graded(0, 1, rings, 1.06)
    nodes = [circle + share * (square - circle) for share in shares]
    points = np.concatenate(nodes, axis=1) + np.array(CENTER)[:, None]

    n = square.shape[1]
    place = np.arange(n)
    following = (place + 1) % n
    cells = []
    for ring in range(rings):
        first = ring * n
        beyond = first + n
        corners = [first + place, beyond + place, beyond + following, first + following]
        cells.append(np.stack(corners))
    return skfem.MeshQuad(points, np.concatenate(cells, axis=1))


def rounded(straight: Any) -> Any:
    """Return a mesh of triangles with the chords of the cylinder bent to its arc."""
    curved = skfem.MeshTri2.from_mesh(straight)
    places = curved.doflocs.copy()
    center = np.array(CENTER)[:, None]
    away = places - center
    distance = np.linalg.norm(away, axis=0)

    # The middles of chords are within the circle: these go onto it.
    within = distance < RADIUS * (1 - 1e-12)
    places[:, within] = center + RADIUS * away[:, within] / distance[within]
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


@skfem.BilinearForm
def viscous(u, v, w):
    """Return ∇u : ∇v / Re."""
    return ddot(grad(u), grad(v)) / REYNOLDS


@skfem.BilinearForm
def carried(u, v, w):
    """Return the derivative of (w·∇)w along u, times v."""
    return dot(mul(grad(u), w["flow"]) + mul(grad(w["flow"]), u), v)


@skfem.LinearForm
def carried_now(v, w):
    """Return (w·∇)w times v."""
    return dot(mul(grad(w["flow"]), w["flow"]), v)


@skfem.BilinearForm
def divergence(u, q, w):
    """Return −∇·u q."""
    return -div(u) * q


class Discretization:
    """Taylor–Hood elements on a mesh: residuals, Newton's matrix, and what is fixed."""

    def __init__(self, of_mesh: Any) -> None:
        element = skfem.ElementVector(skfem.ElementTriP2())
        self.mesh = of_mesh
        self.velocity = skfem.Basis(of_mesh, element, intorder=6)
        self.pressure = self.velocity.with_element(skfem.ElementTriP1())
        self.n = self.velocity.N
        self.stiffness = viscous.assemble(self.velocity)
        self.coupling = divergence.assemble(self.velocity, self.pressure)

        x, y = CENTER
        self.cylinder = self._on(lambda p: np.hypot(p[0] - x, p[1] - y) < 0.9 * BOX)
        self.entry = self._on(lambda p: abs(p[0]) < 1e-9)
        self.walls = self._on(lambda p: (abs(p[1]) < 1e-9) | (abs(p[1] - WIDTH) < 1e-9))
        # Unknowns of the velocity come in pairs, the first of each along x.
        self.is_first = np.zeros(self.n, dtype=bool)
        self.is_first[self.velocity.split_indices()[0]] = True

    def _on(self, test: Any) -> np.ndarray:
        """Return the unknowns of the velocity on a part of the boundary."""
        facets = self.mesh.facets_satisfying(test, boundaries_only=True)
        return self.velocity.get_dofs(facets).all()

    def start(self) -> np.ndarray:
        """Return unknowns of zero with the inflow."""
        values = np.zeros(self.n + self.pressure.N)
        along = self.entry[self.is_first[self.entry]]
        values[along] = inflow(self.velocity.doflocs[1, along])
        values[self.walls] = 0.0
        return values

    def free(self) -> np.ndarray:
        """Return the unknowns that are solved for."""
        fixed = np.concatenate([self.cylinder, self.walls, self.entry])
        return np.setdiff1d(np.arange(self.n + self.pressure.N), fixed)

    def residual(self, values: np.ndarray, is_stokes: bool = False) -> np.ndarray:
        """Return what is left of momentum and continuity."""
        u = values[: self.n]
        momentum = self.stiffness @ u + self.coupling.T @ values[self.n :]
        if not is_stokes:
            flow = self.velocity.interpolate(u)
            momentum = momentum + carried_now.assemble(self.velocity, flow=flow)
        return np.concatenate([momentum, self.coupling @ u])

    def matrix(self, values: np.ndarray, is_stokes: bool = False) -> Any:
        """Return the derivative of the residual."""
        block = self.stiffness
        if not is_stokes:
            flow = self.velocity.interpolate(values[: self.n])
            block = block + carried.assemble(self.velocity, flow=flow)
        return bmat([[block, self.coupling.T], [self.coupling, None]]).tocsc()

    def force(self, values: np.ndarray) -> tuple[float, float]:
        """Return the force on the cylinder: the momentum left at its nodes (Babuška & Miller)."""
        left = self.residual(values)[self.cylinder]
        is_first = self.is_first[self.cylinder]
        return -left[is_first].sum(), -left[~is_first].sum()


def solve(of_mesh: Any) -> Flow:
    """Solve by Newton's method from the Stokes flow."""
    equations = Discretization(of_mesh)
    values = equations.start()
    free = equations.free()

    for step in range(NEWTON_STEPS):
        is_stokes = step == 0
        residual = equations.residual(values, is_stokes)
        matrix = equations.matrix(values, is_stokes)
        change = splu(matrix[free][:, free]).solve(-residual[free])
        values[free] += change
        size = float(abs(change).max())
        print(f"  step {step}: largest change {size:.1e}", flush=True)
        if not is_stokes and size < TOLERANCE:
            break

    x, y = CENTER
    force_x, force_y = equations.force(values)
    u, p = np.split(values, [equations.n])
    # Both ends of the cylinder are corners of triangles.
    places = equations.pressure.doflocs
    front, back = (p[nearest(places, (x + sign * RADIUS, y))] for sign in (-1, 1))
    # Coefficients are 2F/(ρ U² L), all of which are one here.
    return Flow(
        equations.velocity, equations.pressure, u, p, 2 * force_x, 2 * force_y, float(front - back)
    )  # fmt: skip


def nearest(places: np.ndarray, point: tuple[float, float]) -> int:
    """Return which of the places (2, n) a point is."""
    distance = np.hypot(places[0] - point[0], places[1] - point[1])
    index = int(distance.argmin())
    assert distance[index] < 1e-9
    return index


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
