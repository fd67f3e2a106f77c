"""Every check of the catalogue on one run."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tqdm import tqdm

from whence import _checks
from whence.catalogue import CHECKS
from whence.diagnosis.diagnosis import Diagnosis
from whence.diagnosis.evidence import Evidence
from whence.diagnosis.finding import SEVERITIES, Finding
from whence.diagnosis.reference import Reference, ReferenceLike
from whence.pinn.training.result import Result

PATIENCE = 2.0
"""Seconds before progress is shown."""


def diagnose(
    result: Result,
    reference: ReferenceLike | None = None,
    *,
    checks: Sequence[str] | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Diagnosis:
    """Return what looks wrong with a trained network, where, and what to do about it.

    Each check looks for one thing: points that are too few, weights that leave a term behind,
    conditions that contradict each other, measurements that are wrong, training that ended early,
    a network that is too small, and, with trusted values, a term that contradicts them. The
    network is left as it is.

    Parameters
    ----------
    result:
        What :func:`whence.pinn.train` or :func:`whence.pinn.load_run` returned.
    reference:
        Trusted values: a data frame or a CSV or Parquet file with a column for each coordinate and
        for at least one output. By default the problem's own solution, where it has one.
    checks:
        Names of the checks to make, by default all.
    seed:
        Seed of fresh points.
    progress:
        Whether to show which check is being made, after two seconds.

    Raises
    ------
    FileNotFoundError
        If there is no such reference.
    TypeError
        If the result or the reference is of the wrong kind.
    ValueError
        If a check does not exist, a column of the reference is missing, or the loss is not finite.

    Examples
    --------
    >>> from whence import pinn
    >>> problem = pinn.zoo.load("diffusion")
    >>> result = pinn.train(problem, points=4, schedule=pinn.GaussNewton(15), progress=False)
    >>> finding = pinn.diagnose(result, checks=["few_points"]).findings[0]
    >>> finding.severity, finding.terms
    ('serious', ('pde',))
    """
    if not isinstance(result, Result):
        raise TypeError(
            "diagnose takes a result of pinn.train or pinn.load_run, got "
            f"{_checks.describe(result)}"
        )
    names = list(checks or CHECKS)
    # All names before any work.
    for name in names:
        _checks.one_of("check", name, CHECKS)

    problem = result.problem
    # What is given comes before what the problem knows of itself.
    trusted = None
    if reference is not None:
        trusted = Reference.of_table(problem, reference)
    elif problem.solution is not None:
        trusted = Reference.of_solution(problem, result.objective, seed)

    evidence = Evidence.of(
        problem,
        result.objective,
        trusted,
        seed,
        # A run that was stopped has no summary yet.
        result.summary.get("losses"),
    )
    if not math.isfinite(evidence.trained.loss):
        raise ValueError(
            f"the loss of this run is {evidence.trained.loss}: train it until it is finite first"
        )

    findings = []
    bar = tqdm(names, "diagnose", delay=PATIENCE, disable=not progress, leave=False)
    for name in bar:
        # Shown with the next refresh, once patience has ended.
        bar.set_postfix_str(name, refresh=False)
        check = CHECKS[name]()
        for finding in check.findings(evidence):
            findings.append((finding, check.rank))
    ordered = sorted(findings, key=lambda pair: order_of(*pair))
    return diagnosis_of(evidence, names, [finding for finding, _ in ordered])


def order_of(finding: Finding, rank: int) -> tuple[int, bool, int]:
    """Return what findings are sorted by: the worst first, causes before what they cause."""
    return SEVERITIES.index(finding.severity), finding.is_symptom, rank


def diagnosis_of(
    evidence: Evidence, names: Sequence[str], findings: Sequence[Finding]
) -> Diagnosis:
    """Return the findings with the figures that a page shows beside them."""
    before = evidence.relative_by_term(evidence.trained)
    after = evidence.relative_by_term(evidence.continued)
    relative = {}
    sizes = {}
    for name in before:
        relative[name] = (before[name], after[name])
        # ‖r‖² over the squared scale of the term, so that terms can share a map.
        squares = evidence.trained.fresh[name].detach().cpu()
        sizes[name] = squares / evidence.scales.of(name) ** 2

    # What the page says the solution was compared with.
    source = None
    if evidence.reference is not None:
        source = evidence.reference.source
    return Diagnosis(
        evidence.problem,
        tuple(findings),
        {name: CHECKS.summary(name) for name in names},
        relative,
        evidence.fresh_points,
        sizes,
        source,
    )
