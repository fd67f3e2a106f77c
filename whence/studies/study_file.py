"""Study files: a grid of runs in TOML, read against the flags of ``whence train``.

::

    [grid]                              # every combination of these flags
    problem = ["burgers", "my_problem.py"]
    seed = [0, 1, 2]

    [methods.influence]                 # flags of one method; a column of tables
    score = "influence"
    resample.update = "add"

    [methods.random]
    score = "random"

    [train]                             # flags of every run
    schedule = ["adam:2000", "lbfgs:2000"]

    [problems.burgers]                  # flags of one problem, on top of [train]
    points = ["pde=500"]

    [problems.burgers.methods.random]   # flags of one method on that problem
    points = ["pde=1000"]

What several of these set, the most special counts: ``[train]``, ``[problems.NAME]``, the method,
the method on that problem, the grid.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from whence import _checks
from whence._files import checked_path, digest
from whence.cli.parsing import parsed
from whence.cli.sources import source_of
from whence.cli.train import GROUPS, Options
from whence.cli.training import Training, TrainOptions
from whence.studies.study import METHOD, PROBLEM, SEED, Label, Study, StudyRun

Value: TypeAlias = Label | Sequence[Label]
"""What a flag takes."""
Flags: TypeAlias = dict[str, Value]
"""Flags by name, those of classes with a dot: ``resample.update``."""

SECTIONS = ("grid", "methods", "train", "problems")
SET_BY_STUDY = ("out", "resume", "quiet")
"""Flags that the study itself sets."""
THREADS = "threads"


def read_study(path: str | Path) -> Study:
    """Return the study that a file describes, all its runs checked before any is made.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is no TOML, a section, flag or value does not exist, flags do nothing together, or
        two runs would share a folder.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from whence.studies.study_file import read_study
    >>> text = '''
    ... [grid]
    ... problem = ["burgers", "wave"]
    ... seed = [0, 1]
    ...
    ... [methods.random]
    ... score = "random"
    ... '''
    >>> file = Path(tempfile.mkdtemp()) / "study.toml"
    >>> _ = file.write_text(text)
    >>> [run.name for run in read_study(file).runs]
    ['burgers-random-0', 'burgers-random-1', 'wave-random-0', 'wave-random-1']
    """
    path = checked_path("the study file", path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no study file {path}")
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not TOML: {error}") from None

    try:
        sections = _sections(content)
        runs = tuple(_runs(sections, path.parent))
        study = Study(runs)
        check_flags(study)
        check_used_by_some(sections, study)
    except (ValueError, TypeError) as error:
        raise type(error)(f"{path}: {error}") from None
    return study


@dataclasses.dataclass(frozen=True)
class _Sections:
    """A study file, every flag of which exists."""

    grid: Mapping[str, Sequence[Value]]
    methods: Mapping[str, Flags]
    train: Flags
    problems: Mapping[str, Flags]
    of_methods: Mapping[str, Mapping[str, Flags]]
    """Flags of methods on one problem, by problem."""


def flag_names() -> list[str]:
    """Return the names of the flags that a study may set, those of classes with a dot."""
    grouped = {group.field for group in GROUPS}
    names = []
    for field in dataclasses.fields(Options):
        factory = field.default_factory
        if field.name in grouped and factory is not dataclasses.MISSING:
            inner = [entry.name for entry in dataclasses.fields(factory())]
            names += [f"{field.name}.{name}" for name in inner]
        elif field.name not in SET_BY_STUDY:
            names.append(field.name)
    return names


def _sections(content: Mapping[str, object]) -> _Sections:
    for name in content:
        _checks.one_of("section of a study", name, SECTIONS)
    names = flag_names()

    def table(section: str) -> Mapping[str, object]:
        value = content.get(section, {})
        if not isinstance(value, Mapping):
            raise ValueError(f"[{section}] must be a section, got {value!r}")
        return value

    grid: dict[str, Sequence[Value]] = {}
    for flag, values in _flags("[grid]", table("grid"), names).items():
        if isinstance(values, (list, tuple)):
            grid[flag] = values
        else:
            grid[flag] = [values]  # an axis of one value
        if not grid[flag]:
            raise ValueError(f"{flag} of [grid] has no value: list at least one")
    if PROBLEM not in grid:
        raise ValueError('[grid] needs problems, such as problem = ["burgers", "wave"]')
    grid.setdefault(SEED, [0])

    problems, of_methods = apart(table("problems"))
    methods = _by_name("methods", table("methods"), names)
    of_problem = {}
    for problem, flags in of_methods.items():
        section = f"problems.{problem}.methods"
        of_problem[problem] = _by_name(section, flags, names)
        for method in of_problem[problem]:
            _checks.one_of(f"method of [{section}]", method, methods)
    return _Sections(
        grid,
        methods,
        _without_axes("[train]", _flags("[train]", table("train"), names)),
        _by_name("problems", problems, names),
        of_problem,
    )


def apart(
    problems: Mapping[str, object],
) -> tuple[dict[str, object], dict[str, Mapping[str, object]]]:
    """Return the flags of problems, and what their sections ``methods`` hold."""
    flags = dict(problems)
    of_methods = {}
    for problem, section in problems.items():
        if not isinstance(section, Mapping) or "methods" not in section:
            continue
        methods = section["methods"]
        if not isinstance(methods, Mapping):
            raise ValueError(
                f"[problems.{problem}.methods] must be a section, got {methods!r}"
            )
        of_methods[problem] = methods
        flags[problem] = {k: v for k, v in section.items() if k != "methods"}
    return flags, of_methods


def _by_name(
    section: str, table: Mapping[str, object], names: Sequence[str]
) -> dict[str, Flags]:
    """Return the flags of ``[methods.NAME]`` or ``[problems.NAME]`` by name."""
    by_name = {}
    for name, flags in table.items():
        where = f"[{section}.{name}]"
        if not isinstance(flags, Mapping):
            raise ValueError(f"{where} must be a section of flags, got {flags!r}")
        by_name[name] = _without_axes(where, _flags(where, flags, names))
    return by_name


def _flags(where: str, table: Mapping[str, object], names: Sequence[str]) -> Flags:
    """Return flags by name; ``[train.resample] update`` is ``resample.update``."""
    flags: Flags = {}
    for name, value in table.items():
        if isinstance(value, Mapping):
            for inner, inner_value in value.items():
                flags[f"{name}.{inner}"] = inner_value
        else:
            flags[name] = value  # type: ignore[assignment]

    known = [PROBLEM, *names]
    renamed = {}
    for name, value in flags.items():
        # As on the command line, a hyphen is as good as an underscore.
        flag = name.replace("-", "_")
        if flag in SET_BY_STUDY:
            raise ValueError(f"{name} of {where} is set by the study: leave it out")
        _checks.one_of(f"flag of {where}", flag, known)
        renamed[flag] = value
    return renamed


def _without_axes(where: str, flags: Flags) -> Flags:
    """Return flags that are none of the axes of every study."""
    for axis in (PROBLEM, SEED):
        if axis in flags:
            raise ValueError(f"{axis} of {where} belongs into [grid]: {axis} = [...]")
    return flags


def _runs(sections: _Sections, folder: Path) -> Iterator[StudyRun]:
    """Yield a run for every combination."""
    problems = [str(problem) for problem in sections.grid[PROBLEM]]
    for name in sections.problems:
        _checks.one_of("problem of [problems.…]", name, problems)

    methods = sections.methods or {"": {}}
    axes = [axis for axis in sections.grid if axis != PROBLEM]
    values = [sections.grid[axis] for axis in axes]
    for problem in problems:
        source, problem_digest = _source(problem, folder)
        of_problem = sections.problems.get(problem, {})
        of_methods = sections.of_methods.get(problem, {})
        for method, of_method in methods.items():
            of_run = {**of_method, **of_methods.get(method, {})}
            for combination in itertools.product(*values):
                point = dict(zip(axes, combination, strict=True))
                labels = _labels(problem, method, point, sections.grid)
                # The most special last, which then counts.
                shared = {**sections.train, **of_problem}
                special = {**of_run, **point}
                used = used_flags(source, shared, special)
                arguments = [source, *arguments_of({**used, **special})]
                yield StudyRun.of(labels, arguments, problem_digest)


def used_flags(source: str, shared: Flags, special: Flags) -> Flags:
    """Return the flags for all methods that do something in a run, beside its special ones.

    Of ``[train]`` and ``[problems.NAME]`` a flag may be of a class that one method uses and another
    does not, such as ``resample.n``, which is nothing to points that stay.
    """
    # The seed changes nothing in what is used.
    alike = {name: value for name, value in special.items() if name != SEED}
    together = arguments_of({**shared, **alike})
    is_of_class = any("." in name for name in shared)
    idle = idle_classes(source, tuple(together)) if is_of_class else frozenset()
    return {
        name: value for name, value in shared.items() if name.split(".")[0] not in idle
    }


@functools.cache
def idle_classes(source: str, flags: tuple[str, ...]) -> frozenset[str]:
    """Return the classes, by what their flags begin with, that a run does not use."""
    training = _training(source, flags)
    in_use = training.in_use(training.schedule(), training.resampler())
    return frozenset(
        group.field
        for group in GROUPS
        if group.name not in in_use.get(group.catalogue.kind, ())
    )


def _source(problem: str, folder: Path) -> tuple[str, str]:
    """Return a problem as an argument, files by their whole path, and the digest of a file."""
    if not problem.endswith(".py"):
        return problem, ""

    # Beside the study file, wherever the command is started.
    file = (folder / problem).resolve()
    if not file.is_file():
        raise ValueError(f"there is no problem file {file}")
    return str(file), digest(file.read_bytes())


def _labels(
    problem: str,
    method: str,
    point: Mapping[str, Value],
    grid: Mapping[str, Sequence[Value]],
) -> dict[str, Label]:
    """Return what tells a run from the others."""
    labels: dict[str, Label] = {PROBLEM: problem}
    if method:
        labels[METHOD] = method
    for axis, value in point.items():
        # An axis of one value tells nothing, but for the seed.
        if axis == SEED or len(grid[axis]) > 1:
            labels[axis] = _text(value)
    return labels


def _text(value: Value) -> Label:
    if isinstance(value, (list, tuple)):
        return " ".join(str(entry) for entry in value)
    return value  # type: ignore[return-value]


def arguments_of(flags: Mapping[str, Value]) -> list[str]:
    """Return flags as ``whence train`` takes them; a study's run computes with one thread.

    Examples
    --------
    >>> from whence.studies.study_file import arguments_of
    >>> arguments_of({"points": ["pde=50"], "resample.every": 100, "seed": 1})
    ['--threads', '1', '--points', 'pde=50', '--resample.every', '100', '--seed', '1']
    """
    # Workers share the cores: more threads of each would only wait for each other.
    arguments = []
    for name, value in {THREADS: 1, **flags}.items():
        values = value if isinstance(value, (list, tuple)) else [value]
        arguments.append("--" + name.replace("_", "-"))
        arguments += [str(entry) for entry in values]
    return arguments


def check_flags(study: Study) -> None:
    """Raise ``ValueError`` for a run whose flags ``whence train`` would refuse."""
    seen = set()
    for run in study.runs:
        # Runs that differ in the seed alone are refused alike.
        arguments = without_seed(run.arguments)
        if arguments in seen:
            continue
        seen.add(arguments)
        try:
            check_arguments(run.arguments)
        except (ValueError, TypeError) as error:
            raise ValueError(f"run {run.name}: {error}") from None


def check_used_by_some(sections: _Sections, study: Study) -> None:
    """Raise ``ValueError`` for a flag for all methods that no run has a use for."""
    everywhere = [("[train]", sections.train, study.runs)]
    for problem, flags in sections.problems.items():
        of_problem = tuple(run for run in study.runs if run.labels[PROBLEM] == problem)
        everywhere.append((f"[problems.{problem}]", flags, of_problem))

    for where, flags, runs in everywhere:
        used = {argument for run in runs for argument in run.arguments}
        for name in flags:
            if "--" + name.replace("_", "-") not in used:
                raise ValueError(
                    f"{name} of {where} does nothing, as no run uses {name.split('.')[0]!r}: "
                    "leave it out"
                )


def without_seed(arguments: Sequence[str]) -> tuple[str, ...]:
    """Return arguments without the value of the seed."""
    place = list(arguments).index("--seed")
    return (*arguments[:place], *arguments[place + 2 :])


def check_arguments(arguments: Sequence[str]) -> None:
    """Raise ``ValueError`` for arguments that ``whence train`` would refuse before training."""
    problem, *flags = arguments
    training = _training(problem, tuple(flags))
    schedule = training.schedule()
    resampler = training.resampler()
    training.check_used(schedule, resampler)
    training.points()
    training.weights()
    training.weighting()
    training.threads()


def _training(problem: str, flags: tuple[str, ...]) -> Training:
    """Return what the flags of a run ask for."""
    options = dataclasses.replace(_options(flags), problem=problem)
    return Training(options, GROUPS, source_of(problem))


@functools.cache
def _options(flags: tuple[str, ...]) -> TrainOptions:
    """Return the options of flags, which are the same for every problem.

    To read a command line takes a third of a second, so that a large study would wait for it.
    """
    options: TrainOptions = parsed(Options, "train", ["burgers", *flags])
    return options
