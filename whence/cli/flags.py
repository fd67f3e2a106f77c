"""Flags made from the catalogue: one group for each class, from its own options.

``--weighting ntk`` chooses a class, ``--ntk.alpha 0.5`` sets an option of it; help and errors come
from the class, so a new one anywhere has its flags.
"""

from __future__ import annotations

import dataclasses
import inspect
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, TypeAlias, TypeVar

import docstring_parser
import tyro

from whence import _checks
from whence.catalogue import AnyCatalogue, plain

PLAIN = (int, float, str, bool)
UNSET = None
"""Value of a flag that was not given."""
REQUIRED = object()
"""Default of an option that has none."""

T = TypeVar("T")
Hint: TypeAlias = Any
"""A type hint: a class, a union, or a generic of others."""
Dataclass: TypeAlias = Any
"""An object of a dataclass."""
Settings: TypeAlias = Any
"""What tyro takes beside a hint."""


@dataclasses.dataclass(frozen=True)
class Option:
    """One option of a class: its name, the hint of its type, and its default."""

    name: str
    hint: Hint
    default: object

    @property
    def is_required(self) -> bool:
        """Whether it must be given."""
        return self.default is REQUIRED

    @property
    def takes_numbers_by_term(self) -> bool:
        """Whether it is a mapping from terms to numbers, written TERM=NUMBER."""
        return any(map(is_numbers_by_term, alternatives(self.hint)))

    def flag_type(self) -> Hint | None:
        """Return the type that a flag takes for it, None if no flag can."""
        kinds = []
        for alternative in alternatives(self.hint):
            kind = flag_type(alternative)
            if kind is not None:
                kinds.append(kind)

        if not kinds:
            return None

        return typing.Union[tuple(kinds)]  # noqa: UP007 - made at run time


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
    catalogue: AnyCatalogue

    def options(self, skip: Sequence[str]) -> type:
        """Return a dataclass with the options that a flag can carry, each None unless given."""
        fields: list[Any] = []
        for flag in flags_of(self.catalogue[self.name]):
            if flag.name in skip:
                continue
            # None stands for "not given", so that the class keeps its own defaults.
            words = tyro.conf.arg(
                help=flag.help,
                help_behavior_hint=flag.default,
                metavar=metavar_of(flag.kind),
            )
            hint: Any = Annotated[flag.kind | None, words]
            default: Any = dataclasses.field(default=UNSET)
            fields.append((flag.name, hint, default))

        made = dataclasses.make_dataclass(f"{self.field}_options", fields, frozen=True)
        made.__doc__ = self.catalogue.summary(self.name)
        return made


def choices(catalogue: AnyCatalogue, *others: str) -> Hint:
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


def default_words(text: str, metavar: str | None = None) -> Settings:
    """Return the annotation of a flag whose default, and what it takes, is said in words."""
    return tyro.conf.arg(help_behavior_hint=f"(default: {text})", metavar=metavar)


def metavar_of(kind: Hint) -> str:
    """Return what help shows for the value of a flag: ``INT``, ``{add,replace}``, ``[STR ...]``."""
    shown = []
    for member in alternatives(kind):
        if origin_of(member) is Literal:
            shown.append(f"{{{','.join(map(str, typing.get_args(member)))}}}")
        elif member is bool:
            shown.append("{True,False}")
        elif member in PLAIN:
            shown.append(member.__name__.upper())
        else:
            item = typing.get_args(member)[0]
            shown.append(f"[{item.__name__.upper()} ...]")
    return "|".join(shown)


def groups_of(
    catalogues: Sequence[AnyCatalogue], taken: Sequence[str] = ()
) -> list[Group]:
    """Return a group for each class that has options; a name that is taken gets its kind."""
    # A class called as an option, such as the score "random", must not hide it.
    used = set(taken)
    groups = []

    for catalogue in catalogues:
        for name in catalogue:
            if not flags_of(catalogue[name]):
                continue
            # Two catalogues may have a name in common, the fields of a dataclass may not.
            field = name if name not in used else f"{catalogue.kind}_{name}"
            used.add(field)
            groups.append(Group(field, name, catalogue))

    return groups


def with_groups(
    base: type[T], groups: Sequence[Group], skip: Sequence[str] = ()
) -> type[T]:
    """Return an options dataclass with a field for each group of flags."""
    fields: list[Any] = []
    for group in groups:
        options = group.options(skip)
        # With its help at hand, tyro need not search the sources for it, which is slow.
        words = tyro.conf.arg(help=options.__doc__ or "")
        default: Any = dataclasses.field(default_factory=options)
        fields.append((group.field, Annotated[options, words], default))

    made = dataclasses.make_dataclass(base.__name__, fields, bases=(base,), frozen=True)
    made.__doc__ = base.__doc__
    return made


# --- options of classes ---


