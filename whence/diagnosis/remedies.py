"""What to do about a finding: each remedy a sentence that names the option or flag to use."""

from __future__ import annotations

from collections.abc import Sequence

from whence.catalogue import REMEDIES
from whence.diagnosis.regions import PlainRegion

Where = PlainRegion | None


def advise(
    names: Sequence[str],
    terms: Sequence[str] = (),
    region: Where = None,
    number: float = 1.0,
) -> tuple[str, ...]:
    """Return the sentences of some remedies.

    Parameters
    ----------
    names:
        Which, by their names in the catalogue.
    terms, region:
        What the finding is about.
    number:
        What a remedy puts into its sentence: a weight, a number of points, a width.

    Examples
    --------
    >>> from whence.diagnosis.remedies import advise
    >>> advise(["term_weight"], ["initial_u"], number=100.0)
    ('Give initial_u a weight of about 100: weights={"initial_u": 100}, --weights initial_u=100.',)
    """
    # Looked up by name, so that another package's remedies serve as well.
    sentences = []
    for name in names:
        remedy = REMEDIES[name]
        sentences.append(remedy(tuple(terms), region, number))
    return tuple(sentences)


def _first(terms: Sequence[str]) -> str:
    return terms[0] if terms else "the term"


@REMEDIES.named("more_points")
def more_points(terms: tuple[str, ...], region: Where, number: float) -> str:
    """Train the term on more points."""
    term = _first(terms)
    return (
        f'Train {term} on more points, about {number:.0f}: points={{"{term}": {number:.0f}}}, '
        f"--points {term}={number:.0f}."
    )


@REMEDIES.named("points_there")
def points_there(terms: tuple[str, ...], region: Where, number: float) -> str:
    """Put points where it is wrong, by hand or by resampling."""
    # Without a region the score decides.
    place = "where residuals are large"
    if region is not None:
        place = region.text
    return (
        f"Put points {place}: resample=pinn.Resample(pinn.ResidualScore(), …), "
        f"--resampler resample --score residual; or pin some, pinned={{{_first(terms)!r}: points}}."
    )


@REMEDIES.named("term_weight")
def term_weight(terms: tuple[str, ...], region: Where, number: float) -> str:
    """Change the weight of a term."""
    term = _first(terms)
    return (
        f"Give {term} a weight of about {number:.3g}: "
        f'weights={{"{term}": {number:.3g}}}, --weights {term}={number:.3g}.'
    )


@REMEDIES.named("weighting")
def weighting(terms: tuple[str, ...], region: Where, number: float) -> str:
    """Let the weights of terms look after themselves."""
    return (
        "Or let weights follow the tangent kernel: weighting=pinn.NeuralTangentKernel(), "
        "--weighting ntk."
    )


@REMEDIES.named("hard_constraint")
def hard_constraint(terms: tuple[str, ...], region: Where, number: float) -> str:
    """Build a condition into the ansatz."""
    return (
        f"Or build {_first(terms)} into the solution: an ansatz that meets it for any network, "
        "Problem(ansatz=…), --constraints hard."
    )


@REMEDIES.named("wider_network")
def wider_network(terms: tuple[str, ...], region: Where, number: float) -> str:
    """Take a network that can represent more."""
    return (
        "Take a wider network or features: pinn.MLP([…, 64, 64, …]), pinn.Fourier, "
        "pinn.RandomFeatures; --layers, --network."
    )


@REMEDIES.named("train_longer")
def train_longer(terms: tuple[str, ...], region: Where, number: float) -> str:
    """Go on training, with an optimizer of second order."""
    return (
        "Go on with an optimizer of second order: schedule=pinn.GaussNewton(100), start=RUN, "
        "--schedule gauss_newton:100; L-BFGS where that is too large."
    )


@REMEDIES.named("other_start")
def other_start(terms: tuple[str, ...], region: Where, number: float) -> str:
    """Start again from another initialization."""
    return "Start again from another seed, or in slabs of time: --seed 1, pinn.Slabs."


@REMEDIES.named("wrong_equation")
def wrong_equation(terms: tuple[str, ...], region: Where, number: float) -> str:
    """Look for an error in a term."""
    return (
        f"Read {_first(terms)} again: signs, coefficients, units, a part that is missing or "
        "prescribed at the wrong place."
    )


@REMEDIES.named("check_measurements")
def check_measurements(terms: tuple[str, ...], region: Where, number: float) -> str:
    """Inspect measurements, and remove those that are wrong."""
    return (
        f"Inspect these rows of {_first(terms)} (result.suspects()), and train without those that "
        "are wrong."
    )


@REMEDIES.named("check_ansatz")
def check_ansatz(terms: tuple[str, ...], region: Where, number: float) -> str:
    """Look for an error in the ansatz."""
    return "Read the ansatz again: what it fixes there, no network can change."


@REMEDIES.named("one_value")
def one_value(terms: tuple[str, ...], region: Where, number: float) -> str:
    """Make conditions agree where they meet."""
    return (
        f"Make {' and '.join(terms)} prescribe one value where they meet, or blend one into the "
        "other over a short distance."
    )


@REMEDIES.named("trusted_values")
def trusted_values(terms: tuple[str, ...], region: Where, number: float) -> str:
    """Compare with values that are trusted."""
    return (
        "Compare with values that you trust: whence diagnose RUN --reference FILE.csv, which "
        "finds the term that contradicts them."
    )


@REMEDIES.named("same_problem")
def same_problem(terms: tuple[str, ...], region: Where, number: float) -> str:
    """Give the problem that was trained, or train again."""
    return (
        f"Load the run with the problem as it was, or train the changed {_first(terms)}: "
        "pinn.load_run(path, problem=…), pinn.train(…, start=path)."
    )
