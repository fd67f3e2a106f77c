"""Variable projection against closed forms: linear equations in one solve, hidden layers beside."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import whence as wh
from whence import pinn
from whence.pinn.optimizers.varpro import VarProStepper, last_layer
from whence.triangular import Triangle


def features(n: int = 120, **options) -> pinn.RandomFeatures:
    options = {
        "activation": "sin",
        "scale": 4.0,
        "bounds": [[-1, 0], [1, 1]],
        "seed": 0,
    } | options
    return pinn.RandomFeatures(**({"layers": [2, n, 1]} | options))


def diffusion(network: nn.Module, n: int = 400) -> wh.Objective:
    problem = pinn.zoo.load("diffusion")
    return problem.objective(network, problem.sample(n, seed=0))


def test_a_linear_equation_is_solved_by_one_step() -> None:
    objective = diffusion(features())
    rows, right = wh.Jacobian(objective, scaled=True).system()
    stepper = pinn.VarPro(3).start(objective.parameters)
    start = objective.parameters.vector()
    assert stepper.advance(objective, 1).iterations == 1
    # The dense solution by singular values, cut where rounding begins.
    step = -torch.linalg.pinv(rows, rtol=1e-13) @ right
    left = float((right + rows @ step).norm())
    moved = objective.parameters.vector() - start
    assert float((right + rows @ moved).norm()) <= 1.5 * left + 1e-12
    assert stepper.advance(objective, 5).finished


def test_the_zoo_is_solved_to_ten_digits() -> None:
    for name, network in {
        "diffusion": features(200),
        "wave": features(600, scale=16.0, bounds=[[0, 0], [1, 1]]),
    }.items():
        result = pinn.train(
            pinn.zoo.load(name),
            network,
            points=2000,
            schedule=pinn.VarPro(5),
            progress=False,
        )
        assert result.summary["relative_l2"] < 1e-9, name
        assert result.summary["iterations"] <= 4


def test_conditions_are_rows_of_the_same_system() -> None:
    problem = pinn.zoo.load("diffusion", "soft")
    result = pinn.train(
        problem, features(200), points={"pde": 1000, "initial_u": 100, "dirichlet_u": 100},
        weights={"initial_u": 1e4, "dirichlet_u": 1e4}, schedule=pinn.VarPro(5), progress=False,
    )  # fmt: skip
    assert result.summary["relative_l2"] < 1e-10


def test_a_nonlinear_equation_takes_a_few_steps() -> None:
    """u″ = 3/2 u² with u(0) = 4, u(1) = 1: u = 4/(1 + x)²."""
    problem = pinn.Problem(
        domain=pinn.Interval("x", 0, 1),
        outputs=("u",),
        equations={"pde": lambda u, u_xx: u_xx - 1.5 * u**2},
        ansatz=lambda x, u: 4 - 3 * x + x * (1 - x) * u,
        solution=lambda x: 4 / (1 + x) ** 2,
    )
    network = pinn.RandomFeatures(
        [1, 40, 1], activation="sin", scale=4.0, bounds=[[0], [1]], seed=0
    )
    result = pinn.train(
        problem, network, points=100, schedule=pinn.VarPro(20), progress=False
    )
    assert result.summary["relative_l2"] < 1e-9
    assert 3 <= result.summary["iterations"] <= 12


def test_hidden_layers_move_by_what_the_last_cannot_fit() -> None:
    """Rows of the projected function: (I − Q Qᵀ) J_h, Kaufman's, from the blocks of R."""
    objective = diffusion(pinn.MLP([2, 6, 1], seed=0), 60)
    stepper = VarProStepper(pinn.VarPro(5), objective.parameters)
    rows, right = wh.Jacobian(objective, scaled=True).system()
    last = rows[:, stepper._in_last]
    hidden = rows[:, stepper._in_hidden]
    q, _ = torch.linalg.qr(last)
    outside = hidden - q @ (q.T @ hidden)
    damping = 1e-3
    matrix = outside.T @ outside + damping * torch.eye(hidden.shape[1]).double()
    of_hidden = torch.linalg.solve(matrix, -outside.T @ right)
    of_last = torch.linalg.lstsq(
        last, -(right + hidden @ of_hidden).unsqueeze(1)
    ).solution[:, 0]

    from whence.pinn.optimizers.varpro import _Blocks

    triangle = Triangle.of_objective(objective, stepper._order)
    delta, promised = _Blocks(triangle, last.shape[1], 1e-14).step(damping)
    torch.testing.assert_close(
        delta, torch.cat([of_last, of_hidden]), rtol=1e-6, atol=1e-7
    )
    before = right - q @ (q.T @ right)
    after = before + outside @ of_hidden
    wanted = 0.5 * float(before @ before - after @ after)
    assert promised == pytest.approx(wanted, rel=1e-8)


