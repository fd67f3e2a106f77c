"""How far an attribution can be trusted: its solver, its damping, its network, in plain words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from whence.curvature.solvers import GOOD_RESIDUAL
from whence.curvature.spectrum import Attributes

if TYPE_CHECKING:
    import xarray as xr

NEAR = 1e-2
"""Share by which such a step may move the answers of a network that is near enough."""
FAR = 0.5
"""Share of the loss that a Gauss–Newton step may still take away near a minimum."""
LOW_TRACE = 0.9
SOLVING = ("exact", "conjugate_gradient", "lissa")
"""Solvers that solve the full system, rather than one near it."""
UNSOLVED = 0.1
"""Relative residual above which that is no solution."""
WITHOUT_CURVATURE = {
    "grad_dot": "Products of gradients at the last parameters.",
    "grad_cos": "Cosines of gradients at the last parameters.",
    "tracin": "Products of gradients summed over checkpoints.",
    "empirical": "Changes of losses in finite steps.",
    "representation_similarity": "Similarities of activations, whatever the labels.",
}
NO_CURVATURE = (
    "No curvature is taken into account: take it for a ranking, not for the size of a change, and "
    "use wh.Influence to predict retraining."
)
BY_METHOD = {
    "replay": (
        "The exact derivative by the weight of each point through all {steps} steps of the "
        "training, for the same start, order and random numbers.",
        "",
    ),
    "unrolled": (
        "Unrolled differentiation through {steps} steps in {segments} segments, with gradients "
        "and curvature averaged over {checkpoints} checkpoints, by {factors}.",
        "Within a segment gradients, curvature and the optimizer's scaling are taken as constant: "
        "more segments follow the training more closely, wh.Replay exactly.",
    ),
    "ensemble": (
        "The mean over {members} members of the methods {methods}.",
        "How good each member is its own result says: ask ensemble.members[0] for one.",
    ),
    "trak": (
        "Gradients of margins, projected to {dimension} dimensions, with their kernel's inverse.",
        "A single network's projection says little: take wh.Ensemble of ten or more.",
    ),
    "datamodel": (
        "A linear model of {subsets} trainings on subsets, by lasso.",
        "It leaves {unexplained:.0%} of their variance unexplained: check it on other subsets.",
    ),
    "knn_shapley": (
        "Exact Shapley values for the error of {neighbors} nearest neighbours.",
        "Of neighbours in the features that were given, not of a network.",
    ),
    "beta_shapley": (
        "Means over {permutations} orders of retraining.",
        "The standard error of an entry is {sampling_error:.0%} of their root mean square: more "
        "permutations lower it.",
    ),
    "data_oob": (
        "Scores of labels by models of {bags} bags that the sample was not in.",
        "A value of the label, not a change of an answer: sums of it predict no retraining.",
    ),
}
"""Of methods that solve nothing a statement and what speaks against them, both with attributes."""


class FarFromMinimum(UserWarning):
    """The network is not near a minimum of its objective, which influence functions assume."""


@dataclass(frozen=True)
class Quality:
    """What can be said of an attribution; ``str()`` is a short text.

    Parameters
    ----------
    statements:
        What was done and how well, a sentence each.
    caveats:
        What speaks against trusting it, each with what to do; empty where nothing does.

    Examples
    --------
    >>> from whence.attribution.quality import Quality
    >>> print(Quality(("Solved exactly.",), ()))
    Solved exactly. Nothing speaks against it.
    """

    statements: tuple[str, ...]
    caveats: tuple[str, ...]

    def __str__(self) -> str:
        closing = self.caveats or ("Nothing speaks against it.",)
        return " ".join([*self.statements, *closing])


def quality(attribution: xr.DataArray | xr.Dataset) -> Quality:
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
    >>> wh.Influence(objective, damping=1e-3).attribute(wh.Loss()).quality().caveats
    ()
    """
    attributes = attribution.attrs
    if "effect" in attributes and "solver" not in attributes:
        method = attributes["method"]
        if method in BY_METHOD:
            texts = [text.format(**attributes) for text in BY_METHOD[method]]
            statement, caveat = texts
            return Quality((statement,), (caveat,) if caveat else ())
        statement = WITHOUT_CURVATURE.get(method, f"Method {method}, without a solver.")
        return Quality((statement,), (NO_CURVATURE,))

    for name in ("solver", "solver_residual", "damping"):
        if name not in attributes:
            raise ValueError(
                f"this array has no attribute {name!r}: give what Influence.attribute returned"
            )

    report = _Report(attributes)
    candidates = (
        report.of_solver(),
        report.of_spectrum(),
        report.of_loss(),
        report.of_minimum(),
    )
    caveats = tuple(caveat for caveat in candidates if caveat)
    return Quality(tuple(report.statements()), caveats)


