"""What the flags of ``whence train`` make, on top of a problem's recipe."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from torch import nn

from whence import _checks
from whence.catalogue import (
    NETWORKS,
    OPTIMIZERS,
    RESAMPLERS,
    SAMPLINGS,
    SCORES,
    SELECTIONS,
    SETTINGS,
    WEIGHTINGS,
    AnyCatalogue,
)
from whence.cli.flags import (
    Group,
    build,
    check_used,
    choices,
    counts_by_term,
    default_words,
    numbers_by_term,
    options_of,
    values_for,
)
from whence.pinn.networks.mlp import MLP
from whence.pinn.optimizers.stepper import Optimizer
from whence.pinn.sampling.resamplers import Resample, Resampler
from whence.pinn.sampling.scores import SavedScore, Score
from whence.pinn.sampling.selections import Selection
from whence.pinn.settings import Setting
from whence.pinn.training.choices import GROWING, recipe_of_choice
from whence.pinn.training.load import load_run
from whence.pinn.training.observers import Observer
from whence.pinn.training.problem_file import ProblemFile
from whence.pinn.training.recipe import Recipe
from whence.pinn.training.refinement import refined, weights_of
from whence.pinn.training.result import Result
from whence.pinn.training.reweighting import WeightingLike
from whence.pinn.training.spectra import Spectra
from whence.pinn.training.threads import Threads

RECIPE = "recipe"
"""Choice of a flag that leaves what the problem's recipe has."""
NONE = "none"
"""Choice of a flag that switches something off."""


BEST = "best"
OWN_NETWORK = "own_network"
AUTO = "auto"
SUIT_EVERY_RECIPE = (
    "problem", "out", "seed", "max_seconds", "constraints", "variant", "resume", "points",
    "sampling", "weights", "device", "compile", "threads", "quiet", "recipe",
)  # fmt: skip
"""Flags that say nothing of how a network is trained."""


