"""Flags made from the catalogue: one group for each class, from its own options.

``--weighting ntk`` chooses a class, ``--ntk.alpha 0.5`` sets an option of it; help and errors come
from the class, so a new one anywhere has its flags.
"""

from __future__ import annotations

import dataclasses
import inspect
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

import docstring_parser
import tyro

from whence import _checks
from whence.catalogue import Catalogue, plain

PLAIN = (int, float, str, bool)
UNSET = None
"""Value of a flag that was not given."""


@dataclasses.dataclass(frozen=True)
class Flag:
    """One option of a class as a flag: its name, its type, and what help says of it."""

    name: str
    kind: Any
    help: str
    default: str


@dataclasses.dataclass(frozen=True)
class Group:
    """The flags of one class of a catalogue.

    Parameters
    ----------
    field:
        What stands before the dot: ``ntk`` in ``--ntk.alpha``.
    name:
        Its name in the catalogue.
    catalogue:
        The catalogue.
    """

    field: str
    name: str
    catalogue: Catalogue[Any]

    @property
    def cls(self) -> Any:
        """The class."""
        return self.catalogue[self.name]

    def options(self, skip: Sequence[str]) -> type:
        """Return a dataclass with the options that a flag can carry, each None unless given."""
        fields: list[Any] = []
        for flag in flags_of(self.cls):
            if flag.name not in skip:
                named = tyro.conf.arg(help=flag.help, help_behavior_hint=flag.default)
                hint: Any = Annotated[flag.kind | None, named]
                default: Any = dataclasses.field(default=UNSET)
                fields.append((flag.name, hint, default))
        made = dataclasses.make_dataclass(f"{self.field}_options", fields, frozen=True)
        made.__doc__ = self.catalogue.summary(self.name)
        return made


def choices(catalogue: Catalogue[Any], *others: str) -> Any:
    """Return the annotation of a flag that takes a name of a catalogue, or some other word."""
    names = (*others, *catalogue)
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar=f"{{{','.join(names)}}}",
        instance_from_str=lambda texts: texts[0],
        is_instance=lambda value: isinstance(value, str),
        str_from_instance=lambda value: [value],
        choices=names,
    )


def told(default: str) -> Any:
    """Return the annotation of a flag whose default is said in words."""
    return tyro.conf.arg(help_behavior_hint=f"(default: {default})")


def groups_of(
    catalogues: Sequence[Catalogue[Any]], taken: Sequence[str] = ()
) -> list[Group]:
    """Return a group for each class that has options; a name that is taken gets its kind."""
    used = set(taken)
    groups = []
    for catalogue in catalogues:
        for name in catalogue:
            if not flags_of(catalogue[name]):
                continue
            field = name if name not in used else f"{catalogue.kind}_{name}"
            used.add(field)
            groups.append(Group(field, name, catalogue))
    return groups


def with_groups(base: type, groups: Sequence[Group], skip: Sequence[str] = ()) -> type:
    """Return an options dataclass with a field for each group of flags."""
    fields: list[Any] = []
    for group in groups:
        options = group.options(skip)
        fields.append(
            (group.field, options, dataclasses.field(default_factory=options))
        )
    made = dataclasses.make_dataclass(base.__name__, fields, bases=(base,), frozen=True)
    made.__doc__ = base.__doc__
    return made


def flags_of(cls: Any) -> list[Flag]:
    """Return the options of a class that a flag can carry: numbers, words, choices, lists."""
    docs = {}
    for parameter in docstring_parser.parse(inspect.getdoc(cls) or "").params:
        for name in parameter.arg_name.split(","):
            docs[name.strip()] = " ".join(plain(parameter.description or "").split())

    flags = []
    for name, hint, default in _options(cls):
        kind = _flag_type(hint)
        if kind is not None:
            shown = f"({cls.__name__}: {_shown(default)})"
            flags.append(Flag(name, kind, docs.get(name, ""), shown))
    return flags


def _options(cls: Any) -> Iterator[tuple[str, Any, Any]]:
    """Yield name, type and default of the options of a class."""
    if dataclasses.is_dataclass(cls):
        hints = typing.get_type_hints(cls)
        for field in dataclasses.fields(cls):
            if field.init:
                yield field.name, hints[field.name], field.default
        return

    if not isinstance(cls, type):
        return
    # A class without any __init__ has the one of object, which has no hints.
    init = getattr(cls, "__init__", None)
    hints = typing.get_type_hints(init if inspect.isfunction(init) else cls)
    for parameter in inspect.signature(cls).parameters.values():
        if parameter.name in hints:
            yield parameter.name, hints[parameter.name], parameter.default


def _shown(default: Any) -> str:
    if default is dataclasses.MISSING or default is inspect.Parameter.empty:
        return "needed"
    return repr(default)


