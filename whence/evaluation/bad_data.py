"""Finding bad data: training samples ranked by suspicion, and how well that ranking does.

A sample with a wrong label stands against the samples it resembles: its own fit hangs on it alone
(a large influence on its own loss), and it spoils the answers on clean data (a negative influence
on their loss). Both are rankings; where the truth is known their precision can be measured.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from whence import _checks
from whence.attribution.labels import point_coordinates
from whence.attribution.method import Method
from whence.attribution.quantities import Loss
from whence.losses import BinaryCrossEntropy, CrossEntropy
from whence.points import evaluated_at_once
from whence.samples import Samples

if TYPE_CHECKING:
    import xarray as xr

By = Literal["self_influence", "validation", "loss"]


def suspects(
    method: Method, by: By | None = None, *, validation: Any = None
) -> xr.Dataset:
    """Return every training sample's suspicion, to be looked at from the highest down.

    Parameters
    ----------
    method:
        Any attribution method of a supervised objective.
    by:
        ``"self_influence"``: the effect of a sample on its own loss (Koh & Liang 2017, section 5.4;
        Pruthi et al. 2020). ``"validation"``: how much removing it would lower the mean loss of the
        validation data. ``"loss"``: its loss, which asks no method: the ranking to beat. By default
        ``"validation"`` where such data are given, else ``"self_influence"``.
    validation:
        Clean data that are not trained on, as ``(inputs, targets)``, a Dataset or a DataLoader.

    Returns
    -------
    xarray.Dataset
        Dimension (point,): ``suspicion``; ``rank``, 0 for the most suspicious; ``loss``; and for
        classifiers ``predicted`` and ``probability``, the model's for the label that is given;
        with coordinates ``label`` and ``index``. Sort by ``rank`` to read it.

    Raises
    ------
    TypeError
        If the objective is not supervised.
    ValueError
        If validation data are missing where they are needed.

    Examples
    --------
    >>> import torch, whence as wh
    >>> from whence.evaluation.bad_data import suspects
    >>> x = torch.linspace(-1, 1, 20).double()[:, None]
    >>> y = (x[:, 0] > 0).long()
    >>> y[0] = 1                                             # one wrong label
    >>> model = torch.nn.Linear(1, 2, dtype=torch.float64)
    >>> with torch.no_grad():
    ...     _ = model.weight.copy_(torch.tensor([[-3.0], [3.0]])); _ = model.bias.zero_()
    >>> objective = wh.Objective.supervised(model, (x, y), wh.CrossEntropy())
    >>> found = suspects(wh.Influence(objective, damping=1e-3))
    >>> int(found.suspicion.values.argmax()), int(found["rank"][0]), int(found.predicted[0])
    (0, 0, 0)
    """
    import xarray as xr  # slow to import

    samples = _samples(method)
    by = by or ("self_influence" if validation is None else "validation")
    _checks.one_of("kind of suspicion", by, ("self_influence", "validation", "loss"))
    if (by == "validation") != (validation is not None):
        wanted = (
            "needs validation=(inputs, targets)" if validation is None else "takes none"
        )
        raise ValueError(f"suspicion by {by!r} {wanted}")
    about = _about(method, samples)
    score = _suspicion(method, by, validation, about["loss"][1])
    order = np.argsort(-score, kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    name = next(iter(method.objective.terms))
    coords = point_coordinates(
        method.objective, {name: samples}, {name: np.arange(len(samples))}
    )
    return xr.Dataset(
        {"suspicion": ("point", score), "rank": ("point", rank), **about},
        coords=coords,
        attrs={"method": "loss" if by == "loss" else method.name, "by": by},
    )


def _samples(method: Method) -> Samples:
    points = next(iter(method.objective.terms.values())).points
    if not isinstance(points, Samples):
        raise TypeError(
            "suspects are samples of supervised data, such as Objective.supervised(model, data, "
            "loss) makes; for a physics-informed network use wh.Influence(...).self_influence()"
        )
    return points


def _suspicion(method: Method, by: By, validation: Any, loss: np.ndarray) -> np.ndarray:
    if by == "loss":
        return loss
    if by == "self_influence":
        found = method.self_influence()
        return np.asarray(found.values)
    loss_there = Loss(validation)
    (points,) = loss_there.prepared(method.objective).values()
    effects = method.attribute_sum(loss_there) / len(points)
    return -np.asarray(effects.values)


def _about(method: Method, samples: Samples) -> dict[str, tuple[str, np.ndarray]]:
    """Return the loss of each sample and, of a classifier, what it says of it."""
    objective = method.objective
    term, tensors = next(iter(objective.terms.values())), objective.parameters.tensors()
    found: dict[str, list[Tensor]] = {}
    for part in samples.split(evaluated_at_once(samples)):
        output = term.residual(tensors, part).detach()
        found.setdefault("loss", []).append(term.value(output, part).detach())
        for name, values in _class_of(term.loss, output, part).items():
            found.setdefault(name, []).append(values)
    return {
        name: ("point", torch.cat(parts).cpu().numpy()) for name, parts in found.items()
    }


def _class_of(loss: Any, output: Tensor, samples: Samples) -> dict[str, Tensor]:
    target = samples.target
    if target is None or target.numel() != len(samples):
        return {}
    if isinstance(loss, CrossEntropy):
        label = target.reshape(-1, 1).long().clamp_min(0)
        probability = output.softmax(dim=1).gather(1, label)[:, 0]
        return {"predicted": output.argmax(dim=1), "probability": probability}
    if isinstance(loss, BinaryCrossEntropy):
        one = output.sigmoid().reshape(-1)
        label = target.reshape(-1).to(one)
        probability = label * one + (1 - label) * (1 - one)
        return {"predicted": (one > 0.5).long(), "probability": probability}
    return {}


def detection(suspicion: Any, corrupted: Any) -> xr.Dataset:
    """Return precision and recall of finding known bad samples by going down a ranking.

    ``average_precision`` is the mean of the precision at each bad sample found, ``Σ_k (R_k −
    R_{k−1}) P_k``, 1 for a perfect ranking and about the share of bad samples for a random one.
    Samples of equal suspicion count together.

    Parameters
    ----------
    suspicion:
        A number for each sample, higher for more suspicious; or what :func:`suspects` returned.
    corrupted:
        Booleans: which samples are bad.

    Returns
    -------
    xarray.Dataset
        Dimension (rank,): ``precision`` and ``recall`` after so many distinct suspicions, and
        ``looked``, how many samples that is; attributes ``average_precision``, ``share`` of bad
        samples, and ``found_in_share``, the recall when as many are looked at as are bad.

    Raises
    ------
    ValueError
        If lengths differ, or none or all samples are bad, or a number is not finite.

    Examples
    --------
    >>> from whence.evaluation.bad_data import detection
    >>> found = detection([0.9, 0.1, 0.8, 0.2], [True, False, False, True])
    >>> found.precision.values.round(3), round(found.attrs["average_precision"], 4)
    (array([1.   , 0.5  , 0.667, 0.5  ]), 0.8333)
    """
    import xarray as xr  # slow to import

    score, bad = _score_and_truth(suspicion, corrupted)
    order = np.argsort(-score, kind="stable")
    last = np.flatnonzero(np.append(np.diff(score[order]) != 0, True))
    hits = np.cumsum(bad[order])[last]
    looked = last + 1
    precision, recall = hits / looked, hits / bad.sum()
    steps = np.diff(recall, prepend=0.0)
    at = np.interp(bad.sum(), looked, hits, left=0.0) / bad.sum()
    return xr.Dataset(
        {
            "precision": ("rank", precision),
            "recall": ("rank", recall),
            "looked": ("rank", looked),
        },
        attrs={
            "average_precision": float((steps * precision).sum()),
            "share": float(bad.mean()),
            "found_in_share": float(at),
        },
    )


def label_report(suspicion: Any, corrupted: Any, label: Any = None) -> xr.Dataset:
    """Return the mean suspicion of bad and of clean samples for each label, with their numbers.

    Parameters
    ----------
    suspicion:
        What :func:`suspects` returned, or a number for each sample.
    corrupted:
        Booleans: which samples are bad.
    label:
        Each sample's label; by default what ``suspicion`` says.

    Returns
    -------
    xarray.Dataset
        Dimension (label,): ``corrupted``, ``clean`` (NaN where there are none) and ``n_corrupted``,
        ``n_clean``; ``.to_dataframe()`` prints as a table.

    Examples
    --------
    >>> from whence.evaluation.bad_data import label_report
    >>> found = label_report([5.0, 1.0, 3.0, 2.0], [True, False, False, False], [0, 0, 1, 1])
    >>> found.corrupted.values, found.clean.values
    (array([ 5., nan]), array([1. , 2.5]))
    """
    import xarray as xr  # slow to import

    if label is None:
        if (
            not isinstance(suspicion, (xr.Dataset, xr.DataArray))
            or "label" not in suspicion.coords
        ):
            raise ValueError(
                "give each sample's label, as suspicion has no coordinate 'label'"
            )
        label = suspicion.coords["label"].values
    score, bad = _score_and_truth(suspicion, corrupted)
    labels, place = np.unique(np.asarray(label), return_inverse=True)
    _same_length("label", place, score)
    found: dict[str, Any] = {}
    for name, chosen in (("corrupted", bad), ("clean", ~bad)):
        count = np.bincount(place[chosen], minlength=len(labels))
        total = np.bincount(place[chosen], weights=score[chosen], minlength=len(labels))
        mean = np.full(len(labels), np.nan)
        np.divide(total, count, out=mean, where=count > 0)
        found[name], found[f"n_{name}"] = ("label", mean), ("label", count)
    return xr.Dataset(found, coords={"label": labels})


def _score_and_truth(suspicion: Any, corrupted: Any) -> tuple[np.ndarray, np.ndarray]:
    given = getattr(suspicion, "suspicion", suspicion)
    score, bad = np.asarray(given, dtype=float), np.asarray(corrupted)
    if score.ndim != 1 or not np.isfinite(score).all():
        raise ValueError(
            f"suspicion must be a finite number for each sample, got shape {score.shape}"
        )
    if bad.dtype.kind != "b":
        raise TypeError(
            f"corrupted must be booleans, one for each sample, got {bad.dtype}"
        )
    _same_length("corrupted", bad, score)
    if not bad.any() or bad.all():
        raise ValueError("to measure detection some samples must be bad and some good")
    return score, bad


def _same_length(what: str, given: np.ndarray, score: np.ndarray) -> None:
    if given.shape != score.shape:
        raise ValueError(
            f"{what} must have one entry for each of {len(score)} samples, got {given.shape}"
        )
