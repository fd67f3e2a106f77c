"""Spectra that a run records."""

import numpy as np
import pytest

from whence import ntk, pinn
from whence.pinn.training.array_checks import check_spectra
from whence.pinn.training.run_folder import SPECTRA as SPECTRA_FILE

SPECTRA = pinn.Spectra(every=150, points=8)


def go(out=None, **changes):
    problem = pinn.zoo.load("wave", "soft")
    options = {
        "points": dict.fromkeys(problem.terms, 12),
        "schedule": [pinn.Adam(400, lr=1e-2), pinn.GaussNewton(5)],
        "observers": [SPECTRA],
        "validation": 20,
        "progress": False,
        "keep": "last",
    }
    return pinn.train(
        problem, pinn.MLP([2, 8, 1], seed=0), out=out, **{**options, **changes}
    )


@pytest.fixture(name="run", scope="module")
def _run(tmp_path_factory):
    return go(tmp_path_factory.mktemp("spectra") / "run")


def test_records_are_taken_at_rows_and_no_more_often_than_asked(run):
    assert run.spectra["iteration"].tolist() == [0, 200, 400]
    assert {
        n: v.shape for n, v in run.spectra.items() if n != "iteration"
    } == dict.fromkeys(run.problem.terms, (3, 8))


def test_records_are_the_spectra_of_the_scaled_blocks():
    result = go(
        schedule=[pinn.Adam(100)], observers=[pinn.Spectra(every=100, points=8, seed=3)]
    )
    problem = result.problem
    points = {
        name: result.objective.draw(name, 8, 3 + k).unique(dim=0)
        for k, name in enumerate(problem.terms)
    }
    there = result.objective.with_points(points)
    for name in problem.terms:
        expected = np.linalg.eigvalsh(ntk.blocks(there, scaled=True)[name, name])[::-1]
        np.testing.assert_allclose(
            result.spectra[name][-1], expected, rtol=1e-6, atol=1e-12 * expected[0]
        )


def test_weights_of_the_moment_count():
    given = {
        "schedule": [pinn.Adam(100)],
        "observers": [pinn.Spectra(every=100, points=8)],
    }
    plain, heavy = go(**given), go(weights={"initial_u": 9.0}, **given)
    np.testing.assert_allclose(
        heavy.spectra["initial_u"][0][:6],
        9 * plain.spectra["initial_u"][0][:6],
        rtol=1e-6,
    )


def test_recording_changes_nothing(run):
    other = go(observers=[])
    assert other.spectra is None
    assert [r["loss"] for r in other.history] == [r["loss"] for r in run.history]


def test_a_run_cut_in_the_middle_has_the_same_spectra(run, tmp_path):
    folder = tmp_path / "run"
    go(folder, observers=[SPECTRA, pinn.Stop(lambda row: row["iteration"] >= 200)])
    again = go(folder, resume=True)
    held = pinn.RunFolder(folder).spectra()
    assert held.keys() == run.spectra.keys()
    for name, values in run.spectra.items():
        np.testing.assert_array_equal(values, again.spectra[name])
        np.testing.assert_array_equal(values, held[name])


def test_damaged_spectra_are_refused_by_name(tmp_path):
    go(tmp_path / "run", schedule=[pinn.Adam(100)])
    path = tmp_path / "run" / SPECTRA_FILE
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ValueError, match=r"spectra\.npz"):
        pinn.RunFolder(tmp_path / "run").spectra()
    np.savez_compressed(path, iteration=np.array([0]), pde=np.array([[np.nan]]))
    with pytest.raises(
        ValueError, match=r"spectra\.npz is damaged: the spectra of term 'pde'"
    ):
        pinn.RunFolder(tmp_path / "run").spectra()


@pytest.mark.parametrize(
    "arrays",
    [
        {"pde": np.ones((1, 2))},
        {"iteration": np.array([], dtype=np.int64)},
        {"iteration": np.array([0.5])},
        {"iteration": np.array([0, 1]), "pde": np.ones((1, 2))},
        {"iteration": np.array([0]), "pde": np.ones(2)},
    ],
)
def test_what_is_no_spectra(arrays):
    with pytest.raises(ValueError, match="spectra"):
        check_spectra(arrays)


def test_options_are_checked():
    for wrong in ({"every": 0}, {"points": 1.5}, {"seed": -1}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            pinn.Spectra(**wrong)