def _flag_type(hint: Any) -> Any:
    """Return the type that a flag takes for a hint, None if no flag can."""
    kinds = [kind for kind in map(_alternative, _members(hint)) if kind is not None]
    if not kinds:
        return None
    return typing.Union[tuple(kinds)]  # noqa: UP007 - made at run time


def _members(hint: Any) -> tuple[Any, ...]:
    is_union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    return typing.get_args(hint) if is_union else (hint,)


def _alternative(kind: Any) -> Any:
    """Return the type of a flag for one alternative of a hint, None if there is none."""
    origin = typing.get_origin(kind)
    arguments = typing.get_args(kind)
    if kind in PLAIN or origin is Literal:
        return kind
    if is_numbers_by_term(kind):
        return tuple[str, ...]  # TERM=NUMBER, see :func:`build`
    if _is_origin(origin, (Sequence, tuple)) and arguments[0] in PLAIN:
        return types.GenericAlias(tuple, (arguments[0], ...))
    return None


def is_numbers_by_term(kind: Any) -> bool:
    """Whether a hint is that of numbers by term."""
    is_mapping = _is_origin(typing.get_origin(kind), Mapping)
    return is_mapping and typing.get_args(kind) == (str, float)


def _is_origin(origin: Any, kinds: Any) -> bool:
    return isinstance(origin, type) and issubclass(origin, kinds)


def numbers_by_term(what: str, texts: Sequence[str]) -> dict[str, float]:
    """Return numbers by term from TERM=NUMBER; anything else is a ``ValueError``."""
    numbers = {}
    for text in texts:
        term, _, number = text.partition("=")
        try:
            numbers[term] = float(number)
        except ValueError:
            raise ValueError(
                f"{what} takes TERM=NUMBER, such as initial_u=100, got {text!r}"
            ) from None
    return numbers


def given_of(options: Any) -> dict[str, Any]:
    """Return the options of a group that were given."""
    given = {}
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        if value is not UNSET:
            given[field.name] = value
    return given


def flag_of(group: str, option: str) -> str:
    """Return how an option is written: ``--grad-dot.n-test``."""
    return f"--{group}.{option}".replace("_", "-")


def check_used(
    options: Any, groups: Sequence[Group], chosen: Mapping[str, Sequence[str]]
) -> None:
    """Raise ``ValueError`` for an option of a class that was not chosen.

    ``chosen`` has the names in use by the kind of their catalogue.
    """
    for group in groups:
        kind = group.catalogue.kind
        if group.name in chosen.get(kind, ()):
            continue
        for option in given_of(getattr(options, group.field)):
            raise ValueError(
                f"{flag_of(group.field, option)} does nothing, as no {kind} {group.name!r} is in "
                f"use{_in_use(chosen.get(kind, ()))}: leave it out"
            )


def _in_use(names: Sequence[str]) -> str:
    return f" but {', '.join(map(repr, names))}" if names else ""


def given_for(
    options: Any, groups: Sequence[Group], catalogue: Catalogue[Any], name: str
) -> dict[str, Any]:
    """Return what was given for one class of a catalogue."""
    for group in groups:
        if group.catalogue is catalogue and group.name == name:
            return given_of(getattr(options, group.field))
    return {}


def build(
    catalogue: Catalogue[Any], name: str, given: Mapping[str, Any], base: Any = None
) -> Any:
    """Return an object of a class with the given options, on top of ``base`` if of that class."""
    cls = catalogue[name]
    given = dict(given)
    for option, hint, _ in _options(cls):
        if option in given and any(map(is_numbers_by_term, _members(hint))):
            given[option] = numbers_by_term(flag_of(name, option), given[option])
    if isinstance(base, cls):
        return dataclasses.replace(base, **given)

    missing = [option for option in _required(cls) if option not in given]
    if missing:
        raise ValueError(
            f"the {catalogue.kind} {name!r} needs {flag_of(name, missing[0])}"
        )
    return cls(**given)


def _required(cls: Any) -> list[str]:
    unset = (dataclasses.MISSING, inspect.Parameter.empty)
    names = []
    for name, _, default in _options(cls):
        factory = getattr(cls, "__dataclass_fields__", {}).get(name)
        has_factory = (
            factory is not None and factory.default_factory is not dataclasses.MISSING
        )
        if default in unset and not has_factory:
            names.append(name)
    return names


def counts_by_term(
    flag: str, texts: Sequence[str], terms: Sequence[str]
) -> dict[str, int]:
    """Return numbers of points by term from TERM=COUNT."""
    counts = {}
    for text in texts:
        term, _, number = text.partition("=")
        if not number.isdecimal():
            raise ValueError(f"{flag} takes TERM=COUNT, such as pde=500, got {text!r}")
        _checks.one_of(f"term in {flag}", term, terms)
        counts[term] = int(number)
    return counts
