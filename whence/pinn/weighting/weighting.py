"""What every weighting is: an object whose ``update`` returns the terms' weights, with a state."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from whence import _checks
from whence.objective import Objective
from whence.pinn.weighting.measured import Measured, measured

Weights = dict[str, float | Tensor]
"""By term a number, or a tensor (n,) with a weight for each point."""
State = dict[str, Any]


class Weighting(ABC):
    """Weights of the terms of a loss, renewed while a network trains.

    ``update`` is called once for each step and renews the weights at the first call and every
    ``update_every`` calls; what it returns multiplies the terms' mean losses. In
    ``pinn.train(weighting=...)`` the trainer does so, and the weights of ``weights=`` are further
    factors. Training works on a copy: the object that is given stays as it was.
    """

    update_every: int = 1

    @property
    def reads_traces(self) -> bool:
        """Whether traces of the kernel are asked for, which may be worth compiling."""
        return False

    def __post_init__(self) -> None:
        _checks.count("update_every", self.update_every)
        self._check_options()
        self._state: State = {"calls": 0}

    @abstractmethod
    def _check_options(self) -> None:
        """Raise ``ValueError`` for an option that is wrong."""

    @abstractmethod
    def _renewed(self, terms: Measured) -> Weights:
        """Return the new weights and note in the state what the next ones depend on."""

    def check(self, objective: Objective) -> None:
        """Raise ``ValueError`` if the objective could not be weighted so."""
        self._check_terms(measured(objective))

    def _check_terms(self, terms: Measured) -> None:  # noqa: B027 - most have nothing to check
        """Raise ``ValueError`` if options name what the terms do not have."""

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
            What the losses are differentiated by, such as ``list(model.parameters())``.
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
        terms = measured(losses, parameters, points)
        if self._state["calls"] % self.update_every == 0 or not self.weights:
            self._renew(terms)
        self._state["calls"] += 1
        return self.at(terms)

    def renew(self, objective: Objective) -> Weights:
        """Return new weights for the next ``update_every`` steps on an objective."""
        terms = measured(objective)
        self._renew(terms)
        self._state["calls"] += self.update_every
        return self.at(terms)

    def _renew(self, terms: Measured) -> None:
        before = self.weights
        if before and set(before) != set(terms.names):
            raise ValueError(
                f"this weighting has weights of the terms {', '.join(before)}, but was given "
                f"{', '.join(terms.names)}: use a new one for other terms"
            )
        if not before:
            self._check_terms(terms)
        held = dict(self._state)
        try:
            new = self._renewed(terms)
            self._check_finite(new)
        except BaseException:
            self._state = held
            raise
        self._state = {
            k: v for k, v in self._state.items() if not k.startswith("weights/")
        }
        self._state |= {f"weights/{name}": weight for name, weight in new.items()}

    def _check_finite(self, new: Weights) -> None:
        """Raise ``FloatingPointError`` unless new weights, and what was noted, are finite."""
        for name, weight in new.items():
            if not _is_finite(weight):
                raise FloatingPointError(
                    f"the weight of term {name!r} came out as {_checks.shown(weight)}: its loss or "
                    "gradient is not finite"
                )
        for key, value in self._state.items():
            if not _is_finite(value):
                raise FloatingPointError(
                    f"the loss of term {key.partition('/')[2]!r} is not finite: "
                    f"{_checks.shown(value)}"
                )

    def at(self, terms: Measured | Objective) -> Weights:
        """Return the present weights; of points, at those of the terms."""
        return self.weights

    @property
    def weights(self) -> Weights:
        """The present weights by term; empty before the first update."""
        return self._group("weights")

    def _group(self, kind: str) -> dict[str, Any]:
        start = f"{kind}/"
        return {
            k[len(start) :]: v for k, v in self._state.items() if k.startswith(start)
        }

    def _note(self, kind: str, values: Mapping[str, Any]) -> None:
        self._state |= {f"{kind}/{name}": value for name, value in values.items()}

    def state_dict(self) -> State:
        """Return all that the next weights depend on beside the options: numbers and tensors."""
        return {
            k: v.clone() if isinstance(v, Tensor) else v for k, v in self._state.items()
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what :meth:`state_dict` returned; anything else is a ``ValueError``."""
        calls = state.get("calls")
        if isinstance(calls, bool) or not isinstance(calls, int) or calls < 0:
            raise ValueError(
                f"a weighting's state needs the number of calls, got {calls!r}"
            )
        for name, value in state.items():
            number = isinstance(value, (int, float, Tensor)) and not isinstance(
                value, bool
            )
            if not number or not _is_finite(value):
                raise ValueError(
                    f"a weighting's state must be finite numbers, but {name!r} is not"
                )
        self._state = {
            k: v.clone() if isinstance(v, Tensor) else v for k, v in state.items()
        }


def _is_finite(value: float | Tensor) -> bool:
    return bool(torch.isfinite(torch.as_tensor(value)).all())


def check_share(what: str, value: object) -> None:
    """Raise ``ValueError`` unless ``value`` is a float in [0, 1]."""
    if not isinstance(value, float) or not 0 <= value <= 1:
        raise ValueError(f"{what} must be a float between 0 and 1, got {value!r}")


def check_names(what: str, given: Iterable[str], names: Iterable[str]) -> None:
    """Raise ``ValueError`` for a name that is no term's."""
    for name in given:
        _checks.one_of(what, name, names)


def averaged(
    share: float, before: Mapping[str, Any], now: Mapping[str, float]
) -> Weights:
    """Return ``share·before + (1 − share)·now`` by term; weights start at 1.

    A term whose new weight is infinite, as its gradient vanishes, keeps the one it has.
    """
    found: Weights = {}
    for name, value in now.items():
        old = float(before.get(name, 1.0))
        found[name] = (
            share * old + (1 - share) * value if not math.isinf(value) else old
        )
    return found
