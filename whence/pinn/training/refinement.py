"""A second network for what the first one leaves: its scale, its frequency, and its training."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from whence.pinn.networks import MLP, Stages
from whence.pinn.optimizers.stepper import Optimizer
from whence.pinn.pde.problem import Problem
from whence.pinn.training.result import Result
from whence.pinn.training.train import train
from whence.points import Points

LINES = 32
"""Lines along each coordinate on which a residual's spectrum is measured."""
SAMPLES = 256
"""Places on each line: up to half as many waves over the domain are seen."""
TOLERANCE = 1e-9
"""How far outside a place on a line may lie by rounding, as a share of the domain."""
STEP = 1e-4
"""Size of the second network at which a residual's derivative by it is a difference."""
HIDDEN = (32, 32)
"""Hidden layers of the second network where the first does not say."""


def refine(
    result: Result,
    network: nn.Module | None = None,
    *,
    schedule: Optimizer | Sequence[Optimizer],
    seed: int = 1,
    **options: object,
) -> Result:
    """Train a second network on what a trained one leaves: ``N_1 + ε N_2`` with N_1 frozen.

    ε is such that N_2, of order one, changes the residuals as much as they are (:func:`refined`).
    Weights are those of the first run over its loss, so that the second begins at a loss of about
    1. May be repeated: a third stage refines two (Wang & Lai, arXiv 2307.08934).

    Parameters
    ----------
    result
        The first run.
    network
        N_2; by default as :func:`refined` chooses.
    schedule
        As of :func:`whence.pinn.train`.
    seed
        Seed of N_2 and of everything random.
    options
        Further options of :func:`whence.pinn.train`. By default there are as many points of each
        term as the first run had in the end, drawn again; points that its user gave remain.

    Returns
    -------
    Result
        Its network is a :class:`whence.pinn.Stages`. Influence on it is that of the points on the
        last stage: the first is taken as it is.

    Raises
    ------
    ValueError
        If the problem has unknowns, which were estimated with the first network.

    Examples
    --------
    >>> from whence import pinn
    >>> problem = pinn.zoo.load("diffusion")
    >>> first = pinn.train(problem, points=100, schedule=pinn.GaussNewton(30), progress=False)
    >>> second = pinn.refine(first, schedule=pinn.GaussNewton(30), progress=False)
    >>> second.summary["relative_l2"] < first.summary["relative_l2"]
    True
    """
    module = refined(result, network, seed=seed)
    # What the caller sets counts.
    options.setdefault("points", points_of(result))
    options.setdefault("weights", weights_of(result))
    return train(
        result.problem,
        module,
        schedule=schedule,
        seed=seed,
        **options,  # type: ignore[arg-type]
    )


def refined(
    result: Result, network: nn.Module | None = None, *, seed: int = 1
) -> Stages:
    """Return ``N_1 + ε N_2``, N_1 that of a trained run and frozen, ready to train.

    By default N_2 is an MLP of sines as wide as N_1 whose inputs are scaled to the residual's
    dominating frequency along each coordinate. With r the residuals of N_1 and ``r′N_2`` their
    derivative along N_2, both weighted as in the loss, ``ε = ‖r‖/‖r′N_2‖``.

    Parameters
    ----------
    result
        The first run.
    network
        N_2.
    seed
        Draws N_2 where it is not given.

    Raises
    ------
    ValueError
        If the problem has unknowns, or N_2 does not change the residuals.

    Examples
    --------
    >>> from whence import pinn
    >>> problem = pinn.zoo.load("diffusion")
    >>> first = pinn.train(problem, points=100, schedule=pinn.GaussNewton(30), progress=False)
    >>> network = pinn.refined(first)
    >>> network.scales[0] < 0.01
    True
    """
    if result.problem.unknowns:
        raise ValueError(
            f"{result.problem.name!r} has unknowns, which were estimated with the first network: "
            "train it longer, or as a problem of their values"
        )

    # A copy, as it is frozen in the sum: the run's own stays as it was.
    first = copy.deepcopy(result.network)
    if network is None:
        network = default_network(result, seed)
    network = network.to(result.objective.parameters.dtype)
    scale = scale_of(result, first, network)
    if not isinstance(first, Stages):
        return Stages.of([first, network], [scale])

    # One sum of all stages, and not a sum within a sum.
    stages = [*first.stages, network]
    scales = [*first.scales, scale]
    return Stages.of(stages, scales)


def default_network(result: Result, seed: int) -> MLP:
    """Return an MLP of sines with inputs scaled to the residual's dominating frequencies."""
    problem = result.problem
    first = result.network
    if isinstance(first, Stages):
        first = first.stages[0]

    # As wide as the first, where that has layers to speak of.
    hidden: Sequence[int] = HIDDEN
    widths = getattr(first, "layers", None)
    if widths is not None:
        hidden = widths[1:-1]
    inputs = problem.domain.dimension
    outputs = len(problem.outputs)
    layers = [inputs, *hidden, outputs]

    # f waves over the width of the domain turn by 2πf; scaled from −κ to κ by 2κ: κ = πf.
    turning = math.pi * dominant_frequencies(result)
    lowest, highest = torch.as_tensor(problem.domain.bounds, dtype=torch.float64)
    center = (lowest + highest) / 2
    half = (highest - lowest) / 2

    # A network of the box center ± half/κ sees the domain as −κ to κ.
    reach = half / turning
    bounds = torch.stack([center - reach, center + reach])
    return MLP(
        layers,
        "sin",
        bounds=bounds,
        seed=seed,
    )


