"""Everything of whence that has a name, by kind and name; other packages can add to it.

A thing gets its name where it is defined, and nowhere else:

>>> from whence.catalogue import SCORES
>>> SCORES["residual"].__name__, "residual" in SCORES
('ResidualScore', True)

``@SCORES.named("residual")`` stands above that class, in a module of the folder
``whence/pinn/sampling/scores``; a new module there is found by itself. A package of its own names
the class as an entry point of the group ``whence.scores`` instead. The command line, its help and
errors, the tables of the documentation and the shared tests all read the catalogue.
"""

from __future__ import annotations

import functools
import inspect
import pkgutil
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import import_module
from importlib.metadata import EntryPoint, distributions
from typing import Any, Generic, TypeVar

from whence._names import one_of

LATER = {"later": True}
"""Metadata of a dataclass's field that its class has had since runs were saved without it: where
it has its default, a run's folder leaves it out, so that those runs can be resumed."""

T = TypeVar("T")
Registered = TypeVar("Registered", bound=Any)


class Catalogue(Mapping[str, T], Generic[T]):
    """The things of one kind by name, in the order of their names.

    Parameters
    ----------
    kind:
        What one of them is, for messages: ``"score"``.
    folders:
        Packages and modules of whence in which they are defined; all are imported at first use.
    group:
        Group of entry points by which other packages add their own: ``"whence.scores"``.

    Examples
    --------
    >>> from whence.catalogue import Catalogue
    >>> SHAPES = Catalogue("shape", (), "example.shapes")
    >>> @SHAPES.named("round")
    ... class Round:
    ...     '''Has no corners.'''
    >>> SHAPES["round"].__name__, SHAPES.summary("round"), SHAPES.name_of(Round())
    ('Round', 'Has no corners.', 'round')
    >>> SHAPES["rond"]
    Traceback (most recent call last):
    ...
    ValueError: unknown shape 'rond' (did you mean 'round'?): choose 'round'
    """

    def __init__(self, kind: str, folders: tuple[str, ...], group: str) -> None:
        self.kind = kind
        self.group = group
        self._folders = folders
        self._things: dict[str, T] = {}
        self._homes: dict[str, str] = {}
        self._broken: dict[str, Exception] = {}
        self._is_loaded = False

    def named(self, name: str | None = None) -> Callable[[Registered], Registered]:
        """Return a decorator that adds a class or function, by default under its ``name``.

        Raises
        ------
        ValueError
            If something else has the name already.
        """

        def add(thing: Registered) -> Registered:
            self._add(name or thing.name, thing, thing.__module__)
            return thing

        return add

    def _add(self, name: str, thing: Any, home: str) -> None:
        present = self._homes.get(name)
        # The same module may be imported twice: by its folder and as an entry point, or reloaded.
        if present not in (None, home):
            raise ValueError(
                f"two {self.kind}s are called {name!r}, in {present} and in {home}: rename one"
            )

        self._things[name] = thing
        self._homes[name] = home

    def _load(self) -> None:
        """Import all that is defined in whence, then what other packages add."""
        if self._is_loaded:
            return

        # Set first: a module that is imported may look something up itself.
        self._is_loaded = True
        for folder in self._folders:
            self._import_folder(folder)
        for entry_point in entry_points():
            if entry_point.group == self.group:
                self._import_entry_point(entry_point)

    def _import_folder(self, folder: str) -> None:
        package = import_module(folder)
        # A module in place of a package has no path: to import it was all.
        for module in pkgutil.iter_modules(getattr(package, "__path__", ())):
            if not module.name.startswith("_"):
                self._take_module(import_module(f"{folder}.{module.name}"))

    def _take_module(self, module: Any) -> None:
        """Take a module of whence that was just imported; its decorators have done the work."""

    def _import_entry_point(self, entry_point: EntryPoint) -> None:
        # What another package gets wrong must not take whence down with it.
        try:
            thing = self._checked(entry_point.load())
            self._add(entry_point.name, thing, entry_point.value)
        except Exception as error:
            self._broken[entry_point.name] = error
            package = entry_point.dist.name if entry_point.dist else "another package"
            warnings.warn(
                f"the {self.kind} {entry_point.name!r} of {package} cannot be used: "
                f"{type(error).__name__}: {error} (entry point {entry_point.value} of "
                f"{self.group})",
                stacklevel=2,
            )

    def _checked(self, thing: Any) -> Any:
        """Return what an entry point names, if it can be of this kind."""
        if not callable(thing):
            raise TypeError(
                f"a {self.kind} must be a class or a function, got {thing!r}"
            )

        return thing

    def __getitem__(self, name: str) -> T:
        self._load()
        # The warning at import may be long gone: say again why it cannot be used.
        if name in self._broken:
            raise ValueError(
                f"the {self.kind} {name!r} cannot be used: {self._broken[name]}"
            ) from self._broken[name]

        if name not in self._things:
            one_of(self.kind, name, list(self))
        return self._things[name]

    def __contains__(self, name: object) -> bool:
        self._load()
        return name in self._things

    def __iter__(self) -> Iterator[str]:
        self._load()
        return iter(sorted(self._things))

    def __len__(self) -> int:
        self._load()
        return len(self._things)

    def name_of(self, thing: object) -> str | None:
        """Return the name of an entry, or of an instance of one; None if it has none."""
        kind = thing if inspect.isclass(thing) else type(thing)
        # By identity: entries need not be hashable, and a subclass is another class.
        self._load()
        names = [
            name
            for name, entry in self._things.items()
            if entry is thing or entry is kind
        ]
        return min(names, default=None)

    def names_of(self, things: Iterable[object]) -> list[str]:
        """Return the names that things have; those without one are left out."""
        names = [self.name_of(thing) for thing in things]
        return [name for name in names if name is not None]

    def by_class_name(self, name: str) -> T | None:
        """Return the entry whose class or function is called so in Python, None if none is."""
        for entry in self.values():
            if getattr(entry, "__name__", None) == name:
                return entry
        return None

    def summary(self, name: str) -> str:
        """Return the first line of an entry's docstring, as plain text."""
        lines = (inspect.getdoc(self[name]) or "").strip().splitlines()
        return plain(lines[0]) if lines else ""

    def home(self, name: str) -> str:
        """Return the module that defines an entry, or the entry point that names it."""
        self[name]
        return self._homes[name]