@dataclasses.dataclass(frozen=True)
class TrainOptions:
    """Train a network on a problem, resampling its points, and leave a run folder."""

    problem: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="PROBLEM")]
    """What to solve: a name (`whence problems` describes each), a Python file that defines
    `problem` (and `network`, `recipe` if wanted), or with --resume a run folder."""
    setting: Annotated[str | None, default_words("the problem's recipe", "SETTING")] = (
        None
    )
    """Published way to train, in place of the recipe: paper, paper-replace, pinnfluence-good,
    pinnfluence-poor (`whence catalogue settings`). Other flags count on top."""
    out: Annotated[
        Path | None, default_words("runs/PROBLEM[-VARIANT]-SEED", "PATH")
    ] = None
    """Run folder to make."""
    seed: int = 0
    """Seed of the network and of everything random."""
    max_seconds: Annotated[
        float | None, default_words("the recipe's, none with --schedule", "SECONDS")
    ] = None
    """Stop, resumably, after this many seconds."""
    constraints: Annotated[Literal["hard", "soft"] | None, default_words("hard")] = None
    """hard: an ansatz meets initial and boundary conditions exactly. soft: each is a loss term."""
    variant: Annotated[
        str | None, default_words("good, the problem as it is", "NAME")
    ] = None
    """bad: trained poorly; broken: a wrong equation or condition (`whence problems NAME` says
    which and what others there are)."""
    resume: bool = False
    """Go on with a run: of the folder that is named in place of the problem, with its own
    options; or of --out, with the same options as before."""
    start: Annotated[Path | None, default_words("a new network", "RUN")] = None
    """Start from the network of this run, and from its points where --points gives no number."""
    refine: Annotated[Path | None, default_words("no other network", "RUN")] = None
    """Keep the network of this run and train a second one on what it leaves (`pinn.refine`);
    --network, --layers and their like say what it is."""

    network: Annotated[
        str | None, choices(NETWORKS), default_words("the problem's own")
    ] = None
    """Kind of network."""
    layers: Annotated[
        tuple[int, ...], default_words("the problem's own", "[INT ...]")
    ] = ()
    """Widths of a multilayer perceptron: inputs, hidden layers, outputs, such as 2 32 32 1."""
    activation: Annotated[str | None, default_words("tanh", "NAME")] = None
    """Function between the layers: tanh, gelu, sin or silu."""

    recipe: Annotated[str, tyro.conf.arg(metavar="{best,own_network,auto,CHOICE}")] = (
        "best"
    )
    """best: what reaches the least error, by another network where that helps; of a file without
    a recipe auto. own_network: the best for the problem's own network, as whenever a flag sets how
    to train. auto: chosen by short trials for --max-seconds (300), which say their choice; with
    that choice in place of auto the trials are left out."""
    points: Annotated[
        tuple[str, ...],
        default_words("those of --start, else the recipe's", "[TERM=COUNT ...]"),
    ] = ()
    """First training points as TERM=COUNT, such as pde=500."""
    sampling: Annotated[str, choices(SAMPLINGS)] = "hammersley"
    """How the first points are placed."""
    hold_out: Annotated[float, tyro.conf.arg(metavar="SHARE")] = 0.0
    """Share of measurements to keep out of training and to judge the network by."""
    schedule: Annotated[
        tuple[str, ...], default_words("the recipe's", "[KIND:ITERATIONS ...]")
    ] = ()
    """Optimizers in turn as KIND:ITERATIONS, such as adam:5000 lbfgs:2000 gauss_newton:200."""
    cycles: Annotated[int | None, default_words("the recipe's, 1", "INT")] = None
    """How many times to go through the schedule. Points are then renewed between two cycles,
    unless --resample.every says when."""
    keep: Annotated[
        Literal["best", "last"] | None, default_words("the recipe's, best")
    ] = None
    """best: keep the network of least validation loss. last: the last one."""
    test: Annotated[int | None, default_words("the recipe's, none", "INT")] = None
    """Random points for the column test_loss of the history."""
    lr: Annotated[float | None, default_words("1e-3", "FLOAT")] = None
    """Learning rate of Adam."""

    weights: Annotated[
        tuple[str, ...], default_words("all 1", "[TERM=NUMBER ...]")
    ] = ()
    """Weights of terms, such as initial_u=100."""
    weighting: Annotated[str, choices(WEIGHTINGS, NONE)] = NONE
    """How weights of terms change while training; they multiply --weights."""

    resampler: Annotated[
        str, choices(RESAMPLERS, RECIPE, NONE), default_words("the recipe's")
    ] = RECIPE
    """How points are renewed: resample by a score, r3 keeps points above the mean residual, none
    keeps the first points."""
    score: Annotated[str, choices(SCORES, RECIPE), default_words("the recipe's")] = (
        RECIPE
    )
    """How candidate points are scored."""
    saved_scores: Annotated[Path | None, default_words("none", "PATH")] = None
    """Scores that `whence score` wrote, in place of --score."""
    select: Annotated[
        str, choices(SELECTIONS, RECIPE), default_words("the recipe's")
    ] = RECIPE
    """How scored candidates are chosen."""

    spectra_every: Annotated[int | None, default_words("never", "ITERATIONS")] = None
    """Record the tangent kernel's eigenvalues by term, at least so many iterations apart."""
    dtype: Literal["float64", "float32"] = "float64"
    """Number type."""
    device: str = "cpu"
    """Device, such as cpu or cuda."""
    compile: Literal["auto", "yes", "no"] = "auto"
    """Compile loss and gradient (not for Gauss–Newton); auto: where the run is long enough."""
    threads: Annotated[str, tyro.conf.arg(metavar="{auto,INT}")] = "auto"
    """Threads to compute with; auto: one or all, whichever takes a step sooner. A resumed run
    keeps its number."""
    quiet: bool = False
    """Show no progress bar."""


