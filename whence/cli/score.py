"""``whence score``: score candidate points for a run's network and save the scores."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from whence import _checks
from whence.catalogue import SCORES
from whence.cli.files import SCORES_FILE, check_file
from whence.cli.flags import (
    build,
    check_used,
    choices,
    default_words,
    groups_of,
    options_of,
    values_for,
    with_groups,
)
from whence.pinn.sampling.scores import SavedScore, Score
from whence.pinn.sampling.scores.parts import score_in_parts
from whence.pinn.training.load import load_run
from whence.workers import check_workers, connected

if TYPE_CHECKING:
    from distributed import Client


@dataclasses.dataclass(frozen=True)
class _Options:
    """Score candidate points for a run's network, and save the scores for later training."""

    run: tyro.conf.Positional[Path]
    """Run folder, as `whence train` leaves it."""
    score: Annotated[str, choices(SCORES)] = "influence"
    """Which score."""
    candidates: int = 10_000
    """Number of fresh uniform candidates."""
    term: Annotated[str | None, default_words("the first equation", "TERM")] = None
    """Which term's candidates."""
    seed: int = 0
    """Seed of candidates and test points."""
    out: Annotated[Path | None, default_words("RUN/scores.npz", "PATH")] = None
    """File to write."""
    workers: Annotated[int | None, default_words("this process", "N")] = None
    """Processes of this machine that share the candidates."""
    scheduler: Annotated[str | None, default_words("none", "ADDRESS")] = None
    """Address of a dask scheduler whose workers share them."""
    overwrite: bool = False
    """Write over a former result."""


GROUPS = groups_of((SCORES,), [field.name for field in dataclasses.fields(_Options)])
Options = with_groups(_Options, GROUPS, skip=("seed",))


@contextmanager
def _workers(options: _Options) -> Iterator[Client | None]:
    """Yield a client of the workers that are asked for, None where there are none."""
    if options.workers is None and options.scheduler is None:
        yield None
        return
    with connected(options.scheduler, options.workers or 1) as client:
        yield client


def run(options: _Options, arguments: Sequence[str]) -> int:
    """Score candidates and save them; return the exit code."""
    _checks.count("--candidates", options.candidates)
    check_workers(options.workers, options.scheduler)
    check_used(options, GROUPS, {"score": [options.score]})

    values = values_for(options, GROUPS, SCORES, options.score)
    names = [option.name for option in options_of(SCORES[options.score])]
    if "seed" in names:
        # One flag for all that is random here.
        values["seed"] = options.seed
    scorer: Score = build(SCORES, options.score, values)

    # After the options, so that a wrong one is said before a run is read.
    result = load_run(options.run)
    out = options.out or options.run / SCORES_FILE
    # A file that cannot be written is an error before the scores are computed.
    is_own = options.out is None
    check_file(out, overwrite=options.overwrite or is_own)
    if is_own and out.is_file():
        print(f"{out} is written again; --out keeps the former one")

    objective = result.objective
    term = options.term or next(iter(objective.terms))
    candidates = objective.draw(term, options.candidates, options.seed)
    with _workers(options) as client:
        scores = score_in_parts(scorer, objective, {term: candidates}, client)
    # With the candidates themselves, as other points have other scores.
    SavedScore(term, candidates, scores).save(out)

    best = int(scores.argmax())
    numbers = candidates[best].tolist()
    pairs = zip(result.problem.coordinates, numbers, strict=True)
    where = ", ".join(f"{name}={value:.4g}" for name, value in pairs)
    print(
        f"{options.score} score of {len(candidates)} candidates: largest {scores[best]:.3e} "
        f"at {where}"
    )
    print(f"scores: {out}  (pinn.SavedScore.load reads it)")
    return 0
