"""Finding bad data: training samples ranked by suspicion, and how well that ranking does.

A sample with a wrong label stands against the samples it resembles: its own fit hangs on it alone
(a large influence on its own loss), and it spoils the answers on clean data (a negative influence
on their loss). Both are rankings; where the truth is known their precision can be measured.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Union

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from whence import _checks
from whence.attribution.labels import point_coordinates
from whence.attribution.method import Method
from whence.attribution.quality import quality
from whence.attribution.quantities import Loss
from whence.classification import BinaryCrossEntropy, CrossEntropy
from whence.evaluation.ranks import average_precision, precision_and_recall
from whence.objective import Objective, PointsLike
from whence.points import evaluated_at_once
from whence.samples import Samples

if TYPE_CHECKING:
    import xarray as xr

Array = np.ndarray[Any, np.dtype[Any]]
By = Literal["self_influence", "validation", "loss"]
Suspicion = Union[ArrayLike, "xr.Dataset", "xr.DataArray"]
"""A number for each sample, or what :func:`suspects` returned."""


def suspects(
    method: Method, by: By | None = None, *, validation: PointsLike | None = None
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
        with coordinates ``label`` and ``index``. Attribute ``quality`` says how far the attribution
        can be trusted. Sort by ``rank`` to read it.

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
    >>> report = suspects(wh.Influence(objective, damping=1e-3))
    >>> int(report.suspicion.values.argmax()), int(report["rank"][0]), int(report.predicted[0])
    (0, 0, 0)
    """
    import xarray as xr  # slow to import

    samples = _samples(method)
    by = by or ("self_influence" if validation is None else "validation")
    _check_kind(by, validation)

    known = losses_and_classes(method.objective, samples)
    suspicion, quality_text = _suspicion(method, by, validation, known["loss"])
    # Each sample's place in the order from the most suspicious down.
    order = np.argsort(-suspicion, kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))

    variables = {"suspicion": suspicion, "rank": rank, **known}
    name = next(iter(method.objective.terms))
    coordinates = point_coordinates(
        method.objective, {name: samples}, {name: np.arange(len(samples))}
    )
    return xr.Dataset(
        {name: ("point", values) for name, values in variables.items()},
        coords=coordinates,
        attrs={
            "method": "loss" if by == "loss" else method.name,
            "by": by,
            **quality_text,
        },
    )


def _check_kind(by: By, validation: object) -> None:
    _checks.one_of("kind of suspicion", by, ("self_influence", "validation", "loss"))
    if by == "validation" and validation is None:
        raise ValueError(f"suspicion by {by!r} needs validation=(inputs, targets)")
    if by != "validation" and validation is not None:
        raise ValueError(f"suspicion by {by!r} takes none")


def _samples(method: Method) -> Samples:
    term = next(iter(method.objective.terms.values()))
    if not isinstance(term.points, Samples):
        raise TypeError(
            "suspects are samples of supervised data, such as Objective.supervised(model, data, "
            "loss) makes; for a physics-informed network use wh.Influence(...).self_influence()"
        )
    return term.points


def _suspicion(
    method: Method, by: By, validation: PointsLike | None, losses: Array
) -> tuple[Array, dict[str, str]]:
    """Return a number for each sample, higher for more suspicious, and what is known of it."""
    if by == "loss":
        return losses, {}
    if by == "self_influence":
        attribution = method.self_influence()
        return np.asarray(attribution.values), {"quality": str(quality(attribution))}

    # Removing a bad sample lowers the mean loss of clean data: the effect is negative.
    validation_loss = Loss(validation)
    (points,) = validation_loss.prepared(method.objective).values()
    summed = method.attribute_sum(validation_loss)
    effects = summed / len(points)
    of_sum = {"quality": str(quality(summed))}
    return -np.asarray(effects.values), of_sum


def losses_and_classes(objective: Objective, samples: Samples) -> dict[str, Array]:
    """Return the loss of each sample and, of a classifier, what it predicts and how surely.

    Parameters
    ----------
    objective:
        Of a supervised model.
    samples:
        Of whatever data, as :meth:`whence.Objective.prepare` returns them.

    Returns
    -------
    dict
        ``loss`` (n,), and where a label is one class ``predicted`` (n,) and ``probability`` (n,),
        the model's for the label of the sample.

    Examples
    --------
    >>> import torch, whence as wh
    >>> from whence.evaluation.bad_data import losses_and_classes
    >>> data = torch.tensor([[-1.0], [1.0]]), torch.tensor([0, 1])
    >>> model = torch.nn.Linear(1, 2)
    >>> with torch.no_grad():
    ...     _ = model.weight.copy_(torch.tensor([[-2.0], [2.0]])); _ = model.bias.zero_()
    >>> objective = wh.Objective.supervised(model, data, wh.CrossEntropy())
    >>> known = losses_and_classes(objective, objective.term("data").points)
    >>> known["predicted"], known["probability"].round(3)
    (array([0, 1]), array([0.982, 0.982], dtype=float32))
    """
    term = next(iter(objective.terms.values()))
    tensors = objective.parameters.tensors()
    parts: dict[str, list[Tensor]] = {"loss": []}
    for part in samples.split(evaluated_at_once(samples)):
        output = term.residual(tensors, part).detach()
        parts["loss"].append(term.value(output, part).detach())
        for name, values in _predictions(term.loss, output, part).items():
            parts.setdefault(name, []).append(values)

    return {name: torch.cat(tables).cpu().numpy() for name, tables in parts.items()}


