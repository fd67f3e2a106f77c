"""From a run folder back to its problem, network and objective."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from whence._files import JsonObject, PathLike
from whence.catalogue import NETWORKS, PROBLEMS
from whence.objective import Objective
from whence.pinn.networks import Piecewise
from whence.pinn.pde.problem import Problem
from whence.pinn.pde.slab import CONTINUITY, joined_problem
from whence.pinn.training.configuration import OWN_NETWORK
from whence.pinn.training.first_points import hold_out_points
from whence.pinn.training.problem_file import ProblemFile, read_problem_file
from whence.pinn.training.replayed_folder import trained_on_disk
from whence.pinn.training.result import Result
from whence.pinn.training.run_folder import Checkpoint, RunFolder

SAME_SHARE = 0.01
"""Share of a loss that may differ for other machines' rounding."""
SAME_LOSS, COARSE_LOSS = 1e-14, 1e-5
"""The same of losses that are nearly zero, in float64 and float32."""


def load_run(
    path: PathLike, problem: Problem | None = None, network: nn.Module | None = None
) -> Result:
    """Return a run as :func:`whence.pinn.train` returned it.

    A run of the zoo, or of a problem file (``whence train FILE.py``), knows its problem; the file's
    copy in the folder is *run* for that, so open only runs that you trust. A run of a problem made
    in a script needs the problem again.

    Parameters
    ----------
    path:
        The run folder.
    problem:
        What was solved, where the folder does not say.
    network:
        A network of the trained architecture, where the folder does not say; its parameters are
        loaded.

    Raises
    ------
    FileNotFoundError
        If there is no run, or none with a checkpoint yet.
    ValueError
        If a file is damaged, or problem or network are needed or do not fit.

    Warns
    -----
    ProblemChanged
        If losses of terms differ from those at the end of the training: the problem's definition
        has changed since.

    Examples
    --------
    >>> import tempfile
    >>> from whence import pinn
    >>> folder = tempfile.mkdtemp() + "/run"
    >>> _ = pinn.train(pinn.zoo.load("diffusion"), points=50, schedule=pinn.GaussNewton(10),
    ...                out=folder, progress=False)
    >>> result = pinn.load_run(folder)
    >>> result.solution([[0.5, 0.0]]).round(3), result.history.columns[:2]
    (array([[1.]]), ('iteration', 'seconds'))
    """
    folder = RunFolder(path)
    config = folder.config()
    source = problem_source(folder)
    if problem is None:
        problem = solved_problem(folder, source)
    if network is None:
        network = trained_network(folder, problem, source)
    dtype = getattr(torch, config["dtype"].removeprefix("torch."))
    points = load_points(path)
    if isinstance(network, Piecewise) and f"{CONTINUITY}_1" in points:
        # Slabs are tied to each other by terms that the user's problem does not have.
        problem = joined_problem(problem, network.edges)
    # With the unknowns, which were trained and kept with it.
    network = problem.model(network).to(dtype)
    network = load_network(network, path)

    # At the points and weights that the network was kept with, not the first ones.
    objective = problem.objective(network, points, config["weights"])
    objective = without_held_out(objective, problem, config)
    like = objective.parameters.vector()
    # A weighting changes them in training: those kept replace those of the configuration.
    weights = {name: weight.to(like) for name, weight in load_weights(path).items()}
    base_weights = load_base_weights(path)
    objective = objective.with_base_weights(base_weights).with_weights(weights)

    history = folder.history()
    spectra = folder.spectra() if folder.has_spectra() else None
    record = folder.points()
    checkpoint = folder.checkpoint()
    summary = summary_of(folder, checkpoint)
    warn_if_changed(objective, summary, folder.path)

    trained = trained_on_disk(folder, config, summary, checkpoint, objective)
    return Result(
        problem,
        network,
        objective,
        history,
        summary,
        Path(path),
        spectra,
        record,
        trained,
    )


def summary_of(folder: RunFolder, checkpoint: Checkpoint) -> JsonObject:
    """Return the outcome of the training that a checkpoint is of; empty where it was killed."""
    if not folder.is_finished():
        return {}

    summary = folder.summary()
    # Of a run that was resumed and then killed it is of an earlier end.
    is_of_checkpoint = summary["iterations"] == checkpoint.numbers["place"]["iteration"]
    return summary if is_of_checkpoint else {}


class ProblemChanged(UserWarning):
    """A run's problem is not the one that it was trained on."""


def changed_terms(
    objective: Objective, recorded: Mapping[str, float]
) -> dict[str, tuple[float, float]]:
    """Return the terms whose loss is another than was recorded: the loss then, and now.

    Network, points and weights are those of that time, so that what differs is the definition: an
    equation or a condition has been changed since, or the problem given is another.
    """
    rounding = SAME_LOSS if objective.parameters.dtype == torch.float64 else COARSE_LOSS
    changed = {}
    for name, loss in objective.losses().items():
        before = recorded.get(name)
        if before is None:
            continue
        now = float(loss)
        if abs(now - before) > rounding + SAME_SHARE * before:
            changed[name] = (before, now)
    return changed


