"""``whence score``: score candidate points for a run's network and save the scores."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import tyro

from whence import _checks
from whence.catalogue import SCORES
from whence.cli.files import SCORES_FILE, check_file
from whence.cli.flags import (
    build,
    check_used,
    choices,
    given_for,
    groups_of,
    told,
    with_groups,
)
from whence.pinn.sampling.scores import SavedScore
from whence.pinn.training.load import load_run


@dataclasses.dataclass(frozen=True)
class _Options:
    """Score candidate points for a run's network, and save the scores for later training."""

    run: tyro.conf.Positional[Path]
    """Run folder, as `whence train` leaves it."""
    score: Annotated[str, choices(SCORES)] = "influence"
    """Which score."""
    candidates: int = 10_000
    """Number of fresh uniform candidates."""
    term: Annotated[str | None, told("the first equation")] = None
    """Which term's candidates."""
    seed: int = 0
    """Seed of candidates and test points."""
    out: Annotated[Path | None, told("RUN/scores.npz")] = None
    """File to write."""


GROUPS = groups_of((SCORES,), [field.name for field in dataclasses.fields(_Options)])
Options: Any = with_groups(_Options, GROUPS, skip=("seed",))


def run(options: Any, arguments: Any) -> int:
    """Score candidates and save them; return the exit code."""
    _checks.count("--candidates", options.candidates)
    check_used(options, GROUPS, {"score": [options.score]})
    given = given_for(options, GROUPS, SCORES, options.score)
    if _has_seed(SCORES[options.score]):
        given["seed"] = options.seed
    scorer = build(SCORES, options.score, given)

    result = load_run(options.run)
    out = options.out or options.run / SCORES_FILE
    check_file(out)

    objective = result.objective
    term = options.term or next(iter(objective.terms))
    candidates = objective.draw(term, options.candidates, options.seed)
    values = scorer.score(objective, {term: candidates})
    SavedScore(term, candidates, values).save(out)

    best = int(values.argmax())
    place = zip(result.problem.coordinates, candidates[best].tolist(), strict=True)
    where = ", ".join(f"{name}={value:.4g}" for name, value in place)
    print(
        f"{options.score} score of {len(candidates)} candidates: largest {values[best]:.3e} "
        f"at {where}"
    )
    print(f"scores: {out}  (pinn.SavedScore.load reads it)")
    return 0


def _has_seed(cls: Any) -> bool:
    if not dataclasses.is_dataclass(cls):
        return False
    return "seed" in {field.name for field in dataclasses.fields(cls)}
