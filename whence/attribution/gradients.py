"""Attribution by products of gradients: TracIn, GradDot and GradCos. None solves anything."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from whence import _checks
from whence.attribution.method import Effect, Method, Solved, Stage, Tile
from whence.attribution.products import Gradients
from whence.attribution.quantities import Linearized, Quantity
from whence.catalogue import METHODS
from whence.curvature.solvers import MEMORY_BUDGET
from whence.jacobian import point_gradients
from whence.objective import Objective
from whence.points import Points
from whence.term import Term

Checkpoint = Mapping[str, Tensor] | str | Path
"""A state of the network: its ``state_dict()``, or a file of one in safetensors' format."""


def _products(
    method: Method, quantity: Quantity, points: Any, effect: Effect
) -> Iterator[Tile] | None:
    """Return tiles of products made layer by layer; None where gradients are not told so."""
    if not isinstance(quantity, Linearized):
        return None
    targets = _stages_of(method, quantity)
    first = next(targets, None)
    return (
        None
        if first is None
        else _multiplied(method, chain([first], targets), points, effect)
    )


def _stages_of(
    method: Method, quantity: Linearized
) -> Iterator[list[tuple[Stage, Gradients]]]:
    """Yield the gradients of some targets at a time in every stage."""
    stages = method._stages()
    parts = [quantity.linearized(method.objective) for _ in stages]
    while True:
        found = []
        for stage, part in zip(stages, parts, strict=True):
            with stage.at():
                one = next(part, None)
                if one is None:
                    return
                found.append((stage, Gradients(*one)))
        yield found


def _multiplied(
    method: Method,
    targets: Iterator[list[tuple[Stage, Gradients]]],
    points: Any,
    effect: Effect,
) -> Iterator[Tile]:
    sign, chosen, row = -1.0 if effect == "add" else 1.0, method._chosen(points), 0
    for given in targets:
        rows, column = slice(row, row + len(given[0][1])), 0
        for name, part, scale in method._parts(chosen):
            term = method.objective.terms[name]
            total: Any = 0.0
            for stage, target in given:
                with stage.at():
                    own = point_gradients(
                        term, method.objective.parameters, part, len(part)
                    )
                    _, linear, seed = next(iter(own))
                    total = (
                        target.times(Gradients(linear, seed))
                        .mul_(stage.factor)
                        .add_(total)
                    )
            columns = slice(column, column + len(part))
            yield Tile(rows, columns, total * (sign * scale))
            column = columns.stop
        row = rows.stop


@METHODS.named()
class GradDot(Method):
    """Products of gradients at the network's current parameters.

    Entry (target f, point z of term k) is ``(w_k/N_k) · ∇f(θ̂)ᵀ ∇ℓ_k(z; θ̂)``: the change of f in a
    step of gradient descent, by unit of learning rate, that leaves z out (Charpiat et al. 2019,
    arXiv 2102.05262; TracIn of one checkpoint).

    Parameters
    ----------
    objective:
        What was trained.
    memory_budget:
        Bytes that a result may take (2 GiB).

    Examples
    --------
    >>> import torch, whence as wh
    >>> model = torch.nn.Linear(1, 1, bias=False)
    >>> _ = torch.nn.init.constant_(model.weight, 1.0)
    >>> x, y = torch.tensor([[1.0], [2.0]]), torch.tensor([[2.0], [2.0]])
    >>> objective = wh.Objective.supervised(model, (x, y), wh.Squared())
    >>> wh.GradDot(objective).attribute(wh.Loss()).values          # gradients −2 and 0; 1/N = 1/2
    array([[2., 0.],
           [0., 0.]], dtype=float32)
    """

    name = "grad_dot"

    def __init__(
        self, objective: Objective, *, memory_budget: int = MEMORY_BUDGET
    ) -> None:
        super().__init__(objective, memory_budget)

    def tiles(
        self, quantity: Quantity, points: Any = None, effect: Effect = "remove"
    ) -> Iterator[Tile]:
        """Yield products layer by layer, or through the gradients of targets."""
        found = _products(self, quantity, points, effect)
        yield from super().tiles(quantity, points, effect) if found is None else found

    def _applied(self, gradients: Tensor) -> tuple[Tensor, Solved]:
        return gradients, Solved()


