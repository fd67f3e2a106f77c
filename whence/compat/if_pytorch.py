"""The interface of the reference code of EmpiricalIF (Liu et al. 2022, NeurIPS 35), by whence.

``from src.IF import EmpiricalIF`` becomes ``from whence.compat.if_pytorch import EmpiricalIF``.

**Scale and sign**, as those of the reference code, which differ between its methods. With N
training samples, the loss ℓ of a sample, and H the mean of Hessians, ``query_influence`` returns

- ``EmpiricalIF``: ``+mean [ℓ(z_t; θ+δ) − ℓ(z_t; θ)]·[ℓ(z_i; θ+δ) − ℓ(z_i; θ)]`` over the steps
  ``δ = ±0.1 ∇ℓ(z_t)``: N times :class:`whence.EmpiricalInfluence`. Positive: z_i helps.
- ``TracIn``: ``+∇ℓ(z_t)ᵀ∇ℓ(z_i)`` at the model as it is: N times :class:`whence.GradDot`. Positive:
  z_i helps.
- ``BaseInfluenceFunction``: ``−(1/N) ∇ℓ(z_t)ᵀ(H + 0.01·I)⁻¹∇ℓ(z_i)``: minus
  :class:`whence.Influence`. *Negative*: z_i helps.

**Where the reference code is wrong, this is right**: it has one gradient for each *batch* of the
loader, for which its README promises one for each sample, and goes once through the data for the
inverse of the Hessian. Here there is an entry for each sample, and the system is solved. Its
``reverse_check`` steps a hundredth as far as ``query_influence``, so that the two numbers that it
returns have different scales; here both step alike.

Entries are in the order of the loader's data set, also where it shuffles. The model is evaluated
in evaluation mode.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from whence import _checks
from whence.attribution.empirical import EmpiricalInfluence
from whence.attribution.gradients import GradDot
from whence.attribution.influence import Influence
from whence.attribution.method import Method
from whence.attribution.quantities import Loss
from whence.compat.shared import (
    TERM,
    LossFunction,
    in_order,
    matrix_of,
    sample_loss,
    unscaled,
)
from whence.curvature.solvers import Damping
from whence.objective import Objective
from whence.samples import Samples

__all__ = ["BaseInfluenceFunction", "EmpiricalIF", "TracIn"]

ParameterFilter = Callable[[str, nn.Parameter], bool]
Checked = tuple[int, float, float]
"""Place of a training sample, its influence, and the reverse one."""
DAMPING = 0.01
"""λ of the reference code, absolute."""
STEP = 0.1
"""Learning rate of the steps of EmpiricalIF."""


class QueryInfluence:
    """What the methods of the reference code share.

    Parameters
    ----------
    dl_train:
        A loader of inputs and targets.
    model:
        The trained model.
    param_filter_fn:
        Which parameters count, by name and parameter; by default all.
    criterion:
        The loss.

    Raises
    ------
    TypeError
        If the data are no loader.
    """

    def __init__(
        self,
        dl_train: DataLoader[object],
        model: nn.Module,
        param_filter_fn: ParameterFilter | None = None,
        criterion: LossFunction | None = None,
    ) -> None:
        if not isinstance(dl_train, DataLoader):
            raise TypeError(
                f"dl_train must be a DataLoader, got {_checks.describe(dl_train)}"
            )
        self.dl_train = dl_train
        self.model = model
        self.objective = Objective.supervised(
            model,
            in_order("the training data", dl_train),
            sample_loss(criterion or nn.CrossEntropyLoss(reduction="none")),
            parameters=param_filter_fn,
        )
        self.n_train = self.objective.n_points

    # --- what a subclass defines ---

    def method(self, loss: Loss) -> Method:
        """Return the method for this target."""
        raise NotImplementedError

    def factor(self) -> float:
        """Return what its entries without 1/N are multiplied with."""
        return 1.0

    # --- what it is asked for ---

    def query_influence(self, query_input: Tensor, query_target: Tensor) -> Tensor:
        """Return the influence of every training sample on the loss of a query, (N,).

        Parameters
        ----------
        query_input, query_target:
            A batch of one sample; of several it is the sum of their losses.
        """
        query = self._samples(query_input, query_target)
        return self._influence(query, self._training())

    def reverse_check(
        self,
        query_input: Tensor,
        query_target: Tensor,
        influence_values: Sequence[float] | Tensor,
        check_ratio: float = 0.01,
    ) -> tuple[list[Checked], list[Checked]]:
        """Return influences of extreme training samples, and the query's on them.

        Parameters
        ----------
        query_input, query_target:
            As in :meth:`query_influence`.
        influence_values:
            What that returned.
        check_ratio:
            Share of the training samples to check at either end, at least one.

        Returns
        -------
        tuple of two lists
            Of the largest and of the smallest values, from the outermost: place in the data set,
            influence, and the influence if the two samples change their places.
        """
        values = torch.as_tensor(influence_values, dtype=torch.float64)
        if values.shape != (self.n_train,):
            raise ValueError(
                f"influence_values must have an entry for each of {self.n_train} training "
                f"samples, got shape {tuple(values.shape)}"
            )
        if not 0 < _checks.number("check_ratio", check_ratio) <= 1:
            raise ValueError(f"check_ratio must lie in (0, 1], got {check_ratio}")

        query = self._samples(query_input, query_target)
        n = max(1, int(self.n_train * check_ratio))
        order = values.argsort(descending=True).tolist()
        largest = [self._checked(place, values, query) for place in order[:n]]
        smallest = order[::-1][:n]
        return largest, [self._checked(place, values, query) for place in smallest]

    # --- parts ---

    def _training(self) -> Samples:
        points = self.objective.terms[TERM].points
        assert isinstance(points, Samples)
        return points

    def _samples(self, inputs: Tensor, targets: Tensor) -> Samples:
        samples = self.objective.prepare("the query", (inputs, targets), TERM)
        assert isinstance(samples, Samples)
        return samples

    def _influence(self, query: Samples, points: Samples) -> Tensor:
        """Return the influence of points on the sum of the losses of a query."""
        loss = Loss({TERM: query}, reduce="sum")
        tiles = self.method(loss).tiles(loss, unscaled(self.objective, points))
        like = self.objective.parameters.vector()
        return self.factor() * matrix_of(tiles, (1, len(points)), like)[0]

    def _checked(self, place: int, values: Tensor, query: Samples) -> Checked:
        sample = self._training()[place : place + 1].without_kept()
        reverse = self._influence(sample, query)
        return place, float(values[place]), float(reverse.sum())


class BaseInfluenceFunction(QueryInfluence):
    """Influence functions (Koh & Liang 2017), of negative sign where a sample helps.

    Parameters
    ----------
    dl_train, model, param_filter_fn, criterion:
        As in :class:`QueryInfluence`.
    """

    def __init__(
        self,
        dl_train: DataLoader[object],
        model: nn.Module,
        param_filter_fn: ParameterFilter | None = None,
        criterion: LossFunction | None = None,
    ) -> None:
        super().__init__(dl_train, model, param_filter_fn, criterion)
        self._method = Influence(
            self.objective,
            damping=Damping(DAMPING, relative=False),
            curvature="hessian",
        )

    def method(self, loss: Loss) -> Method:
        """Return influence functions."""
        return self._method

    def factor(self) -> float:
        """Return −1/N."""
        return -1 / self.n_train


class TracIn(QueryInfluence):
    """Products of gradients at the model as it is.

    Parameters
    ----------
    dl_train, model, param_filter_fn, criterion:
        As in :class:`QueryInfluence`.
    """

    def method(self, loss: Loss) -> Method:
        """Return products of gradients."""
        return GradDot(self.objective)


class EmpiricalIF(QueryInfluence):
    """Changes of losses, multiplied, in steps down and up the gradient of the query.

    Parameters
    ----------
    dl_train, model, param_filter_fn, criterion:
        As in :class:`QueryInfluence`.

    Examples
    --------
    The script is the reference's, but for where the name comes from:

    >>> import torch
    >>> from torch.utils.data import DataLoader, TensorDataset
    >>> from whence.compat.if_pytorch import EmpiricalIF
    >>> model, x, y = torch.nn.Linear(2, 2), torch.rand(5, 2), torch.tensor([0, 1, 1, 0, 1])
    >>> IF = EmpiricalIF(dl_train=DataLoader(TensorDataset(x, y), 2), model=model,
    ...     param_filter_fn=lambda name, param: "weight" in name,
    ...     criterion=torch.nn.CrossEntropyLoss(reduction="none"))
    >>> IF_scores = IF.query_influence(x[:1], y[:1])
    >>> most_inf, least_inf = IF.reverse_check(x[:1], y[:1], IF_scores, check_ratio=0.2)
    >>> len(IF_scores), len(most_inf), most_inf[0][0] == int(IF_scores.argmax())
    (5, 1, True)
    """

    def method(self, loss: Loss) -> Method:
        """Return the method with steps of a tenth of the gradient of the query."""
        return EmpiricalInfluence(self.objective, learning_rate=STEP)
