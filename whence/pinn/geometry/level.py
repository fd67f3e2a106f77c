"""Bodies given by a function that is negative inside."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from whence import _checks
from whence.pinn.geometry.base import Domain
from whence.pinn.geometry.boundary import Part, Piece, check_names, named
from whence.pinn.geometry.charts import Chart, Mask, box
from whence.pinn.geometry.marching import zero_facets
from whence.pinn.geometry.samplings import Array
from whence.pinn.geometry.shapes import coordinate_names
from whence.pinn.geometry.similarity import vector
from whence.pinn.geometry.simplices import (
    facet_normals,
    morton_order,
    simplex_chart,
    simplex_sizes,
    unit_rows,
)

GRID = {2: 256, 3: 48}
"""Cells along each coordinate of the grid on which the zero set is found, by dimension."""
NEWTON_STEPS = 20
"""Steps from a facet of that grid to the zero set next to it."""


class Level(Domain):
    """The body where a function of two or three coordinates is negative, such as a distance.

    Parameters
    ----------
    names
        The coordinates.
    function
        Function of them by argument name, of tensors (n,), that returns a tensor (n,): a signed
        distance or any level-set function, negative inside. Normals are its gradient, by
        automatic differentiation.
    bounds
        Lowest and highest corner of a box that holds the body.
    name
        What its boundary is called.

    Raises
    ------
    ValueError
        If the function is negative nowhere, or on the sides of the box; if it raises, returns
        another shape, or cannot be differentiated.

    Notes
    -----
    The zero set is found on a grid, of 256 cells along each of two coordinates and 48 of three:
    finer details are lost. Boundary points lie on it to rounding, evenly up to its curvature
    within a cell; areas and volumes are those of the facets in the cells.

    Examples
    --------
    >>> body = Level(("x", "y"), lambda x, y: x**2 + 4 * y**2 - 1, ((-1.5, -1), (1.5, 1)))
    >>> round(body.measure, 3), round(body.part("level").measure, 3)
    (1.571, 4.844)
    >>> body.part("level").normals(torch.tensor([[1.0, 0.0], [0.0, -0.5]]))
    tensor([[ 1.,  0.],
            [ 0., -1.]])
    """

    def __init__(
        self,
        names: Sequence[str],
        function: Callable[..., Tensor],
        bounds: Sequence[Sequence[float]],
        name: str = "level",
    ) -> None:
        self.names = coordinate_names(names)
        self.function = function
        self.name = name
        if len(self.names) not in GRID:
            raise ValueError(
                f"a level-set function takes two or three coordinates, got {names}: multiply by "
                "the others, such as time, as intervals"
            )

        self._box = self._corners(bounds)
        _checks.identifiers("body", (name,))
        for argument in _checks.arguments("the level-set function", function):
            _checks.one_of("coordinate in the level-set function", argument, self.names)
        self._check_inside()
        check_names(self.boundary, self.coordinates)

    def __repr__(self) -> str:
        return f"Level({self.names}, bounds={self._box.tolist()}, name={self.name!r})"

    def _corners(self, bounds: Sequence[Sequence[float]]) -> Array:
        """Return checked bounds, (2, d)."""
        low, high = _checks.pair("bounds", bounds, "corner")
        lows = vector("the lowest corner", low, self.names)
        highs = vector("the highest corner", high, self.names)
        if not (lows < highs).all():
            raise ValueError(
                f"the bounds must be a lowest and a highest corner, got {low} and {high}"
            )
        return np.stack([lows, highs])

    @property
    def coordinates(self) -> tuple[str, ...]:
        """The names."""
        return self.names

    @property
    def bounds(self) -> Array:
        """The corners of the box, shape (2, d)."""
        return self._box

    @cached_property
    def measure(self) -> float:
        """The area or volume inside the facets, by the divergence theorem."""
        corners = self._facets
        middle = self.bounds.mean(axis=0)
        along = ((corners.mean(axis=1) - middle) * self._facet_normals).sum(axis=1)
        return float((along * simplex_sizes(corners)).sum() / self.dimension)

    @cached_property
    def boundary(self) -> tuple[Part, ...]:
        """The zero set."""
        flat = simplex_chart(self._facets)

        def place(unit: Array) -> Array:
            return self._onto(flat.place(unit))

        piece = Piece(
            chart=Chart(flat.unit, self.dimension, place, size=flat.size),
            measure=flat.size,
            off=lambda points: np.abs(self.level(points)),
            normals=lambda points: unit_rows(self._with_gradient(points)[1]),
        )
        return (Part(self.name, self.coordinates, (piece,), rounding=self.rounding),)

    @property
    def chart(self) -> Chart:
        """The box, its points outside rejected."""
        low, high = self.bounds

        def inside(points: Array) -> Mask:
            return self._values(points) <= 0

        return box(low, high).restricted(inside)

    def level(self, points: Array) -> Array:
        """Return f/‖∇f‖ (n,), the distance to first order, negative inside."""
        values, gradients = self._with_gradient(points)
        slopes = np.linalg.norm(gradients, axis=1)
        # Far inside, where the function may be stationary, only the sign counts.
        least = 1e-6 * self._slope
        inside_box = (points >= self.bounds[0]) & (points <= self.bounds[1])
        level = values / np.maximum(slopes, least)
        # Outside of the box the function need not mean anything.
        return np.where(inside_box.all(axis=1), level, np.inf)

    def _values(self, points: Array) -> Array:
        """Return the function at points, (n,)."""
        with torch.no_grad():
            return self._call(torch.from_numpy(points)).numpy()

    def _with_gradient(self, points: Array) -> tuple[Array, Array]:
        """Return the function (n,) and its gradient (n, d) at points."""
        rows = torch.from_numpy(points).clone().requires_grad_(True)
        with torch.enable_grad():
            values = self._call(rows)
            if not values.requires_grad:
                raise ValueError(
                    "the level-set function cannot be differentiated: compute it with torch, from "
                    "the tensors that it is called with"
                )
            # Each value depends on its own point alone, so that the sum has all gradients.
            (gradients,) = torch.autograd.grad(values.sum(), rows)
        return values.detach().numpy(), gradients.numpy()

    def _call(self, rows: Tensor) -> Tensor:
        columns = {}
        for name in _checks.arguments("the level-set function", self.function):
            columns[name] = rows[:, self.coordinates.index(name)]
        try:
            values = self.function(**columns)
        except Exception as error:
            raise ValueError(
                f"the level-set function raised {type(error).__name__}: {error}; it is called "
                f"with tensors of shape ({len(rows)},) by name, {', '.join(columns)}"
            ) from error

        if not isinstance(values, Tensor) or values.shape != (len(rows),):
            raise ValueError(
                f"the level-set function must return a tensor of shape ({len(rows)},), got "
                f"{_checks.describe(values)}"
            )
        return values.double()

    @cached_property
    def _grid(self) -> tuple[Array, Array, tuple[int, ...]]:
        """The nodes (N, d) of the grid, the function there (N,), and the grid's shape."""
        n = GRID[self.dimension] + 1
        axes = [np.linspace(low, high, n) for low, high in self.bounds.T]
        mesh = np.meshgrid(*axes, indexing="ij")
        nodes = np.stack(mesh, axis=-1).reshape(-1, self.dimension)
        return nodes, self._values(nodes), (n,) * self.dimension

    def _check_inside(self) -> None:
        """Raise ``ValueError`` unless the body lies within the box."""
        nodes, values, _ = self._grid
        inside = values < 0
        if not np.isfinite(values).all():
            row = int((~np.isfinite(values)).argmax())
            raise ValueError(
                "the level-set function must be finite within the bounds, got "
                f"{values[row]} at {named(self.coordinates, nodes[row])}"
            )
        if not inside.any():
            raise ValueError(
                f"the body is empty: the function is negative at none of {len(nodes)} points "
                f"within the bounds {named(self.coordinates, self.bounds.T)}; it must be negative "
                "inside"
            )

        on_side = (nodes == self.bounds[0]) | (nodes == self.bounds[1])
        cut = inside & on_side.any(axis=1)
        if cut.any():
            raise ValueError(
                "the body reaches over its bounds: the function is negative at "
                f"{named(self.coordinates, nodes[cut.argmax()])}; give wider bounds, or cut the "
                "body with a box, level & pinn.Box(...)"
            )

        if not self._slope > 0:
            raise ValueError(
                "the gradient of the level-set function vanishes where the function does: normals "
                "need it, use a function that crosses zero with a slope"
            )

    @cached_property
    def _facets(self) -> Array:
        """The segments or triangles that follow the zero set, (F, d, d)."""
        nodes, values, shape = self._grid
        corners = zero_facets(self._values, nodes, values, shape)
        sizes = simplex_sizes(corners)
        facets = corners[sizes > 0]
        # Neighbours after each other, so that few points are spread as evenly as many.
        return facets[morton_order(facets.mean(axis=1))]

    @cached_property
    def _facet_normals(self) -> Array:
        """Their unit normals (F, d), turned to where the function grows."""
        _, gradients = self._with_gradient(self._facets.mean(axis=1))
        normals = unit_rows(facet_normals(self._facets))
        turn = np.sign((normals * gradients).sum(axis=1, keepdims=True))
        return np.asarray(turn * normals)

    @cached_property
    def _slope(self) -> float:
        """The usual size of the gradient on the zero set."""
        _, gradients = self._with_gradient(self._facets[:, 0])
        return float(np.median(np.linalg.norm(gradients, axis=1)))

    def _onto(self, points: Array) -> Array:
        """Return the points (n, d) of the zero set next to points close to it."""
        # x ← x − f∇f/‖∇f‖², Newton's method along the gradient.
        for _ in range(NEWTON_STEPS):
            values, gradients = self._with_gradient(points)
            squares = (gradients**2).sum(axis=1)
            step = values / np.maximum(squares, (1e-6 * self._slope) ** 2)
            points = points - step[:, None] * gradients
            if np.abs(step * np.sqrt(squares)).max(initial=0.0) < self.rounding / 8:
                break
        return points