@dataclass(frozen=True)
class _Report:
    """What attributes say of an influence: statements, and a caveat or nothing on each subject."""

    attributes: Mapping[str, Any]

    def statements(self) -> list[str]:
        """Return what was done and how well."""
        attributes = self.attributes
        penalty = ""
        if "weight_decay" in attributes:
            penalty = f", weight decay {attributes['weight_decay']:.3g}"
        statements = [
            f"Solver {attributes['solver']}, damping {attributes['relative_damping']:.0e} of the "
            f"largest eigenvalue{penalty}, relative residual {attributes['solver_residual']:.0e}."
        ]
        if "rank" in attributes and "trace_share" in attributes:
            statements.append(
                f"Rank {attributes['rank']}, which holds {attributes['trace_share']:.1%} of the "
                "trace."
            )
        if "predicted_decrease" in attributes:
            decrease = _share_of_loss(attributes["predicted_decrease"])
            statements.append(f"A Gauss–Newton step would take away {decrease}.")
        return statements

    def of_solver(self) -> str:
        """Return what speaks against the solution."""
        message: str = self.attributes.get("solver_message", "")
        if message:
            return f"{message[:1].upper()}{message[1:]}."

        # A residual that is NaN is no good one, either.
        if self.attributes["solver_residual"] < GOOD_RESIDUAL:
            return ""

        # What brings an approximation nearer to the full system depends on its solver.
        remedy = "raise the damping"
        if "sketch" in self.attributes:
            remedy = "raise the dimension of the sketch or the damping"
        elif "rank" in self.attributes:
            remedy = "raise the rank or the damping"
        # Nobody is told to use what was used.
        if self.attributes["solver"] == "exact":
            return (
                f"The full system is not solved: take it for a ranking at best, {remedy}, or use "
                "double precision, model.double()."
            )
        other = "wh.ConjugateGradient() or wh.Exact()"
        if self.attributes["solver"] == "conjugate_gradient":
            other = "wh.Exact()"
        return (
            f"The full system is not solved: take it for a ranking at best, {remedy}, or use "
            f"{other}."
        )

    def of_spectrum(self) -> str:
        """Return what speaks against the curvature."""
        attributes = self.attributes
        # Of a whole spectrum all negative eigenvalues are known; of a low rank those among the
        # eigenvalues of largest magnitude.
        of_low_rank = attributes.get("negative_eigenvalues_held", 0)
        negative = attributes.get("negative_eigenvalues", of_low_rank)

        # With λ above the most negative eigenvalue A + λI is positive definite.
        smallest = attributes.get("smallest_eigenvalue", -float("inf"))
        added = attributes["damping"] + attributes.get("weight_decay", 0.0)
        is_outweighed = smallest > -added
        if negative and not is_outweighed:
            # Of a sketch the smallest is known, and not how many are below zero.
            if "rank" in attributes and "smallest_eigenvalue" in attributes:
                return (
                    f"The curvature has negative eigenvalues, down to {smallest:.0e}: this is no "
                    "minimum, use curvature='gauss_newton', train further or damp more."
                )
            return (
                f"The curvature has {negative} negative eigenvalues: this is no minimum, use "
                "curvature='gauss_newton' or train further."
            )

        if attributes.get("trace_share", 1.0) < LOW_TRACE:
            return "Much of the curvature is outside the rank: raise it."
        return ""

    def of_loss(self) -> str:
        """Return what speaks against the form of the loss."""
        if self.attributes.get("curvature") != "gauss_newton":
            return ""
        caveat: str = self.attributes.get("loss_caveat", "")
        return caveat

    def of_minimum(self) -> str:
        """Return what speaks against the network being near a minimum."""
        decrease: float = self.attributes.get("predicted_decrease", 0.0)
        if not is_far(dict(self.attributes)):
            return ""
        # Supervised data have a mode of evaluation.
        return far_from_minimum(
            decrease,
            has_samples="mode" in self.attributes,
            has_penalty="weight_decay" in self.attributes,
        )


def not_solved(solver: str, residual: float) -> str:
    """Return what to say of a solver that did not solve its system."""
    return (
        f"the system is not solved: solver {solver} left a relative residual of {residual:.1g}, so "
        "the numbers mean little; raise the damping or use double precision, model.double()"
    )


def is_far(attributes: Attributes) -> bool:
    """Whether a network is so far from a minimum that its influences predict little.

    A step that takes away most of a loss of 1e-12 moves no answer: a solution can be good long
    before its loss is at its least.
    """
    decrease = float(attributes.get("predicted_decrease", 0.0))
    shift = float(attributes.get("predicted_shift", NEAR))
    return decrease > FAR and shift >= NEAR


def far_from_minimum(
    decrease: float, *, has_samples: bool = False, has_penalty: bool = False
) -> str:
    """Return what to say of a network whose loss a single step would lower by this share."""
    remedy = "Train further or raise the damping"
    if not has_samples:  # the training of supervised models is the user's own
        remedy = (
            "Train further (Gauss–Newton steps get there soonest) or raise the damping"
        )
    elif not has_penalty:
        remedy += (
            "; if it was trained with a penalty on its weights, give weight_decay=c"
        )
    return (
        "The network is far from a minimum: a Gauss–Newton step would take away "
        f"{_share_of_loss(decrease)}, and influence functions predict retraining only near a "
        f"minimum. {remedy}."
    )


def _share_of_loss(decrease: float) -> str:
    """Return a share of the loss in words: a quadratic model may promise more than all of it."""
    if decrease >= 1:
        return "all of the loss"
    return f"{100 * decrease:.0f} % of the loss"
