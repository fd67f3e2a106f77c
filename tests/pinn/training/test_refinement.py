"""A second network on what the first one leaves."""

import math

import numpy as np
import pytest
import torch

import whence as wh
from whence import cli, pinn
from whence.pinn.training.refinement import dominant_frequencies


def poisson():
    """u_xx = f on [−1, 1] with u = sin 3πx + 0.3 sin 10x, ends met by the ansatz."""

    def equation(x, u_xx):
        wave = 9 * math.pi**2 * torch.sin(3 * math.pi * x)
        return u_xx + wave + 30 * torch.sin(10 * x)

    def ansatz(x, u):
        return (1 - x**2) * u + 0.3 * math.sin(10) * x

    return pinn.Problem(
        domain=pinn.Interval("x", -1, 1),
        outputs=("u",),
        equations={"pde": equation},
        ansatz=ansatz,
        solution=lambda x: np.sin(3 * np.pi * x) + 0.3 * np.sin(10 * x),
        architecture=lambda seed: pinn.MLP(
            [1, 20, 20, 1], bounds=[[-1], [1]], seed=seed
        ),
    )


@pytest.fixture(scope="module")
def first():
    """A run that others refine, and leave as it is."""
    return pinn.train(
        poisson(), points=200, schedule=pinn.GaussNewton(100), progress=False
    )


def test_a_second_stage_lowers_the_error_tenfold_in_as_many_steps(first):
    before = {n: p.clone() for n, p in first.network.named_parameters()}
    second = pinn.refine(first, schedule=pinn.GaussNewton(100), progress=False)
    assert second.summary["relative_l2"] < 0.1 * first.summary["relative_l2"]
    # As many more steps of the first network alone do not come as far.
    longer = pinn.train(
        poisson(), points=200, schedule=pinn.GaussNewton(200), progress=False
    )
    assert second.summary["relative_l2"] < longer.summary["relative_l2"]

    assert isinstance(second.network, pinn.Stages)
    assert second.history["loss"][0] == pytest.approx(1.0, abs=3.0)
    for name, parameter in first.network.named_parameters():
        assert torch.equal(parameter, before[name])
        kept = dict(second.network.stages[0].named_parameters())[name]
        assert torch.equal(kept, before[name])
        assert parameter.requires_grad

    # Influence is that on the last stage, and a third stage takes both as they are.
    influence = wh.Influence(second.objective, damping=1e-9)
    assert influence.attribute(wh.Output([[0.3]])).shape == (1, 200)
    third = pinn.refined(second)
    assert len(third.stages) == 3
    assert third.scales[0] == second.network.scales[0]


def test_scale_makes_the_second_network_change_residuals_as_much_as_they_are(first):
    problem = poisson()
    network = pinn.refined(first, pinn.SIREN([1, 8, 1], omega=4.0, seed=2))
    (scale,) = network.scales
    points = first.objective.terms["pde"].points
    own = problem.evaluate(first.network, points, ["u_xx"])
    both = problem.evaluate(network, points, ["u_xx"])
    residual = first.objective.loss().sqrt()
    # u_xx is linear in the network: the change is ε N_2 itself.
    change = (both - own).square().mean().sqrt()
    torch.testing.assert_close(change, residual, rtol=1e-4, atol=0)
    assert scale > 0


def test_dominant_frequency_is_that_of_the_residual():
    def equation(x, t, u):
        return 0 * u + torch.sin(2 * math.pi * 5 * x) * torch.cos(2 * math.pi * 9 * t)

    domain = pinn.Interval("x", 0, 1) * pinn.Interval("t", 0, 1)
    problem = pinn.Problem(domain=domain, outputs=("u",), equations={"pde": equation})
    network = pinn.MLP([2, 4, 1], seed=0)
    objective = problem.objective(network, problem.sample(10, seed=0))
    result = pinn.Result(problem, network, objective, None, {}, None)
    assert dominant_frequencies(result).tolist() == [5.0, 9.0]


