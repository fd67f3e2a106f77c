"""Problems of PINA's tutorials through ``whence.adapters.pina``, beside PINA and by hand.

``python -m benchmarks.pina_tutorials`` (after ``make bench``) writes the problems of PINA's
tutorials 1 (an ordinary equation), 2 (Poisson with a learnt feature), 3 (wave, hard constraints in
the model), 7 (inverse, two unknown parameters and data), 9 (Helmholtz, periodic embedding) and 13
(multiscale, Fourier features) as these do, with their models, takes 20 steps of Adam by PINA's
trainer, and compares, in float64, each residual with ``condition.evaluate`` of PINA, and influences
with the formula written out on gradients that ``torch.autograd`` takes one by one of PINA's
residuals. The damping is 1e-4 of the largest eigenvalue of the Gauss-Newton matrix.
"""

from __future__ import annotations

import logging
import math
import tempfile
import warnings

import torch
from pina import Condition, LabelTensor, Trainer
from pina.domain import CartesianDomain
from pina.equation import Equation
from pina.equation.zoo import (
    AcousticWaveEquation,
    FixedValue,
    HelmholtzEquation,
    PoissonEquation,
)
from pina.model import FeedForward
from pina.model.block import FourierFeatureEmbedding, PeriodicBoundaryEmbedding
from pina.operator import grad, laplacian
from pina.problem import InverseProblem, SpatialProblem, TimeDependentProblem
from pina.problem.zoo import Poisson2DSquareProblem
from pina.solver import PINN

import whence as wh
from benchmarks._dense_influence import dense_influence, relative_error
from whence.adapters.pina import from_solver

MAX_RESIDUAL_ERROR = 1e-10
MAX_INFLUENCE_ERROR = 1e-8
DAMPING = 1e-4
N_EPOCHS = 20


def ordinary_equation() -> PINN:
    """Tutorial 1."""

    def equation(input_, output_):
        u_x = grad(output_, input_, components=["u"], d=["x"])
        return u_x - output_.extract(["u"])

    class SimpleODE(SpatialProblem):
        output_variables = ["u"]
        spatial_domain = CartesianDomain({"x": [0, 1]})
        domains = {"x0": CartesianDomain({"x": 0.0}), "D": spatial_domain}
        conditions = {
            "bound_cond": Condition(domain="x0", equation=FixedValue(1.0)),
            "phys_cond": Condition(domain="D", equation=Equation(equation)),
        }

    problem = SimpleODE()
    problem.discretise_domain(1, "random", domains=["x0"])
    problem.discretise_domain(20, "lh", domains=["D"])
    return PINN(problem, FeedForward(1, 1, layers=[10, 10], func=torch.nn.Tanh))


class LearntFeature(torch.nn.Module):
    """b sin(ax) sin(ay) beside the coordinates, with a and b learnt."""

    def __init__(self) -> None:
        super().__init__()
        self.alpha = torch.nn.Parameter(torch.tensor([1.0]))
        self.beta = torch.nn.Parameter(torch.tensor([1.0]))
        self.layers = FeedForward(3, 1, layers=[10, 10], func=torch.nn.Softplus)

    def forward(self, x):
        t = (
            self.beta
            * torch.sin(self.alpha * x.extract(["x"]) * torch.pi)
            * torch.sin(self.alpha * x.extract(["y"]) * torch.pi)
        )
        return self.layers(x.append(LabelTensor(t, ["feature"])))


def learnt_feature() -> PINN:
    """Tutorial 2."""
    problem = Poisson2DSquareProblem()
    problem.discretise_domain(60, "random", domains="D")
    problem.discretise_domain(40, "random", domains="boundary")
    return PINN(problem, LearntFeature())


