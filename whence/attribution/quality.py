"""How far an attribution can be trusted: its solver, its damping, its network, in plain words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from whence.curvature.solvers import GOOD_RESIDUAL

if TYPE_CHECKING:
    import xarray as xr

FAR = 0.5
"""Share of the loss that a Gauss–Newton step may still take away near a minimum."""
LOW_TRACE = 0.9
WITHOUT_CURVATURE = {
    "grad_dot": "Products of gradients at the last parameters.",
    "grad_cos": "Cosines of gradients at the last parameters.",
    "tracin": "Products of gradients summed over checkpoints.",
    "empirical": "Changes of losses in finite steps.",
}
NO_CURVATURE = (
    "No curvature is taken into account: take it for a ranking, not for the size of a change, and "
    "use wh.Influence to predict retraining."
)


class FarFromMinimum(UserWarning):
    """The network is not near a minimum of its objective, which influence functions assume."""


@dataclass(frozen=True)
class Quality:
    """What can be said of an attribution; ``str()`` is a short text.

    Parameters
    ----------
    statements:
        What was done and how well, a sentence each.
    doubts:
        What speaks against trusting it, each with what to do; empty where nothing does.

    Examples
    --------
    >>> from whence.attribution.quality import Quality
    >>> print(Quality(("Solved exactly.",), ()))
    Solved exactly. Nothing speaks against it.
    """

    statements: tuple[str, ...]
    doubts: tuple[str, ...]

    def __str__(self) -> str:
        return " ".join(
            [*self.statements, *(self.doubts or ("Nothing speaks against it.",))]
        )


def quality(attribution: xr.DataArray) -> Quality:
    """Return how far an attribution can be trusted, from its attributes alone.

    Parameters
    ----------
    attribution:
        What :meth:`whence.Influence.attribute` returned, or the same read from disk.

    Raises
    ------
    ValueError
        If its attributes do not say how it was made.

    Examples
    --------
    >>> import torch, whence as wh
    >>> network = torch.nn.Linear(1, 1, bias=False, dtype=torch.float64)
    >>> def residual(tensors, z):
    ...     return torch.func.functional_call(network, tensors, (z,)) - 1
    >>> points = torch.tensor([[1.0], [2.0]], dtype=torch.float64)
    >>> objective = wh.Objective(network, [wh.Term("data", residual, points)])
    >>> objective.parameters.assign(torch.tensor([0.6], dtype=torch.float64))
    >>> wh.Influence(objective, damping=1e-3).attribute(wh.Loss()).quality().doubts
    ()
    """
    said = attribution.attrs
    if said.get("method") in WITHOUT_CURVATURE:
        return Quality((WITHOUT_CURVATURE[said["method"]],), (NO_CURVATURE,))
    missing = [
        name for name in ("solver", "solver_residual", "damping") if name not in said
    ]
    if missing:
        raise ValueError(
            f"this array has no attribute {missing[0]!r}: give what Influence.attribute returned"
        )
    doubts = [_solver_doubt(said), _spectrum_doubt(said), _minimum_doubt(said)]
    return Quality(tuple(_statements(said)), tuple(doubt for doubt in doubts if doubt))


def _statements(said: Mapping[str, Any]) -> list[str]:
    found = [
        f"Solver {said['solver']}, damping {said['relative_damping']:.0e} of the largest "
        f"eigenvalue, relative residual {said['solver_residual']:.0e}."
    ]
    if "rank" in said and "trace_share" in said:
        found.append(
            f"Rank {said['rank']}, which holds {said['trace_share']:.1%} of the trace."
        )
    if "predicted_decrease" in said:
        found.append(
            f"A Gauss–Newton step would take away {said['predicted_decrease']:.0%} of the "
            "loss.".replace("%", " %")
        )
    return found


def _solver_doubt(said: Mapping[str, Any]) -> str:
    if said.get("solver_message"):
        return f"{said['solver_message'][:1].upper()}{said['solver_message'][1:]}."
    if said["solver_residual"] >= GOOD_RESIDUAL:
        return (
            "The full system is not solved: take it for a ranking at best, raise the rank or the "
            "damping, or use wh.ConjugateGradient() or wh.Exact()."
        )
    return ""


def _spectrum_doubt(said: Mapping[str, Any]) -> str:
    negative = said.get(
        "negative_eigenvalues", said.get("negative_eigenvalues_held", 0)
    )
    outweighed = said.get("smallest_eigenvalue", -float("inf")) > -said["damping"]
    if negative and not outweighed:
        return (
            f"The curvature has {negative} negative eigenvalues: this is no minimum, use "
            "curvature='gauss_newton' or train further."
        )
    if said.get("trace_share", 1.0) < LOW_TRACE:
        return "Much of the curvature is outside the rank: raise it."
    return ""


def _minimum_doubt(said: Mapping[str, Any]) -> str:
    if said.get("predicted_decrease", 0.0) > FAR:
        return far_from_minimum(said["predicted_decrease"])
    return ""


def far_from_minimum(decrease: float) -> str:
    """Return what to say of a network whose loss a single step would lower by this share."""
    return (
        f"The network is far from a minimum: a Gauss–Newton step would take away {decrease:.0%} of "
        "its loss, and influence functions predict retraining only near a minimum. Train further "
        "(Gauss–Newton steps get there soonest) or raise the damping."
    ).replace("%", " %")
