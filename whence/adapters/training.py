"""What the training loops of other libraries can do with whence's resamplers and weightings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from whence import _checks
from whence.objective import Objective
from whence.pinn.sampling.resamplers.resample import Resample
from whence.pinn.sampling.weighted_points import WeightedPoints
from whence.pinn.weighting import Weighting


def check_resample(resample: Resample, renewable: Sequence[str], library: str) -> None:
    """Raise ``ValueError`` for what a foreign loop has no place for.

    Parameters
    ----------
    resample:
        How points are renewed.
    renewable:
        Names of the terms whose points the loop can renew.
    library:
        Whose loop it is.
    """
    for name in resample.terms or ():
        _checks.one_of("term to resample", name, renewable)
    if resample.importance:
        raise ValueError(
            f"importance=True gives points weights, which {library} has no place for: leave it out"
        )
    if resample.stages is not None or resample.at_start:
        raise ValueError(
            f"stages and at_start are of whence's own schedules, which {library} does not follow: "
            "leave them out, `every` says when points are renewed"
        )


def rows_of(points: Mapping[str, Tensor | WeightedPoints]) -> dict[str, Tensor]:
    """Return renewed points by term, none of which has a weight (:func:`check_resample`)."""
    rows = {}
    for name, renewed in points.items():
        assert isinstance(renewed, Tensor)
        rows[name] = renewed
    return rows


def weights_by_term(
    weighting: Weighting, objective: Objective, n_columns: Mapping[str, int]
) -> dict[str, float]:
    """Return a weighted objective's weights as a library has them that averages over columns too.

    Raises
    ------
    ValueError
        If the weighting weighs points one by one.
    """
    weights = {}
    for name, term in objective.terms.items():
        if term.point_weights is not None:
            raise ValueError(
                f"{type(weighting).__name__} weighs the points of term {name!r} one by one, where "
                "a term can be weighed as a whole alone: use a weighting of terms, such as "
                "pinn.NeuralTangentKernel()"
            )
        weights[name] = term.weight * n_columns[name]
    return weights
