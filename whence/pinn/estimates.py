"""How well measurements determine an unknown, or anything else that a trained network says.

At a minimum of ``L = Σ_k w_k/N_k Σ_i ‖r_k(z_i)‖²`` with measured residuals ``(u − u_i) σ̄/σ_i`` the
negative log-likelihood is ``L/s`` with ``s = 2 w σ̄²/N``, so that its Hessian is A/s, A the
Gauss–Newton matrix of L, and the covariance of θ is ``s A⁻¹`` (Seber & Wild, Nonlinear Regression,
2003, ch. 2). Equations enter as what they are in L: the heavier they weigh beside measurements, the
closer they are to constraints.

All of this is computed in double precision, at the parameters of a network of either.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from whence import _checks
from whence.attribution.influence import Influence
from whence.attribution.quantities import Quantity, UnknownValue
from whence.attribution.solved_rows import SolvedRows
from whence.objective import Objective
from whence.pinn.pde.data import Data
from whence.pinn.pde.precision import in_double
from whence.pinn.pde.trained_data import TrainedData
from whence.pinn.pde.unknowns import Model, UnknownLayer
from whence.refits import refit

if TYPE_CHECKING:
    import pandas as pd

LEVEL = 0.95
"""Confidence of an interval unless another is asked for."""
PROFILE_STEPS = 5
"""Steps of a refit with one unknown held, after which it is seen whether more would help."""
PROFILE_ROUNDS = 20
"""Most such refits for one value."""
PROFILE_TOLERANCE = 1e-3
"""What twice the log-likelihood may still gain: an end of an interval moves by a thousandth."""
PROFILE_REACH = 12.0
"""Standard errors within which the ends of a profile interval are sought."""


class Estimates(Mapping[str, "Estimate"]):
    """The unknown numbers of a trained problem by name, each with its standard error.

    Parameters
    ----------
    objective:
        What was trained, at the network that was kept.
    data:
        The measurements among its terms.

    Examples
    --------
    See :class:`whence.UnknownValue`; ``result.unknowns["k"]`` prints as ``k = 1.02 ± 0.03``.
    """

    def __init__(self, objective: Objective, data: Sequence[Data] = ()) -> None:
        model = objective.network
        self._trained = objective
        self.data = []
        for each in data:
            if each.name in objective.terms:
                self.data.append(TrainedData.of(each, objective))
        self._values = model.values() if isinstance(model, Model) else {}

    def __getitem__(self, name: str) -> Estimate:
        if name not in self._values:
            _checks.one_of("unknown", name, self._values)
        return Estimate(name, self._values[name], self)

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return "\n".join(repr(self[name]) for name in self) or "no unknowns"

    # --- noise ---

    @cached_property
    def objective(self) -> Objective:
        """What was trained, in double precision whatever it was trained in."""
        # Only at need, as it is a copy. What measurements hardly determine has eigenvalues of A
        # that rounding to single precision, and the damping it needs, would hide.
        return in_double(self._trained)

    @cached_property
    def influence(self) -> Influence:
        """The factored Gauss–Newton matrix."""
        return Influence(self.objective, curvature="gauss_newton")

    @cached_property
    def noise(self) -> Noise:
        """What the measurements' errors amount to."""
        return Noise.of(self)

    def standard_errors(self, quantity: Quantity) -> np.ndarray:
        """Return the standard error of each target of a quantity, (T,), ``(s ∇fᵀ A⁻¹ ∇f)^½``.

        Raises
        ------
        ValueError
            If the problem has no measurements.
        """
        scale = self.noise.scale
        gradients = torch.cat(list(quantity.gradients(self.objective))).T  # (P, T)
        solved = self.influence.solve(gradients).value
        variances = scale * (gradients * solved).sum(dim=0)
        return np.asarray(variances.clamp_min(0.0).sqrt().cpu())

    def covariance(self) -> pd.DataFrame:
        """Return the covariance of the unknown numbers as a labelled table."""
        import pandas as pd  # slow to import

        names = list(self)
        gradients = torch.cat(
            list(UnknownValue(*names).gradients(self.objective))
        ).T  # (P, K)
        solved = self.influence.solve(gradients).value
        table = self.noise.scale * (gradients.T @ solved)
        return pd.DataFrame(table.cpu().numpy(), index=names, columns=names)


