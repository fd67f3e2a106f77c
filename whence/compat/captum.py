"""captum's influence methods by whence: change the import line and nothing else.

``from captum.influence import TracInCP, TracInCPFast`` becomes ``from whence.compat.captum import
TracInCP, TracInCPFast``. captum itself is not needed.

**Scale and sign**, as captum's. Entry (test example t, training example i) of ``TracInCP`` is

    ``+Σ_c η_c ∇ℓ(z_t; θ_c)ᵀ ∇ℓ(z_i; θ_c)``

over the checkpoints c with what ``checkpoints_load_func`` returns for η: N times an entry of
:class:`whence.TracIn`, whose sign it has. Positive, a *proponent*: a step on z_i lowers the loss at
z_t. ``ArnoldiInfluenceFunction`` has

    ``+∇ℓ(z_t)ᵀ (H_Σ + ρI)⁻¹ ∇ℓ(z_i)``,   H_Σ = Σ ∇²ℓ over the M examples of ``hessian_dataset``,

with ``hessian_reg`` for ρ: just an entry of :class:`whence.Influence` with the absolute damping
ρ/M. ℓ is the loss of an example, whatever the reduction of ``loss_fn``.

**Where captum is wrong, this is right** (captum 0.9):

- ``TracInCPFast`` leaves out the bias of the last layer there, though it promises what back-
  propagation gives; here it is among the parameters. Where it requires no gradient it is not, as
  in captum.
- A ``train_dataset`` that shuffles gives indices that mean nothing there, and is an error here.
- ``compute_intermediate_quantities`` carries η there, so that products of two carry η²; here √η.
- The model is left at the last checkpoint there. Here it is put back, and evaluated in evaluation
  mode, whatever mode it is in.

``ArnoldiInfluenceFunction``, which captum 0.9 has and no longer exports, finds eigenvalues to all
digits here, whatever the dimension of the Krylov space. ``sample_wise_grads_per_batch``,
``vectorize``, ``batch_size``, ``outer_loop_by_checkpoints`` and ``show_progress`` are taken, and of
no effect: gradients of single examples come in blocks, and what takes over two seconds shows how
far it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from whence import _checks
from whence.attribution.influence import Influence
from whence.attribution.method import Method
from whence.attribution.quantities import Loss, Quantity
from whence.attribution.quantities.total import Total
from whence.compat.loaded_checkpoints import (
    LoadedTracIn,
    LoadFunction,
    checkpoint_list,
    learning_rate,
    load_state,
)
from whence.compat.positive_eigenvalues import PositiveEigenvalues
from whence.compat.shared import (
    TERM,
    LossFunction,
    matrix_of,
    sample_loss,
    unscaled,
)
from whence.curvature.solvers import Damping
from whence.objective import Objective
from whence.parameters import Select
from whence.samples import Samples

__all__ = [
    "ArnoldiInfluenceFunction",
    "KMostInfluentialResults",
    "TracInCP",
    "TracInCPFast",
]

Inputs = tuple[Tensor, ...] | DataLoader[object]
"""A batch whose last tensor is that of labels, or a loader of such."""
TrainingData = Dataset[object] | DataLoader[object]
"""What the model was trained on, in an order that stays."""


class KMostInfluentialResults(NamedTuple):
    """The training examples of largest (or smallest) influence on each test example, (T, k)."""

    indices: Tensor
    influence_scores: Tensor


class DataInfluence:
    """What the methods of captum share, here around a :class:`whence.attribution.method.Method`.

    Parameters
    ----------
    objective:
        The model with its training data and loss.
    test_loss_fn:
        The loss of test examples, where it is another one.
    """

    def __init__(
        self, objective: Objective, test_loss_fn: LossFunction | None = None
    ) -> None:
        self.objective = objective
        self.test_loss_fn = test_loss_fn
        self.method: Method

    @classmethod
    def get_name(cls) -> str:
        """Return the name of the class."""
        return cls.__name__

    def influence(
        self,
        inputs: Inputs,
        k: int | None = None,
        proponents: bool = True,
        show_progress: bool = False,
        aggregate: bool = False,
    ) -> Tensor | KMostInfluentialResults:
        """Return influences of all training examples, or the most influential of them.

        Parameters
        ----------
        inputs:
            T test examples: a tuple whose last tensor is that of the labels, or a loader of such.
        k:
            How many training examples to return for each test example; ``None`` returns the
            influences of all.
        proponents:
            Whether to return the largest influences, or the smallest.
        aggregate:
            Whether to return the influences on the sum over test examples, as if there were one.

        Returns
        -------
        Tensor or KMostInfluentialResults
            Influences (T, N); or indices and influences (T, k), the most influential first.
        """
        quantity = self._quantity(inputs)
        if aggregate:
            quantity = Total(quantity)
        scores = self._scores(quantity)
        if k is None:
            return scores

        _checks.count("k", k)
        top = scores.topk(min(k, scores.shape[1]), dim=1, largest=proponents)
        return KMostInfluentialResults(top.indices, top.values)

    def self_influence(
        self,
        inputs: Inputs | None = None,
        show_progress: bool = False,
        outer_loop_by_checkpoints: bool = False,
    ) -> Tensor:
        """Return the influence of each example on its own loss, (n,).

        Parameters
        ----------
        inputs:
            The examples, by default those of training.
        """
        samples = self.training if inputs is None else self._samples(inputs)
        parts = []
        for values, _ in self.method.self_values(unscaled(self.objective, samples)):
            parts.append(values)
        return torch.cat(parts).detach()

    # --- what they are made of ---

    @property
    def training(self) -> Samples:
        """The training examples."""
        points = self.objective.terms[TERM].points
        assert isinstance(points, Samples)
        if self.method.objective is not self.objective:
            # What frozen layers give is kept for the objective that they were made for.
            return points.without_kept()
        return points

    def _samples(self, inputs: Inputs) -> Samples:
        """Return examples as the objective needs them."""
        if isinstance(inputs, list):
            inputs = tuple(inputs)
        samples = self.objective.prepare("the inputs", inputs, TERM)
        assert isinstance(samples, Samples)
        return samples

    def _quantity(self, inputs: Inputs) -> Quantity:
        samples = self._samples(inputs)
        if self.test_loss_fn is None:
            return Loss(samples)
        names = set(self.objective.parameters.names)
        elsewhere = Objective.supervised(
            self.objective.network,
            samples,
            sample_loss(self.test_loss_fn),
            parameters=lambda name, _: name in names,
        )
        return LossOf(elsewhere)

    def _scores(self, quantity: Quantity) -> Tensor:
        points = unscaled(self.objective, self.training)
        shape = (self.method.n_targets(quantity), len(points))
        self.method.check_size(*shape)
        tiles = self.method.tiles(quantity, points)
        with_progress = self.method.with_progress(tiles, shape)
        return matrix_of(with_progress, shape, self.objective.parameters.vector())


class LossOf:
    """The losses of the samples of another objective of the same network and parameters.

    Parameters
    ----------
    objective:
        The other one.
    """

    def __init__(self, objective: Objective) -> None:
        self.objective = objective
        self._loss = Loss()

    def label(self) -> str:
        """Return the name of the targets."""
        return "another loss"

    def values(self, objective: Objective) -> Tensor:
        """Return the losses, (T,)."""
        return self._loss.values(self.objective)

    def gradients(self, objective: Objective) -> Iterator[Tensor]:
        """Yield their gradients in blocks, (block, P)."""
        return self._loss.gradients(self.objective)

    def targets(self, objective: Objective) -> dict[str, np.ndarray]:
        """Return what is known of the samples."""
        return self._loss.targets(self.objective)


def example_objective(
    model: nn.Module,
    data: TrainingData,
    loss_fn: LossFunction | None,
    parameters: Select = None,
) -> Objective:
    """Return the objective of a model, data and the loss of a batch or of examples.

    Raises
    ------
    ValueError
        If there is no loss.
    """
    if loss_fn is None:
        raise ValueError(
            "loss_fn is needed, such as torch.nn.CrossEntropyLoss(reduction='sum'): influences "
            "are those of training with it"
        )
    loss = sample_loss(loss_fn)
    return Objective.supervised(model, data, loss, parameters=parameters)


def of_layers(model: nn.Module, layers: Sequence[str] | None) -> Select:
    """Return which parameters the modules of these names have; ``None`` is all.

    Raises
    ------
    ValueError
        If there is no module of a name.
    """
    if layers is None:
        return None
    modules = dict(model.named_modules())
    chosen = set()
    for layer in layers:
        _checks.one_of("layer", layer, tuple(name for name in modules if name))
        for parameter in modules[layer].parameters():
            # As captum does: a layer that is named is meant, frozen or not.
            parameter.requires_grad_(True)
            chosen.add(parameter)
    return lambda _, parameter: parameter in chosen


# --- the methods ---------------------------------------------------------------------------------


class TracInCP(DataInfluence):
    """Products of gradients summed over checkpoints, :class:`whence.TracIn` without 1/N.

    Parameters
    ----------
    model:
        The model.
    train_dataset:
        What it was trained on: a ``Dataset``, or a ``DataLoader`` that does not shuffle. The last
        of each item is the label.
    checkpoints:
        A folder, paths (sorted by the numbers in their names), or any objects that
        ``checkpoints_load_func`` takes.
    checkpoints_load_func:
        Puts a checkpoint into the model and returns its learning rate; by default
        :func:`whence.compat.loaded_checkpoints.load_state`.
    layers:
        Names of the modules whose parameters count, by default all.
    loss_fn:
        The loss, a module or a function, reduced by sum or mean or not.
    test_loss_fn:
        That of test examples, where it is another one.
    batch_size, sample_wise_grads_per_batch:
        Taken, and of no effect.

    Examples
    --------
    The script is captum's, but for where the name comes from:

    >>> import torch
    >>> from torch.utils.data import TensorDataset
    >>> from whence.compat.captum import TracInCP
    >>> model = torch.nn.Linear(1, 1, bias=False)
    >>> x, y = torch.tensor([[1.0], [2.0]]), torch.tensor([[1.0], [2.0]])
    >>> def load(model, weight):
    ...     model.load_state_dict({"weight": torch.tensor([[weight]])})
    ...     return 0.1
    >>> loss = torch.nn.MSELoss(reduction="none")
    >>> tracin = TracInCP(model, TensorDataset(x, y), [0.0, 0.5], load, loss_fn=loss)
    >>> tracin.influence((x, y))                  # gradients −2, −8 and then −1, −4
    tensor([[0.5000, 2.0000],
            [2.0000, 8.0000]])
    >>> tracin.influence((x, y), k=1).indices.tolist()
    [[1], [1]]
    """

    def __init__(
        self,
        model: nn.Module,
        train_dataset: TrainingData,
        checkpoints: str | Iterable[str],
        checkpoints_load_func: LoadFunction = load_state,
        layers: Sequence[str] | None = None,
        loss_fn: LossFunction | None = None,
        batch_size: int | None = 1,
        test_loss_fn: LossFunction | None = None,
        sample_wise_grads_per_batch: bool = False,
    ) -> None:
        select = of_layers(model, layers)
        objective = example_objective(model, train_dataset, loss_fn, select)
        super().__init__(objective, test_loss_fn)
        self.checkpoints = checkpoint_list(checkpoints)
        self.method = LoadedTracIn(objective, self.checkpoints, checkpoints_load_func)

    def compute_intermediate_quantities(
        self, inputs: Inputs, aggregate: bool = False
    ) -> Tensor:
        """Return vectors whose products are influences: √η ∇ℓ of each checkpoint, (n, C·P).

        Parameters
        ----------
        inputs:
            The examples.
        aggregate:
            Whether to return their sum, (1, C·P).
        """
        loss: Quantity = Loss(self._samples(inputs))
        if aggregate:
            loss = Total(loss)
        parts = []
        for stage in self.method.stages():
            with stage.at():
                gradients = torch.cat(list(loss.gradients(self.objective)))
            parts.append(stage.factor**0.5 * gradients)
        return torch.cat(parts, dim=1).detach()


class TracInCPFast(TracInCP):
    """:class:`TracInCP` of the parameters of the last layer, weight and bias.

    Parameters
    ----------
    model, train_dataset, checkpoints, checkpoints_load_func, loss_fn, batch_size, test_loss_fn:
        As in :class:`TracInCP`.
    final_fc_layer:
        The last layer, or its name.
    vectorize:
        Taken, and of no effect.
    """

    def __init__(
        self,
        model: nn.Module,
        final_fc_layer: nn.Module | str,
        train_dataset: TrainingData,
        checkpoints: str | Iterable[str],
        checkpoints_load_func: LoadFunction = load_state,
        loss_fn: LossFunction | None = None,
        batch_size: int | None = 1,
        test_loss_fn: LossFunction | None = None,
        vectorize: bool = False,
    ) -> None:
        select: Select = final_fc_layer
        if isinstance(final_fc_layer, str):
            modules = dict(model.named_modules())
            names = tuple(name for name in modules if name)
            _checks.one_of("final_fc_layer", final_fc_layer, names)
            select = modules[final_fc_layer]
        objective = example_objective(model, train_dataset, loss_fn, select)
        DataInfluence.__init__(self, objective, test_loss_fn)
        self.checkpoints = checkpoint_list(checkpoints)
        self.method = LoadedTracIn(objective, self.checkpoints, checkpoints_load_func)


class ArnoldiInfluenceFunction(DataInfluence):
    """Influence functions by the largest eigenvalues of the Hessian (Schioppa et al. 2022).

    As in captum directions outside them are dropped, those of negative curvature among them.

    Parameters
    ----------
    model, train_dataset, checkpoints_load_func, layers, loss_fn, batch_size, test_loss_fn, \
