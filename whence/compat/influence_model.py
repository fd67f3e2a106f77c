"""What the influence functions of pyDVL share: blocks, modes, and calls; see the module pydvl."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from whence import _checks
from whence.attribution.influence import CurvatureName, Influence
from whence.attribution.perturbation import input_changes
from whence.attribution.quantities import Loss
from whence.attribution.tiles import Directions, Solved, Stage
from whence.compat.shared import (
    TERM,
    LossFunction,
    in_order,
    matrix_of,
    sample_loss,
    unscaled,
    warn_unsolved,
)
from whence.curvature.exact import Exact
from whence.curvature.solvers import Damping, Solver
from whence.objective import Objective
from whence.samples import Samples, samples_of


class InfluenceMode(str, Enum):  # noqa: UP042 - pyDVL's own are strings and print as enums
    """What is done to a training sample: its weight raised, or its input moved."""

    Up = "up"
    Perturbation = "perturbation"


class BlockMode(Enum):
    """Which parameters have a block of the curvature to themselves, what is between them left out.

    Layers are the direct children of the model.
    """

    LAYER_WISE = "layer_wise"
    PARAMETER_WISE = "parameter_wise"
    FULL = "full"


class SecondOrderMode(Enum):
    """Which curvature is inverted."""

    HESSIAN = "hessian"
    GAUSS_NEWTON = "gauss_newton"


Regularization = float | Mapping[str, float | None] | None
"""λ, that of each block by its name, or none."""
BlockStructure = BlockMode | Mapping[str, Sequence[str]]
"""A way to make blocks, or the names of the parameters of each."""


class InfluenceFunctionModel:
    """What the influence functions of pyDVL share, here one :class:`whence.Influence` by block.

    Parameters
    ----------
    model:
        The trained model, of one input and one output tensor.
    loss:
        Of a batch, reduced by mean, or of samples: a loss of torch or a function.
    regularization:
        λ, absolute; of some blocks by their names, the others then have none.
    block_structure:
        Which parameters have a block of the curvature to themselves.
    second_order_mode:
        Which curvature is inverted.
    hessian_regularization:
        An older name of ``regularization``, with which pyDVL's own README calls it.

    Raises
    ------
    ValueError
        If λ is negative, or names no block.
    TypeError
        If the model is no module, or the loss cannot be called.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: LossFunction,
        regularization: Regularization = None,
        block_structure: BlockStructure = BlockMode.FULL,
        second_order_mode: SecondOrderMode = SecondOrderMode.HESSIAN,
        *,
        hessian_regularization: Regularization = None,
    ) -> None:
        if not isinstance(model, nn.Module):
            raise TypeError(
                f"the model must be a torch.nn.Module, got {_checks.describe(model)}"
            )
        self.model = model
        self.loss = sample_loss(loss)
        self.curvature = curvature_name(second_order_mode)
        self.blocks = block_names(model, block_structure)
        if regularization is None:
            regularization = hessian_regularization
        self._damping = self._dampings(regularization)
        self._influences: OrderedDict[str, Influence] = OrderedDict()

    # --- what a subclass defines ---

    def solver(self) -> Solver:
        """Return how the system of a block is solved."""
        return Exact()

    # --- fitting ---

    @property
    def is_fitted(self) -> bool:
        """Whether the curvature of training data is there."""
        return bool(self._influences)

    @property
    def n_parameters(self) -> int:
        """Number of parameters that require a gradient."""
        parameters = self.model.parameters()
        return sum(p.numel() for p in parameters if p.requires_grad)

    @property
    def is_thread_safe(self) -> bool:
        """Whether several threads may use it at once: no, as in pyDVL."""
        return False

    def fit(self, data: DataLoader[object]) -> InfluenceFunctionModel:
        """Factor the curvature of training data, and return this model.

        Parameters
        ----------
        data:
            A loader of inputs and targets; one that shuffles is read in order, as the curvature
            does not depend on it.
        """
        if not isinstance(data, DataLoader):
            raise TypeError(
                "fit takes a DataLoader of inputs and targets, such as "
                f"DataLoader(TensorDataset(x, y), 100), got {_checks.describe(data)}"
            )
        like = next(p for p in self.model.parameters() if p.requires_grad)
        loader = in_order("the data", data)
        samples = samples_of("the data", loader, like.dtype, like.device)

        influences = OrderedDict()
        for block in self.blocks:
            influence = self._influence(block, samples)
            influence.state()  # here, so that what cannot be factored is an error of fit
            influences[block] = influence
        self._influences = influences
        return self

    def with_regularization(
        self, regularization: Regularization
    ) -> InfluenceFunctionModel:
        """Take another λ, and return this model; what is fitted is factored again."""
        self._damping = self._dampings(regularization)
        for block, influence in self._influences.items():
            self._influences[block] = self._of_objective(block, influence.objective)
        return self

    def to(self, device: torch.device) -> InfluenceFunctionModel:
        """Move the model to a device, and return this; it has to be fitted there again."""
        self.model = self.model.to(device)
        self._influences = OrderedDict()
        return self

    def _influence(self, block: str, samples: Samples) -> Influence:
        names = set(self.blocks[block])
        objective = Objective.supervised(
            self.model,
            samples,
            self.loss,
            parameters=lambda name, _: name in names,
        )
        return self._of_objective(block, objective)

    def _of_objective(self, block: str, objective: Objective) -> Influence:
        return Influence(
            objective,
            solver=self.solver(),
            damping=self._damping[block],
            curvature=self.curvature,
        )

    def _dampings(self, regularization: Regularization) -> dict[str, Damping]:
        """Return λ of each block."""
        values: dict[str, float | None] = {}
        if isinstance(regularization, Mapping):
            values.update(regularization)
            for name in values:
                _checks.one_of("block", name, self.blocks)
        else:
            values = dict.fromkeys(self.blocks, regularization)

        dampings = {}
        for name in self.blocks:
            value = values.get(name) or 0.0
            _checks.positive("regularization", value, zero=True)
            dampings[name] = Damping(value + self.further_damping(), relative=False)
        return dampings

    def further_damping(self) -> float:
        """Return what is added to λ."""
        return 0.0

    # --- influences ---

    def influences(
        self,
        x_test: Tensor,
        y_test: Tensor,
        x: Tensor | None = None,
        y: Tensor | None = None,
        mode: InfluenceMode = InfluenceMode.Up,
    ) -> Tensor:
        """Return the influences of training samples on the losses of test samples.

        Parameters
        ----------
        x_test, y_test:
            Inputs and targets of the test samples, T of them.
        x, y:
            Those of the training samples, n; by default the test samples.
        mode:
            ``"up"`` or ``"perturbation"``, see the module.

        Returns
        -------
        Tensor
            (T, n), or (T, n, ...) with the shape of an input for ``"perturbation"``.
        """
        blocks = self.influences_by_block(x_test, y_test, x, y, mode)
        # What is between blocks is left out, so that they add up.
        return torch.stack(list(blocks.values())).sum(dim=0)

    def influences_by_block(
        self,
        x_test: Tensor,
        y_test: Tensor,
        x: Tensor | None = None,
        y: Tensor | None = None,
        mode: InfluenceMode = InfluenceMode.Up,
    ) -> OrderedDict[str, Tensor]:
        """Return :meth:`influences` of each block of parameters, by its name."""
        if (x is None) != (y is None):
            raise ValueError(
                "training samples need both inputs and targets: give x and y, or neither"
            )
        if x is None or y is None:
            x, y = x_test, y_test
        mode = _mode(mode)

        if mode is InfluenceMode.Perturbation:
            factors = self.influence_factors_by_block(x_test, y_test)
            return self.influences_from_factors_by_block(factors, x, y, mode)

        results = OrderedDict()
        for block, influence in self._fitted():
            tests = _samples(influence, x_test, y_test)
            points = unscaled(influence.objective, _samples(influence, x, y))
            # Whichever of the two are fewer are solved for.
            tiles = influence.tiles(Loss(tests), points)
            like = influence.objective.parameters.vector()
            results[block] = matrix_of(tiles, (len(tests), len(points)), like)
        return results

    def influence_factors(self, x: Tensor, y: Tensor) -> Tensor:
        """Return ``(H + λI)⁻¹∇ℓ`` of samples, (n, P), by which influences are products.

        Parameters are in the order of the blocks, within each in that of the model.
        """
        blocks = self.influence_factors_by_block(x, y)
        return torch.cat(list(blocks.values()), dim=1)

    def influence_factors_by_block(
        self, x: Tensor, y: Tensor
    ) -> OrderedDict[str, Tensor]:
        """Return :meth:`influence_factors` of each block of parameters, by its name."""
        results = OrderedDict()
        for block, influence in self._fitted():
            loss = Loss(_samples(influence, x, y))
            parts = []
            solved = Solved()
            # A block of gradients is a buffer that the next overwrites.
            for gradients in influence.packed_gradients(loss):
                vectors, quality = influence.transform_gradients(gradients.T)
                parts.append(vectors.T.clone())
                solved = solved.worst_with(quality)
            warn_unsolved(solved)
            results[block] = torch.cat(parts)
        return results

    def influences_from_factors(
        self,
        z_test_factors: Tensor,
        x: Tensor,
        y: Tensor,
        mode: InfluenceMode = InfluenceMode.Up,
    ) -> Tensor:
        """Return influences from what :meth:`influence_factors` returned for the test samples."""
        if z_test_factors.ndim != 2 or z_test_factors.shape[1] != self.n_parameters:
            raise ValueError(
                "factors must be what influence_factors returned, of shape (n, "
                f"{self.n_parameters}), got {_checks.shape_of(z_test_factors)}"
            )
        factors = OrderedDict()
        start = 0
        for block, influence in self._fitted():
            size = influence.objective.parameters.size
            factors[block] = z_test_factors[:, start : start + size]
            start += size

        blocks = self.influences_from_factors_by_block(factors, x, y, mode)
        return torch.stack(list(blocks.values())).sum(dim=0)

    def influences_from_factors_by_block(
        self,
        z_test_factors: Mapping[str, Tensor],
        x: Tensor,
        y: Tensor,
        mode: InfluenceMode = InfluenceMode.Up,
    ) -> OrderedDict[str, Tensor]:
        """Return :meth:`influences_from_factors` of each block of parameters, by its name."""
        mode = _mode(mode)
        results = OrderedDict()
        for block, influence in self._fitted():
            samples = _samples(influence, x, y)
            like = influence.objective.parameters.vector()
            factors = z_test_factors[block].to(like)
            if mode is InfluenceMode.Up:
                results[block] = factor_products(influence, factors, samples)
            else:
                moved = factor_changes(influence, factors, samples)
                results[block] = moved.reshape(len(factors), *x.shape)
        return results

    def _fitted(self) -> Iterator[tuple[str, Influence]]:
        if not self.is_fitted:
            raise ValueError(
                f"this {type(self).__name__} has seen no training data: call "
                "fit(train_loader) first"
            )
        yield from self._influences.items()