def _predictions(loss: object, output: Tensor, samples: Samples) -> dict[str, Tensor]:
    """Return a classifier's class for each sample, and the probability of the label it has."""
    target = samples.target
    # Only where a label is one number there is a probability of it.
    if target is None or target.numel() != len(samples):
        return {}

    if isinstance(loss, CrossEntropy):
        # Samples that the loss ignores have a negative label, which is no class.
        label = target.reshape(-1, 1).long().clamp_min(0)
        probability = output.softmax(dim=1).gather(1, label)[:, 0]
        return {"predicted": output.argmax(dim=1), "probability": probability}

    if isinstance(loss, BinaryCrossEntropy):
        positive = output.sigmoid().reshape(-1)
        label = target.reshape(-1).to(positive)
        probability = label * positive + (1 - label) * (1 - positive)
        return {"predicted": (positive > 0.5).long(), "probability": probability}
    return {}


def detection(suspicion: Suspicion, corrupted: ArrayLike) -> xr.Dataset:
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
    >>> report = detection([0.9, 0.1, 0.8, 0.2], [True, False, False, True])
    >>> report.precision.values.round(3), round(report.attrs["average_precision"], 4)
    (array([1.   , 0.5  , 0.667, 0.5  ]), 0.8333)
    """
    import xarray as xr  # slow to import

    score, bad = _score_and_truth(suspicion, corrupted)
    looked, precision, recall = precision_and_recall(score, bad)
    recall_in_share = np.interp(bad.sum(), looked, recall, left=0.0)
    return xr.Dataset(
        {
            "precision": ("rank", precision),
            "recall": ("rank", recall),
            "looked": ("rank", looked),
        },
        attrs={
            "average_precision": average_precision(precision, recall),
            "share": float(bad.mean()),
            "found_in_share": float(recall_in_share),
        },
    )


def label_report(
    suspicion: Suspicion, corrupted: ArrayLike, label: ArrayLike | None = None
) -> xr.Dataset:
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
    >>> report = label_report([5.0, 1.0, 3.0, 2.0], [True, False, False, False], [0, 0, 1, 1])
    >>> report.corrupted.values, report.clean.values
    (array([ 5., nan]), array([1. , 2.5]))
    """
    import xarray as xr  # slow to import

    if label is None:
        coordinates = getattr(suspicion, "coords", {})
        if "label" not in coordinates:
            raise ValueError(
                "give each sample's label, as suspicion has no coordinate 'label'"
            )
        label = coordinates["label"].values

    score, bad = _score_and_truth(suspicion, corrupted)
    labels, label_of = np.unique(np.asarray(label), return_inverse=True)
    _check_length("label", label_of, score)

    variables = {}
    for name, chosen in (("corrupted", bad), ("clean", ~bad)):
        places = label_of[chosen]
        counts = np.bincount(places, minlength=len(labels))
        totals = np.bincount(places, weights=score[chosen], minlength=len(labels))
        means = np.full(len(labels), np.nan)
        np.divide(totals, counts, out=means, where=counts > 0)
        variables[name] = ("label", means)
        variables[f"n_{name}"] = ("label", counts)
    return xr.Dataset(variables, coords={"label": labels})


def _score_and_truth(suspicion: Suspicion, corrupted: ArrayLike) -> tuple[Array, Array]:
    """Return a number for each sample, and which of them are bad."""
    # A dataset of suspects has the numbers in a variable.
    score = np.asarray(getattr(suspicion, "suspicion", suspicion), dtype=float)
    bad = np.asarray(corrupted)
    if score.ndim != 1:
        raise ValueError(
            f"suspicion must be a finite number for each sample, got shape {score.shape}"
        )
    _checks.finite("suspicion", score)
    if bad.dtype.kind != "b":
        raise TypeError(
            f"corrupted must be booleans, one for each sample, got {bad.dtype}"
        )
    _check_length("corrupted", bad, score)
    if not bad.any() or bad.all():
        raise ValueError("to measure detection some samples must be bad and some good")
    return score, bad


def _check_length(what: str, values: Array, score: Array) -> None:
    if values.shape != score.shape:
        raise ValueError(
            f"{what} must have one entry for each of {len(score)} samples, got {values.shape}"
        )
