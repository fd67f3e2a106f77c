"""A trained supervised model that is asked again and again: where its test losses come from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from whence import _checks
from whence.attribution.influence import Influence
from whence.attribution.quantities import Loss
from whence.classification import BinaryCrossEntropy, CrossEntropy
from whence.evaluation.bad_data import By, losses_and_classes, suspects
from whence.explore.point_gradients import PointGradients
from whence.explore.sample_groups import Groups
from whence.objective import PointsLike
from whence.samples import Samples

if TYPE_CHECKING:
    import xarray as xr

    from whence.attribution.result import Attribution

Array = np.ndarray
Reduce = Literal["mean", "sum"]
TargetKind = Literal["label", "value", "none"]

MAX_CLASSES = 30
"""Classes of a matrix of classes: more are those of the most test samples."""


class SampleSession:
    """Influence of every training sample on the losses of test samples, one question at a time.

    The curvature is factored at the first question, and the gradients of all training samples are
    kept where memory allows it; the model has to stay as it is meanwhile. Numbers are those of
    ``Influence.attribute(wh.Loss(test))``: the predicted change of a test sample's loss when a
    training sample is removed, so that helpful samples are positive and harmful ones negative.

    Parameters
    ----------
    influence:
        How to attribute, of a supervised objective.
    test:
        What is explained: ``(inputs, targets)``, a Dataset or a DataLoader.
    classes:
        Names of the classes, in the order of their numbers.
    features:
        Names of the columns, where inputs are rows.

    Raises
    ------
    TypeError
        If the objective is not supervised.

    Examples
    --------
    >>> import torch, whence as wh
    >>> from whence.explore import SampleSession
    >>> x = torch.linspace(-1, 1, 20).double()[:, None]
    >>> y = (x[:, 0] > 0).long()
    >>> model = torch.nn.Linear(1, 2, dtype=torch.float64)
    >>> with torch.no_grad():
    ...     _ = model.weight.copy_(torch.tensor([[-3.0], [3.0]])); _ = model.bias.zero_()
    >>> influence = wh.Influence(model, (x, y), wh.CrossEntropy(), damping=1e-3)
    >>> session = SampleSession(influence, (x[::4], y[::4]), classes=["left", "right"])
    >>> session.influence_at(2).sizes["point"], session.target_kind
    (20, 'label')
    >>> session.by_class().dims, session.by_class().test_label.values.tolist()
    (('test_label', 'training_label'), ['left', 'right'])
    """

    def __init__(
        self,
        influence: Influence,
        test: PointsLike,
        *,
        classes: Sequence[str] | None = None,
        features: Sequence[str] | None = None,
    ) -> None:
        objective = influence.objective
        name, *_ = objective.terms
        samples = objective.terms[name].points
        if not isinstance(samples, Samples):
            raise TypeError(
                "test samples are explained by a supervised objective, such as "
                "Objective.supervised(model, data, loss) makes; of a physics-informed network's "
                "run make whence.explore.Session(result)"
            )
        self.influence = influence
        self.training = samples
        prepared = objective.prepare("the test data", test, name)
        assert isinstance(prepared, Samples)
        self.test = prepared
        self.gradients = PointGradients(influence)
        self.features = None if features is None else [str(name) for name in features]

        self.test_outcomes = self._outcomes(self.test)
        self.training_outcomes = self._outcomes(self.training)
        self.groups = self._groups(classes)
        self._suspects: dict[By, xr.Dataset] = {}

    # --- what the data are ---

    @property
    def is_classifier(self) -> bool:
        """Whether the loss is that of a classifier, so that there are predicted classes."""
        (term, *_) = self.influence.objective.terms.values()
        return isinstance(term.loss, (CrossEntropy, BinaryCrossEntropy))

    @property
    def target_kind(self) -> TargetKind:
        """What targets are: labels of classes, values of a regression, or not one number each."""
        labels = self.training.labels()
        if labels is None:
            return "none"
        is_real = labels.dtype.kind == "f"
        if not is_real:
            return "label"
        # A binary cross-entropy has its classes as 0.0 and 1.0, or probabilities.
        is_whole = bool((labels == np.round(labels)).all())
        return "label" if self.is_classifier and is_whole else "value"

    def training_groups(self) -> Array:
        """Return the number of each training sample's class or range, (n,)."""
        return self._places(self.training)

    def test_groups(self) -> Array:
        """Return the number of each test sample's class or range, (t,)."""
        return self._places(self.test)

    def _places(self, samples: Samples) -> Array:
        labels = samples.labels()
        return self.groups.places(np.zeros(len(samples)) if labels is None else labels)

    def _groups(self, names: Sequence[str] | None) -> Groups:
        """Return the classes, or ranges of values, of all samples."""
        labels, of_tests = self.training.labels(), self.test.labels()
        if labels is None or of_tests is None:
            return Groups.of_nothing()
        if self.target_kind == "value":
            return Groups.of_values(labels)

        # What a model predicts need not be among the labels of any sample.
        outcomes = (self.training_outcomes, self.test_outcomes)
        predicted = [known["predicted"] for known in outcomes if "predicted" in known]
        present = np.concatenate([labels, of_tests, *predicted])
        (term, *_) = self.influence.objective.terms.values()
        if isinstance(term.loss, CrossEntropy):
            # What the loss ignores is of no class.
            present = present[present != term.loss.ignore_index]
        return Groups.of_classes(present, names)

    def _outcomes(self, samples: Samples) -> dict[str, Array]:
        """Return losses, and what is predicted where that is one class or one number."""
        objective = self.influence.objective
        known = losses_and_classes(objective, samples)
        if self.is_classifier or self.target_kind != "value":
            return known

        (term, *_) = objective.terms.values()
        tensors = objective.parameters.tensors()
        parts = []
        for part in samples.split(samples.batch_size):
            with torch.no_grad():
                parts.append(term.residual(tensors, part))
        output = torch.cat(parts)  # (n, m)
        if output.shape[1] == 1:
            known["predicted"] = output[:, 0].double().cpu().numpy()
        return known

    # --- what is asked ---

    def influence_at(self, i: int) -> Attribution:
        """Return the influence of every training sample on the loss of one test sample.

        Parameters
        ----------
        i:
            Its number in the test data.

        Returns
        -------
        Attribution
            Dimension (point,): row ``i`` of ``influence.attribute(wh.Loss(test))``.

        Raises
        ------
        ValueError
            If there is no test sample of this number.
        """
        quantity = self.loss_at(i)
        values, solved = self.gradients.influences(quantity)
        table = self.influence.labelled(
            values.cpu().numpy(),
            quantity,
            self.influence.prepare_points(None),
            "remove",
            solved,
        )
        # Its number in the test data rather than among the one sample that was explained.
        return table.isel(target=0).assign_coords(target_index=i)

    def loss_at(self, i: int) -> Loss:
        """Return the loss of one test sample, as a quantity to explain."""
        n = len(self.test)
        _checks.count("the number of a test sample", i, zero=True)
        if i >= n:
            raise ValueError(f"test samples are numbered 0 … {n - 1}, got {i}")
        return Loss(self.test[i : i + 1])

    def suspects(self, by: By = "self_influence") -> xr.Dataset:
        """Return how suspicious every training sample is, kept after the first question.

        Parameters
        ----------
        by:
            See :func:`whence.evaluation.bad_data.suspects`, which says what is returned;
            ``"validation"`` takes the test data for clean.
        """
        if by not in self._suspects:
            validation = self.test if by == "validation" else None
            ranked = suspects(self.influence, by, validation=validation)
            self._suspects[by] = ranked
        return self._suspects[by]

    def shown_groups(self) -> Array:
        """Return the numbers of the groups that a matrix of them has, in order.

        They are those of any samples, or where these are too many those of the most test samples.
        """
        n = len(self.groups)
        if n <= MAX_CLASSES:
            return np.arange(n)
        places = self.test_groups()
        counts = np.bincount(places[places >= 0], minlength=n)
        return np.sort(np.argsort(-counts, kind="stable")[:MAX_CLASSES])

    def by_class(self, reduce: Reduce = "mean") -> xr.DataArray:
        """Return what the training samples of each class do to the mean test loss of each class.

        Parameters
        ----------
        reduce:
            ``"mean"`` over the training samples of a class: what removing one of them does on
            average. ``"sum"``: to first order, what removing all of them does.

        Returns
        -------
        xarray.DataArray
            Dimensions (test_label, training_label), with the names of classes or of ranges of
            values; NaN where there are no samples.

        Raises
        ------
        ValueError
            If the reduction is none of the two.
        """
        import xarray as xr  # slow to import

        _checks.one_of("reduction", reduce, ("mean", "sum"))
        shown = self.shown_groups()
        n = len(self.groups)
        of_training, of_tests = self.training_groups(), self.test_groups()
        has_group = of_training >= 0
        counts = np.bincount(of_training[has_group], minlength=n)

        table = np.full((len(shown), n), np.nan)
        for row, group in enumerate(shown):
            members = np.flatnonzero(of_tests == group)
            if not len(members):
                continue
            # The mean loss of a class is one target: one solve, however many samples it has.
            mean = Loss(self.test[torch.from_numpy(members)], reduce="mean")
            values, _ = self.gradients.influences(mean)
            weights = values[0].double().cpu().numpy()[has_group]
            table[row] = np.bincount(
                of_training[has_group], weights=weights, minlength=n
            )

        table[:, counts == 0] = np.nan
        if reduce == "mean":
            table = table / np.where(counts == 0, 1, counts)
        names = [self.groups.names[group] for group in shown]
        return xr.DataArray(
            table[:, shown],
            coords={"test_label": names, "training_label": names},
            dims=("test_label", "training_label"),
            name="influence",
        )

    def confusion(self) -> xr.DataArray:
        """Return how many test samples of each class are predicted to be of each.

        Returns
        -------
        xarray.DataArray
            Dimensions (label, predicted), with the names of classes.

        Raises
        ------
        ValueError
            If the model is no classifier of one class for each sample.
        """
        import xarray as xr  # slow to import

        if not self.is_classifier or "predicted" not in self.test_outcomes:
            raise ValueError(
                "a confusion matrix needs a classifier of one class for each sample"
            )
        shown = self.shown_groups()
        n = len(self.groups)
        of_labels = self.test_groups()
        of_predictions = self.groups.places(self.test_outcomes["predicted"])

        # One number for each pair of classes; a label that is ignored is of no class.
        is_counted = of_labels >= 0
        pairs = of_labels[is_counted] * n + of_predictions[is_counted]
        counts = np.bincount(pairs, minlength=n * n).reshape(n, n)
        names = [self.groups.names[group] for group in shown]
        return xr.DataArray(
            counts[np.ix_(shown, shown)],
            coords={"label": names, "predicted": names},
            dims=("label", "predicted"),
            name="test samples",
        )