def dominant_frequencies(result: Result) -> Tensor:
    """Return the waves over the domain of which the equations' residuals have most, (d,).

    Along each coordinate the power spectra of lines through random points are summed over lines
    and equations; the constant is left out.
    """
    domain = result.problem.domain
    lowest, highest = torch.as_tensor(domain.bounds, dtype=torch.float64)
    starts = domain.sample(LINES, "random", 0)
    shares = torch.linspace(0, 1, SAMPLES, dtype=torch.float64)

    frequencies = []
    for column in range(domain.dimension):
        # All lines one after another, each with its places along this coordinate.
        lines = starts.double().repeat_interleave(SAMPLES, dim=0)
        width = highest[column] - lowest[column]
        places = lowest[column] + width * shares
        lines[:, column] = places.repeat(LINES)

        power = _spectrum(result, lines)
        # What has most beside the constant, which is frequency 0.
        strongest = power[1:].argmax()
        frequencies.append(int(strongest) + 1)

    return torch.tensor(frequencies, dtype=torch.float64)


def _spectrum(result: Result, lines: Tensor) -> Tensor:
    """Return the power of the equations' residuals by frequency, summed over lines."""
    problem = result.problem
    like = result.objective.parameters
    at = lines.to(dtype=like.dtype, device=like.device)
    # A line that leaves the domain has nothing there.
    inside = problem.domain.contains(lines, TOLERANCE)
    # Without a window the jump from one end to the other would have all frequencies.
    window = torch.hann_window(SAMPLES, periodic=False, dtype=torch.float64)

    n_frequencies = SAMPLES // 2 + 1
    power = torch.zeros(n_frequencies, dtype=torch.float64)
    for name in problem.equations:
        values = values_at(problem, result.network, name, at)
        values = values.double().cpu() * inside.unsqueeze(1)
        table = values.reshape(LINES, SAMPLES, -1)
        centered = table - table.mean(dim=1, keepdim=True)
        windowed = centered * window.unsqueeze(1)
        waves = torch.fft.rfft(windowed, dim=1)
        power += waves.abs().square().sum(dim=(0, 2))

    return power


def scale_of(result: Result, first: nn.Module, second: nn.Module) -> float:
    """Return ε at which ``ε N_2`` changes the weighted residuals of N_1 as much as they are.

    Raises
    ------
    ValueError
        If it does not change them, or they vanish.
    """
    problem = result.problem
    more = Stages.of([first, second], [STEP])
    less = Stages.of([first, _Negative(second)], [STEP])

    size = 0.0
    change = 0.0
    for name, term in result.objective.terms.items():
        points = term.points
        before = values_at(problem, first, name, points)
        above = values_at(problem, more, name, points)
        below = values_at(problem, less, name, points)
        # Exact where the residual is of second degree in the solution, and near enough otherwise.
        derivative = (above - below) / (2 * STEP)

        # As in the loss: the sum over components, the mean over points.
        size += term.mean_weight * _mean_square(before)
        change += term.mean_weight * _mean_square(derivative)

    if not change > 0 or not size > 0:
        raise ValueError(
            f"there is nothing to refine: the mean square of the residuals is {size:.3g}, that of "
            f"their derivative along the second network {change:.3g}"
        )
    return math.sqrt(size / change)


def _mean_square(values: Tensor) -> float:
    """Return the mean over points of the squared norms of values (n, m)."""
    by_point = values.square().sum(dim=1)
    return float(by_point.mean())


class _Negative(nn.Module):
    """A network with the other sign."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return -self.network(x)


def values_at(
    problem: Problem, network: nn.Module, term: str, points: Points
) -> Tensor:
    """Return a term's residuals of a network at points, (n, m), without a graph."""
    residual = problem.residual(network, term)
    tensors = {}
    for name, parameter in network.named_parameters():
        tensors[name] = parameter.detach()

    with torch.no_grad():
        return residual(tensors, points)


def points_of(result: Result) -> dict[str, int | Tensor]:
    """Return how many points of each term a run had; those that its user gave, themselves."""
    points: dict[str, int | Tensor] = {}
    for name, term in result.objective.terms.items():
        # Those of measurements are part of the problem.
        if name in result.problem.given_terms:
            continue
        points[name] = len(term.points)
        if term.source == "given":
            points[name] = term.locations
    return points


def weights_of(result: Result) -> dict[str, float]:
    """Return the weights of a run over its loss, so that a refinement begins at about 1."""
    objective = result.objective
    loss = float(objective.loss())
    weights = {}
    for name, term in objective.terms.items():
        weights[name] = term.mean_weight / loss
    return weights
