"""What every weighting is: an object whose ``update`` returns the terms' weights, with a state."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor

from whence import _checks
from whence.objective import Objective
from whence.pinn.weighting.term_statistics import TermStatistics, statistics_of

Weights = dict[str, float | Tensor]
"""By term a number, or a tensor (n,) with a weight for each point."""
State = dict[str, Any]
"""Numbers and tensors by name: what JSON and safetensors can hold."""


class Weighting(ABC):
    """Weights of the terms of a loss, renewed while a network trains.

    ``update`` is called once for each step and renews the weights at the first call and every
    ``update_every`` calls; what it returns multiplies the terms' mean losses. In
    ``pinn.train(weighting=...)`` the trainer does so, and the weights of ``weights=`` are further
    factors. Training works on a copy: the object that is given stays as it was.

    A weighting of one's own is a dataclass with :meth:`renew_weights`. What the next weights
    depend on it notes with :meth:`note` and reads with :meth:`noted`; that is saved with a run.
    """

    update_every: int = 1

    def __new__(cls, *options: object, **named: object) -> Self:
        """Return an object with nothing remembered, whatever the subclass's ``__init__`` does."""
        weighting = super().__new__(cls)
        # Numbers and tensors only, so that it can be saved and compared.
        weighting._state = {"calls": 0}
        return weighting

    if TYPE_CHECKING:  # a real annotation would make it a field
        _state: State

    @property
    def reads_traces(self) -> bool:
        """Whether traces of the kernel are asked for, which may be worth compiling."""
        return False

    def __post_init__(self) -> None:
        _checks.count("update_every", self.update_every)
        self.check_options()

    # --- what a subclass writes ---

    @abstractmethod
    def renew_weights(self, terms: TermStatistics) -> Weights:
        """Return the new weights, and note what the next ones depend on."""

    def check_options(self) -> None:  # noqa: B027 - some have nothing to check
        """Raise ``ValueError`` for an option that is wrong."""

    def check_terms(self, terms: TermStatistics) -> None:  # noqa: B027 - as above
        """Raise ``ValueError`` if options name what the terms do not have."""

    def weights_at(self, terms: TermStatistics) -> Weights:
        """Return the present weights; of points, at those of the terms."""
        return self.weights

    # --- what a subclass remembers ---

    def note(self, kind: str, values: Mapping[str, float | Tensor]) -> None:
        """Keep finite numbers or tensors by term (or another key) under a name."""
        # kind/term, as a checkpoint names tensors.
        for name, value in values.items():
            self._state[f"{kind}/{name}"] = value

    def noted(self, kind: str) -> State:
        """Return what was kept under a name; empty if nothing was."""
        start = f"{kind}/"
        noted = {}
        for key, value in self._state.items():
            if key.startswith(start):
                noted[key.removeprefix(start)] = value
        return noted

    def note_count(self, name: str, count: int) -> None:
        """Keep a whole number under a name."""
        self._state[name] = count

    def noted_count(self, name: str) -> int:
        """Return the number that was kept under a name, zero if none was."""
        return int(self._state.get(name, 0))

    @property
    def calls(self) -> int:
        """Number of steps so far."""
        calls: int = self._state["calls"]
        return calls

    @property
    def weights(self) -> Weights:
        """The present weights by term; empty before the first update."""
        return self.noted("weights")

    # --- what others call ---

    def check(self, objective: Objective) -> None:
        """Raise ``ValueError`` if the objective could not be weighted so."""
        self.check_terms(statistics_of(objective))

    def update(
        self,
        losses: Mapping[str, Tensor] | Objective,
        parameters: Iterable[Tensor] | None = None,
        *,
        points: Mapping[str, Tensor] | None = None,
    ) -> Weights:
        """Return the weight of each term for the step to come.

        Parameters
        ----------
        losses:
            By term the mean loss, a scalar with its graph; or the residuals (n,) or (n, m), whose
            mean square it is; or an objective, which needs nothing more.
        parameters:
            What the losses are differentiated with respect to, such as
            ``list(model.parameters())``.
        points:
            The points of the residuals by term, (n, d), for weightings of points.

        Raises
        ------
        TypeError
            If the losses are no tensors.
        ValueError
            If something is missing that this weighting needs, or the terms are other ones than
            before.
        FloatingPointError
            If a weight is not finite, as the losses or gradients are not. The weighting is then as
            it was before the call, and so after any other error.
        """
        terms = statistics_of(losses, parameters, points)
        # In the first call there are none to go on with.
        if self.calls % self.update_every == 0 or not self.weights:
            self._renew(terms)
        self._state["calls"] += 1
        return self.weights_at(terms)

    def renew(self, objective: Objective) -> Weights:
        """Return new weights for the next ``update_every`` steps on an objective."""
        terms = statistics_of(objective)
        self._renew(terms)
        self._state["calls"] += self.update_every
        return self.weights_at(terms)

    def at(self, objective: Objective) -> Weights:
        """Return the present weights; of points, at those of the objective."""
        return self.weights_at(statistics_of(objective))

    def _renew(self, terms: TermStatistics) -> None:
        """Put new weights into the state; after an error it is as before."""
        before = self.weights
        if before and set(before) != set(terms.names):
            raise ValueError(
                f"this weighting has weights of the terms {', '.join(before)}, but was given "
                f"{', '.join(terms.names)}: use a new one for other terms"
            )
        # With weights there are, the terms were checked when those were made.
        if not before:
            self.check_terms(terms)

        # A copy, so that an error half way leaves the weighting as it was.
        state = dict(self._state)
        try:
            weights = self.renew_weights(terms)
            self._check_finite(weights)
        except BaseException:
            self._state = state
            raise

        for name in before:
            del self._state[f"weights/{name}"]
        self.note("weights", weights)

    def _check_finite(self, weights: Weights) -> None:
        """Raise ``FloatingPointError`` unless new weights, and what was noted, are finite."""
        for name, weight in weights.items():
            # Of a tensor only weights of points, (n,), or a single number.
            is_wrong = isinstance(weight, complex)
            if isinstance(weight, Tensor):
                is_wrong = weight.is_complex() or weight.ndim > 1
            if is_wrong:
                raise TypeError(
                    f"the weight of term {name!r} must be a real number, or one for each point, "
                    f"got {_checks.describe(weight)}"
                )
            if not _is_finite(weight):
                raise FloatingPointError(
                    f"the weight of term {name!r} came out as {_checks.describe(weight)}: its loss "
                    "or gradient is not finite"
                )

        for key, value in self._state.items():
            if not _is_finite(value):
                raise FloatingPointError(
                    f"the loss of term {key.partition('/')[2]!r} is not finite: "
                    f"{_checks.describe(value)}"
                )

    def state_dict(self) -> State:
        """Return all that the next weights depend on beside the options: numbers and tensors."""
        return {name: _copied(value) for name, value in self._state.items()}

    def load_state_dict(self, state: State) -> None:
        """Take up what :meth:`state_dict` returned; anything else is a ``ValueError``."""
        calls = state.get("calls")
        if isinstance(calls, bool) or not isinstance(calls, int) or calls < 0:
            raise ValueError(
                f"a weighting's state needs the number of calls, got {calls!r}"
            )

        for name, value in state.items():
            is_number = isinstance(value, (int, float, Tensor))
            if isinstance(value, bool) or not is_number or not _is_finite(value):
                raise ValueError(
                    f"a weighting's state must be finite numbers, but {name!r} is not"
                )

        self._state = {name: _copied(value) for name, value in state.items()}


def _copied(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value


def _is_finite(value: float | Tensor) -> bool:
    return bool(torch.isfinite(torch.as_tensor(value)).all())


def check_share(what: str, value: object) -> None:
    """Raise ``ValueError`` unless ``value`` is a number in [0, 1]."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not 0 <= value <= 1:  # type: ignore[operator]
        raise ValueError(f"{what} must be a number between 0 and 1, got {value!r}")


def check_names(what: str, given: Iterable[str], names: Iterable[str]) -> None:
    """Raise ``ValueError`` for a name that is no term's."""
    for name in given:
        _checks.one_of(what, name, names)


def smoothed(
    previous_share: float,
    previous: Mapping[str, float | Tensor],
    new: Mapping[str, float],
) -> Weights:
    """Return ``share·previous + (1 − share)·new`` by term; weights start at 1.

    A term whose new weight is infinite, as its gradient vanishes, keeps the one it has.
    """
    weights: Weights = {}
    for name, value in new.items():
        before = float(previous.get(name, 1.0))
        if math.isinf(value):
            weights[name] = before
        else:
            weights[name] = previous_share * before + (1 - previous_share) * value

    return weights