def options_of(cls: object) -> list[Option]:
    """Return the options of a class: a dataclass's fields, otherwise its arguments."""
    if dataclasses.is_dataclass(cls):
        hints = typing.get_type_hints(cls)
        options = []
        for field in dataclasses.fields(cls):
            if field.init:  # a field without cannot be passed to the class
                default = _field_default(field)
                options.append(Option(field.name, hints[field.name], default))
        return options

    if not isinstance(cls, type):
        return []

    # A class without any __init__ has the one of object, which has no hints.
    init = getattr(cls, "__init__", None)
    hints = typing.get_type_hints(init if inspect.isfunction(init) else cls)
    options = []
    for parameter in inspect.signature(cls).parameters.values():
        # Without a hint it is self; what stands for any others is none itself.
        is_any = parameter.kind is parameter.VAR_KEYWORD
        if parameter.name in hints and not is_any:
            has_default = parameter.default is not parameter.empty
            default = parameter.default if has_default else REQUIRED
            options.append(Option(parameter.name, hints[parameter.name], default))

    return options


def _field_default(field: dataclasses.Field[Any]) -> object:
    if field.default is not dataclasses.MISSING:
        return field.default
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return REQUIRED


def flags_of(cls: object) -> list[Flag]:
    """Return the options of a class that a flag can carry: numbers, words, choices, lists."""
    # The help of a flag is the paragraph of its parameter in the class's docstring.
    help_texts = {}
    for parameter in docstring_parser.parse(inspect.getdoc(cls) or "").params:
        text = " ".join(plain(parameter.description or "").split())
        # One paragraph may document several, as in "points, targets:".
        for name in parameter.arg_name.split(","):
            help_texts[name.strip()] = text

    flags = []
    for option in options_of(cls):
        kind = option.flag_type()
        if kind is not None:
            default = "needed" if option.is_required else repr(option.default)
            hint = f"({getattr(cls, '__name__', cls)}: {default})"
            text = help_texts.get(option.name, "")
            flags.append(Flag(option.name, kind, text, hint))

    return flags


def origin_of(hint: object) -> Hint | None:
    """Return the generic that a hint was made of, None of a plain class."""
    return typing.get_origin(hint)


def alternatives(hint: Hint) -> tuple[Hint, ...]:
    """Return the members of a union, or the hint itself."""
    if origin_of(hint) in (typing.Union, types.UnionType):
        return typing.get_args(hint)
    return (hint,)


def flag_type(kind: Hint) -> Hint | None:
    """Return the type of a flag for one alternative of a hint, None if there is none."""
    origin = origin_of(kind)
    if kind in PLAIN or origin is Literal:
        return kind
    if is_numbers_by_term(kind):
        return tuple[str, ...]  # TERM=NUMBER, see :func:`build`

    is_list = isinstance(origin, type) and issubclass(origin, (Sequence, tuple))
    if is_list:
        member = typing.get_args(kind)[0]
        if member in PLAIN:
            return types.GenericAlias(tuple, (member, ...))
    return None


def is_numbers_by_term(kind: Hint) -> bool:
    """Whether a hint is that of numbers by term."""
    origin = origin_of(kind)
    is_mapping = isinstance(origin, type) and issubclass(origin, Mapping)
    return is_mapping and typing.get_args(kind) == (str, float)


# --- what a command line sets ---


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


def flag_of(group: str, option: str) -> str:
    """Return how an option is written: ``--grad-dot.n-test``."""
    return f"--{group}.{option}".replace("_", "-")


def values_in(options: Dataclass) -> dict[str, object]:
    """Return the options of a group that the command line sets."""
    values = {}
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        if value is not UNSET:
            values[field.name] = value
    return values


def values_for(
    options: object, groups: Sequence[Group], catalogue: AnyCatalogue, name: str
) -> dict[str, object]:
    """Return what the command line sets for one class of a catalogue."""
    for group in groups:
        if group.catalogue is catalogue and group.name == name:
            return values_in(getattr(options, group.field))
    return {}


def check_used(
    options: object, groups: Sequence[Group], chosen: Mapping[str, Sequence[str]]
) -> None:
    """Raise ``ValueError`` for an option of a class that was not chosen.

    ``chosen`` has the names in use by the kind of their catalogue.
    """
    for group in groups:
        kind = group.catalogue.kind
        in_use = chosen.get(kind, ())
        if group.name in in_use:
            continue

        for option in values_in(getattr(options, group.field)):
            others = f" but {', '.join(map(repr, in_use))}" if in_use else ""
            raise ValueError(
                f"{flag_of(group.field, option)} does nothing, as no {kind} {group.name!r} is in "
                f"use{others}: leave it out"
            )


def build(
    catalogue: AnyCatalogue,
    name: str,
    values: Mapping[str, object],
    base: object = None,
) -> Any:
    """Return an object of a class with these options, on top of ``base`` if of that class."""
    cls = catalogue[name]
    # TERM=NUMBER is read here, as only the class says that it takes a mapping.
    arguments: dict[str, Any] = dict(values)

    for option in options_of(cls):
        if option.name in arguments and option.takes_numbers_by_term:
            flag = flag_of(name, option.name)
            arguments[option.name] = numbers_by_term(flag, arguments[option.name])

    # What is not set stays as in the recipe.
    if isinstance(base, cls):
        # What was not given keeps the value of base, not the class's default.
        return dataclasses.replace(base, **arguments)

    for option in options_of(cls):
        if option.is_required and option.name not in arguments:
            flag = flag_of(name, option.name)
            raise ValueError(f"the {catalogue.kind} {name!r} needs {flag}")

    return cls(**arguments)
