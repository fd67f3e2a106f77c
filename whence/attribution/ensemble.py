"""The mean of several methods' attributions: of networks trained alike, or of states of one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Literal, Self

import torch
from torch import Tensor, nn

from whence import _checks
from whence.attribution.arguments import PointsByTerm, PreparedPoints
from whence.attribution.checkpoints import Checkpoint
from whence.attribution.labels import Attributes, Effect
from whence.attribution.method import Method
from whence.attribution.quantities import Loss, Quantity
from whence.attribution.swag import checkpoint_members, swag_members
from whence.attribution.tiles import Solved, Tile
from whence.catalogue import METHODS
from whence.curvature.solvers import MEMORY_BUDGET

Scale = Literal["none", "target"]
SWAG_MEMBERS = 10
"""Networks that are drawn around the states of a training."""


@METHODS.named()
class Ensemble(Method):
    """The mean over members of their attributions, for quantities of each member's own network.

    A single network's attribution says much that comes from its seed; the mean over networks that
    were trained alike, with other seeds or on other halves of the data, says what comes from the
    points (TRAK: Park et al. 2023, arXiv 2303.14186, section 3; deep ensembles of influence
    functions: Søgaard et al. 2021). Members may be any methods, of different kinds too;
    :meth:`of_checkpoints` and :meth:`swag` make them from a single training.

    Parameters
    ----------
    members:
        Methods whose objectives have the same terms, with as many points.
    scale:
        ``"target"``: entries of each member and target are divided by their root mean square
        before, so that no member outweighs the others; ``"none"``: they are taken as they are.
    memory_budget:
        Bytes that a result may take (2 GiB).

    Raises
    ------
    TypeError
        If a member is no method.
    ValueError
        If there are none, or their points differ in number.

    Examples
    --------
    >>> import torch, whence as wh
    >>> x, y = torch.tensor([[1.0], [2.0]]), torch.tensor([[2.0], [2.0]])
    >>> def member(weight):
    ...     model = torch.nn.Linear(1, 1, bias=False)
    ...     torch.nn.init.constant_(model.weight, weight)
    ...     return wh.GradDot(model, (x, y), wh.Squared())
    >>> wh.Ensemble([member(1.0), member(0.0)]).attribute(wh.Loss((x[:1], y[:1]))).values
    array([[5., 8.]], dtype=float32)
    """

    name = "ensemble"
    movable = False
    scaled = False
    sums_over_parameters = False

    def __init__(
        self,
        members: Sequence[Method],
        *,
        scale: Scale = "none",
        memory_budget: int = MEMORY_BUDGET,
    ) -> None:
        _checks.one_of("scale", scale, ("none", "target"))
        self.members = check_members(members)
        self.scale = scale
        super().__init__(self.members[0].objective, memory_budget=memory_budget)

    @classmethod
    def of_checkpoints(
        cls,
        make: Callable[[nn.Module], Method],
        model: nn.Module,
        checkpoints: Sequence[Checkpoint],
        *,
        scale: Scale = "none",
        memory_budget: int = MEMORY_BUDGET,
    ) -> Self:
        """Return the ensemble of a model's states along its training.

        Parameters
        ----------
        make:
            ``make(network)`` returns a method for a copy of the model in one of the states.
        model:
            The model; it stays as it is.
        checkpoints:
            Its states, each a ``state_dict()`` or a file in safetensors' format.
        scale, memory_budget:
            As above.

        Raises
        ------
        TypeError
            If ``make`` returns no method of the network that it is given.
        ValueError
            If there are no states, or one is not of this model.

        Examples
        --------
        >>> import torch, whence as wh
        >>> model = torch.nn.Linear(1, 1, bias=False)
        >>> data = torch.tensor([[1.0], [2.0]]), torch.tensor([[2.0], [2.0]])
        >>> states = [{"weight": torch.tensor([[k]])} for k in (1.0, 0.0)]
        >>> ensemble = wh.Ensemble.of_checkpoints(
        ...     lambda network: wh.GradDot(network, data, wh.Squared()), model, states)
        >>> ensemble.attribute(wh.Loss((data[0][:1], data[1][:1]))).values
        array([[5., 8.]], dtype=float32)
        """
        members = checkpoint_members(make, model, checkpoints)
        return cls(members, scale=scale, memory_budget=memory_budget)

    @classmethod
    def swag(
        cls,
        make: Callable[[nn.Module], Method],
        model: nn.Module,
        checkpoints: Sequence[Checkpoint],
        *,
        count: int = SWAG_MEMBERS,
        spread: float = 1.0,
        seed: int = 0,
        scale: Scale = "none",
        memory_budget: int = MEMORY_BUDGET,
    ) -> Self:
        """Return the ensemble of networks drawn around the states of a single training.

        They are drawn from a Gaussian with the mean and the covariance of late states, SWAG
        (Maddox et al. 2019, arXiv 1902.02476), which costs no further training; batch
        normalizations get the statistics of the training samples for each of them.

        Parameters
        ----------
        make:
            ``make(network)`` returns a method for a copy of the model, whose weights are drawn.
        model:
            The model; it stays as it is.
        checkpoints:
            Two or more of its states, as late in training as the loss has settled: such as
            ``run.checkpoints(range(400, 501, 10))``.
        count:
            How many networks.
        spread:
            Factor of the covariance; 0 for the mean of the states alone (SWA).
        seed:
            Of what is drawn.
        scale, memory_budget:
            As above.

        Raises
        ------
        TypeError
            If ``make`` returns no method.
        ValueError
            If there are fewer than two states, or one is not of this model.

        Examples
        --------
        >>> import torch, whence as wh
        >>> model = torch.nn.Linear(2, 2)
        >>> data = torch.rand(20, 2), torch.arange(20) % 2
        >>> loss = torch.nn.CrossEntropyLoss()
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> run = wh.train(model, data, loss, optimizer, epochs=8, batch_size=5)
        >>> ensemble = wh.Ensemble.swag(
        ...     lambda network: wh.Influence(network, data, loss, damping=1e-2),
        ...     model, run.checkpoints(range(16, 33, 4)), count=3)
        >>> ensemble.attribute(wh.Loss()).attrs["members"]
        3
        """
        members = swag_members(make, model, checkpoints, count, spread, seed)
        return cls(members, scale=scale, memory_budget=memory_budget)

    def transform_gradients(self, gradients: Tensor) -> tuple[Tensor, Solved]:
        """Return the gradients as they are: members have their own."""
        return gradients, Solved()

    def prepare_points(self, points: PointsByTerm | None) -> PreparedPoints:
        """Return checked points; members that know training points alone take no others."""
        # Members say themselves what they do not take.
        prepared = super().prepare_points(points)
        for member in self.members:
            member.prepare_points(points)
        return prepared

    def description(self) -> Attributes:
        """Return how many members there are, and their methods."""
        kinds = sorted({member.name for member in self.members})
        return {
            "members": len(self.members),
            "methods": ", ".join(kinds),
            "scale": "each target to a mean square of 1"
            if self.scale == "target"
            else "mean over members",
        }

    def tiles(
        self,
        quantity: Quantity,
        points: PointsByTerm | None = None,
        effect: Effect = "remove",
    ) -> Iterator[Tile]:
        """Yield the mean of the members' attributions."""
        shape = (self.n_targets(quantity), len(self.prepare_points(points)))
        self.check_size(*shape)
        like = self.objective.parameters.vector()
        total = like.new_zeros(shape)
        solved = Solved()
        for member in self.members:
            values = like.new_zeros(shape)
            for tile in member.tiles(quantity, points, effect):
                values[tile.targets, tile.points] = tile.values.to(like)
                solved = solved.worst_with(tile.solved)
            total += self._scaled(values)
        every_target, every_point = (slice(0, n) for n in shape)
        yield Tile(every_target, every_point, total / len(self.members), solved)

    def _scaled(self, values: Tensor) -> Tensor:
        if self.scale == "none":
            return values
        size = values.square().mean(dim=1, keepdim=True).sqrt()
        # A row of zeros stays one.
        return values / torch.where(size > 0, size, torch.ones_like(size))

    def whole_tiles(
        self, quantity: Quantity, points: PointsByTerm | None, effect: Effect
    ) -> Iterator[Tile] | None:
        """Return all tiles: members are attributed whole, one after another."""
        return self.tiles(quantity, points, effect)

    def self_values(
        self, points: PointsByTerm | None
    ) -> Iterator[tuple[Tensor, Solved]]:
        """Yield the mean effects of all points on their own losses."""
        if self.scale == "none":
            total: Tensor | None = None
            solved = Solved()
            for member in self.members:
                parts = list(member.self_values(points))
                values = torch.cat([part for part, _ in parts])
                for _, quality in parts:
                    solved = solved.worst_with(quality)
                total = values if total is None else total + values
            assert total is not None
            yield total / len(self.members), solved
            return

        # What a row is scaled by needs all of it, and the points that it is of.
        if points is not None:
            raise ValueError(
                "the scale of a point's own entry is that of its row over all training points: "
                "leave points= out, or scale='target'"
            )
        (tile,) = self.tiles(Loss())
        yield tile.values.diagonal(), tile.solved


def check_members(members: Sequence[Method]) -> tuple[Method, ...]:
    """Return the members of an ensemble, all of them methods with as many points by term."""
    if isinstance(members, Method) or not isinstance(members, Sequence) or not members:
        raise ValueError(
            "members must be one or more methods, such as [wh.Influence(model, data, loss) for "
            f"model in models], got {_checks.describe(members)}"
        )
    for member in members:
        if not isinstance(member, Method):
            raise TypeError(
                "a member of an ensemble must be a method, such as wh.Influence(model, data, "
                f"loss), got {_checks.describe(member)}"
            )
    # Points are told apart by their places, so that members must have as many.
    counts = []
    for member in members:
        terms = member.objective.data_terms.items()
        counts.append({name: len(term.points) for name, term in terms})
    for number, of_member in enumerate(counts):
        if of_member != counts[0]:
            raise ValueError(
                f"members explain by the same training points: member 0 has {counts[0]}, member "
                f"{number} has {of_member}"
            )
    return tuple(members)
