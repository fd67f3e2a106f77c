"""Influence in several runs of one problem, such as good, bad and broken ones, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import xarray as xr
from matplotlib.figure import Figure

from whence.pinn.pde.problem import Problem
from whence.plots.influence_scale import InfluenceScale, MagnitudeScale
from whence.plots.panels import PanelLayout
from whence.plots.term_panels import draw_target, mean_sizes
from whence.plots.term_points import SHARES, TermPoints
from whence.plots.text import Story, coordinates, one_target

MAX_TERMS = 3
"""Terms of the largest share that a comparison shows unless some are named."""


def compared_influence(
    attributions: Mapping[str, xr.DataArray],
    problem: Problem | None = None,
    terms: Sequence[str] | None = None,
) -> Figure:
    """Draw the influence of the same terms in several runs, all panels on one scale.

    Parameters
    ----------
    attributions:
        By the name of the run, such as ``{"good": …, "broken": …}``: of one target each, drawn with
        its sign, or of many, drawn as the mean absolute influence.
    problem:
        Says which coordinate is time, and outlines the domain.
    terms:
        Which terms; by default the three of the largest share in any run.

    Raises
    ------
    ValueError
        If there are fewer than two runs, some have one target and others many, their points have
        not two coordinates, or a run has no such term.

    Examples
    --------
    >>> import xarray as xr
    >>> from whence import plots
    >>> coords = {"x": ("point", [0.0, 1.0]), "y": ("point", [0.0, 1.0]), "term": "pde"}
    >>> rows = {name: xr.DataArray([size, 2.0], coords, "point")
    ...         for name, size in (("good", 1.0), ("broken", 6.0))}
    >>> [axes.get_title() for axes in plots.compared_influence(rows).axes[:2]]
    ['good, pde: 2 points, 100 %', 'broken, pde: 2 points, 100 %']
    """
    if len(attributions) < 2:
        raise ValueError(
            f"a comparison needs two runs or more, got {len(attributions)}"
        )
    is_of_many = are_of_many(attributions)
    runs = {}
    for run, attribution in attributions.items():
        # Of many answers the mean size, as signs would cancel.
        row = mean_sizes(attribution) if is_of_many else one_target(attribution)
        runs[run] = TermPoints(row, terms)

    # One scale for all: equal colors are equal numbers.
    shown = list(terms or strongest_terms(runs))
    largest = 0.0
    n_marks = 0
    for points in runs.values():
        largest = max(largest, points.largest_of(shown))
        n_marks = max(n_marks, points.n_marks)
    kind = MagnitudeScale if is_of_many else InfluenceScale
    scale = kind(largest, n_marks)

    # A row for each term, or one panel after the other where there is one term.
    first = next(iter(runs.values()))
    layout = PanelLayout.of(
        coordinates(first.row),
        problem,
        n_panels=len(shown) * len(runs),
        columns=len(runs) if len(shown) > 1 else None,
    )
    # All are of the same answers, which any of them names.
    target = next(iter(attributions.values())).isel(target=0, missing_dims="ignore")
    story = Story.of(target)
    heading, label = heading_and_label(story, len(runs), is_of_many)
    note = f"One scale for all panels: equal colors are equal influences. {SHARES}"
    figure = layout.figure(heading, note)

    k = 0
    for term in shown:
        # The runs of a term stand side by side.
        for run, points in runs.items():
            text = f"{run}, {points.title(term)}"
            ax = layout.panel(figure, k, text)
            points.draw(ax, layout.plane, term, scale)
            if not is_of_many:
                draw_target(ax, layout.plane, story.location)
            k += 1

    layout.draw_bar(figure, scale, label)
    return figure


def are_of_many(attributions: Mapping[str, xr.DataArray]) -> bool:
    """Whether attributions are of many targets; some of one and some of many are an error."""
    counts = {}
    for run, attribution in attributions.items():
        counts[run] = attribution.sizes.get("target", 1)

    # A sign can be shown of one answer, and of many only a size.
    is_of_many = {count > 1 for count in counts.values()}
    if len(is_of_many) > 1:
        raise ValueError(
            f"runs are compared on one target each, or on many each, got {counts} targets: explain "
            "the same answers of all"
        )
    return is_of_many.pop()


def strongest_terms(runs: Mapping[str, TermPoints]) -> Sequence[str]:
    """Return the terms of the largest share in any run, in the order in which they come."""
    shares: dict[str, float] = {}
    for points in runs.values():
        for name in points.names:
            # A term that matters in one of the runs is worth a look in all.
            share = points.share(name)
            shares[name] = max(shares.get(name, 0.0), share)

    ordered = sorted(shares, key=shares.__getitem__)
    strongest = ordered[-MAX_TERMS:]
    return [name for name in shares if name in strongest]


def heading_and_label(story: Story, n_runs: int, is_of_many: bool) -> tuple[str, str]:
    """Return the title, and what the color bar shows."""
    if is_of_many:
        heading = f"Mean influence on {story.name} in {n_runs} runs"
        return heading, f"mean |influence| on {story.name}"

    # Of one answer its place, too, which is marked by a star.
    return f"Influence on {story} in {n_runs} runs", f"influence on {story.name}"
