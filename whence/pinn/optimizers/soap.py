"""SOAP: Adam in the eigenbasis of Shampoo, through the package pytorch-optimizer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from whence import _checks
from whence.catalogue import OPTIMIZERS
from whence.objective import Objective
from whence.parameters import Parameters
from whence.pinn.optimizers.stepper import (
    OptimizerState,
    Progress,
    Stepper,
    describe_failure,
    is_finite,
)


@OPTIMIZERS.named("soap")
@dataclass(frozen=True)
class SOAP:
    """SOAP (Vyas et al., arXiv 2409.11321; for PINNs arXiv 2502.00604), by pytorch-optimizer.

    Adam in the eigenbasis of the mean products GGᵀ and GᵀG of each layer's gradient G. The first
    step only measures them. It needs ``pip install 'whence[soap]'``.

    Parameters
    ----------
    iterations:
        Steps of this stage.
    lr:
        Learning rate.
    betas:
        Decay of the first and second moment.
    update_every:
        Steps between two eigenbases.

    Raises
    ------
    ValueError
        If a number is out of range.
    ImportError
        At the start of the stage, if the package is missing.

    Examples
    --------
    >>> from whence import pinn
    >>> pinn.SOAP(1000).lr
    0.003
    """

    iterations: int
    lr: float = 3e-3
    betas: tuple[float, float] = (0.95, 0.95)
    update_every: int = 10

    chunk: ClassVar[int] = 20
    log_every: ClassVar[int] = 100
    by_gradient: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _checks.count("iterations", self.iterations)
        _checks.positive("lr", self.lr)
        _checks.count("update_every", self.update_every)
        _checks.betas(self.betas)

    def start(self, parameters: Parameters) -> Stepper:
        """Return a stepper for these parameters; without the package it is an ``ImportError``."""
        return SOAPStepper(self, parameters)


def optimizer_class() -> type[torch.optim.Optimizer]:
    """Return the class of pytorch-optimizer; an ``ImportError`` says how to install it."""
    try:
        # Slow to import, and optional.
        from pytorch_optimizer.optimizer.soap import SOAP as PackagedSOAP
    except ImportError:
        raise ImportError(
            "pinn.SOAP needs pytorch-optimizer: pip install 'whence[soap]', or use pinn.Adam"
        ) from None
    return PackagedSOAP


class SOAPStepper:
    """SOAP at work: the package's optimizer on one parameter for each of the network's."""

    # How the package calls what its state holds of a parameter.
    _TENSORS = ("exp_avg", "exp_avg_sq")
    _LISTS = ("GG", "Q")

    def __init__(self, options: SOAP, parameters: Parameters) -> None:
        self._options = options
        self._parameters = parameters
        parts = parameters.unflatten(parameters.vector())
        # In their shapes, as the eigenbases are those of matrices.
        self._thetas: dict[str, torch.nn.Parameter] = {}
        for name, part in parts.items():
            self._thetas[name] = torch.nn.Parameter(part.clone())
        settings: dict[str, Any] = {
            "lr": options.lr,
            "betas": options.betas,
            "precondition_frequency": options.update_every,
            # The objective has a penalty of its own where one is wanted.
            "weight_decay": 0.0,
        }
        self._optimizer = optimizer_class()(self._thetas.values(), **settings)

    def advance(self, objective: Objective, iterations: int) -> Progress:
        """Take steps; at a loss that is not finite all of them are taken back."""
        before = self._parameters.vector()

        for done in range(iterations):
            # The network may have been changed since: θ is read, not remembered.
            theta = self._parameters.vector()
            loss, gradient = objective.loss_and_gradient()

            if not is_finite(loss, gradient):
                failure = describe_failure(objective, loss, theta)
                self._parameters.assign(before)
                return Progress(done, loss, finished=True, failure=failure)

            values = self._parameters.unflatten(theta)
            slopes = self._parameters.unflatten(gradient)
            for name, parameter in self._thetas.items():
                parameter.data.copy_(values[name])
                parameter.grad = slopes[name]

            self._optimizer.step()
            self._arrange()
            self._write_back()

        return Progress(iterations, None)

    def _arrange(self) -> None:
        """Bring eigenbases into the order in memory of a restored state: bits depend on it."""
        for memory in self._optimizer.state.values():
            bases = []
            for basis in memory["Q"]:
                is_basis = isinstance(basis, Tensor)
                bases.append(basis.contiguous() if is_basis else basis)
            memory["Q"] = bases

    def _write_back(self) -> None:
        """Give the network the parameters that the package changed."""
        parts = {}
        for name, theta in self._thetas.items():
            parts[name] = theta.detach()

        vector = self._parameters.flatten(parts)
        self._parameters.assign(vector)

    def state(self) -> OptimizerState:
        """Return moments, mean products, eigenbases, and the number of steps."""
        tensors = {}
        for name, theta in self._thetas.items():
            memory = self._optimizer.state.get(theta, {})
            for key, value in self._kept(memory):
                label = f"{key}/{name}"
                tensors[label] = value.clone()

        # The package counts from the first step on.
        group = self._optimizer.param_groups[0]
        steps = group.get("step", 0)
        return OptimizerState(tensors, {"steps": steps})

    def _kept(self, memory: dict[str, Any]) -> Iterator[tuple[str, Tensor]]:
        """Yield what the package keeps of a parameter, by a key of its own."""
        if not memory:
            return

        for key in self._TENSORS:
            yield key, memory[key]
        for key in self._LISTS:
            for k, matrix in enumerate(memory[key]):
                # An empty list stands for a side that is left as it is.
                if isinstance(matrix, Tensor):
                    yield f"{key}/{k}", matrix

    def restore(self, state: OptimizerState) -> None:
        """Take up what :meth:`state` returned."""
        self._optimizer.param_groups[0]["step"] = int(state.numbers["steps"])
        self._optimizer.state.clear()
        if not state.tensors:
            return

        for name, theta in self._thetas.items():
            memory: dict[str, Any] = {
                "precondition_frequency": self._options.update_every,
                "shampoo_beta": self._options.betas[1],
            }
            for key in self._TENSORS:
                label = f"{key}/{name}"
                memory[key] = self._taken(state, label, theta.shape)
            for key in self._LISTS:
                memory[key] = self._taken_list(state, key, name)
            self._optimizer.state[theta] = memory

    def _taken_list(self, state: OptimizerState, key: str, name: str) -> list[Any]:
        """Return a matrix for each side of a parameter that is a matrix, or empty lists."""
        shape = self._thetas[name].shape
        # Vectors have no basis but their own, for which the package keeps an empty list.
        if len(shape) < 2:
            return [[] for _ in shape]

        matrices = []
        for k, size in enumerate(shape):
            label = f"{key}/{k}/{name}"
            square = torch.Size([size, size])
            matrix = self._taken(state, label, square)
            matrices.append(matrix)
        return matrices

    def _taken(self, state: OptimizerState, label: str, shape: torch.Size) -> Tensor:
        """Return a copy of a tensor of the state; one of another shape is a ``ValueError``."""
        tensor = state.tensors.get(label)
        shown = None if tensor is None else tuple(tensor.shape)
        if tensor is None or tensor.shape != shape:
            raise ValueError(
                f"the optimizer's {label!r} has shape {shown}, not {tuple(shape)}: it is the state "
                "of another network"
            )
        return tensor.clone()
