"""Indicators against sums by hand, their baselines, intervals and errors."""

import numpy as np
import pytest

import whence as wh
from whence import cli, pinn, plots
from whence.attribution.result import Attribution
from whence.diagnosis.indicators import (
    Causality,
    Coherence,
    Conservation,
    Directional,
    Proximity,
    Region,
    measure,
)

RNG = np.random.default_rng(0)
POINTS = RNG.uniform(-1, 1, (30, 2))
TARGETS = RNG.uniform(-1, 1, (7, 2))
VALUES = RNG.normal(size=(7, 30))


def table(names=("x", "t"), values=VALUES, points=POINTS, **coords):
    """An attribution with coordinates of these names."""
    labels = {}
    for k, name in enumerate(names):
        labels[name] = ("point", points[:, k])
        labels[f"target_{name}"] = ("target", TARGETS[: len(values), k])
    return Attribution(values, {**labels, **coords}, ("target", "point"))


def by_hand(is_member):
    """The share of influence of the members of each target, by loops."""
    shares = []
    for t, target in enumerate(TARGETS):
        inside = sum(
            abs(VALUES[t, i]) * is_member(POINTS[i], target) for i in range(30)
        )
        shares.append(inside / np.abs(VALUES[t]).sum())
    return np.array(shares)


CASES = {
    "directional": (
        Directional((2.0, 1.0)),
        lambda y, x: float((y - x) @ np.array([2.0, 1.0]) < 0),
    ),
    "flow": (
        Directional(lambda targets: targets**2),
        lambda y, x: float((y - x) @ x**2 < 0),
    ),
    "radial": (
        Directional(center=(0.5, 0.0)),
        lambda y, x: float(np.hypot(*(y - [0.5, 0])) < np.hypot(*(x - [0.5, 0]))),
    ),
    "region": (
        Region(pinn.Disk(("x", "t"), (0, 0), 0.6)),
        lambda y, x: float(np.hypot(*y) < 0.6),
    ),
    "function": (
        Region(lambda x: x > 0.2),
        lambda y, x: float(y[0] > 0.2),
    ),
    "box": (
        Region({"x": (-0.5, 0.1)}),
        lambda y, x: float(-0.5 <= y[0] <= 0.1),
    ),
    "causality": (Causality(), lambda y, x: float(y[1] <= x[1])),
    "conservation": (
        Conservation(speed=0.7),
        lambda y, x: float(abs(y[0] - x[0]) <= 0.7 * (x[1] - y[1])),
    ),
    "reaches": (
        Conservation(reaches=lambda p, t: p[:, 0] * t[:, :1] > 0),
        lambda y, x: float(x[0] * y[0] > 0),
    ),
    "proximity": (
        Proximity(width=0.5),
        lambda y, x: np.exp(-np.linalg.norm((y - x) / np.ptp(POINTS, axis=0)) / 0.5),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_share_is_that_of_its_members_and_its_baseline_theirs(name):
    indicator, is_member = CASES[name]
    values = indicator.at_targets(table())
    np.testing.assert_allclose(values.values, by_hand(is_member), rtol=1e-12)
    counts = [[is_member(y, x) for y in POINTS] for x in TARGETS]
    np.testing.assert_allclose(values.baseline, np.mean(counts, axis=1), rtol=1e-12)


def test_many_targets_are_looked_at_in_blocks(monkeypatch):
    indicator = Directional((1.0, 0.0))
    whole = indicator.at_targets(table())
    monkeypatch.setattr("whence.diagnosis.indicators.base.ENTRIES_AT_ONCE", 65)
    parts = indicator.at_targets(table())
    np.testing.assert_array_equal(parts.values, whole.values)


def test_terms_that_pull_against_each_other_cancel():
    places = np.repeat(POINTS[:10], 3, axis=0)
    kappa = Coherence().at_targets(table(points=places))
    by_place = VALUES.reshape(7, 10, 3)
    agreement = np.abs(by_place.sum(axis=2)) / np.abs(by_place).sum(axis=2)
    np.testing.assert_allclose(kappa.values, 1 - agreement.mean(axis=1), rtol=1e-12)
    # Of three signs, all agree with probability 1/4, else the sum is ±1: 1/4 + 3/4 · 1/3.
    np.testing.assert_allclose(kappa.baseline, 0.5)

    same_signs = Coherence().at_targets(table(points=places, values=np.abs(VALUES)))
    np.testing.assert_allclose(same_signs.values, 0, atol=1e-15)
    with pytest.raises(ValueError, match="no place has points of two"):
        Coherence().at_targets(table())


def test_an_interval_holds_the_mean_as_often_as_it_says():
    rng = np.random.default_rng(1)
    hits = 0
    for trial in range(60):
        late = rng.uniform(size=(40, 1)) < 0.3
        shares = np.where(late, 0.9, 0.1)
        values = np.concatenate([shares, 1 - shares], axis=1)
        coords = {
            "t": ("point", [0.0, 1.0]),
            "target_t": ("target", np.full(40, 0.5)),
        }
        attribution = Attribution(values, coords, ("target", "point"))
        numbers = measure(attribution, {"past": Causality()}, seed=trial)
        # 0.3 · 0.9 + 0.7 · 0.1
        hits += float(numbers.low[0, 0]) <= 0.34 <= float(numbers.high[0, 0])
    assert hits >= 50


def test_quantities_are_measured_one_by_one():
    names = ("target", ["u", "v", "u", "v", "u", "v", "u"])
    numbers = measure(table(quantity=names), {"past": Causality()})
    assert numbers["quantity"].values.tolist() == ["u", "v"]
    every = Causality().at_targets(table()).values
    np.testing.assert_allclose(
        numbers.value[0], [every[::2].mean(), every[1::2].mean()]
    )
    assert numbers.targets.values.tolist() == [[4.0, 3.0]]


def test_a_target_without_influence_counts_for_nothing():
    values = VALUES.copy()
    values[2] = 0
    numbers = measure(table(values=values), {"past": Causality()})
    every = Causality().at_targets(table()).values
    assert numbers.targets.item() == 6
    assert numbers.value.item() == pytest.approx(np.delete(every, 2).mean())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Directional(), "give one of direction"),
        (lambda: Directional((1.0,), (0.0,)), "give one of direction"),
        (lambda: Directional((0.0, 0.0)), "points nowhere"),
        (lambda: Conservation(), "give one of speed"),
        (lambda: Conservation(speed=-1.0), "speed must"),
        (lambda: Proximity(0.0), "width must"),
        (lambda: Directional((1.0,)).at_targets(table()), "must have 2 numbers"),
        (lambda: Causality("z").at_targets(table()), "unknown coordinate of causality"),
        (lambda: Causality().at_targets(table(("x", "y"))), "unknown coordinate"),
        (
            lambda: Region(pinn.Disk(("x", "t"), (9, 9), 0.1), "corner").at_targets(
                table()
            ),
            "none of the 30 points lie in the region 'corner'",
        ),
        (
            lambda: Region(pinn.Disk(("x", "y"), (0, 0), 0.1)).at_targets(table()),
            "has coordinates x, y, the points have x, t",
        ),
        (lambda: measure(table(), {}), "give one indicator"),
        (lambda: measure(table().isel(target=0), {"a": Causality()}), "target, point"),
        (
            lambda: measure(
                Attribution(VALUES, dims=("target", "point")), {"a": Causality()}
            ),
            "lacks coordinates",
        ),
    ],
)
def test_errors_say_what_is_missing(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# --- the command and its figure -----------------------------------------------------------------


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs of one problem and one of another."""
    folder = tmp_path_factory.mktemp("runs")
    for name, problem, variant in (
        ("good", "diffusion", None),
        ("broken", "diffusion", "broken"),
        ("other", "burgers", None),
    ):
        pinn.train(
            pinn.zoo.load(problem, variant=variant),
            pinn.MLP([2, 8, 1], seed=0),
            points=60,
            schedule=pinn.GaussNewton(5),
            out=folder / name,
            progress=False,
        )
    return folder


def test_a_command_measures_runs_side_by_side(runs, capsys, tmp_path):
    out = tmp_path / "both.csv"
    words = [str(runs / "good"), str(runs / "broken"), "--direction", "1", "0"]
    code = cli.main(
        ["indicators", *words, "--targets", "20", "--out", str(out)],
    )
    printed = capsys.readouterr().out
    assert code == 0
    rows = [line.split(",") for line in out.read_text().splitlines()]
    assert rows[0][:4] == ["run", "indicator", "quantity", "value"]
    names = {(row[0], row[1]) for row in rows[1:]}
    assert {("broken", "directional"), ("good", "causality")} <= names
    assert out.with_suffix(".png").is_file()
    assert str(out) in printed


def test_the_command_measures_what_python_does(runs, tmp_path):
    out = tmp_path / "one.csv"
    assert (
        cli.main(
            ["indicators", str(runs / "good"), "--targets", "20", "--out", str(out)]
        )
        == 0
    )
    result = pinn.load_run(runs / "good")
    points = result.problem.domain.sample(20, "random", seed=0)
    attribution = wh.Influence(result.objective).attribute(wh.Output(points, "u"))
    expected = measure(attribution, {"past": Causality()}).value.item()
    (row,) = [line for line in out.read_text().splitlines() if "causality" in line]
    assert float(row.split(",")[3]) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["good", "other"], "good solves diffusion and other burgers"),
        (["good", "--of", "v"], "unknown --of 'v'"),
        (["good", "--targets", "0"], "--targets must"),
        (["good", "--direction", "1"], "must have 2 numbers"),
        (["good", "--out", "x.nc"], "ends in .csv"),
        (["nowhere"], "nowhere"),
    ],
)
def test_the_command_says_what_is_wrong(runs, words, message, capsys, monkeypatch):
    monkeypatch.chdir(runs)
    assert cli.main(["indicators", *words]) == 2
    assert message in capsys.readouterr().err


def test_bars_stand_in_panels_of_their_quantities():
    names = ("target", ["u", "v", "u", "v", "u", "v", "u"])
    numbers = measure(table(quantity=names), {"past": Causality(), "near": Proximity()})
    figure = plots.indicator_bars({"good": numbers, "broken": numbers})
    assert len(figure.axes) == 2
    heights = [bar.get_height() for bar in figure.axes[1].patches]
    np.testing.assert_allclose(heights, 2 * numbers.value[:, 1].values.tolist())
    other = measure(table(), {"past": Causality()})
    with pytest.raises(ValueError, match="same indicators"):
        plots.indicator_bars({"good": numbers, "other": other})