class HardMLP(torch.nn.Module):
    """Vanishes on the boundary of the unit square (tutorial 3; tanh in place of ReLU)."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(3, 20), torch.nn.Tanh(), torch.nn.Linear(20, 20),
            torch.nn.Tanh(), torch.nn.Linear(20, 1),
        )  # fmt: skip

    def forward(self, x):
        hard = (
            x.extract(["x"])
            * (1 - x.extract(["x"]))
            * x.extract(["y"])
            * (1 - x.extract(["y"]))
        )
        return hard * self.layers(x)


def wave() -> PINN:
    """Tutorial 3."""

    def initial(input_, output_):
        x, y = input_.extract(["x"]), input_.extract(["y"])
        expected = torch.sin(torch.pi * x) * torch.sin(torch.pi * y)
        return output_.extract(["u"]) - expected

    class Wave(TimeDependentProblem, SpatialProblem):
        output_variables = ["u"]
        spatial_domain = CartesianDomain({"x": [0, 1], "y": [0, 1]})
        temporal_domain = CartesianDomain({"t": [0, 1]})
        domains = {
            "D": spatial_domain.update(temporal_domain),
            "initial": spatial_domain.update(CartesianDomain({"t": 0.0})),
            "boundary": spatial_domain.partial().update(temporal_domain),
        }
        conditions = {
            "boundary": Condition(domain="boundary", equation=FixedValue(0.0)),
            "initial": Condition(domain="initial", equation=Equation(initial)),
            "D": Condition(domain="D", equation=AcousticWaveEquation(c=1.0)),
        }

    problem = Wave()
    problem.discretise_domain(60, "random")
    return PINN(problem, HardMLP())


def inverse() -> PINN:
    """Tutorial 7, with data of its own."""

    def equation(input_, output_, params_):
        force = torch.exp(
            -2 * (input_.extract(["x"]) - params_["mu1"]) ** 2
            - 2 * (input_.extract(["y"]) - params_["mu2"]) ** 2
        )
        return laplacian(output_, input_, components=["u"], d=["x", "y"]) - force

    points = 4 * torch.rand(50, 2) - 2
    values = torch.sin(points.sum(dim=1, keepdim=True))

    class Poisson(SpatialProblem, InverseProblem):
        output_variables = ["u"]
        spatial_domain = CartesianDomain({"x": [-2, 2], "y": [-2, 2]})
        unknown_parameter_domain = CartesianDomain({"mu1": [-1, 1], "mu2": [-1, 1]})
        domains = {"boundary": spatial_domain.partial(), "D": spatial_domain}
        conditions = {
            "boundary": Condition(domain="boundary", equation=FixedValue(0.0)),
            "D": Condition(domain="D", equation=Equation(equation)),
            "data": Condition(
                input=LabelTensor(points, ["x", "y"]),
                target=LabelTensor(values, ["u"]),
            ),
        }

    problem = Poisson()
    problem.discretise_domain(8, "grid", domains=["D"])
    problem.discretise_domain(60, "random", domains="boundary")
    return PINN(problem, FeedForward(2, 1, layers=[20, 20, 20], func=torch.nn.Softplus))


def periodic() -> PINN:
    """Tutorial 9."""

    def force(x):
        return -6.0 * math.pi**2 * torch.sin(3 * math.pi * x) * torch.cos(math.pi * x)

    class Helmholtz(SpatialProblem):
        output_variables = ["u"]
        spatial_domain = CartesianDomain({"x": [0, 2]})
        conditions = {
            "phys_cond": Condition(
                domain=spatial_domain,
                equation=HelmholtzEquation(k=10 * math.pi**2, forcing_term=force),
            ),
        }

    problem = Helmholtz()
    problem.discretise_domain(100, "grid", domains=["phys_cond"])
    model = torch.nn.Sequential(
        PeriodicBoundaryEmbedding(input_dimension=1, periods=2),
        FeedForward(input_dimensions=3, output_dimensions=1, layers=[64, 64]),
    )
    return PINN(problem, model)


class Multiscale(torch.nn.Module):
    """Two embeddings of random frequencies before one network (tutorial 13)."""

    def __init__(self) -> None:
        super().__init__()
        self.embeddings = torch.nn.ModuleList(
            [
                FourierFeatureEmbedding(1, 100, sigma=1),
                FourierFeatureEmbedding(1, 100, sigma=10),
            ]
        )
        self.layers = FeedForward(100, 100, layers=[100])
        self.final_layer = torch.nn.Linear(200, 1)

    def forward(self, x):
        parts = [self.layers(embedding(x)) for embedding in self.embeddings]
        return self.final_layer(torch.cat(parts, dim=-1))


def multiscale() -> PINN:
    """Tutorial 13."""

    def force(x):
        return -(
            (2 * torch.pi) ** 2 * torch.sin(2 * torch.pi * x)
            + 0.1 * (50 * torch.pi) ** 2 * torch.sin(50 * torch.pi * x)
        )

    class Poisson(SpatialProblem):
        output_variables = ["u"]
        spatial_domain = CartesianDomain({"x": [0.0, 1.0]})
        domains = {"boundary": spatial_domain.partial(), "phys_cond": spatial_domain}
        conditions = {
            "boundary": Condition(domain="boundary", equation=FixedValue(0.0)),
            "phys_cond": Condition(
                domain="phys_cond", equation=PoissonEquation(forcing_term=force)
            ),
        }

    problem = Poisson()
    problem.discretise_domain(64, "grid", domains="phys_cond")
    problem.discretise_domain(2, "grid", domains="boundary")
    return PINN(problem, Multiscale())


TUTORIALS = {
    "1, ordinary equation": ordinary_equation,
    "2, Poisson with a learnt feature": learnt_feature,
    "3, wave with hard constraints": wave,
    "7, inverse Poisson": inverse,
    "9, periodic Helmholtz": periodic,
    "13, multiscale Poisson": multiscale,
}


def compared(solver: PINN) -> tuple[float, float, list[str]]:
    """Return the errors of residuals and of influences, and the terms by autograd."""
    with tempfile.TemporaryDirectory() as folder:
        Trainer(
            solver, max_epochs=N_EPOCHS, accelerator="cpu", default_root_dir=folder, logger=False,
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        ).train()  # fmt: skip
    objective = from_solver(solver)
    tensors = objective.parameters.tensors()

    residuals = {}
    residual_error = 0.0
    for name, condition in solver.problem.conditions.items():
        batch = {"input": condition.data.input.clone()}
        if "target" in condition.data.data:
            batch["target"] = condition.data.data["target"]
        theirs = condition.evaluate(batch, solver).as_subclass(torch.Tensor)
        term = objective.term(name)
        ours = term.residual(tensors, term.points).detach()
        residual_error = max(residual_error, relative_error(ours, theirs.detach()))
        residuals[name] = theirs

    # The outputs by PINA, at some points of the equation's domain.
    equation = [name for name in ("D", "phys_cond") if name in objective.terms]
    places = objective.draw(equation[0], 3, seed=1)
    inputs = LabelTensor(places.clone(), list(objective.coordinates))
    outputs = solver.forward(inputs).as_subclass(torch.Tensor)[:, 0]
    unknown = dict(getattr(solver.problem, "unknown_parameters", {}))
    parameters = [*solver.model.parameters(), *unknown.values()]
    weights = {name: term.weight for name, term in objective.terms.items()}
    dense = dense_influence(parameters, residuals, weights, outputs, DAMPING)

    influence = wh.Influence(objective, solver=wh.Exact(), damping=DAMPING)
    fast = influence.attribute(wh.Output(places, objective.outputs[0]))
    by_autograd = [
        name
        for name, term in objective.terms.items()
        if "by_autograd" in term.residual.__code__.co_qualname
    ]
    return (
        residual_error,
        relative_error(torch.as_tensor(fast.values), dense),
        by_autograd,
    )


def main() -> None:
    """Print a line for each tutorial, and the bar."""
    torch.set_default_dtype(torch.float64)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    n_good = 0
    print(
        "| tutorial | residuals | influence | by autograd |\n| --- | --- | --- | --- |"
    )
    for label, make in TUTORIALS.items():
        torch.manual_seed(0)
        residual_error, influence_error, by_autograd = compared(make())
        is_good = (
            residual_error <= MAX_RESIDUAL_ERROR
            and influence_error <= MAX_INFLUENCE_ERROR
        )
        n_good += is_good
        listed = ", ".join(by_autograd) or "–"
        missed = "" if is_good else " **missed**"
        print(
            f"| {label} | {residual_error:.1e} | {influence_error:.1e} | {listed}{missed} |",
            flush=True,
        )
    met = "met" if n_good == len(TUTORIALS) else "missed"
    print(f"\n{n_good} of {len(TUTORIALS)} tutorials; bar: all: {met}")


if __name__ == "__main__":
    main()