@functools.cache
def entry_points() -> tuple[EntryPoint, ...]:
    """Return the entry points of whence's groups that installed packages define."""
    # Read once, as that looks at every package that is installed.
    ours = []
    for distribution in distributions():
        for entry_point in distribution.entry_points:
            if entry_point.group.startswith("whence."):
                ours.append(entry_point)

    return tuple(ours)


AnyCatalogue = Catalogue[Any]
"""A catalogue of things of whatever kind."""


class ModuleCatalogue(AnyCatalogue):
    """A catalogue whose entries are modules that define ``attribute``, by their own names."""

    def __init__(
        self, kind: str, folders: tuple[str, ...], group: str, attribute: str
    ) -> None:
        super().__init__(kind, folders, group)
        self._attribute = attribute

    def _take_module(self, module: Any) -> None:
        if hasattr(module, self._attribute):
            self._add(module.__name__.rpartition(".")[2], module, module.__name__)

    def _checked(self, thing: Any) -> Any:
        if not hasattr(thing, self._attribute):
            raise TypeError(f"it must be a module that defines {self._attribute!r}")
        return thing


def plain(text: str) -> str:
    """Return text of a docstring without markup.

    Examples
    --------
    >>> from whence.catalogue import plain
    >>> plain("See :func:`whence.quality` and ``out``.")
    'See whence.quality and out.'
    """
    # :class:`~whence.Influence` becomes whence.Influence.
    no_roles = re.sub(r":\w+:`~?([^`<]*?)`", r"\1", text)
    return no_roles.replace("`", "")


PROBLEMS = ModuleCatalogue(
    "problem", ("whence.pinn.zoo",), "whence.problems", "problem"
)
NETWORKS: AnyCatalogue = Catalogue(
    "network", ("whence.pinn.networks",), "whence.networks"
)
SCORES: AnyCatalogue = Catalogue(
    "score", ("whence.pinn.sampling.scores",), "whence.scores"
)
SELECTIONS: AnyCatalogue = Catalogue(
    "selection", ("whence.pinn.sampling.selections",), "whence.selections"
)
RESAMPLERS: AnyCatalogue = Catalogue(
    "resampler", ("whence.pinn.sampling.resamplers",), "whence.resamplers"
)
SAMPLINGS: AnyCatalogue = Catalogue(
    "sampling method", ("whence.pinn.geometry.samplings",), "whence.samplings"
)
OPTIMIZERS: AnyCatalogue = Catalogue(
    "optimizer", ("whence.pinn.optimizers",), "whence.optimizers"
)
WEIGHTINGS: AnyCatalogue = Catalogue(
    "weighting", ("whence.pinn.weighting",), "whence.weightings"
)
SOLVERS: AnyCatalogue = Catalogue("solver", ("whence.curvature",), "whence.solvers")
SETTINGS: AnyCatalogue = Catalogue(
    "setting", ("whence.pinn.settings",), "whence.settings"
)
METHODS: AnyCatalogue = Catalogue(
    "attribution method", ("whence.attribution",), "whence.methods"
)
QUANTITIES: AnyCatalogue = Catalogue(
    "quantity", ("whence.attribution.quantities",), "whence.quantities"
)
INDICATORS: AnyCatalogue = Catalogue(
    "indicator", ("whence.diagnosis.indicators",), "whence.indicators"
)
CHECKS: AnyCatalogue = Catalogue("check", ("whence.diagnosis.checks",), "whence.checks")
REMEDIES: AnyCatalogue = Catalogue(
    "remedy", ("whence.diagnosis.remedies",), "whence.remedies"
)

KINDS: dict[str, AnyCatalogue] = {
    "problems": PROBLEMS,
    "networks": NETWORKS,
    "samplings": SAMPLINGS,
    "scores": SCORES,
    "selections": SELECTIONS,
    "resamplers": RESAMPLERS,
    "optimizers": OPTIMIZERS,
    "weightings": WEIGHTINGS,
    "settings": SETTINGS,
    "solvers": SOLVERS,
    "methods": METHODS,
    "quantities": QUANTITIES,
    "indicators": INDICATORS,
    "checks": CHECKS,
    "remedies": REMEDIES,
}
"""Every catalogue by the plural of what it holds."""


def find_class(name: str, kinds: tuple[Catalogue[T], ...]) -> T | None:
    """Return the class of this Python name in the first catalogue that has it, None if none has."""
    for kind in kinds:
        entry = kind.by_class_name(name)
        if entry is not None:
            return entry
    return None