def _samples(influence: Influence, x: Tensor, y: Tensor) -> Samples:
    """Return samples as the objective needs them."""
    samples = influence.objective.prepare("the samples", (x, y), TERM)
    assert isinstance(samples, Samples)
    return samples


def factor_products(influence: Influence, factors: Tensor, samples: Samples) -> Tensor:
    """Return factors times gradients, (T, n)."""
    points = unscaled(influence.objective, samples)
    tiles = influence.tiles_along(_directions(factors), points, "remove")
    return matrix_of(tiles, (len(factors), len(points)), factors)


def factor_changes(influence: Influence, factors: Tensor, samples: Samples) -> Tensor:
    """Return factors times ∂ₓ∇ℓ, (T, n, d)."""
    points = unscaled(influence.objective, samples)
    changes, _ = input_changes(
        influence.objective,
        [_directions(factors)],
        lambda: influence.blocks_of(points),
    )
    return -changes  # what is called a change has the minus of −∇fᵀ(A + λI)⁻¹∂ₓ∇ℓ


def _directions(factors: Tensor) -> Directions:
    return Directions(slice(0, len(factors)), [(Stage(), factors.T)], Solved())


def _mode(mode: object) -> InfluenceMode:
    """Return a mode from one, its name, or pyDVL's own."""
    value = getattr(mode, "value", mode)
    _checks.one_of("mode", value, tuple(member.value for member in InfluenceMode))
    return InfluenceMode(value)


