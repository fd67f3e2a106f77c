"""An index of a model's training points by their gradients: which taught it what."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from whence import _checks
from whence._files import (
    JsonObject,
    PathLike,
    checked_path,
    digest,
    make_folder,
    parsed_json,
    strict_json,
    write_atomically,
)
from whence.attribution.identity import of_points
from whence.attribution.labels import SIGN, point_coordinates, target_coordinates
from whence.attribution.quantities import Linearized, Quantity
from whence.attribution.quantities.several import Quantities, as_quantity
from whence.autodiff import differentiable_attention
from whence.classification import CrossEntropy
from whence.curvature.layer_rows import layer_matrices
from whence.index.projection import Projection
from whence.jacobian import Jacobian, point_gradients
from whence.linearization import LayerLinearization
from whence.objective import Objective
from whence.points import Points
from whence.term import Term

if TYPE_CHECKING:
    from whence.attribution.result import Attribution

FORMAT = 2
DIMENSION = 64
"""Numbers that the gradient of a layer is projected to."""
DAMPING = 0.1
CHUNK = 1024
"""Points in a chunk on disk."""
GRADIENTS = "gradients"
DESCRIPTION = "index.json"
PROGRESS = "progress.json"


@dataclass(frozen=True)
class IndexOptions:
    """Options of an index, see :meth:`GradientIndex.build`."""

    dimension: int = DIMENSION
    seed: int = 0
    batch_size: int | None = None

    def __post_init__(self) -> None:
        _checks.count("dimension", self.dimension)
        _checks.seed("seed", self.seed)
        if self.batch_size is not None:
            _checks.count("batch_size", self.batch_size)


class GradientIndex:
    """Projected gradients of all training points, on disk, and what is asked of them.

    Entry (target f, point i) is ``(1/N) φ(∇f)ᵀ (F + λI)⁻¹ φ(∇ℓ_i)``: φ is a random projection
    layer by layer, ``F = (1/N) Σ_i φ(∇ℓ_i) φ(∇ℓ_i)ᵀ`` and λ a share of F's mean eigenvalue, so it
    is the influence function with the empirical Fisher matrix in place of the curvature (LoGra:
    Choe et al. 2024, arXiv 2405.13954). Sign and scale are those of :class:`whence.Influence`.
    Points may be whatever samples are: images, documents, passages of a text.

    Examples
    --------
    >>> import tempfile, torch, whence as wh
    >>> model = torch.nn.Linear(3, 2)
    >>> x, y = torch.rand(10, 3), torch.arange(10) % 2
    >>> objective = wh.Objective.supervised(model, (x, y), torch.nn.CrossEntropyLoss())
    >>> index = wh.GradientIndex.build(objective, tempfile.mkdtemp() + "/digits.index")
    >>> index.attribute(wh.Loss((x[:1], y[:1]))).top(2).sizes["point"]
    2
    """

    def __init__(
        self,
        objective: Objective,
        path: Path,
        projection: Projection,
        gradients: Tensor,
        damping: float,
    ) -> None:
        self.objective = objective
        self.path = path
        self.projection = projection
        self.damping = damping
        self._gradients = gradients  # φ of every point, (N, k)
        self._inverse = fisher_inverse(gradients, damping)

    def __len__(self) -> int:
        return len(self._gradients)

    # --- making and opening ---

    @classmethod
    def build(
        cls,
        objective: Objective,
        path: PathLike,
        *,
        dimension: int = DIMENSION,
        damping: float = DAMPING,
        seed: int = 0,
        batch_size: int | None = None,
        progress: bool = True,
    ) -> GradientIndex:
        """Project the gradient of every training point and keep it on disk.

        One forward and one backward pass over the data. A call that was stopped, however that
        came, is gone on with by the same call; an index that is complete is opened.

        Parameters
        ----------
        objective:
            What was trained, of one term; its parameters must be those of layers that can be
            factored, as those of most models are (docs/supervised.md).
        path:
            The folder to make.
        dimension:
            Numbers that each layer's gradient is projected to; inner products have a relative
            error of about ``1/√(dimension · layers)``.
        damping:
            λ relative to the mean eigenvalue of F.
        seed:
            Of the projections.
        batch_size:
            Points evaluated at once.
        progress:
            Whether a bar is shown after two seconds.

        Raises
        ------
        ValueError
            If the objective has several terms, a parameter is not that of such a layer, or the
            folder holds an index of other data, parameters or options.
        FileExistsError
            If there is something else at ``path``.
        """
        options = IndexOptions(dimension, seed, batch_size)
        _checks.positive("damping", damping)
        folder = checked_path("path", path)
        term = only_term(objective)
        identity = identity_of(objective, options)
        _check_folder(folder, identity)

        projection = projection_of(objective, options)
        if not (folder / DESCRIPTION).exists():
            make_folder(folder)
            _write_gradients(objective, term, projection, options, folder, progress)
            write_atomically(folder / DESCRIPTION, strict_json(identity).encode())
        return cls.open(folder, objective, damping=damping)

    @classmethod
    def open(
        cls, path: PathLike, objective: Objective, *, damping: float = DAMPING
    ) -> GradientIndex:
        """Open an index of this objective; its projected gradients are read into memory.

        Raises
        ------
        FileNotFoundError
            If there is no index, or one that is not complete.
        ValueError
            If it is of other parameters or data.
        """
        import zarr  # slow to import

        folder = Path(path)
        if not (folder / DESCRIPTION).exists():
            raise FileNotFoundError(
                f"{folder} holds no complete index: make it by wh.GradientIndex.build, or "
                "whence index"
            )
        _checks.positive("damping", damping)
        described = parsed_json((folder / DESCRIPTION).read_text())
        options = IndexOptions(int(described["dimension"]), int(described["seed"]))
        _check_folder(folder, identity_of(objective, options))
        # In memory, as every question meets all of them.
        stored: Any = zarr.open_array(folder / GRADIENTS, mode="r")
        gradients = torch.from_numpy(stored[:]).to(objective.parameters.device)
        return cls(
            objective, folder, projection_of(objective, options), gradients, damping
        )

    # --- asking ---

    def attribute(self, quantity: Quantities) -> Attribution:
        """Return the effect of removing every training point on every target, (target, point)."""
        from whence.attribution.result import Attribution  # xarray is slow to import

        explained = as_quantity(quantity)
        parts = []
        for directions in self._directions(explained):
            products = directions @ self._gradients.T.to(directions)
            parts.append(products / len(self))
        term = only_term(self.objective)
        places = {term.name: np.arange(len(self))}
        coordinates = {
            **target_coordinates(explained.targets(self.objective)),
            **point_coordinates(self.objective, {term.name: term.points}, places),
        }
        table = Attribution(
            torch.cat(parts).cpu().numpy(),
            dims=("target", "point"),
            coords=coordinates,
            name="influence",
            attrs={
                "method": "index",
                "quantity": explained.label(),
                "effect": "remove",
                "sign": SIGN["remove"],
                "scale": "w/N: change caused by one point",
                "dimension": self.projection.size,
                "damping": self.damping,
            },
        )
        return table.set_xindex("term")

    def positions(self, quantity: Quantities, place: int) -> Tensor:
        """Return what each position of a training sample does to each target, (target, position).

        The effect of a sample's loss is the sum of those of its tokens' (or pixels') losses:
        ``Σ_d ∂ℓ_d/∂z · Jv`` with v the target's direction, by one derivative forwards.

        Raises
        ------
        ValueError
            If the loss is no sum over positions, or there is no such sample.
        """
        term = only_term(self.objective)
        loss = term.loss
        if not isinstance(loss, CrossEntropy):
            raise ValueError(
                "effects by position need a cross-entropy of tokens or pixels, got "
                f"{_checks.describe(loss)}"
            )
        if not 0 <= place < len(self):
            raise ValueError(
                f"place must be from 0 to {len(self) - 1}, one of the training points, got {place}"
            )
        sample = term.points[place : place + 1]
        parameters = self.objective.parameters
        theta = parameters.vector()

        def outputs(vector: Tensor) -> Tensor:
            return term.residual(parameters.substituted(vector), sample)

        gradient = term.gradient(outputs(theta), sample)  # ∂ℓ/∂z, (1, m)
        rows = []
        for directions in self._directions(as_quantity(quantity)):
            lifted = self.projection.lifted(directions, parameters.size)  # (P, K)
            for direction in lifted.T:
                with differentiable_attention():
                    moved = torch.func.jvp(outputs, (theta,), (direction,))[1]
                rows.append(loss.by_position(gradient * moved)[0] / len(self))
        return torch.stack(rows).detach()

    def _directions(self, quantity: Quantity) -> Iterator[Tensor]:
        """Yield ``(F + λI)⁻¹φ(∇f)`` in blocks of targets, (block, k)."""
        for projected in self._projected(quantity):
            # Symmetric, so that rows are solved for as columns are.
            yield (projected.double() @ self._inverse).to(projected)

    def _projected(self, quantity: Quantity) -> Iterator[Tensor]:
        """Yield φ(∇f) in blocks of targets, (block, k), from factors where targets are rows."""
        if isinstance(quantity, Linearized):
            n_rows = 0
            for linear, cotangent in quantity.linearized(self.objective):
                n_rows += len(linear.value)
                if isinstance(linear, LayerLinearization):
                    uses = linear.uses(cotangent)
                    yield self.projection.of_uses(uses, len(linear.value))
                else:
                    yield self.projection.of_vectors(linear.rows(cotangent).T)
            if n_rows:
                return
        for gradients in quantity.gradients(self.objective):
            yield self.projection.of_vectors(gradients.T)


def only_term(objective: Objective) -> Term:
    """Return the term of an objective; several are an error."""
    if len(objective.terms) != 1:
        raise ValueError(
            "an index is of the points of one term, the objective has "
            f"{', '.join(objective.terms)}"
        )
    return next(iter(objective.terms.values()))


def projection_of(objective: Objective, options: IndexOptions) -> Projection:
    """Return the projections of an objective's layers."""
    layers = layer_matrices(Jacobian(objective))
    like = objective.parameters.vector()
    return Projection.draw(layers, options.dimension, options.seed, like)


def projected_gradients(
    objective: Objective, projection: Projection, points: Points, size: int | None
) -> Iterator[Tensor]:
    """Yield φ(∇ℓ) of some points of the term, in blocks (n, k)."""
    term = only_term(objective)
    for _, linear, cotangent in point_gradients(
        term, objective.parameters, points, size
    ):
        if not isinstance(linear, LayerLinearization):
            raise ValueError(
                "an index needs layers of known kinds (docs/supervised.md has them), each called "
                "once for each point: select parameters= of such, or use wh.Influence"
            )
        yield projection.of_uses(linear.uses(cotangent), len(linear.value))


def _write_gradients(
    objective: Objective,
    term: Term,
    projection: Projection,
    options: IndexOptions,
    folder: Path,
    progress: bool,
) -> None:
    """Write φ(∇ℓ) of all points, a chunk at a time, from where an earlier call was stopped."""
    import zarr  # slow to import

    # A chunk counts only once it is on disk, so a stopped call loses one at most.
    n = len(term.points)
    done = 0
    if (folder / PROGRESS).exists():
        done = int(parsed_json((folder / PROGRESS).read_text())["done"])
    stored: Any = zarr.open_array(
        folder / GRADIENTS,
        mode="a" if done else "w",
        shape=(n, projection.size),
        chunks=(min(CHUNK, n), projection.size),
        dtype="float32",
    )
    bar = tqdm(
        total=n, desc="index", unit="point", initial=done, delay=2, leave=False,
        disable=not progress,
    )  # fmt: skip
    with bar:
        for first in range(done, n, CHUNK):
            last = min(first + CHUNK, n)
            parts = []
            for part in projected_gradients(
                objective, projection, term.points[first:last], options.batch_size
            ):
                parts.append(part)
                bar.update(len(part))
            stored[first:last] = torch.cat(parts).float().cpu().numpy()
            state = strict_json({"done": last, **identity_of(objective, options)})
            write_atomically(folder / PROGRESS, state.encode())


def identity_of(objective: Objective, options: IndexOptions) -> JsonObject:
    """Return what an index depends on: parameters, data and options."""
    theta = objective.parameters.vector()
    term = only_term(objective)
    return {
        "format": FORMAT,
        "parameters": digest(theta.cpu().numpy().tobytes()),
        "number of points": len(term.points),
        "data": digest(of_points(term.points)),
        "dimension": options.dimension,
        "seed": options.seed,
    }


def _check_folder(folder: Path, identity: JsonObject) -> None:
    """Raise unless a folder is new, or holds (a part of) an index of the same."""
    for name in (DESCRIPTION, PROGRESS):
        if not (folder / name).exists():
            continue
        present = parsed_json((folder / name).read_text())
        for key, value in identity.items():
            if present.get(key) != value:
                raise ValueError(
                    f"{folder} is an index of something else: its {key} is {present.get(key)!r}, "
                    f"not {value!r}; choose another folder"
                )
        return
    if folder.exists() and any(folder.iterdir()):
        raise FileExistsError(f"{folder} is not empty, and no index: choose another")


def fisher_inverse(gradients: Tensor, damping: float) -> Tensor:
    """Return ``(F + λI)⁻¹`` in double precision, (k, k)."""
    k = gradients.shape[1]
    # Squares of gradients span twice their orders of magnitude.
    fisher = gradients.new_zeros(k, k, dtype=torch.float64)
    for part in gradients.split(CHUNK):
        rows = part.double()
        fisher.addmm_(rows.T, rows)
    fisher /= len(gradients)
    # The mean of the eigenvalues is that of the diagonal; of a perfect fit it is zero.
    mean = float(fisher.diagonal().mean())
    fisher.diagonal().add_(damping * (mean or 1.0))
    factor = torch.linalg.cholesky(fisher)
    inverse: Tensor = torch.cholesky_inverse(factor)
    return inverse
