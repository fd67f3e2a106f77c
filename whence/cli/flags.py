"""Flags made from the API's option dataclasses, so that a new option there is a new flag here."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import docstring_parser
import tyro

from whence.pinn import optimizers, sampling, weighting

SCORES: dict[str, type] = {
    "influence": sampling.InfluenceScore,
    "residual": sampling.ResidualScore,
    "grad_dot": sampling.GradDotScore,
    "output_grad": sampling.OutputGradScore,
    "loss_grad": sampling.LossGradScore,
    "pinnacle": sampling.PinnacleScore,
    "leverage": sampling.LeverageScore,
    "random": sampling.RandomScore,
}
SELECTIONS: dict[str, type] = {
    "proportional": sampling.Proportional,
    "top_k": sampling.TopK,
    "k_means": sampling.KMeansPlusPlus,
}
OPTIMIZERS: dict[str, type] = {
    "adam": optimizers.Adam,
    "lbfgs": optimizers.LBFGS,
    "gauss_newton": optimizers.GaussNewton,
}
WEIGHTINGS: dict[str, type] = {
    "ntk": weighting.NeuralTangentKernel,
    "gradient_norm": weighting.GradientNorm,
    "learning_rate_annealing": weighting.LearningRateAnnealing,
    "relobralo": weighting.ReLoBRaLo,
    "soft_adapt": weighting.SoftAdapt,
    "self_adaptive": weighting.SelfAdaptive,
    "causal": weighting.Causal,
}
WeightingName = Literal[
    "ntk",
    "gradient_norm",
    "learning_rate_annealing",
    "relobralo",
    "soft_adapt",
    "self_adaptive",
    "causal",
]
ProblemName = Literal["diffusion", "burgers", "allen_cahn", "wave", "drift_diffusion"]
ScoreName = Literal[
    "influence",
    "residual",
    "grad_dot",
    "output_grad",
    "loss_grad",
    "pinnacle",
    "leverage",
    "random",
]


def _scalar_fields(cls: Any) -> list[tuple[str, Any, str, str]]:
    """Return (name, type, help, default in words) of the fields that a flag can carry."""
    hints = typing.get_type_hints(cls)
    helps = {
        p.arg_name: p.description or ""
        for p in docstring_parser.parse(cls.__doc__ or "").params
    }
    found = []
    for one in dataclasses.fields(cls):
        kinds = [k for k in _alternatives(hints[one.name]) if _is_plain(k)]
        if kinds and one.init and one.name != "iterations":
            shown = next((h for n, h in helps.items() if one.name in n.split(", ")), "")
            default = f"(pinn.{cls.__name__}: {one.default})"
            text = shown.replace("`", "")
            found.append((one.name, typing.Union[tuple(kinds)], text, default))  # noqa: UP007
    return found


def told(default: str) -> Any:
    """Return the annotation of a flag whose default is said in words."""
    return tyro.conf.arg(help_behavior_hint=f"(default: {default})")


def _alternatives(hint: Any) -> tuple[Any, ...]:
    union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    return typing.get_args(hint) if union else (hint,)


def _is_plain(kind: Any) -> bool:
    return kind in (int, float, str, bool) or typing.get_origin(kind) is Literal


def options_of(name: str, classes: Sequence[type], skip: Sequence[str] = ()) -> type:
    """Return a dataclass with the scalar fields of ``classes``, each None unless given."""
    fields: dict[str, Any] = {}
    for cls in classes:
        for field, kind, shown, default in _scalar_fields(cls):
            if field not in skip and field not in fields:
                named = tyro.conf.arg(help=shown, help_behavior_hint=default)
                hint: Any = Annotated[kind | None, named]
                fields[field] = (field, hint, dataclasses.field(default=None))
    return dataclasses.make_dataclass(name, list(fields.values()), frozen=True)


WeightingOptions: Any = options_of(
    "Weighting", list(WEIGHTINGS.values()), skip=("seed",)
)
ScoringOptions: Any = options_of("Scoring", list(SCORES.values()), skip=("seed",))


def given_of(options: Any) -> dict[str, Any]:
    """Return the options that were given."""
    return {
        f.name: v
        for f in dataclasses.fields(options)
        if (v := getattr(options, f.name)) is not None
    }


def build(kind: str, cls: Any, given: Mapping[str, Any], base: Any = None) -> Any:
    """Return ``cls`` with the given options, on top of ``base`` if that is one of its kind."""
    known = {f.name for f in dataclasses.fields(cls)}
    for name in given:
        if name not in known:
            raise ValueError(
                f"{name} is no option of {kind}, which has {', '.join(sorted(known)) or 'none'}"
            )
    if isinstance(base, cls):
        return dataclasses.replace(base, **given)
    return cls(**given)
