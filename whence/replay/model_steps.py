"""The steps of a model's training, through the model and optimizer of ``torch`` themselves."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from whence.losses import Loss
from whence.objective import Objective, space_of_outputs
from whence.replay import batch_statistics
from whence.replay.calls import batch_loss, random_numbers
from whence.replay.causes import check_same_output
from whence.replay.record import Record, RecordedStep
from whence.replay.steps import (
    Pulled,
    State,
    columns_of,
    joined_columns,
    relative_difference,
)
from whence.replay.updates import update_of
from whence.samples import Samples
from whence.supervised import ModelFunction
from whence.term import Term

MODEL = "model."
OPTIMIZER = "optimizer."
COLUMNS = 64
"""Answers that are pulled back through a step at once."""
CLIP_ROUNDING = 1e-6
"""What torch adds to a gradient's norm before it divides by it."""
TOLERANCES = {torch.float64: 1e-9, torch.float32: 1e-3}
"""Relative difference of the replayed network from the trained one that rounding explains."""


def take_step(
    function: ModelFunction,
    optimizer: torch.optim.Optimizer,
    loss: Loss,
    batch: Samples,
    step: RecordedStep,
    max_norm: float | None,
    weights: Tensor | None = None,
) -> float:
    """Take a step as it was recorded, of a model by its optimizer; return the loss before it."""
    for group, options in zip(optimizer.param_groups, step.options, strict=True):
        group.update(options)

    # As none, so that parameters without a gradient are passed over, as in any training.
    optimizer.zero_grad(set_to_none=True)
    with random_numbers(step.seed, next(function.model.parameters()).device):
        value = batch_loss(function, loss, batch, weights)
        value.backward()
    if max_norm is not None:
        torch.nn.utils.clip_grad_norm_(trained_parameters(optimizer), max_norm)
    optimizer.step()
    return float(value.detach())


def trained_parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """Return what an optimizer trains, group by group."""
    parameters = []
    for group in optimizer.param_groups:
        parameters += [p for p in group["params"] if p.requires_grad]
    return parameters