def warn_if_changed(objective: Objective, summary: JsonObject, path: Path) -> None:
    """Warn of terms that are not what was trained."""
    changed = changed_terms(objective, summary.get("losses", {}))
    if not changed:
        return

    listed = []
    for name, (before, now) in changed.items():
        listed.append(f"{name} ({before:.3g} then, {now:.3g} now)")
    warnings.warn(
        f"the problem of {path} has changed since it was trained: the loss differs of "
        f"{', '.join(listed)}; what is said of the run holds for the problem as it is now, so "
        "train it again",
        ProblemChanged,
        stacklevel=3,
    )


def without_held_out(
    objective: Objective, problem: Problem, config: JsonObject
) -> Objective:
    """Return the objective without the measurements that its run held out.

    These are not among the points that a run keeps, unlike those that training may change.
    """
    shares = config.get("hold_out")
    measured = [data.name for data in problem.data]
    if isinstance(shares, Mapping):
        shares = {name: share for name, share in shares.items() if name in measured}
    if not shares or not measured:
        return objective

    trained, _ = hold_out_points(objective, problem, shares, config["seed"])
    return trained


def problem_source(folder: RunFolder) -> ProblemFile | None:
    """Return what defines a run's problem: the file in its folder, or a module of the zoo."""
    file = folder.problem_file()
    if file is not None:
        return read_problem_file(file)

    name = folder.config()["problem"]
    if name in PROBLEMS:
        return ProblemFile(name, vars(PROBLEMS[name]))

    return None


def solved_problem(folder: RunFolder, source: ProblemFile | None) -> Problem:
    """Return the problem that a run solves, hard or soft and of the variant as it was trained."""
    config = folder.config()
    if source is None:
        raise ValueError(
            f"{folder.path} solves {config['problem']!r}, which is not one of "
            f"{', '.join(PROBLEMS)}, and holds no problem.py: give the problem, as in "
            "pinn.load_run(path, problem=problem)"
        )

    constraints = config.get("constraints")
    if constraints is None and folder.problem_file() is None:
        # Formats before 3 say only whether there was an ansatz.
        constraints = "hard" if config["hard_constraints"] else "soft"
    problem = source.problem(constraints)
    variant = config.get("variant")
    # A problem of the user's own may be a variant by itself, which no list of the file has.
    if problem.variant == variant:
        return problem
    return source.problem(constraints, variant)


def trained_network(
    folder: RunFolder, problem: Problem, source: ProblemFile | None
) -> nn.Module:
    """Return a network of the trained architecture, of any parameters."""
    config = folder.config()
    # Networks of the catalogue are made again from options, without the user's code.
    architecture = config.get("architecture")
    if architecture is not None and architecture["name"] in NETWORKS:
        kind = NETWORKS[architecture["name"]]
        try:
            network: nn.Module = kind.from_options(architecture["options"])
            return network
        except ValueError as error:
            raise ValueError(
                f"the network of {folder.path} cannot be made again ({error}): give it, as in "
                "pinn.load_run(path, network=network)"
            ) from None

    if config["network"] == OWN_NETWORK:
        return problem.network(config["seed"])
    if source is not None and source.has_network:
        return source.network(problem, config["seed"])

    raise ValueError(
        f"the network of {folder.path}, {config['network']}, is of the user's own making: give "
        "one like it, as in pinn.load_run(path, network=network)"
    )


def load_network(network: nn.Module, run: PathLike) -> nn.Module:
    """Load a run's final parameters (and buffers) into ``network`` and return it.

    Examples
    --------
    >>> from whence import pinn
    >>> network = pinn.zoo.load("burgers").network()
    >>> pinn.load_network(network, "no/such/run")
    Traceback (most recent call last):
    ...
    FileNotFoundError: no/such/run holds no checkpoint yet: checkpoint.safetensors is missing
    """
    saved = RunFolder(run).checkpoint().group("network")
    present = network.state_dict()

    # The first that differs, by name, says most about what network was meant.
    unfit = None
    # The loop below sees the names that the network has, not those that it lacks.
    if len(saved) != len(present):
        unfit = "parameters"
    for name, tensor in present.items():
        if name not in saved or saved[name].shape != tensor.shape:
            unfit = name
            break

    if unfit is not None:
        raise ValueError(
            f"the network of run {run} does not fit: its {unfit} differs from "
            f"{type(network).__name__}'s"
        )

    network.load_state_dict(saved)
    return network


def load_points(run: PathLike) -> dict[str, Tensor]:
    """Return the points by term that a run's network was trained on when it was kept.

    As ``points=`` of :func:`whence.pinn.train` they are given ones; ``start=`` takes those that the
    run drew as drawn ones.
    """
    return RunFolder(run).checkpoint().group("kept")


def load_weights(run: PathLike) -> dict[str, Tensor]:
    """Return the weights by term with which a run's network was kept, (N,) where by point."""
    return RunFolder(run).checkpoint().group("kept_weights")


def load_base_weights(run: PathLike) -> dict[str, Tensor]:
    """Return the weights (N,) that belong to a run's points, by term that has such."""
    return RunFolder(run).checkpoint().group("kept_base_weights")
