"""``whence score``: score candidate points for a run's network and save the scores."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from whence import _checks
from whence.cli.flags import SCORES, ScoreName, ScoringOptions, build, given_of, told
from whence.cli.loading import SCORES_FILE, check_file, load
from whence.pinn.sampling import SavedScore


@dataclasses.dataclass(frozen=True)
class Options:
    """Score candidate points for a run's network, and save the scores for later training."""

    run: tyro.conf.Positional[Path]
    """Run folder, as `whence train` leaves it."""
    score: ScoreName = "influence"
    """Which score."""
    candidates: int = 10_000
    """Number of fresh uniform candidates."""
    term: str = "pde"
    """Which term's candidates."""
    seed: int = 0
    """Seed of candidates and test points."""
    scoring: ScoringOptions = dataclasses.field(default_factory=ScoringOptions)
    """Options of the score."""
    out: Annotated[Path | None, told("RUN/scores.npz")] = None
    """File to write."""


def run(options: Options) -> int:
    """Score candidates and save them; return the exit code."""
    _checks.count("--candidates", options.candidates)
    out = options.out or options.run / SCORES_FILE
    problem, objective = load(options.run)
    check_file(out)
    kind, given = SCORES[options.score], given_of(options.scoring)
    if "seed" in {field.name for field in dataclasses.fields(kind)}:
        given["seed"] = options.seed
    scorer = build(f"score {options.score}", kind, given)
    pool = objective.draw(options.term, options.candidates, options.seed)
    values = scorer.score(objective, {options.term: pool})
    SavedScore(options.term, pool, values).save(out)
    best = int(values.argmax())
    where = ", ".join(
        f"{n}={v:.4g}"
        for n, v in zip(problem.coordinates, pool[best].tolist(), strict=True)
    )
    print(
        f"{options.score} score of {len(pool)} candidates: largest {values[best]:.3e} at {where}"
    )
    print(f"scores: {out}  (pinn.SavedScore.load reads it)")
    return 0
