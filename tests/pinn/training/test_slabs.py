"""Slabs of time: each from the last, one solution, resumed, and what they cannot do."""

from __future__ import annotations

import dataclasses
import os
import signal

import numpy as np
import pytest
import torch

import whence as wh
from whence import pinn
from whence.pinn.pde.slab import continued_fields, joined_problem, slab_problem
from whence.pinn.training.known_solution import KnownSolution


def features(n: int = 100, **options) -> pinn.RandomFeatures:
    options = {"bounds": [[-1, 0], [1, 1]], "seed": 0, "scale": 4.0} | options
    return pinn.RandomFeatures([2, n, 1], **options)


def march(slabs: pinn.Slabs | None = None, **options) -> pinn.Result:
    options = {
        "points": 400,
        "schedule": pinn.VarPro(5),
        "validation": 50,
        "progress": False,
    } | options
    network = options.pop("network", None) or features()
    slabs = slabs or pinn.Slabs(t=0.5, passes=1)
    return slabs.train(pinn.zoo.load("diffusion"), network, **options)


@pytest.fixture(scope="module")
def run() -> pinn.Result:
    return march(pinn.Slabs(t=0.4, passes=1))


def test_one_solution_comes_out(run: pinn.Result) -> None:
    assert isinstance(run.network, pinn.Piecewise)
    # Slabs are equal, none longer than asked for.
    assert run.network.edges == pytest.approx([1 / 3, 2 / 3])
    assert run.summary["relative_l2"] < 1e-3
    assert set(run.objective.terms) == {"pde", "continuity_1", "continuity_2"}
    assert run.summary["losses"]["continuity_1"] < 1e-8
    edge = run.network.edges[0]
    times = np.array([[0.2, edge - 1e-9], [0.2, edge]])
    below, above = run.solution(times)[:, 0]
    assert below == pytest.approx(above, abs=1e-4)


def test_influence_goes_through_the_edges(run: pinn.Result) -> None:
    """A value in the last slab hangs on points of the first one, by way of the edges."""
    influence = wh.Influence(run.objective)
    attribution = influence.attribute(wh.Output([[0.3, 0.9]], "u"))
    times = run.objective.locations("pde")[:, 1].numpy()
    of_pde = np.abs(attribution.sel(term="pde").values[0])
    assert of_pde[times < 0.3].sum() > 0
    # Without the edges it would hang on its own slab alone.
    alone = run.objective.with_terms([run.objective.term("pde")])
    cut = wh.Influence(alone, damping=wh.Damping(1e-9)).attribute(
        wh.Output([[0.3, 0.9]], "u")
    )
    of_first = np.abs(cut.sel(term="pde").values[0])[times < 0.3]
    assert of_first.max() < 1e-9 * np.abs(cut.sel(term="pde").values[0]).max()


def test_a_nonlinear_equation_is_marched() -> None:
    """u_t = u² from 1/(2 + x): u = 1/(2 + x − t)."""
    problem = pinn.Problem(
        domain=pinn.Interval("x", 0, 1) * pinn.Interval("t", 0, 1),
        outputs=("u",),
        equations={"pde": lambda u, u_t: u_t - u**2},
        conditions=[pinn.Initial(u=lambda x: 1 / (2 + x))],
        solution=lambda x, t: 1 / (2 + x - t),
    )
    network = features(120, bounds=problem.domain.bounds.tolist(), scale=3.0)
    result = pinn.Slabs(t=0.25, tolerance=1e-9).train(
        problem, network, points={"pde": 600, "initial_u": 60}, weights={"initial_u": 1e4},
        schedule=pinn.VarPro(8), validation=50, progress=False,
    )  # fmt: skip
    assert result.summary["relative_l2"] < 1e-5
    # Only the first slab has the initial condition.
    assert set(result.objective.locations("initial_u")[:, 1].tolist()) == {0.0}


def test_other_networks_start_as_the_slab_before() -> None:
    network = pinn.MLP([2, 8, 1], bounds=[[-1, 0], [1, 1]], seed=0)
    result = march(
        pinn.Slabs(t=0.5), network=network, schedule=pinn.GaussNewton(30), points=100
    )
    first, second = result.network.pieces
    assert first.bounds[:, 1].tolist() == [0.0, 0.5]
    assert second.bounds[:, 1].tolist() == [0.5, 1.0]
    # After 30 steps still near where the first ended.
    ended = first.linears[0].weight.detach()
    trained = second.linears[0].weight.detach()
    began = network.linears[0].weight.detach()
    assert float((ended - trained).norm()) < float((began - trained).norm())
    assert result.summary["relative_l2"] < 0.05