class Training:
    """The arguments of :func:`whence.pinn.train` that a command line asks for.

    What it leaves open is as in the recipe of the problem.

    Parameters
    ----------
    options:
        The flags.
    groups:
        The groups of flags among them.
    source:
        What defines the problem.
    """

    def __init__(
        self, options: TrainOptions, groups: Sequence[Group], source: ProblemFile
    ) -> None:
        self.options = options
        self.groups = groups
        self.source = source
        setting = setting_of(options.setting)
        self.constraints: str | None = options.constraints
        if setting is not None and self.constraints is None and source.has_constraints:
            self.constraints = setting.constraints

        self.problem = source.problem(self.constraints, options.variant)
        if setting is None:
            self.recipe = self._recipe()
        elif source.variant_trains(options.variant):
            raise ValueError(
                f"--setting and --variant {options.variant} both say how to train: leave one of "
                "them out"
            )
        elif options.recipe != BEST:
            raise ValueError(
                "--setting and --recipe exclude each other: leave one of them out"
            )
        else:
            self.recipe = setting.recipe(self.problem)

    def _recipe(self) -> Recipe:
        """Return the recipe that is asked for."""
        recipe = self.options.recipe
        if recipe in (BEST, OWN_NETWORK):
            # What is set of the training is meant for the problem's own network, not for another.
            own_network = recipe == OWN_NETWORK or self.sets_training()
            return self.source.recipe(
                self.problem, self.constraints, own_network, self.options.variant
            )

        if ":" not in recipe:
            named = (BEST, OWN_NETWORK, AUTO, GROWING)
            _checks.one_of("--recipe", recipe, named)
        if self.sets_training() or self.source.variant_trains(self.options.variant):
            raise ValueError(
                f"--recipe {recipe} says how to train: leave out the flags that do so too"
            )
        return recipe_of_choice(self.problem, recipe)

    def sets_training(self) -> bool:
        """Whether any flag says how to train, beside those that suit every recipe."""
        for entry in dataclasses.fields(self.options):
            if entry.name in SUIT_EVERY_RECIPE:
                continue
            default = entry.default
            if entry.default_factory is not dataclasses.MISSING:
                default = entry.default_factory()
            if getattr(self.options, entry.name) != default:
                return True
        return False

    def _values(self, catalogue: AnyCatalogue, name: str) -> dict[str, Any]:
        """Return what the flags of one class set."""
        return values_for(self.options, self.groups, catalogue, name)

    def max_seconds(self) -> float | None:
        """Return the time limit, None for none."""
        if self.options.max_seconds is not None:
            return self.options.max_seconds
        # The recipe's limit suits its own schedule, and would cut another one short.
        if self.options.schedule:
            return None
        return self.recipe.max_seconds

    def points(self) -> dict[str, int]:
        """Return the numbers of first points by term; with --start only those asked for."""
        counts = counts_by_term("--points", self.options.points, self.problem.terms)
        if self.options.start is not None:
            return dict(counts)
        return {**self.recipe.points, **counts}

    def test(self) -> int:
        """Return the number of points of the test loss."""
        if self.options.test is None:
            return self.recipe.test
        return self.options.test

    # --- weights and observers ---

    def weights(self) -> dict[str, float] | None:
        """Return the weights of terms, None if none is set."""
        weights = numbers_by_term("--weights", self.options.weights)
        for term in weights:
            _checks.one_of("term in --weights", term, self.problem.terms)
        if self.options.refine is not None:
            return {**weights_of(self._refined_run), **weights}
        return {**(self.recipe.weights or {}), **weights} or None

    def weighting(self) -> WeightingLike | None:
        """Return what renews the weights, None if they stay."""
        name = self.options.weighting
        if name == NONE:
            return None
        values = self._values(WEIGHTINGS, name)
        weighting: WeightingLike = build(WEIGHTINGS, name, values)
        return weighting

    def threads(self) -> Threads:
        """Return the number of threads, or ``"auto"``."""
        text = self.options.threads
        if text == "auto":
            # Slabs are many short runs, which must all compute alike.
            return "auto" if self.recipe.slabs is None else None
        if not text.isdecimal():
            raise ValueError(
                f"--threads takes a number such as 4, or auto, got {text!r}"
            )
        return int(text)

    def observers(self) -> list[Observer]:
        """Return what looks on while the network trains."""
        if self.options.spectra_every is None:
            return []
        return [Spectra(self.options.spectra_every)]

    # --- the network ---

    def network(self) -> nn.Module | None:
        """Return the network asked for, or the file's; None for the problem's own."""
        options = self.options
        kind = options.network or "mlp"
        values = self._network_values(kind)
        is_set = options.network is not None or bool(values)
        if options.refine is not None:
            # One more than the run's own seed: equal seeds would draw equal numbers.
            seed = options.seed + 1
            second = self._network(kind, values, seed) if is_set else None
            return refined(self._refined_run, second, seed=seed)

        if not is_set and self.recipe.network is not None:
            return self.recipe.network(options.seed)
        if not is_set:
            if not self.source.has_network and self.problem.architecture is not None:
                return None
            return self.source.network(self.problem, options.seed)
        return self._network(kind, values, options.seed)

    def _network_values(self, kind: str) -> dict[str, Any]:
        """Return what the flags set of a network of this kind, and of the one within it."""
        options = self.options
        values: dict[str, Any] = {}
        for name in reversed(self._network_kinds()):
            values |= self._values(NETWORKS, name)
        if options.layers:
            values["layers"] = list(options.layers)
        if options.activation is not None:
            takes = [_option_names(name) for name in self._network_kinds()]
            if not any("activation" in names for names in takes):
                raise ValueError(
                    f"--activation does nothing, as a network {kind!r} has its own: leave it out"
                )
            values["activation"] = options.activation
        return values

    def _network_kinds(self) -> list[str]:
        """Return the kind of network, and of the network within it where it has one."""
        kind = self.options.network or "mlp"
        kinds = [kind]
        for option in options_of(NETWORKS[kind]):
            if option.name == "kind":
                values = self._values(NETWORKS, kind)
                within = str(values.get("kind", option.default))
                _checks.one_of("kind of network", within, NETWORKS)
                kinds.append(within)
        return kinds

    def _network(self, kind: str, values: dict[str, Any], seed: int) -> nn.Module:
        """Return a network of these options, others as the problem's own has them."""
        base = self.source.network(self.problem, seed)
        if kind == "mlp" and "layers" not in values and isinstance(base, MLP):
            # Another activation, say, of the network that would be trained anyway.
            values = {**base.options(), **values}
        if kind != "mlp":
            values = {**self._of_problem(kind, base), **values}
        if "layers" in values:
            values["layers"] = list(values["layers"])
        values["seed"] = seed
        network: nn.Module = build(NETWORKS, kind, values)
        return network

    def _of_problem(self, kind: str, base: nn.Module) -> dict[str, Any]:
        """Return what a network of this kind takes of the problem and of its own network."""
        known: dict[str, Any] = {
            "coordinates": list(self.problem.coordinates),
            "bounds": self.problem.domain.bounds.tolist(),
        }
        if isinstance(base, MLP):
            known["layers"] = list(base.layers)
        names = _option_names(kind)
        return {name: value for name, value in known.items() if name in names}

    @functools.cached_property
    def _refined_run(self) -> Result:
        """Return the run of --refine, which must solve the same problem."""
        path = self.options.refine
        assert path is not None
        if self.options.start is not None:
            raise ValueError(
                "--refine and --start exclude each other: leave one of them out"
            )

        run = load_run(path)
        mine = (self.problem.label, self.problem.ansatz is not None)
        other = (run.problem.label, run.problem.ansatz is not None)
        if mine != other:
            raise ValueError(
                f"{path} solves {other[0]!r} with {'hard' if other[1] else 'soft'} conditions, "
                f"not {mine[0]!r} with {'hard' if mine[1] else 'soft'} ones: refine a run of the "
                "same problem"
            )
        return run

    # --- the schedule ---

    def cycles(self) -> int:
        """Return how many times the optimizers take turns."""
        if self.options.cycles is None:
            return self.recipe.cycles
        _checks.count("--cycles", self.options.cycles)
        return self.options.cycles

    def schedule(self) -> list[Optimizer]:
        """Return the optimizers in turn, those of all cycles."""
        return self.cycle() * self.cycles()

    def cycle(self) -> list[Optimizer]:
        """Return the optimizers of a cycle, with what is set for each kind."""
        if not self.options.schedule:
            return [self._with_options(stage) for stage in self.recipe.schedule]

        # A schedule by flags replaces the recipe's.
        stages = []
        for text in self.options.schedule:
            name, _, number = text.partition(":")
            if name not in OPTIMIZERS or not number.isdecimal():
                hint = ""
                if name not in OPTIMIZERS:
                    hint = _checks.nearest(name, OPTIMIZERS)
                raise ValueError(
                    f"--schedule takes KIND:ITERATIONS with KIND one of {', '.join(OPTIMIZERS)}, "
                    f"such as adam:5000, got {text!r}{hint}"
                )

            values = {"iterations": int(number), **self._optimizer_values(name)}
            stages.append(build(OPTIMIZERS, name, values))

        return stages

    def _with_options(self, stage: Optimizer) -> Optimizer:
        """Return a stage of the recipe with what is set for its kind."""
        name = OPTIMIZERS.name_of(stage)
        if name is None:
            return stage
        # --lr and --adam.lr are the same, the shorter one is for the first day.
        values = self._optimizer_values(name)
        changed: Optimizer = build(OPTIMIZERS, name, values, stage)
        return changed

    def _optimizer_values(self, name: str) -> dict[str, Any]:
        values = self._values(OPTIMIZERS, name)
        if name == "adam" and self.options.lr is not None:
            values["lr"] = self.options.lr
        return values

    # --- resampling ---

    def resampler(self) -> Resampler | None:
        """Return what renews the points: the recipe's with what is set on top."""
        options = self.options
        base = self.recipe.resample
        name: str | None = options.resampler
        if name == RECIPE and base is not None:
            name = RESAMPLERS.name_of(base)
        elif name == RECIPE:
            # A score says that points are to be renewed, where the recipe keeps them.
            wants_score = options.score != RECIPE or options.saved_scores is not None
            name = "resample" if wants_score else NONE

        if name == NONE:
            return None
        if name is None:
            return base  # the user's own, which no flag can change
        values = self._values(RESAMPLERS, name)
        if RESAMPLERS[name] is Resample:
            return self._resample(values, base)
        if base is not None and "every" not in values:
            values["every"] = base.every
        return build(RESAMPLERS, name, values)

    def _resample(self, values: dict[str, Any], base: Resampler | None) -> Resample:
        """Return a resampling by score; what is not set is as in ``base``."""
        if not isinstance(base, Resample):
            base = Resample()
        values = {"max_points": self._max_points(values, base), **values}
        if "every" in values:
            values = {"stages": None, **values}
        elif self.cycles() > 1:
            values = {"stages": len(self.cycle()), **values}
        return dataclasses.replace(
            base, score=self._score(base), selection=self._selection(base), **values
        )

    def _max_points(self, values: Mapping[str, Any], base: Resample) -> int | None:
        """Return the recipe's limit of points, where it is not the user who says how they grow."""
        if "update" in values or base.max_points is None:
            return None
        # First points beyond it are not to leave in the first round.
        return max([base.max_points, *self.points().values()])

    def _selection(self, base: Resample) -> Selection:
        name: str | None = self.options.select
        if name == RECIPE:
            name = SELECTIONS.name_of(base.selection)
        if name is None:
            return base.selection
        values = self._values(SELECTIONS, name)
        selection: Selection = build(SELECTIONS, name, values, base.selection)
        return selection

    def _score(self, base: Resample) -> Score:
        name: str | None = self.options.score
        saved = self.options.saved_scores
        if saved is not None:
            if name != RECIPE:
                raise ValueError(
                    "--score and --saved-scores exclude each other: leave one of them out"
                )
            return SavedScore.load(saved)

        if name == RECIPE:
            name = SCORES.name_of(base.score)
        if name is None:
            return base.score

        values = self._values(SCORES, name)
        score: Score = build(SCORES, name, values, base.score)
        return score

    # --- what would do nothing ---

    def check_used(
        self, schedule: Sequence[Optimizer], resampler: Resampler | None
    ) -> None:
        """Raise ``ValueError`` for an option that would do nothing beside the others."""
        options = self.options
        chosen = self.in_use(schedule, resampler)
        # Options of all others would be ignored, so they are refused.
        check_used(options, self.groups, chosen)

        flags = {"--score": options.score, "--select": options.select}
        for flag, value in flags.items():
            if not isinstance(resampler, Resample) and value != RECIPE:
                raise ValueError(
                    f"{flag} does nothing with --resampler {options.resampler}: leave it out"
                )

        if options.lr is not None and "adam" not in chosen["optimizer"]:
            raise ValueError(
                "--lr does nothing, as no adam is in the schedule: leave it out"
            )

    def in_use(
        self, schedule: Sequence[Optimizer], resampler: Resampler | None
    ) -> dict[str, list[str]]:
        """Return the names that are in use, by the kind of their catalogue."""
        names: dict[str, list[str]] = {
            "weighting": [self.options.weighting],
            "network": self._network_kinds(),
            "optimizer": OPTIMIZERS.names_of(schedule),
            "resampler": RESAMPLERS.names_of([resampler]),
            "score": [],
            "selection": [],
        }
        if isinstance(resampler, Resample):
            names["score"] = SCORES.names_of([resampler.score])
            names["selection"] = SELECTIONS.names_of([resampler.selection])
        return names


def _option_names(kind: str) -> list[str]:
    """Return the names of the options of a kind of network."""
    return [option.name for option in options_of(NETWORKS[kind])]


def setting_of(name: str | None) -> Setting | None:
    """Return a setting by its name, in which hyphens may stand for underscores."""
    if name is None:
        return None
    setting: Setting = SETTINGS[name.replace("-", "_")]()
    return setting