def curvature_name(mode: object) -> CurvatureName:
    """Return what whence calls a second-order mode, this one's or pyDVL's own."""
    value = getattr(mode, "value", mode)
    names = tuple(member.value for member in SecondOrderMode)
    _checks.one_of("second_order_mode", value, names)
    return "hessian" if value == "hessian" else "gauss_newton"


def block_names(model: nn.Module, structure: object) -> OrderedDict[str, list[str]]:
    """Return the names of the parameters of each block, of those that require a gradient.

    Parameters
    ----------
    model:
        Whose parameters.
    structure:
        A :class:`BlockMode`, or names by block.

    Raises
    ------
    ValueError
        If no parameter requires a gradient, or a name is none of theirs.

    Examples
    --------
    >>> import torch
    >>> from whence.compat.influence_model import BlockMode, block_names
    >>> model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Tanh(), torch.nn.Linear(3, 1))
    >>> dict(block_names(model, BlockMode.LAYER_WISE))
    {'0': ['0.weight', '0.bias'], '2': ['2.weight', '2.bias']}
    """
    names = [name for name, p in model.named_parameters() if p.requires_grad]
    if not names:
        raise ValueError("no parameter of the model requires a gradient")
    if isinstance(structure, Mapping):
        custom = OrderedDict()
        for block, members in structure.items():
            for name in members:
                _checks.one_of("parameter", name, names)
            custom[block] = list(members)
        return custom

    value = getattr(structure, "value", structure)
    modes = tuple(member.value for member in BlockMode)
    _checks.one_of("block_structure", value, modes)
    if value == "full":
        return OrderedDict({"": names})
    if value == "parameter_wise":
        return OrderedDict((name, [name]) for name in names)

    layers: OrderedDict[str, list[str]] = OrderedDict()
    for name in names:
        child = name.split(".")[0]
        layers.setdefault(child, []).append(name)
    return layers