@METHODS.named()
class GradCos(Method):
    """Cosines of gradients at the network's current parameters, from −1 to 1.

    Entry (target f, point z) is ``∇fᵀ∇ℓ(z) / (‖∇f‖ ‖∇ℓ(z)‖)``, without the factor w/N: how alike
    f and z are to the network, whatever the size of their gradients (Charpiat et al. 2019). Where
    a gradient is zero so is the entry.

    Parameters
    ----------
    objective:
        What was trained.
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
    scaled = movable = False

    def __init__(
        self, objective: Objective, *, memory_budget: int = MEMORY_BUDGET
    ) -> None:
        super().__init__(objective, memory_budget)

    def _applied(self, gradients: Tensor) -> tuple[Tensor, Solved]:
        return _unit(gradients, axis=0), Solved()

    def _products(self, term: Term, points: Points, vectors: Tensor) -> Tensor:
        found = point_gradients(term, self.objective.parameters, points)
        return torch.cat(
            [_unit(linear.rows(seed), axis=1) @ vectors for _, linear, seed in found]
        )

    def _self_products(self, term: Term, points: Points) -> tuple[Tensor, Solved]:
        found = point_gradients(term, self.objective.parameters, points)
        norms = [linear.rows(seed).norm(dim=1) for _, linear, seed in found]
        one: Tensor = (torch.cat(norms) > 0).to(norms[0].dtype)
        return one, Solved()


def _unit(vectors: Tensor, axis: int) -> Tensor:
    norms = vectors.norm(dim=axis, keepdim=True)
    return torch.where(norms > 0, vectors / norms, torch.zeros_like(vectors))


@METHODS.named()
class TracIn(Method):
    """Products of gradients summed over checkpoints of the training.

    Entry (target f, point z of term k) is ``(w_k/N_k) Σ_t η_t ∇f(θ_t)ᵀ ∇ℓ_k(z; θ_t)`` over the
    checkpoints t with learning rates η: what the steps there would have changed in f without z
    (TracInCP of Pruthi et al. 2020, arXiv 2002.08484, with the factor w/N of a full batch).

    Parameters
    ----------
    objective:
        What was trained.
    checkpoints:
        The states of the network, each a ``state_dict()`` or a file in safetensors' format (read
        one at a time, when it is needed).
    learning_rates:
        η for each of them, or one for all.
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
    >>> objective = wh.Objective.supervised(model, (x, y), wh.Squared())
    >>> states = [{"weight": torch.tensor([[0.0]])}, {"weight": torch.tensor([[0.5]])}]
    >>> wh.TracIn(objective, states, 0.1).attribute(wh.Loss()).values.round(4)
    array([[0.25, 1.  ],
           [1.  , 4.  ]], dtype=float32)
    """

    name = "tracin"

    def __init__(
        self,
        objective: Objective,
        checkpoints: Sequence[Checkpoint],
        learning_rates: float | Sequence[float] = 1.0,
        *,
        memory_budget: int = MEMORY_BUDGET,
    ) -> None:
        super().__init__(objective, memory_budget)
        if isinstance(checkpoints, (str, Path, Mapping)) or not len(checkpoints):
            is_single = isinstance(checkpoints, (str, Path))
            got = _checks.describe(checkpoints) if is_single else "none"
            raise ValueError(
                "checkpoints must be a sequence of at least one state_dict or file, got "
                f"{got}"
            )
        rates = _rates(learning_rates, len(checkpoints))
        network = objective.network
        for k, one in enumerate(checkpoints):
            _check_state(f"checkpoint {k}", _state(one), network)
        self.learning_rates = rates
        self._all = [
            Stage(rate, partial(_visiting, network, one))
            for rate, one in zip(rates, checkpoints, strict=True)
        ]

    def tiles(
        self, quantity: Quantity, points: Any = None, effect: Effect = "remove"
    ) -> Iterator[Tile]:
        """Yield products layer by layer, or through the gradients of targets."""
        found = _products(self, quantity, points, effect)
        yield from super().tiles(quantity, points, effect) if found is None else found

    def _stages(self) -> Sequence[Stage]:
        return self._all

    def _applied(self, gradients: Tensor) -> tuple[Tensor, Solved]:
        return gradients, Solved()

    def _description(self) -> dict[str, str | int | float]:
        return {"checkpoints": len(self._all)}


def _rates(given: Any, n: int) -> tuple[float, ...]:
    rates = tuple(given) if isinstance(given, Sequence) else (given,) * n
    for rate in rates:
        _checks.positive("a learning rate", rate)
    if len(rates) != n:
        raise ValueError(
            f"{n} checkpoints need as many learning rates, got {len(rates)}"
        )
    return rates


def _state(given: Checkpoint) -> Mapping[str, Tensor]:
    if isinstance(given, Mapping):
        return given
    path = Path(given)
    if path.suffix != ".safetensors":
        raise ValueError(
            f"a checkpoint file must be .safetensors, which holds numbers and no code, got {path}: "
            "save one with safetensors.torch.save_file(model.state_dict(), ...), or give "
            "state_dicts"
        )
    from safetensors.torch import load_file

    loaded: dict[str, Tensor] = load_file(path)
    return loaded


def _check_state(
    what: str, state: Mapping[str, Tensor], network: torch.nn.Module
) -> None:
    for name, tensor in network.state_dict().items():
        if name not in state:
            raise ValueError(
                f"{what} has no {name!r}{_checks.nearest(name, state)}: it is not of this network"
            )
        if tuple(state[name].shape) != tuple(tensor.shape):
            raise ValueError(
                f"{what} has {name!r} of shape {tuple(state[name].shape)}, the network of "
                f"{tuple(tensor.shape)}"
            )


@contextmanager
def _visiting(network: torch.nn.Module, checkpoint: Checkpoint) -> Iterator[None]:
    """Let the network have another state for a while."""
    live = network.state_dict()
    before = {name: tensor.detach().clone() for name, tensor in live.items()}
    _write(live, _state(checkpoint))
    try:
        yield
    finally:
        _write(live, before)


def _write(live: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
    with torch.no_grad():
        for name, tensor in live.items():
            tensor.copy_(state[name])