def test_what_cannot_be_refined_is_named():
    problem = pinn.zoo.load("inverse_heat")
    network = problem.model(problem.network())
    result = pinn.Result(problem, network, None, None, {}, None)
    with pytest.raises(ValueError, match="has unknowns"):
        pinn.refined(result)


def test_refined_run_is_saved_and_resumed(first, tmp_path):
    options = {"schedule": pinn.GaussNewton(6), "out": tmp_path / "second"}
    stop = pinn.Stop(lambda row: row["iteration"] >= 5)
    part = pinn.refine(first, observers=[stop], progress=False, **options)
    assert part.summary["iterations"] < 6
    whole = pinn.refine(first, resume=True, progress=False, **options)
    assert whole.summary["iterations"] >= part.summary["iterations"]
    again = pinn.load_run(tmp_path / "second", problem=poisson())
    points = torch.tensor([[0.3], [-0.8]], dtype=torch.float64)
    assert torch.equal(again.network(points), whole.network(points))
    # Only the last stage trains after loading too.
    assert again.objective.parameters.size == whole.objective.parameters.size


def train_by_command(*arguments):
    return cli.main(["train", *map(str, arguments), "--quiet"])


def test_command_line_trains_every_network(tmp_path):
    common = [
        "--schedule",
        "gauss_newton:2",
        "--points",
        "pde=30",
        "--resampler",
        "none",
    ]
    for name, flags in {
        "siren": ["--siren.omega", "5", "--layers", "2", "8", "1"],
        "modified_mlp": ["--layers", "2", "8", "8", "1", "--activation", "sin"],
        "pirate_net": ["--layers", "2", "8", "1", "--pirate-net.scale", "1"],
        "separable": ["--separable.rank", "4", "--layers", "2", "8", "1"],
        "periodic": [
            "--periodic.periods", "x=2", "--periodic.modes", "2", "--periodic.kind", "siren",
            "--siren.omega", "3", "--layers", "2", "8", "1",
        ],
        "mlp": ["--mlp.adaptive", "layer", "--mlp.slope-factor", "5"],
    }.items():  # fmt: skip
        out = tmp_path / name
        arguments = ["diffusion", "--network", name, *flags, *common, "--out", out]
        assert train_by_command(*arguments) == 0
        network = pinn.load_run(out).network
        assert torch.isfinite(network(torch.rand(3, 2).double())).all()
    assert network.adaptive == "layer"
    periodic = pinn.load_run(tmp_path / "periodic").network
    assert periodic.periods == {0: 2.0}
    assert (periodic.modes, periodic.network.omega) == (2, 3.0)
    # Inputs are scaled from the problem's box, without a flag.
    assert pinn.load_run(tmp_path / "siren").network.bounds is not None


def test_command_line_refines_a_run(tmp_path, capsys):
    common = ["--points", "pde=300", "--resampler", "none", "--quiet"]
    first, second = tmp_path / "first", tmp_path / "second"
    steps = ["--schedule", "gauss_newton:20", *common]
    assert cli.main(["train", "diffusion", *steps, "--out", str(first)]) == 0
    refine = ["--refine", str(first), "--out", str(second)]
    assert cli.main(["train", "diffusion", *steps, *refine]) == 0
    runs = [pinn.load_run(path) for path in (first, second)]
    assert isinstance(runs[1].network, pinn.Stages)
    errors = [run.summary["relative_l2"] for run in runs]
    assert errors[1] < errors[0]

    other = ["train", "burgers", "--refine", str(first), "--out", str(tmp_path / "x")]
    assert cli.main([*other, *steps]) == 2
    assert "refine a run of the same problem" in capsys.readouterr().err
    activation = ["--network", "siren", "--activation", "tanh"]
    assert cli.main(["train", "diffusion", *activation, *steps]) == 2
    assert "--activation does nothing" in capsys.readouterr().err