@dataclass(frozen=True, eq=False)
class Noise:
    """What the errors of the measurements amount to.

    Parameters
    ----------
    scale:
        s in the covariance ``s A⁻¹``.
    degrees:
        Degrees of freedom of an error that was estimated from the fit; infinite where it is given.
    factor:
        By which the given (or unit) errors of each term are multiplied.
    """

    scale: float
    degrees: float
    factor: float

    @classmethod
    def of(cls, estimates: Estimates) -> Noise:
        """Return the noise of measurements, from their errors or else from how they are fitted."""
        objective = estimates.objective
        data = estimates.data
        if not data:
            raise ValueError(
                "an unknown's standard error comes from measurements: the problem has none "
                "(pinn.Data)"
            )

        scales = []
        for each in data:
            term = objective.term(each.name)
            # s = 2 w σ̄²/N
            scales.append(2 * term.weight * each.reference**2 / len(each))
        scale = float(np.mean(scales))
        if all(each.has_errors for each in data):
            return cls(scale, np.inf, 1.0)

        # Without errors the scatter of the measurements about the fit tells: χ²/(n − p).
        chi_square = 0.0
        n_measured = 0
        losses = objective.losses()
        for each in data:
            # L_k = mean over rows of Σ (σ̄ d/σ)², and Σ (d/σ)² = N L_k/σ̄².
            chi_square += len(each) * float(losses[each.name]) / each.reference**2
            n_measured += len(each) * len(each.fields)

        degrees = max(1.0, n_measured - effective_parameters(estimates))
        variance = chi_square / degrees
        return cls(scale * variance, degrees, variance**0.5)


def effective_parameters(estimates: Estimates) -> float:
    """Return how many numbers the measurements determine: the sum of their leverages."""
    influence = estimates.influence
    total = 0.0
    for each in estimates.data:
        total += float(component_leverages(influence, each.name).sum())
    return total


@dataclass(frozen=True, eq=False)
class Estimate:
    """An unknown number: its value, standard error and intervals.

    Parameters
    ----------
    name, value:
        Which, and what was found.
    """

    name: str
    value: float
    _among: Estimates

    def __float__(self) -> float:
        return self.value

    def __format__(self, form: str) -> str:
        return format(self.value, form)

    def __repr__(self) -> str:
        if not self._among.data:
            return f"{self.name} = {self.value:.6g}"
        return f"{self.name} = {self.value:.6g} ± {self.standard_error:.2g}"

    @cached_property
    def standard_error(self) -> float:
        """The standard error, from the Gauss–Newton covariance, in the unknown's units."""
        quantity = UnknownValue(self.name)
        return float(self._among.standard_errors(quantity)[0])

    @property
    def _layer(self) -> UnknownLayer:
        model = self._among.objective.network
        assert isinstance(model, Model)
        layer = model.unknowns[self.name]
        assert isinstance(layer, UnknownLayer)
        return layer

    @property
    def _theta(self) -> float:
        return float(self._layer.theta.detach())

    def _value_at(self, theta: float) -> float:
        layer = self._layer
        return float(layer.unknown.value(torch.tensor(theta, dtype=torch.float64)))

    def _slope(self) -> float:
        """Return dk/dθ, by which errors of θ become errors of k."""
        theta = self._layer.theta.detach().double().clone().requires_grad_()
        (slope,) = torch.autograd.grad(self._layer.unknown.value(theta).sum(), theta)
        return float(slope)

    def interval(self, level: float = LEVEL) -> tuple[float, float]:
        """Return a confidence interval, symmetric in θ, so that it keeps to the bounds.

        ``k(θ ± t σ_θ)`` with σ_θ the standard error of θ and t Student's quantile.
        """
        reach = self._quantile(level) * self.standard_error / abs(self._slope())
        theta = self._theta
        ends = self._value_at(theta - reach), self._value_at(theta + reach)
        return min(ends), max(ends)

    def _quantile(self, level: float) -> float:
        from scipy import stats  # slow to import

        if not 0 < level < 1:
            raise ValueError(f"level must lie between 0 and 1, got {level!r}")
        degrees = self._among.noise.degrees
        return float(stats.t.ppf(0.5 + level / 2, degrees))

    def profile(self, level: float = LEVEL) -> tuple[float, float]:
        """Return the profile-likelihood interval: all else refitted at each value of the unknown.

        Its ends are where twice the log-likelihood has fallen by Student's quantile squared (the
        χ² quantile of one degree where errors are given), Venzon & Moolgavkar, Appl. Stat. 37,
        1988. An end that is not found within 12 standard errors is infinite, or the bound.
        """
        return Profile(self, self._quantile(level) ** 2).ends()