def test_poor_slabs_are_halved_and_easy_ones_followed_by_longer() -> None:
    result = march(
        pinn.Slabs(t=0.25, tolerance=1e30, passes=1), points=200, network=features(30)
    )
    lengths = np.diff([0, *result.network.edges, 1])
    assert lengths[1] == pytest.approx(0.375)
    # Halves are kept where they are much better than the whole.
    strict = pinn.Slabs(t=0.5, tolerance=1e-13, passes=1)
    result = march(strict, points=400, network=features(60))
    assert len(result.network.pieces) > 2


def test_a_slab_need_not_be_better_than_the_worst_before() -> None:
    """What is as good as the slabs before is taken, though the tolerance is out of reach."""
    slabs = pinn.Slabs(t=0.25, tolerance=1e-30, passes=3)
    march_of = march(slabs, network=features(40)).summary["march"]
    trainings = march_of["trainings"]
    taken_at_once = 0
    for row in trainings:
        before = [
            other["loss"]
            for other in trainings
            if other["kept"] and other["high"] <= row["low"]
        ]
        if before and row["loss"] < max(before):
            # No further pass, and no halves.
            assert row["kept"]
            taken_at_once += 1
    assert taken_at_once >= 3


def test_the_steepness_of_what_moves_is_followed() -> None:
    """A hump in a wind of speed 1 is known at t = 0.5 alone: at 0.6 it is 0.1 further."""

    class Hump(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.width = torch.nn.Parameter(torch.tensor(8.0).double())

        def forward(self, z: torch.Tensor) -> torch.Tensor:
            moved = z[..., 0] - z[..., 1]
            return torch.exp(-self.width * moved**2).unsqueeze(-1)

    domain = pinn.Interval("x", -1, 1) * pinn.Interval("t", 0, 1)
    problem = pinn.Problem(
        domain=domain, outputs=("u",), equations={"pde": lambda u_t, u_x: u_t + u_x}
    )
    known = KnownSolution(problem, Hump(), 0.5, 0.5, 1)
    x = torch.linspace(-1, 1, 201, dtype=torch.float64)
    places = torch.stack([x, torch.full_like(x, 0.55)], dim=1)
    gradients = known.gradients(places, domain)[:, 0]
    moved = x - 0.55
    exact = -16 * moved * torch.exp(-8 * moved**2)
    stays = -16 * (moved + 0.05) * torch.exp(-8 * (moved + 0.05) ** 2)
    assert (gradients - exact).norm() < 0.2 * (stays - exact).norm()


def test_runs_load_and_resume(tmp_path) -> None:
    whole = march(out=tmp_path / "whole")
    loaded = pinn.load_run(tmp_path / "whole")
    points = [[0.1, 0.2], [0.4, 0.5], [0.3, 0.9]]
    assert loaded.solution(points).tolist() == whole.solution(points).tolist()
    assert set(loaded.objective.terms) == {"pde", "continuity_1"}
    assert all(state.problem is None for state in pinn.check_run(tmp_path / "whole"))

    with pytest.raises(TimeoutError, match="resume=True"):
        march(out=tmp_path / "cut", max_seconds=1e-3)
    assert not (tmp_path / "cut" / "config.json").exists()
    resumed = march(out=tmp_path / "cut", resume=True)
    assert resumed.solution(points).tolist() == whole.solution(points).tolist()
    again = march(out=tmp_path / "cut", resume=True)
    assert again.solution(points).tolist() == whole.solution(points).tolist()
    with pytest.raises(ValueError, match="resume with the same options"):
        march(out=tmp_path / "cut", resume=True, schedule=pinn.VarPro(6))
    with pytest.raises(FileExistsError, match="already holds a run"):
        march(out=tmp_path / "whole")


def test_what_a_run_took_is_that_of_all_slabs(tmp_path) -> None:
    result = march(out=tmp_path / "run")
    summary = pinn.RunFolder(tmp_path / "run").summary()
    parts = sorted((tmp_path / "run" / "slabs").iterdir())
    of_slabs = sum(pinn.RunFolder(part).summary()["seconds"] for part in parts)
    assert summary["seconds"] == result.summary["seconds"] > of_slabs > 0


def test_the_random_numbers_of_the_caller_stay(run: pinn.Result) -> None:
    state = torch.get_rng_state()
    march(points=100, network=features(10))
    assert torch.equal(torch.get_rng_state(), state)


def test_a_piecewise_network_of_a_plain_run_loads(tmp_path) -> None:
    """Whose problem has an unknown, and so could not be cut into slabs."""
    problem = pinn.Problem(
        domain=pinn.Interval("x", 0, 1) * pinn.Interval("t", 0, 1),
        outputs=("u",),
        equations={"pde": lambda u_t, k: u_t - k},
        unknowns={"k": 1.0},
    )
    network = pinn.Piecewise([2, 4, 1], edges=[0.5], seed=0)
    options = {"points": 20, "schedule": pinn.GaussNewton(2), "progress": False}
    pinn.train(problem, network, out=tmp_path / "run", **options)
    loaded = pinn.load_run(tmp_path / "run", problem)
    assert set(loaded.objective.terms) == {"pde"}


def test_ctrl_c_ends_the_march(tmp_path) -> None:
    def interrupt(row: dict) -> bool:
        if row["iteration"] >= 1:
            os.kill(os.getpid(), signal.SIGINT)
        return False

    options = {"network": pinn.MLP([2, 8, 1], seed=0), "schedule": pinn.GaussNewton(50)}
    with pytest.raises(KeyboardInterrupt):
        march(out=tmp_path / "run", observers=[pinn.Stop(interrupt)], **options)
    assert sorted(p.name for p in (tmp_path / "run" / "slabs").iterdir()) == ["000"]


def test_a_second_order_equation_continues_its_velocity() -> None:
    wave = pinn.zoo.load("wave", "soft")
    assert continued_fields(wave) == ("u", "u_t")
    assert continued_fields(pinn.zoo.load("burgers")) == ("u",)
    before = pinn.Data("continuity", [[0.5, 0.25]], u=[0.1], u_t=[0.2])
    slab = slab_problem(wave, 0.25, 0.5, before)
    assert slab.terms == ("pde", "dirichlet_u", "continuity")
    assert slab.domain.bounds.tolist() == [[0, 0.25], [1, 0.5]]
    assert slab_problem(wave, 0, 0.25, None).terms == wave.terms


def test_the_jump_at_an_edge_is_that_of_both_pieces() -> None:
    wave = pinn.zoo.load("wave", "soft")
    network = pinn.Piecewise([2, 6, 1], edges=[0.5], bounds=[[0, 0], [1, 1]], seed=0)
    joined = joined_problem(wave, [0.5])
    edge = torch.tensor([[0.2, 0.5], [0.7, 0.5]], dtype=torch.float64)
    residual = joined.residual(network, "continuity_1")(
        dict(network.named_parameters()), edge
    )
    columns = []
    for name in ("u", "u_t"):
        above = wave.evaluate(network.pieces[1], edge, (name,))
        below = wave.evaluate(network.pieces[0], edge, (name,))
        columns.append(above - below)
    torch.testing.assert_close(
        residual.detach(), torch.cat(columns, 1), rtol=1e-9, atol=1e-10
    )


def test_what_slabs_cannot_do_is_said_before_any_work() -> None:
    steady = pinn.zoo.load("helmholtz")
    with pytest.raises(ValueError, match="has no time to cut"):
        pinn.Slabs(t=0.5).train(steady, points=10, schedule=pinn.VarPro(1))
    with pytest.raises(ValueError, match=r"pinn\.Slabs\(t=0\.5\)"):
        pinn.Slabs(time=0.5).train(
            pinn.zoo.load("wave"), points=10, schedule=pinn.VarPro(1)
        )
    wave = pinn.zoo.load("wave", "soft")
    for extra, message in (
        (pinn.Data("sensors", [[0.5, 0.5]], u=[0.1]), "no measurements"),
        (pinn.Dirichlet(name="end", u=0.0, on="t_max"), "end of time"),
    ):
        changed = dataclasses.replace(wave, conditions=[*wave.conditions, extra])
        with pytest.raises(ValueError, match=message):
            pinn.Slabs(t=0.5).train(changed, points=10, schedule=pinn.VarPro(1))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({}, TypeError, "got none"),
        ({"t": 0.1, "s": 0.2}, TypeError, "got t, s"),
        ({"t": -0.1}, ValueError, "length of a slab"),
        ({"t": 0.1, "passes": 0}, ValueError, "passes"),
        ({"t": 0.1, "tolerance": 0.0}, ValueError, "tolerance"),
    ],
)
def test_wrong_slabs_are_refused(arguments: dict, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        pinn.Slabs(**arguments)
