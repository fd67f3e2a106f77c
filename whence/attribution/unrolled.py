"""Unrolled differentiation in segments: between influence at a minimum and an exact replay."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Literal, Self

import torch
from torch import Tensor, nn

from whence import _checks
from whence.attribution.checkpoints import Checkpoint, visiting
from whence.attribution.labels import Attributes
from whence.attribution.method import Method
from whence.attribution.quantities import Quantity
from whence.attribution.segments import Segment, check_segments, segments_of
from whence.attribution.tiles import Directions, Solved, Stage
from whence.catalogue import METHODS
from whence.curvature.exact import Exact
from whence.curvature.kronecker import EKFAC
from whence.curvature.layer_rows import layer_matrices
from whence.curvature.solvers import MEMORY_BUDGET
from whence.curvature.unrolling import Form, PulledBack, factored_steps
from whence.jacobian import Jacobian, point_gradients
from whence.objective import LossLike, Objective
from whence.parameters import Select
from whence.points import Points
from whence.replay.training_run import TrainingRun
from whence.samples import Data
from whence.term import Term

SEGMENTS = 3
"""Segments of a training, unless another number is asked for."""
CHECKPOINTS = 2
"""Checkpoints of a segment."""
DENSE_PARAMETERS = 2000
"""Parameters up to which eigenvectors of whole matrices take seconds."""
DENSE_COPIES = 3
"""Matrices (P, P) that making the eigenvectors of a segment takes beside those that are kept."""
UnrolledSolver = Literal["auto"] | Exact | EKFAC


@METHODS.named()
class Unrolled(Method):
    """What leaving a point out does through training, taken as stationary within segments.

    Entry (target f, point z of term k) is ``(w_k/N_k) Σ_ℓ ∇f(θ)ᵀ S_L ⋯ S_{ℓ+1} r_ℓ`` over L
    segments, with ``S_ℓ = exp(−η_ℓK_ℓH_ℓ)`` and ``r_ℓ = (I − S_ℓ)H_ℓ⁻¹ ∇ℓ_k(z)``: the gradient and
    the Gauss–Newton matrix H are means over the checkpoints of a segment, of K steps with learning
    rate η (SOURCE: Bae, Lin, Lorraine & Grosse 2024, arXiv 2405.12186). θ are the network's current
    parameters. As K → ∞ in one segment it is the influence function at its checkpoints, without
    damping; as K → 0 products of gradients. No training is differentiated, as
    :class:`whence.Replay` does, and no convergence assumed, as :class:`whence.Influence` does.

    Parameters
    ----------
    objective:
        What was trained, or a model.
    segments:
        The segments of the training, the first of all first; :meth:`from_run` makes them.
    data, loss:
        Of a model, what it was trained on and for, see
        :class:`whence.attribution.method.Method`.
    parameters:
        Of a model, which parameters to attribute by.
    solver:
        How functions of H are taken: ``wh.Exact()`` by the eigenvectors of the whole matrix,
        ``wh.EKFAC()`` by those of each layer and the leading ones of all; ``"auto"`` is the former
        for up to 2000 parameters, or where a layer is of no kind that the latter knows.
    form:
        ``"power"`` for ``S = (I − ηH)^K``, as equal steps on a quadratic loss are exactly.
    memory_budget:
        Bytes that a result, or the eigenvectors, may take (2 GiB).

    Raises
    ------
    ValueError
        If there are no segments, a checkpoint is not of the network, or a loss is not convex in
        what the network gives.
    MemoryError
        If the matrices of ``wh.Exact()`` exceed ``memory_budget``.

    Examples
    --------
    Least squares ``(θ − y)²`` from θ = 0, where H = 2 and a step of ¼ halves the distance:

    >>> import torch, whence as wh
    >>> model = torch.nn.Linear(1, 1, bias=False, dtype=torch.float64)
    >>> _ = torch.nn.init.zeros_(model.weight)
    >>> x, y = torch.ones(2, 1), torch.tensor([[1.0], [0.5]])
    >>> segment = wh.Segment([model.state_dict()], learning_rate=0.25, steps=1)
    >>> unrolled = wh.Unrolled(model, [segment], (x, y), wh.Squared(), form="power")
    >>> unrolled.attribute(wh.Output(torch.ones(1, 1))).values
    array([[-0.25 , -0.125]])
    """

    name = "unrolled"

    def __init__(
        self,
        objective: Objective | nn.Module,
        segments: Sequence[Segment],
        data: Data | None = None,
        loss: LossLike | None = None,
        *,
        parameters: Select = None,
        solver: UnrolledSolver = "auto",
        form: Form = "exponential",
        memory_budget: int = MEMORY_BUDGET,
    ) -> None:
        super().__init__(
            objective, data, loss, parameters=parameters, memory_budget=memory_budget
        )
        _checks.one_of("form", form, ("exponential", "power"))
        check_segments(segments, self.objective.network)
        check_convex(self.objective)
        self.segments = tuple(segments)
        self.form: Form = form
        self.solver = self._choose_solver(solver)
        # Also says whether rates are as many as parameters, before any work.
        self._steps = [
            segment.all_steps(self.objective, form) for segment in self.segments
        ]
        self._end: Checkpoint | None = None
        self._factored: list[PulledBack] = []

    @classmethod
    def from_run(
        cls,
        run: TrainingRun,
        segments: int = SEGMENTS,
        *,
        checkpoints: int = CHECKPOINTS,
        solver: UnrolledSolver = "auto",
        memory_budget: int = MEMORY_BUDGET,
    ) -> Self:
        """Return the method for a recorded training, cut into segments of as many steps.

        The training is taken again once, to its checkpoints. What the optimizer multiplies
        gradients with (Adam, RMSprop, Adagrad; momentum) is taken as constant within a segment, as
        are learning rates; weight decay is the optimizer's. Targets are those of the trained model.

        Parameters
        ----------
        run:
            What :func:`whence.train` or a :class:`whence.TrainingRecorder` returned.
        segments:
            How many.
        checkpoints:
            States of each over which gradients and curvature are averaged.
        solver, memory_budget:
            As above.

        Raises
        ------
        TypeError
            If it is no such run.
        ValueError
            If it has fewer steps than there are segments, or its optimizer is unknown or maximizes.

        Examples
        --------
        >>> import torch, whence as wh
        >>> model = torch.nn.Linear(2, 2)
        >>> x, y = torch.rand(12, 2), torch.arange(12) % 2
        >>> optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        >>> run = wh.train(model, (x, y), torch.nn.CrossEntropyLoss(), optimizer, epochs=3)
        >>> wh.Unrolled.from_run(run).attribute(wh.Loss()).shape
        (12, 12)
        """
        if not isinstance(run, TrainingRun):
            raise TypeError(
                "run must be a recorded training, as wh.train or wh.TrainingRecorder return it; of "
                "others give states and learning rates, wh.Unrolled(model, [wh.Segment(...)], "
                f"data, loss), got {_checks.describe(run)}"
            )
        _checks.count("segments", segments)
        _checks.count("checkpoints", checkpoints)
        if len(run) < segments:
            raise ValueError(
                f"a training of {len(run)} steps has no {segments} segments: ask for fewer"
            )
        made = cls(
            run.objective,
            segments_of(run, segments, checkpoints),
            solver=solver,
            memory_budget=memory_budget,
        )
        made._end = run.checkpoint(run.record.end)
        return made

    def _choose_solver(self, solver: UnrolledSolver) -> Exact | EKFAC:
        """Return the solver, of ``"auto"`` the exact one where it is quick, or alone can do it."""
        size = self.objective.parameters.size
        # Eigenvectors are in double precision.
        needed = 8 * size**2 * (len(self.segments) + DENSE_COPIES)
        if isinstance(solver, str):
            _checks.one_of("solver", solver, ("auto",))
            is_small = size <= DENSE_PARAMETERS or not has_layers(self.objective)
            return Exact() if is_small and needed <= self.memory_budget else EKFAC()
        if isinstance(solver, EKFAC):
            return solver
        if not isinstance(solver, Exact):
            raise TypeError(
                "functions of the curvature are taken by solver=wh.Exact() or wh.EKFAC(), or "
                f"'auto', got {_checks.describe(solver)}"
            )
        if needed > self.memory_budget:
            raise MemoryError(
                f"the eigenvectors of {len(self.segments)} segments need {needed / 2**30:.1f} GiB, "
                f"above the memory budget of {self.memory_budget / 2**30:.1f} GiB: use "
                "solver=wh.EKFAC(), fewer segments or parameters, or raise memory_budget"
            )
        return solver

    def description(self) -> Attributes:
        """Return the number of segments, their steps and checkpoints, and how H was factored."""
        return {
            "segments": len(self.segments),
            "steps": sum(segment.steps for segment in self.segments),
            "checkpoints": sum(len(segment.checkpoints) for segment in self.segments),
            "curvature": "gauss_newton",
            "factors": self.solver.name,
            "form": self.form,
        }

    def stages(self) -> Sequence[Stage]:
        """Return the checkpoints of all segments, each by its share of the segment's."""
        return [stage for stages in self.stages_by_segment() for stage in stages]

    def stages_by_segment(self) -> list[list[Stage]]:
        """Return the checkpoints of each segment, the first of the training first."""
        network = self.objective.network
        by_segment = []
        for segment in self.segments:
            share = 1 / len(segment.checkpoints)
            stages = []
            for checkpoint in segment.checkpoints:
                stages.append(Stage(share, partial(visiting, network, checkpoint)))
            by_segment.append(stages)
        return by_segment

    def factored(self) -> list[PulledBack]:
        """Return the steps of each segment with its curvature factored; made at first use."""
        if not self._factored:
            # A penalty is in the steps of each segment.
            terms_alone = self.objective.with_weight_decay(0.0)
            ekfac = self.solver if isinstance(self.solver, EKFAC) else None
            for stages, steps in zip(
                self.stages_by_segment(), self._steps, strict=True
            ):
                visits = [stage.at for stage in stages]
                segment = factored_steps(terms_alone, visits, steps, ekfac)
                self._factored.append(segment)
        return self._factored

    def pulled_back(self, gradients: Tensor) -> list[Tensor]:
        """Return what meets the points' gradients in each segment, (P, K), of gradients (P, K)."""
        vectors = []
        # From the last segment, through which all pushes of those before are carried.
        for segment in reversed(self.factored()):
            pushed, gradients = segment.pull_back(gradients)
            vectors.append(pushed)
        return vectors[::-1]

    def transform_gradients(self, gradients: Tensor) -> tuple[Tensor, Solved]:
        """Return the sum over segments, as for points of the same gradient in all of them."""
        return torch.stack(self.pulled_back(gradients)).sum(dim=0), Solved()

    def target_directions(
        self, quantity: Quantity, start: int = 0
    ) -> Iterator[Directions]:
        """Yield, for some targets at a time, the vectors of each checkpoint, its share included."""
        gradients = self.packed_gradients(quantity)
        first = 0
        while True:
            # They are made as they are asked for, at the end of the training.
            with self._at_end().at():
                block = next(gradients, None)
                if block is None:
                    return
            targets = slice(first, first + len(block))
            first = targets.stop
            if targets.start >= start:
                vectors = self._vectors(block.T)
                yield Directions(targets, vectors, Solved())

    def _vectors(self, gradients: Tensor) -> list[tuple[Stage, Tensor]]:
        """Return the vectors of each checkpoint for gradients (P, K)."""
        vectors = []
        pulled = self.pulled_back(gradients)
        for stages, of_segment in zip(self.stages_by_segment(), pulled, strict=True):
            shared = of_segment * stages[0].factor
            vectors += [(stage, shared) for stage in stages]
        return vectors

    def self_products(self, term: Term, points: Points) -> tuple[Tensor, Solved]:
        """Return the entry of each point for its own loss, (n,), without the factor w/N."""
        vectors = self._vectors(self._rows(self._at_end(), term, points).T)
        total = vectors[0][1].new_zeros(len(points))
        for stage, of_stage in vectors:
            total += (self._rows(stage, term, points) * of_stage.T).sum(dim=1)
        return total, Solved()

    def _rows(self, stage: Stage, term: Term, points: Points) -> Tensor:
        """Return ∇ℓ of some points at a stage, (n, P)."""
        with stage.at():
            # All points in one block.
            ((_, linear, cotangent),) = point_gradients(
                term, self.objective.parameters, points, len(points)
            )
            return linear.rows(cotangent)

    def _at_end(self) -> Stage:
        """Return where targets are taken: at the end of a run, or the network as it is."""
        if self._end is None:
            return Stage()
        return Stage(at=partial(visiting, self.objective.network, self._end))


def has_layers(objective: Objective) -> bool:
    """Whether all parameters are those of layers that Kronecker factors are known of."""
    try:
        layer_matrices(Jacobian(objective, scaled=True))
    except ValueError:
        return False
    return True


def check_convex(objective: Objective) -> None:
    """Raise ``ValueError`` unless Gauss–Newton stands for the curvature of every term."""
    for name, term in objective.terms.items():
        if not term.loss.is_convex:
            raise ValueError(
                f"the loss of term {name!r} is not convex in what the network gives, so that steps "
                "on its curvature may grow without bound: use wh.Replay or wh.TracIn"
            )