def test_hidden_layers_train_beside_the_last() -> None:
    problem = pinn.zoo.load("diffusion")
    options = {"points": 200, "progress": False, "keep": "last"}
    projected = pinn.train(
        problem, pinn.MLP([2, 12, 1], seed=0), schedule=pinn.VarPro(25), **options
    )
    whole = pinn.train(
        problem, pinn.MLP([2, 12, 1], seed=0), schedule=pinn.GaussNewton(25), **options
    )
    losses = list(projected.history["loss"])
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < whole.history["loss"][-1]
    assert projected.summary["relative_l2"] < 1e-3


def test_runs_resume_to_the_same_bits(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(pinn.training.loop, "CHECKPOINT_SECONDS", 0.0)
    options = {"points": 100, "schedule": pinn.VarPro(6), "progress": False}

    def run(**more) -> pinn.Result:
        network = pinn.MLP([2, 5, 1], seed=0)
        return pinn.train(pinn.zoo.load("diffusion"), network, **options, **more)

    whole = run()
    run(out=tmp_path / "run", max_seconds=1e-9)
    resumed = run(out=tmp_path / "run", resume=True)
    assert resumed.history["loss"].tolist() == whole.history["loss"].tolist()


def test_influence_on_a_last_layer_is_that_of_leaving_a_point_out() -> None:
    """Training is a linear least-squares problem: the change by removal has a closed form."""
    network = pinn.RandomFeatures([2, 8, 1], activation="sin", scale=3.0, seed=0)
    problem = pinn.zoo.load("diffusion")
    result = pinn.train(
        problem, network, points=40, schedule=pinn.VarPro(3), progress=False
    )
    objective = result.objective
    assert objective.parameters.names == ("last.weight", "last.bias")
    target = [[0.3, 0.6]]
    influence = wh.Influence(objective)
    group = wh.group_influence(influence, wh.Output(target, "u"), {"one": [5]})
    rows, right = wh.Jacobian(objective, scaled=True).system()
    kept = torch.arange(40) != 5
    theta = objective.parameters.vector()
    step = torch.linalg.lstsq(rows[kept], -right[kept].unsqueeze(1)).solution[:, 0]
    before = result.solution(target)
    objective.parameters.assign(theta + step)
    change = float(result.solution(target)[0, 0] - before[0, 0])
    objective.parameters.assign(theta)
    assert float(group.values[0, 0]) == pytest.approx(change, rel=1e-6)


def test_the_last_linear_layer_is_found() -> None:
    assert last_layer(features()) == ("last.weight", "last.bias")
    plain = nn.Sequential(nn.Linear(1, 4), nn.Tanh(), nn.Linear(4, 2, bias=False))
    assert last_layer(plain) == ("2.weight",)
    assert last_layer(nn.Linear(2, 1)) == ("weight", "bias")
    problem = pinn.Problem(
        domain=pinn.Interval("x", 0, 1),
        outputs=("u",),
        equations={"pde": lambda u_x, C: u_x - C},
        unknowns={"C": pinn.Field("C", of=("x",))},
    )
    model = problem.model(pinn.MLP([1, 4, 1], seed=0))
    assert last_layer(model) == ("network.linears.1.weight", "network.linears.1.bias")


def test_networks_without_a_linear_layer_to_train_are_refused() -> None:
    class Polynomial(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.c = nn.Parameter(torch.ones(3, dtype=torch.float64))

        def forward(self, z: torch.Tensor) -> torch.Tensor:
            return self.c[0] + self.c[1] * z[:, :1] + self.c[2] * z[:, 1:]

    with pytest.raises(ValueError, match="Polynomial has none"):
        pinn.VarPro(1).start(wh.parameters.Parameters(Polynomial()))
    network = pinn.MLP([2, 4, 1], seed=0)
    hidden = wh.parameters.Parameters(network, "linears.0.*")
    with pytest.raises(ValueError, match="not among the trained"):
        pinn.VarPro(1).start(hidden)


@pytest.mark.parametrize(
    ("name", "value"),
    [("iterations", 0), ("ridge", -1.0), ("damping", 0.0), ("increase", 1.0)],
)
def test_wrong_options_are_refused(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=name):
        pinn.VarPro(**({"iterations": 5} | {name: value}))


# --- random features ----------------------------------------------------------------------------


@pytest.mark.parametrize("activation", ["tanh", "sin"])
def test_features_are_placed_in_the_box_at_every_scale(activation: str) -> None:
    network = features(4000, activation=activation, scale=8.0)
    weight = network.hidden.weight
    if activation == "sin":
        assert float(weight.abs().max()) <= 8
        assert float(weight.mean()) == pytest.approx(0, abs=0.2)
        assert float(network.hidden.bias.abs().max()) <= math.pi
        return
    slopes = weight.norm(dim=1)
    assert float(slopes.min()) >= 1
    assert float(slopes.max()) <= 8
    # Log-uniform: half of them below the root of the scale.
    assert float((slopes < 8**0.5).double().mean()) == pytest.approx(0.5, abs=0.05)
    # The plane where the feature is zero passes through the box: |b| ≤ Σ|w|.
    assert bool((network.hidden.bias.abs() <= weight.abs().sum(dim=1)).all())


def test_features_stay_unless_they_are_to_train() -> None:
    parameters = wh.parameters.Parameters(features(10))
    assert parameters.names == ("last.weight", "last.bias")
    assert wh.parameters.Parameters(features(10, trainable=True)).size == 10 * 4 + 1


def test_a_run_knows_its_features_again(tmp_path) -> None:
    problem = pinn.zoo.load("diffusion")
    result = pinn.train(
        problem, features(50, seed=None), points=150, schedule=pinn.VarPro(3), progress=False,
        out=tmp_path / "run",
    )  # fmt: skip
    loaded = pinn.load_run(tmp_path / "run")
    points = [[0.1, 0.2], [0.5, 0.9]]
    assert loaded.solution(points).tolist() == result.solution(points).tolist()
    assert loaded.objective.parameters.names == ("last.weight", "last.bias")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"scale": 1.0, "activation": "tanh"}, "above 1"),
        ({"scale": -1.0}, "scale"),
        ({"layers": [2, 8, 8, 1]}, "three widths"),
        ({"bounds": [[0, 0, 0], [1, 1, 1]]}, "bounds"),
        ({"dtype": torch.int64}, "floating-point"),
        ({"activation": "tan"}, "did you mean 'tanh'"),
    ],
)
def test_wrong_features_are_refused(wrong: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        features(**wrong)


def test_single_precision_keeps_to_its_own_digits() -> None:
    result = pinn.train(
        pinn.zoo.load("diffusion"),
        features(60),
        points=300,
        schedule=pinn.VarPro(5),
        dtype=torch.float32,
        progress=False,
    )
    assert result.summary["relative_l2"] < 1e-3


def test_a_step_that_was_cut_does_not_end_the_stage() -> None:
    """Of atan w and a constant row: from w = 3 the whole step goes too far, a part gains little."""
    network = nn.Linear(1, 1, bias=False, dtype=torch.float64)

    def residual(tensors, z):
        return torch.atan(torch.func.functional_call(network, tensors, (z,))) + 2 * (
            1 - z
        )

    points = torch.tensor([[1.0], [0.0]], dtype=torch.float64)
    objective = wh.Objective(network, [wh.Term("data", residual, points)])
    objective.parameters.assign(torch.tensor([3.0], dtype=torch.float64))
    stepper = pinn.VarPro(20).start(objective.parameters)
    first = stepper.advance(objective, 1)
    assert not first.finished
    assert abs(float(objective.parameters.vector())) > 1e-2
    assert stepper.advance(objective, 20).finished
    assert float(objective.parameters.vector()) == pytest.approx(0, abs=1e-2)