sample_wise_grads_per_batch:
        As in :class:`TracInCP`.
    checkpoint:
        The state of the model, which is loaded here and stays.
    hessian_dataset:
        Of whose losses the Hessian is the sum, by default the training data.
    projection_dim:
        How many eigenvalues, the largest ones.
    hessian_inverse_tol:
        What an eigenvalue of the sum, ρ included, must exceed.
    seed, arnoldi_dim, arnoldi_tol, projection_on_cpu, show_progress:
        How captum finds them. Here they have all digits, and nothing is random.
    hessian_reg:
        ρ, added to the eigenvalues of the sum of Hessians.
    """

    def __init__(
        self,
        model: nn.Module,
        train_dataset: TrainingData,
        checkpoint: str,
        checkpoints_load_func: LoadFunction = load_state,
        layers: Sequence[str] | None = None,
        loss_fn: LossFunction | None = None,
        batch_size: int | None = 1,
        hessian_dataset: TrainingData | None = None,
        test_loss_fn: LossFunction | None = None,
        sample_wise_grads_per_batch: bool = False,
        projection_dim: int = 50,
        seed: int = 0,
        arnoldi_dim: int = 200,
        arnoldi_tol: float = 1e-1,
        hessian_reg: float = 1e-3,
        hessian_inverse_tol: float = 1e-4,
        projection_on_cpu: bool = True,
        show_progress: bool = False,
    ) -> None:
        _checks.count("projection_dim", projection_dim)
        _checks.positive("hessian_reg", hessian_reg, zero=True)
        learning_rate(model, checkpoint, checkpoints_load_func)
        select = of_layers(model, layers)
        objective = example_objective(model, train_dataset, loss_fn, select)
        super().__init__(objective, test_loss_fn)

        of_hessian = objective
        if hessian_dataset is not None:
            of_hessian = example_objective(model, hessian_dataset, loss_fn, select)
        # (H_Σ + ρI)⁻¹ = (1/M)(H + (ρ/M)I)⁻¹ with H the mean over M examples.
        n_hessian = of_hessian.n_points
        rank = min(projection_dim, objective.parameters.size)
        self._n_hessian = n_hessian
        self.method = Influence(
            of_hessian,
            solver=PositiveEigenvalues(rank, hessian_inverse_tol, n_hessian),
            damping=Damping(hessian_reg / n_hessian, relative=False),
            curvature="hessian",
        )
        self.method.state()

    # The first argument has another name in captum, too.
    def self_influence(  # type: ignore[override]
        self,
        inputs_dataset: Inputs | None = None,
        show_progress: bool = False,
    ) -> Tensor:
        """Return the influence of each example on its own loss, (n,), by default of training."""
        return super().self_influence(inputs_dataset) / self._n_hessian

    def _scores(self, quantity: Quantity) -> Tensor:
        return super()._scores(quantity) / self._n_hessian