class Profile:
    """Twice the fall of the log-likelihood where an unknown is held and all else refitted."""

    def __init__(self, estimate: Estimate, fall: float) -> None:
        among = estimate._among
        self._estimate = estimate
        self._fall = fall
        self._scale = among.noise.scale
        self._held = f"unknowns.{estimate.name}.theta"
        self._all = among.objective.parameters
        self._others = Objective(
            among.objective.network,
            among.objective.terms.values(),
            select=lambda name, parameter: name != self._held,
            space=among.objective.space,
        )
        self._start = self._all.vector()
        self._reach = estimate.standard_error / abs(estimate._slope())

        # Where θ_k moves by one, the minimum of the others moves by A⁻¹e_k over its entry k.
        unit = torch.zeros_like(self._start)
        place = self._all.slices[self._held]
        unit[place] = 1.0
        moved = among.influence.solve(unit.unsqueeze(1)).value[:, 0]
        self._path = moved / moved[place]

    def ends(self) -> tuple[float, float]:
        """Return the values of the unknown at both ends, the lower first."""
        with self._all.at(self._start):
            best = self._loss_at(0.0)
            ends = [self._end(side, best) for side in (-1.0, 1.0)]
        return min(ends), max(ends)

    def _end(self, side: float, best: float) -> float:
        from scipy import optimize  # slow to import

        def excess(errors: float) -> float:
            if errors == 0:
                return -self._fall
            loss = self._loss_at(side * errors * self._reach)
            # −2 log-likelihood is 2 L/s.
            return 2 * (loss - best) / self._scale - self._fall

        errors = self._fall**0.5
        while excess(errors) < 0:
            errors *= 1.5
            if errors > PROFILE_REACH:
                return self._estimate._value_at(side * np.inf)
        found = optimize.brentq(excess, 0.0, errors, rtol=1e-3)
        theta = float(self._start[self._all.slices[self._held]])
        return self._estimate._value_at(theta + side * found * self._reach)

    def _loss_at(self, shift: float) -> float:
        """Return L with θ_k moved by ``shift`` and held there, and all else refitted."""
        self._all.assign(self._start + shift * self._path)
        loss = float(self._others.loss())
        for _ in range(PROFILE_ROUNDS):
            fit = refit(self._others, steps=PROFILE_STEPS)
            self._others.parameters.assign(fit.theta)
            gained = 2 * (loss - fit.loss) / self._scale
            loss = fit.loss
            if gained < PROFILE_TOLERANCE:
                break
        return loss


def suspects(
    objective: Objective, data: Sequence[Data], term: str | None = None
) -> pd.DataFrame:
    """Return the measurements, those that fit the least to all others first.

    ``deviation`` is ``(u_i − û₍ᵢ₎)/σ``: what a measurement differs by from the fit that was made
    without it, in standard deviations of that difference (the studentized deleted residual, Cook &
    Weisberg 1982): ``d_i / (σ_i (1 − h_i)^½)`` with d_i its difference from the fit and h_i its
    leverage. Beyond ±4 a measurement is hardly right.

    Parameters
    ----------
    objective, data:
        What was trained, and its measurements.
    term:
        One of these; by default all.

    Returns
    -------
    pandas.DataFrame
        A row for each measurement trained on: its term, index in the set, coordinates, field,
        value, fit, leverage, deviation.
    """
    import pandas as pd  # slow to import

    estimates = Estimates(objective, data)
    noise = estimates.noise
    tables = []
    for each in estimates.data:
        if term is None or each.name == term:
            tables.append(_deviations(estimates, each, noise.factor))
    if not tables:
        _checks.one_of("set of measurements", str(term), [d.name for d in data])
    table = pd.concat(tables, ignore_index=True)
    order = table["deviation"].abs().sort_values(ascending=False).index
    return table.loc[order].reset_index(drop=True)


def _deviations(estimates: Estimates, data: TrainedData, factor: float) -> pd.DataFrame:
    """Return one set's measurements with their deviations, in order."""
    import pandas as pd  # slow to import

    objective = estimates.objective
    term = objective.term(data.name)
    tensors = objective.parameters.tensors()
    residual = term.residual(tensors, term.points).detach().cpu()  # d σ̄/σ, (N, q)
    errors = data.errors()
    differences = -residual * errors / data.reference  # measured − fitted

    # The leverage of a row of J, one for each field of a measurement.
    shares = component_leverages(estimates.influence, data.name)
    spread = errors * factor * (1 - shares).clamp_min(1e-12).sqrt()
    deviations = differences / spread

    values = data.values()
    parts = []
    for k, name in enumerate(data.fields):
        columns = {
            "term": data.name,
            "index": data.rows.numpy(),
            **dict(
                zip(objective.coordinates, term.locations.cpu().numpy().T, strict=True)
            ),
            "field": name,
            "value": values[:, k].numpy(),
            "fit": (values - differences)[:, k].numpy(),
            "leverage": shares[:, k].numpy(),
            "deviation": deviations[:, k].numpy(),
        }
        parts.append(pd.DataFrame(columns))
    return pd.concat(parts, ignore_index=True)


def component_leverages(influence: Influence, name: str) -> Tensor:
    """Return ``Jᵢ A⁻¹ Jᵢᵀ`` of each component of each point of one term, (N, m)."""
    parts = SolvedRows(influence).points((name,))
    return torch.cat([part.component_leverages() for part in parts]).cpu()
