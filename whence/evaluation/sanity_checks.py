"""Whether an attribution says anything of this network and this target: checks without a truth.

An attribution that names the same samples for every target, or stays as it is when the network
forgets all that it learnt, explains neither. Passing says little, failing says much (Adebayo et al.
2018, arXiv 1810.03292; Hanawa et al. 2021, arXiv 2006.04528).
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import nn

from whence import _checks
from whence.evaluation.ranks import spearman_rows

if TYPE_CHECKING:
    import xarray as xr


def top_k_cardinality(attribution: ArrayLike | xr.DataArray, *, k: int = 1) -> float:
    """Return how many different samples are among the first k of all targets, as a share.

    ``|∪_f top_k(f)| / (k F)`` over F targets: 1 where no two targets share one of their first k,
    ``1/F`` where all name the same (Barshan et al. 2020, arXiv 2003.11630).

    Parameters
    ----------
    attribution:
        (target, point): the largest entries come first.
    k:
        How many of each target.

    Raises
    ------
    ValueError
        If the attribution is no table of finite numbers, or k exceeds the number of samples.

    Examples
    --------
    >>> from whence.evaluation import top_k_cardinality
    >>> top_k_cardinality([[3.0, 1.0, 2.0], [2.0, 1.0, 0.0]])
    0.5
    """
    scores = checked_table("attribution", attribution)
    _checks.count("k", k)
    if k > scores.shape[1]:
        raise ValueError(f"k is {k}, above the number of samples, {scores.shape[1]}")

    first = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return len(np.unique(first)) / first.size


def model_randomization(
    attribution: ArrayLike | xr.DataArray, randomized: ArrayLike | xr.DataArray
) -> xr.DataArray:
    """Return the rank correlation of an attribution with that of a network that learnt nothing.

    Spearman's over samples, for each target: near 0 where the attribution is of what was learnt,
    near 1 where it is of the data alone (Hanawa et al. 2021, section 4.1).

    Parameters
    ----------
    attribution, randomized:
        (target, point), of the trained network and of :func:`with_random_parameters` of it, for the
        same targets by the same method.

    Returns
    -------
    xarray.DataArray
        Dimension (target,), NaN where either does not vary; the attribute ``mean`` is the score.

    Raises
    ------
    ValueError
        If they are no tables of finite numbers, of one shape.

    Examples
    --------
    >>> from whence.evaluation import model_randomization
    >>> similar = model_randomization([[1.0, 2.0, 3.0]], [[2.0, 3.0, 5.0]])
    >>> round(similar.attrs["mean"], 3)
    1.0
    """
    import xarray as xr  # slow to import

    trained = checked_table("attribution", attribution)
    untrained = checked_table("randomized", randomized)
    if trained.shape != untrained.shape:
        raise ValueError(
            "both attributions must be of the same targets and samples, got shapes "
            f"{trained.shape} and {untrained.shape}"
        )
    values = spearman_rows(trained, untrained)
    known = values[np.isfinite(values)]
    mean = float(known.mean()) if len(known) else np.nan
    return xr.DataArray(
        values, dims="target", name="model_randomization", attrs={"mean": mean}
    )


def with_random_parameters(model: nn.Module, seed: int = 0) -> nn.Module:
    """Return a copy of a model with its parameters drawn again, as if it had not been trained.

    Modules draw theirs by ``reset_parameters``, which forgets running statistics, too. Parameters
    of a module without one are drawn from a normal distribution of their own mean and spread.

    Parameters
    ----------
    model:
        It stays as it is.
    seed:
        Of what is drawn; the random numbers of the caller stay as they are.

    Examples
    --------
    >>> import torch
    >>> from whence.evaluation import with_random_parameters
    >>> model = torch.nn.Linear(3, 1)
    >>> drawn = with_random_parameters(model)
    >>> drawn.weight.shape, bool(torch.equal(drawn.weight, model.weight))
    (torch.Size([1, 3]), False)
    """
    drawn = copy.deepcopy(model)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        for module in drawn.modules():
            reset = getattr(module, "reset_parameters", None)
            if callable(reset):
                reset()
                continue
            for parameter in module.parameters(recurse=False):
                # A single number has no spread, and would stay as it is.
                spread = parameter.std(unbiased=False)
                scale = torch.where(spread > 0, spread, torch.ones_like(spread))
                noise = torch.randn_like(parameter)
                parameter.copy_(parameter.mean() + scale * noise)
    return drawn


def checked_table(
    what: str, values: ArrayLike | xr.DataArray
) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """Return finite numbers (target, point), or raise ``ValueError``."""
    table = np.atleast_2d(np.asarray(values, dtype=float))
    if table.ndim != 2 or not table.size:
        raise ValueError(
            f"{what} must be finite numbers (target, point), got shape {np.shape(values)}"
        )
    _checks.finite(what, table)
    return table
