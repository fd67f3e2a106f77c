"""The objectives that a run has stepped on: what its steps can be made again from."""

from __future__ import annotations

from torch import Tensor

from whence.objective import Objective

MAX_BYTES = 64 * 2**20
"""Memory for points and weights that changed: those of points that are weighted in every step
would fill it in no time."""


class SteppedOn:
    """Objectives with the iterations from which on they were stepped on, as long as they fit.

    Examples
    --------
    >>> from whence import pinn
    >>> from whence.pinn.training.stepped_on import SteppedOn
    >>> problem = pinn.zoo.load("diffusion")
    >>> objective = problem.objective(problem.network(seed=0), problem.sample(20, seed=0))
    >>> stepped_on = SteppedOn()
    >>> stepped_on.note(0, objective)
    >>> stepped_on.note(20, objective)                   # nothing has changed
    >>> [iteration for iteration, _ in stepped_on.objectives()]
    [0]
    """

    def __init__(self) -> None:
        self._noted: list[tuple[int, Objective]] = []
        self._bytes: list[int] = []
        """What each of them takes that the one before does not have."""
        self._is_whole = True

    def note(self, iteration: int, objective: Objective) -> None:
        """Keep an objective if it is another one than before."""
        before = self._noted[-1][1] if self._noted else None
        if not self._is_whole or before is objective:
            return
        self._noted.append((iteration, objective))
        self._bytes.append(new_bytes(objective, before))
        if sum(self._bytes) > MAX_BYTES:
            # Without all of them nothing can be made again.
            self._noted = []
            self._bytes = []
            self._is_whole = False

    def rewind(self, iteration: int) -> None:
        """Forget what was stepped on from this iteration on; the steps to come note it again."""
        self._noted = [entry for entry in self._noted if entry[0] < iteration]
        self._bytes = self._bytes[: len(self._noted)]

    def objectives(self) -> tuple[tuple[int, Objective], ...]:
        """Return all of them in order; none where they did not fit, or the first are not known."""
        # A resumed run begins with steps that another process took.
        if not self._noted or self._noted[0][0] > 0:
            return ()
        return tuple(self._noted)


def new_bytes(objective: Objective, before: Objective | None) -> int:
    """Return what the points and weights take that the objective before does not have."""
    known = set() if before is None else {id(tensor) for tensor in tensors_of(before)}
    total = 0
    for tensor in tensors_of(objective):
        if id(tensor) not in known:
            total += tensor.numel() * tensor.itemsize
    return total


def tensors_of(objective: Objective) -> list[Tensor]:
    """Return the points of an objective and their weights."""
    tensors = []
    for term in objective.terms.values():
        members = (term.points, term.point_weights, term.base_weights)
        tensors += [member for member in members if isinstance(member, Tensor)]
    return tensors