def state_of(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return copies of all that the next step depends on."""
    state = {}
    named = dict(model.named_parameters())
    trained = {id(parameter) for parameter in trained_parameters(optimizer)}
    for name, parameter in named.items():
        if id(parameter) not in trained:
            continue
        state[MODEL + name] = parameter.detach().clone()
        for key, value in optimizer.state.get(parameter, {}).items():
            if isinstance(value, Tensor):
                state[f"{OPTIMIZER}{name}/{key}"] = value.detach().clone()
    for name, buffer in model.named_buffers():
        state[MODEL + name] = buffer.detach().clone()
    return state


def put_state(state: State, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Write a state into a model and its optimizer."""
    named = dict(model.named_parameters())
    with torch.no_grad():
        for name, tensor in (*named.items(), *model.named_buffers()):
            if MODEL + name in state:
                tensor.copy_(state[MODEL + name])

    # What the state lacks the optimizer has not begun to remember.
    optimizer.state.clear()
    for key, value in state.items():
        if key.startswith(OPTIMIZER):
            name, _, kind = key.removeprefix(OPTIMIZER).rpartition("/")
            # Optimizers change their tensors in place, which states must survive.
            optimizer.state[named[name]][kind] = value.clone()


class ModelSteps:
    """The steps of a recorded training, taken by copies of its model and optimizer.

    Parameters
    ----------
    record:
        The training.
    weights:
        Weights w of the samples in steps taken forwards, (N,); 1 unless given.

    Raises
    ------
    ValueError
        If the step of its optimizer is not known as a function, see
        :data:`whence.replay.updates.UPDATES`.
    """

    def __init__(self, record: Record, weights: Tensor | None = None) -> None:
        # Together, so that the copied optimizer trains the copied model.
        copies = copy.deepcopy((record.function, record.optimizer))
        self._function, self.optimizer = copies
        self.model = self._function.model
        self.n_steps = len(record.steps)
        self._record = record
        self._weights = weights
        self._update = update_of(self.optimizer)
        self._names = {id(p): name for name, p in self.model.named_parameters()}
        self._parameters = trained_parameters(self.optimizer)
        self._statistics = batch_statistics.statistics_names(self.model)
        self._check_buffers()

    def _check_buffers(self) -> None:
        """Raise ``ValueError`` if training moves a buffer other than running statistics."""
        for key, before in self._record.start.items():
            name = key.removeprefix(MODEL)
            is_known = name in self._statistics or name in self._names.values()
            if is_known or not key.startswith(MODEL) or not before.is_floating_point():
                continue
            if not torch.equal(before, self._record.end[key]):
                raise ValueError(
                    f"the training moves the model's buffer {name!r}, through which no derivative "
                    "is known but for running statistics of batch normalization: make it a "
                    "constant, or a parameter"
                )

    def like(self) -> Tensor:
        """Return a tensor of the dtype and on the device of the parameters."""
        return self._parameters[0]

    def start(self) -> State:
        """Return the state before the first step."""
        return self._record.start

    def end(self) -> State:
        """Return the state after the last step, as the training left it."""
        return self._record.end

    # --- forwards ---

    def advance(self, state: State, first: int, last: int) -> State:
        """Return the state after steps ``first, …, last − 1``; the one given stays as it is."""
        put_state(state, self.model, self.optimizer)
        for t in range(first, last):
            step = self._record.steps[t]
            weights = self._weights
            if weights is not None:
                weights = weights[step.places].to(self.like())
            take_step(
                self._function,
                self.optimizer,
                self._record.loss,
                self._record.data[step.places],
                step,
                self._record.max_norm,
                weights,
            )
        return state_of(self.model, self.optimizer)

    def check_end(self, state: State) -> None:
        """Raise ``ValueError`` unless the replayed network is the trained one."""
        end = {k: v for k, v in self._record.end.items() if k.startswith(MODEL)}
        difference = relative_difference(state, end)
        if difference == 0:
            return
        put_state(self._record.start, self.model, self.optimizer)
        step = self._record.steps[0]
        check_same_output(self._function, self._record.data[step.places], step.seed)
        # Written so that a NaN is an error, too.
        if difference <= TOLERANCES[self.like().dtype]:
            return
        raise ValueError(
            "the training cannot be replayed: its steps, taken again, lead to another network "
            f"(relative difference {difference:.1g}). The data, or the model beside its "
            "parameters, must have changed since, or random numbers do not come from torch"
        )

    # --- backwards ---

    def pull_back(self, step: int, state: State, cotangent: State) -> Pulled:
        """Return ``(∂h_t/∂s)ᵀλ`` and ``(∂h_t/∂w)ᵀλ`` for K columns λ, each (K, …) by name.

        A step is ``g = ∇θ (1/B) Σ w_i ℓ_i(θ)``, then the optimizer's formula for θ, g and its own
        state. Both are differentiated together: reverse mode through reverse mode, which gives
        ``H λ_g`` and all ``∇ℓ_i·λ_g`` in one pass.
        """
        put_state(state, self.model, self.optimizer)
        recorded = self._record.steps[step]
        inputs, outputs, weights = self._graph(recorded, state)

        # Of the last step only parameters and statistics matter: answers know no optimizer.
        followed = [name for name in outputs if name in cotangent]
        results = [outputs[name] for name in followed]
        names = list(inputs)
        sources = [inputs[name] for name in names]

        n_columns = len(next(iter(cotangent.values())))
        parts = []
        for first in range(0, n_columns, COLUMNS):
            columns = columns_of(cotangent, slice(first, first + COLUMNS))
            seeds = [columns[name] for name in followed]
            is_last = first + COLUMNS >= n_columns
            gradients = column_products(
                results, [*sources, weights], seeds, not is_last
            )

            before = {}
            for name, gradient in zip(names, gradients, strict=False):
                before[name] = gradient
            by_point = {"data": (recorded.places, gradients[-1])}
            parts.append(Pulled(before, by_point))
        return joined_columns(parts)

    def _graph(
        self, step: RecordedStep, state: State
    ) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor]:
        """Return a step's inputs and outputs by name, and weights (B,), all in one graph."""
        batch = self._record.data[step.places]
        weights = self.like().new_ones(len(batch)).requires_grad_()
        with (
            random_numbers(step.seed, self.like().device),
            batch_statistics.watched(self.model) as seen,
        ):
            loss = batch_loss(self._function, self._record.loss, batch, weights)
            gradients = torch.autograd.grad(
                loss,
                self._parameters,
                create_graph=True,
                allow_unused=True,
                materialize_grads=True,
            )
        gradients = self._clipped(gradients)

        inputs: dict[str, Tensor] = {}
        outputs: dict[str, Tensor] = {}
        by_parameter = dict(zip(map(id, self._parameters), gradients, strict=True))
        for group, options in zip(
            self.optimizer.param_groups, step.options, strict=True
        ):
            for parameter in group["params"]:
                if id(parameter) not in by_parameter:
                    continue
                name = self._names[id(parameter)]
                prefix = f"{OPTIMIZER}{name}/"
                remembered = {}
                for key, value in state.items():
                    if not key.startswith(prefix):
                        continue
                    kind = key.removeprefix(prefix)
                    remembered[kind] = value
                    # Counts of steps are no numbers that anything depends on smoothly.
                    if kind != "step":
                        remembered[kind] = value.clone().requires_grad_()
                        inputs[key] = remembered[kind]

                inputs[MODEL + name] = parameter
                gradient = by_parameter[id(parameter)]
                after, following = self._update(
                    parameter, gradient, remembered, {**group, **options}
                )
                outputs[MODEL + name] = after
                for kind, value in following.items():
                    if kind != "step":
                        outputs[prefix + kind] = value

        before = {}
        for name in self._statistics:
            before[name] = state[MODEL + name].clone().requires_grad_()
            inputs[MODEL + name] = before[name]
        for key, value in state.items():
            if key.endswith("num_batches_tracked"):
                before[key.removeprefix(MODEL)] = value
        after_step = batch_statistics.renewed(self.model, seen, before)
        for name, value in after_step.items():
            outputs[MODEL + name] = value
        return inputs, outputs, weights

    def _clipped(self, gradients: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Return gradients scaled down to the largest norm allowed, as torch does it."""
        if self._record.max_norm is None:
            return gradients
        squares = torch.stack([gradient.square().sum() for gradient in gradients])
        factor = self._record.max_norm / (squares.sum().sqrt() + CLIP_ROUNDING)
        # Below the norm allowed nothing is scaled, and small changes do not change that.
        if float(factor.detach()) >= 1:
            return gradients
        return tuple(factor * gradient for gradient in gradients)

    # --- the end ---

    def objective_at(self, state: State) -> Objective:
        """Return the objective of the network in a state; running statistics are parameters."""
        put_state(state, self.model, self.optimizer)
        # A copy of its own: answers may be asked for while steps are taken.
        function = copy.deepcopy(self._function)
        if self._statistics:
            batch_statistics.replace_layers(function.model)

        trained = {self._names[id(parameter)] for parameter in self._parameters}
        chosen = trained | set(self._statistics)
        term = Term("data", function, self._record.data, loss=self._record.loss)
        space = space_of_outputs(ModelFunction(function.model), self._record.outputs)
        return Objective(
            function.model, term, select=lambda name, _: name in chosen, space=space
        )

    def cotangent_of(self, objective: Objective, gradients: Tensor) -> State:
        """Return gradients (K, P) by that objective's parameters as a state's cotangent."""
        parameters = objective.parameters
        cotangent = {}
        for name, part in parameters.slices.items():
            shape = parameters.shape(name)
            cotangent[MODEL + name] = gradients[:, part].reshape(-1, *shape)
        return cotangent


def column_products(
    outputs: list[Tensor], inputs: list[Tensor], columns: list[Tensor], keep: bool
) -> list[Tensor]:
    """Return ``Jᵀλ`` for the K columns λ of outputs, each (K, …), by every input."""
    # Of one column plain reverse mode is quicker than a batch of one.
    if len(columns[0]) == 1:
        single = torch.autograd.grad(
            outputs,
            inputs,
            [column[0] for column in columns],
            retain_graph=keep,
            allow_unused=True,
            materialize_grads=True,
        )
        return [gradient.unsqueeze(0) for gradient in single]

    return list(
        torch.autograd.grad(
            outputs,
            inputs,
            columns,
            retain_graph=keep,
            is_grads_batched=True,
            allow_unused=True,
            materialize_grads=True,
        )
    )
