"""Pinned points: in the training set at all times, whatever renews the others."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from whence import pinn
from whence.pinn.training.run_folder import RunFolder

CORNERS = np.array([[0.0, 0.0], [0.5, 0.5], [0.9, 0.1]])
RESAMPLERS = {
    "add": {"n": 4, "max_points": 14},
    "replace": {"n": 6, "update": "replace"},
    "all": {"n": None, "update": "replace"},
    "joint": {"n": 5, "joint": True, "max_points": 20},
}


def problem():
    return pinn.Problem(
        domain=pinn.Rectangle(("x", "y"), (0, 0), (1, 1)),
        outputs=("u",),
        equations={"pde": lambda u_xx, u_yy: u_xx + u_yy + 1},
        conditions=[
            pinn.Dirichlet(u=0.0, on="x"),
            pinn.Data("sensors", [[0.3, 0.3], [0.6, 0.6]], u=[0.1, 0.2]),
        ],
    )


def resampler(name, **options):
    chosen = {**RESAMPLERS[name], "every": 2, "candidates": 60, **options}
    return pinn.Resample(pinn.ResidualScore(), **chosen)


def go(resample, out=None, steps=6, **options):
    chosen = {"points": {"pde": 10, "dirichlet_u": 6}, "pinned": {"pde": CORNERS}}
    return pinn.train(
        problem(),
        pinn.MLP([2, 6, 1], seed=0),
        **{**chosen, **options},
        schedule=[pinn.GaussNewton(steps)],
        resample=resample,
        validation=20,
        out=out,
        progress=False,
    )


def head(result):
    return result.objective.locations("pde")[:3].numpy()


@pytest.mark.parametrize("name", RESAMPLERS)
def test_every_resampler_keeps_them(name):
    result = go(resampler(name))
    assert np.array_equal(head(result), CORNERS)
    record = result.points
    is_pinned = record["pde:pinned"]
    assert np.array_equal(record["pde"][is_pinned], CORNERS)
    assert (record["pde:left"][is_pinned] == -1).all()
    assert (record["pde:entered"][is_pinned] == 0).all()
    # The others did change, and all were counted.
    assert (record["pde:left"][~is_pinned] >= 0).any()
    counts = result.history["points"]
    assert counts[0] == 10 + 3 + 6 + 2
    expected = {"add": 14 + 8, "replace": 21, "all": 21, "joint": 20 + 2}
    assert counts[-1] == expected[name]
    assert "dirichlet_u:pinned" not in record


def test_r3_keeps_them():
    result = go(pinn.R3(every=2))
    assert np.array_equal(head(result), CORNERS)
    assert len(result.objective.locations("pde")) == 13


@dataclass(frozen=True)
class Fresh:
    """A resampler that knows nothing of pinned points."""

    every: int = 2

    def check(self, objective):
        pass

    def update_points(self, objective, round, seed):
        return {"pde": objective.draw("pde", 7, seed=round)}


def test_a_resampler_that_does_not_know_them_is_put_right():
    result = go(Fresh())
    assert np.array_equal(head(result), CORNERS)
    assert len(result.objective.locations("pde")) == 10


def test_a_resume_keeps_them(tmp_path):
    whole = go(resampler("all"), tmp_path / "whole")
    with pytest.raises(ValueError, match="pinned"):
        go(resampler("all"), tmp_path / "whole", resume=True, pinned=None)

    stopped = go(resampler("all"), tmp_path / "part", max_seconds=1e-9)
    assert stopped.summary["stopped_by"] == "time limit"
    resumed = go(resampler("all"), tmp_path / "part", resume=True)
    assert np.array_equal(head(resumed), CORNERS)
    assert resumed.summary["loss"] == whole.summary["loss"]
    saved = RunFolder(tmp_path / "part").points()
    assert saved["pde:pinned"].sum() == 3
    assert np.array_equal(saved["pde"], whole.points["pde"])


def test_points_that_are_pinned_stand_once_and_are_never_held_out():
    given = torch.tensor(np.vstack([[[0.2, 0.2], [0.7, 0.7]], CORNERS[::-1]]))
    result = go(
        None,
        points={"pde": given, "dirichlet_u": 6},
        hold_out={"pde": 0.5},
    )
    points = result.objective.locations("pde")
    assert len(points) == 3 + 1
    assert np.array_equal(head(result), CORNERS)


def test_equations_that_pin_the_same_stay_shared():
    made = pinn.Problem(
        domain=pinn.Rectangle(("x", "y"), (0, 0), (1, 1)),
        outputs=("u",),
        equations={"a": lambda u_x: u_x - 1, "b": lambda u_y, x: u_y - x},
    )
    result = pinn.train(
        made,
        pinn.MLP([2, 5, 1], seed=0),
        points={"a": 8, "b": 8},
        pinned={"a": CORNERS, "b": CORNERS},
        schedule=[pinn.GaussNewton(4)],
        resample=resampler("all"),
        validation=10,
        progress=False,
    )
    assert torch.equal(result.objective.locations("a"), result.objective.locations("b"))
    assert np.array_equal(result.objective.locations("a")[:3].numpy(), CORNERS)


@pytest.mark.parametrize(
    ("pinned", "message"),
    [
        ({"sensors": CORNERS}, "part of the problem and never leave"),
        ({"ode": CORNERS}, "pde"),
        ({"pde": CORNERS[[0, 0]]}, "pinned points of term 'pde'"),
        ({"pde": CORNERS + 1}, "outside"),
        (CORNERS, "by term"),
    ],
)
def test_errors(pinned, message):
    with pytest.raises((TypeError, ValueError), match=message):
        go(None, pinned=pinned)
