"""Attribution by products of gradients: TracIn, GradDot and GradCos. None solves anything."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from whence.attribution.arguments import PointsByTerm
from whence.attribution.checkpoints import (
    Checkpoint,
    check_checkpoints,
    check_rates,
    visiting,
)
from whence.attribution.labels import Attributes, Effect
from whence.attribution.method import Method
from whence.attribution.products import product_tiles
from whence.attribution.quantities import Quantity
from whence.attribution.tiles import Solved, Stage, Tile
from whence.catalogue import METHODS
from whence.curvature.solvers import MEMORY_BUDGET
from whence.jacobian import point_gradients
from whence.objective import LossLike, Objective
from whence.parameters import Select
from whence.points import Points
from whence.samples import Data
from whence.term import Term


class GradientProducts(Method):
    """What methods share whose entries are products of gradients, as they are."""

    def tiles(
        self,
        quantity: Quantity,
        points: PointsByTerm | None = None,
        effect: Effect = "remove",
    ) -> Iterator[Tile]:
        """Yield products layer by layer, or through the gradients of targets."""
        tiles = product_tiles(self, quantity, points, effect)
        if tiles is None:
            tiles = super().tiles(quantity, points, effect)
        yield from tiles

    def transform_gradients(self, gradients: Tensor) -> tuple[Tensor, Solved]:
        """Return the gradients as they are."""
        return gradients, Solved()


@METHODS.named()
class GradDot(GradientProducts):
    """Products of gradients at the network's current parameters.

    Entry (target f, point z of term k) is ``(w_k/N_k) · ∇f(θ̂)ᵀ ∇ℓ_k(z; θ̂)``: the change of f in a
    step of gradient descent, by unit of learning rate, that leaves z out (Charpiat et al. 2019,
    arXiv 2102.05262; TracIn of one checkpoint).

    Parameters
    ----------
    objective:
        What was trained, or a model.
    data, loss:
        Of a model, what it was trained on and for, see
        :class:`whence.attribution.method.Method`.
    parameters:
        Of a model, which parameters to attribute by.
    weight_decay:
        Of a model, c of the penalty ``(c/2)‖θ‖²`` that it was trained with.
    memory_budget:
        Bytes that a result may take (2 GiB).

    Examples
    --------
    >>> import torch, whence as wh
    >>> model = torch.nn.Linear(1, 1, bias=False)
    >>> _ = torch.nn.init.constant_(model.weight, 1.0)
    >>> x, y = torch.tensor([[1.0], [2.0]]), torch.tensor([[2.0], [2.0]])
    >>> method = wh.GradDot(model, (x, y), wh.Squared())
    >>> method.attribute(wh.Loss()).values          # gradients −2 and 0; 1/N = 1/2
    array([[2., 0.],
           [0., 0.]], dtype=float32)
    """

    name = "grad_dot"


@METHODS.named()
class GradCos(Method):
    """Cosines of gradients at the network's current parameters, from −1 to 1.

    Entry (target f, point z) is ``∇fᵀ∇ℓ(z) / (‖∇f‖ ‖∇ℓ(z)‖)``, without the factor w/N: how alike
    f and z are to the network, whatever the size of their gradients (Charpiat et al. 2019). Where
    a gradient is zero so is the entry.

    Parameters
    ----------
    objective:
        What was trained, or a model.
    data, loss:
        Of a model, what it was trained on and for, see
        :class:`whence.attribution.method.Method`.
    parameters:
        Of a model, which parameters to attribute by.
    weight_decay:
        Of a model, c of the penalty ``(c/2)‖θ‖²`` that it was trained with.
    memory_budget:
        Bytes that a result may take (2 GiB).

    Examples
    --------
    >>> import torch, whence as wh
    >>> model = torch.nn.Linear(2, 1, bias=False)
    >>> _ = torch.nn.init.zeros_(model.weight)
    >>> x, y = torch.tensor([[1.0, 0.0], [2.0, 2.0]]), torch.ones(2, 1)
    >>> objective = wh.Objective.supervised(model, (x, y), wh.Squared())
    >>> wh.GradCos(objective).attribute(wh.Loss()).values.round(4)
    array([[1.    , 0.7071],
           [0.7071, 1.    ]], dtype=float32)
    """

    name = "grad_cos"
    scaled = False
    movable = False

    def transform_gradients(self, gradients: Tensor) -> tuple[Tensor, Solved]:
        """Return the gradients (P, K), each of length one."""
        return _unit(gradients, axis=0), Solved()

    def products(self, term: Term, points: Points, vectors: Tensor) -> Tensor:
        """Return ``∇ℓ(z)ᵀ V / ‖∇ℓ(z)‖`` of some points, (n, K)."""
        parts = []
        for rows in self._point_rows(term, points):
            directions = _unit(rows, axis=1)  # (n, P)
            parts.append(directions @ vectors)
        return torch.cat(parts)

    def self_products(self, term: Term, points: Points) -> tuple[Tensor, Solved]:
        """Return 1 for each point, or 0 where its gradient is zero."""
        lengths = []
        for rows in self._point_rows(term, points):
            lengths.append(rows.norm(dim=1))

        # The cosine of a direction with itself, whatever the length.
        is_direction = torch.cat(lengths) > 0
        cosines: Tensor = is_direction.to(lengths[0].dtype)
        return cosines, Solved()

    def _point_rows(self, term: Term, points: Points) -> Iterator[Tensor]:
        """Yield ``∇ℓ(z)`` in blocks (n, P)."""
        parameters = self.objective.parameters
        for _, linear, cotangent in point_gradients(term, parameters, points):
            yield linear.rows(cotangent)


def _unit(vectors: Tensor, axis: int) -> Tensor:
    """Return vectors along an axis divided by their lengths; zero stays zero."""
    lengths = vectors.norm(dim=axis, keepdim=True)
    unit = vectors / lengths  # NaN where a length is zero
    return torch.where(lengths > 0, unit, torch.zeros_like(vectors))


@METHODS.named()
class TracIn(GradientProducts):
    """Products of gradients summed over checkpoints of the training.

    Entry (target f, point z of term k) is ``(w_k/N_k) Σ_t η_t ∇f(θ_t)ᵀ ∇ℓ_k(z; θ_t)`` over the
    checkpoints t with learning rates η: what the steps there would have changed in f without z
    (TracInCP of Pruthi et al. 2020, arXiv 2002.08484, with the factor w/N of a full batch).

    Parameters
    ----------
    objective:
        What was trained, or a model.
    checkpoints:
        The states of the network, each a ``state_dict()`` or a file in safetensors' format (read
        one at a time, when it is needed).
    learning_rates:
        η for each of them, or one for all.
    data, loss:
        Of a model, what it was trained on and for, see
        :class:`whence.attribution.method.Method`.
    parameters:
        Of a model, which parameters to attribute by.
    memory_budget:
        Bytes that a result may take (2 GiB).

    Raises
    ------
    ValueError
        If there are no checkpoints, one lacks a tensor of the network or has another shape, or
        there are not as many learning rates.

    Examples
    --------
    >>> import torch, whence as wh
    >>> model = torch.nn.Linear(1, 1, bias=False)
    >>> x, y = torch.tensor([[1.0], [2.0]]), torch.tensor([[1.0], [2.0]])
    >>> states = [{"weight": torch.tensor([[0.0]])}, {"weight": torch.tensor([[0.5]])}]
    >>> method = wh.TracIn(model, states, 0.1, data=(x, y), loss=wh.Squared())
    >>> method.attribute(wh.Loss()).values.round(4)
    array([[0.25, 1.  ],
           [1.  , 4.  ]], dtype=float32)
    """

    name = "tracin"

    def __init__(
        self,
        objective: Objective | nn.Module,
        checkpoints: Sequence[Checkpoint],
        learning_rates: float | Sequence[float] = 1.0,
        *,
        data: Data | None = None,
        loss: LossLike | None = None,
        parameters: Select = None,
        memory_budget: int = MEMORY_BUDGET,
    ) -> None:
        super().__init__(
            objective, data, loss, parameters=parameters, memory_budget=memory_budget
        )
        network = self.objective.network
        check_checkpoints(checkpoints, network)
        self.learning_rates = check_rates(learning_rates, len(checkpoints))

        stages = []
        for rate, checkpoint in zip(self.learning_rates, checkpoints, strict=True):
            # A file is read each time, so that one state is in memory at once.
            at = partial(visiting, network, checkpoint)
            stages.append(Stage(rate, at))
        self._checkpoint_stages = stages

    def stages(self) -> Sequence[Stage]:
        """Return the checkpoints with their learning rates."""
        return self._checkpoint_stages

    def description(self) -> Attributes:
        """Return the number of checkpoints."""
        return {"checkpoints": len(self._checkpoint_stages)}
