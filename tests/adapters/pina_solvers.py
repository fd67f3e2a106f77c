"""Small PINA solvers: systems, hard constraints, unknown parameters, data, parametric problems."""

import torch
from pina import Condition, LabelTensor
from pina.domain import CartesianDomain
from pina.equation import Equation, SystemEquation
from pina.equation.zoo import FixedGradient, FixedValue
from pina.model import FeedForward
from pina.operator import advection, div, grad, laplacian
from pina.problem import (
    BaseProblem,
    InverseProblem,
    ParametricProblem,
    SpatialProblem,
    TimeDependentProblem,
)
from pina.solver import PINN, SupervisedSolver

SQUARE = CartesianDomain({"x": [0, 1], "y": [0, 1]})


def model(inputs, outputs=1):
    torch.manual_seed(1)
    return FeedForward(inputs, outputs, layers=[8, 8], func=torch.nn.Tanh)


def poisson(n=9):
    """Laplacian, fixed values and fixed slopes."""

    def equation(input_, output_):
        force = torch.sin(input_.extract(["x"])) * input_.extract(["y"])
        return laplacian(output_, input_, components=["u"], d=["x", "y"]) - force

    class Poisson(SpatialProblem):
        output_variables = ["u"]
        spatial_domain = SQUARE
        domains = {"D": SQUARE, "low": CartesianDomain({"x": [0, 1], "y": 0.0}),
                   "left": CartesianDomain({"x": 0.0, "y": [0, 1]})}  # fmt: skip
        conditions = {
            "low": Condition(domain="low", equation=FixedValue(0.5)),
            "left": Condition(
                domain="left", equation=FixedGradient(0.0, components=["u"], d=["x"])
            ),
            "D": Condition(domain="D", equation=Equation(equation)),
        }

    problem = Poisson()
    torch.manual_seed(0)
    problem.discretise_domain(n, "random", domains="D")
    problem.discretise_domain(5, "random", domains=["low", "left"])
    return PINN(problem, model(2))


def system():
    """Two outputs: divergence and advection as a system of equations."""

    def mass(input_, output_):
        return div(output_, input_, components=["u", "v"], d=["x", "y"])

    def momentum(input_, output_):
        carried = advection(output_, input_, ["u", "v"], ["u"], ["x", "y"])
        return carried - laplacian(output_, input_, components=["u"], d=["x", "y"])

    class System(SpatialProblem):
        output_variables = ["u", "v"]
        spatial_domain = SQUARE
        domains = {"D": SQUARE}
        conditions = {
            "D": Condition(domain="D", equation=SystemEquation([mass, momentum]))
        }

    problem = System()
    torch.manual_seed(0)
    problem.discretise_domain(7, "random", domains="D")
    return PINN(problem, model(2, 2))


class Hard(torch.nn.Module):
    """Vanishes at x = 0 and x = 1, whatever its layers give."""

    def __init__(self):
        super().__init__()
        self.layers = model(2)

    def forward(self, x):
        distance = x.extract(["x"]) * (1 - x["x"])
        return distance * self.layers(x)


def hard():
    """A model that extracts columns, in time; the problem's own order of variables."""

    def equation(input_, output_):
        u_t = grad(output_, input_, components=["u"], d=["t"])
        return u_t - 0.1 * laplacian(output_, input_, components=["u"], d=["x"])

    def start(input_, output_):
        return output_.extract(["u"]) - torch.sin(torch.pi * input_.extract(["x"]))

    class Heat(TimeDependentProblem, SpatialProblem):
        output_variables = ["u"]
        spatial_domain = CartesianDomain({"x": [0, 1]})
        temporal_domain = CartesianDomain({"t": [0, 2]})
        domains = {
            "D": spatial_domain.update(temporal_domain),
            "t0": spatial_domain.update(CartesianDomain({"t": 0.0})),
        }
        conditions = {
            "t0": Condition(domain="t0", equation=Equation(start)),
            "D": Condition(domain="D", equation=Equation(equation)),
        }

    problem = Heat()
    torch.manual_seed(0)
    problem.discretise_domain(6, "random", domains=["D", "t0"])
    return PINN(problem, Hard())


def inverse():
    """An unknown parameter, and data."""

    def equation(input_, output_, params_):
        u_x = grad(output_, input_, components=["u"], d=["x"])
        return u_x * params_["rate"] - output_.extract(["u"])

    at = torch.linspace(0, 1, 6)[:, None]

    class Decay(SpatialProblem, InverseProblem):
        output_variables = ["u"]
        spatial_domain = CartesianDomain({"x": [0, 1]})
        unknown_parameter_domain = CartesianDomain({"rate": [0.2, 4]})
        domains = {"D": spatial_domain}
        conditions = {
            "D": Condition(domain="D", equation=Equation(equation)),
            "data": Condition(
                input=LabelTensor(at, ["x"]),
                target=LabelTensor(torch.exp(at / 2), ["u"]),
            ),
        }

    torch.manual_seed(0)
    problem = Decay()
    problem.discretise_domain(7, "grid", domains="D")
    return PINN(problem, model(1))


def parametric():
    """A parameter among the inputs."""

    def equation(input_, output_):
        return grad(output_, input_, components=["u"], d=["x"]) - input_.extract(["k"])

    class Family(SpatialProblem, ParametricProblem):
        output_variables = ["u"]
        spatial_domain = CartesianDomain({"x": [0, 1]})
        parameter_domain = CartesianDomain({"k": [1, 2]})
        domains = {"D": spatial_domain.update(parameter_domain)}
        conditions = {"D": Condition(domain="D", equation=Equation(equation))}

    problem = Family()
    torch.manual_seed(0)
    problem.discretise_domain(6, "random", domains="D")
    return PINN(problem, model(2))


def expression():
    """An equation that differentiates a product, ``(k u_x)_x``."""

    def equation(input_, output_):
        slope = grad(output_, input_, components=["u"], d=["x"])
        flux = LabelTensor(
            slope.tensor * (1 + input_.extract(["x"]).tensor ** 2), ["f"]
        )
        return grad(flux, input_, components=["f"], d=["x"])

    class Flux(SpatialProblem):
        output_variables = ["u"]
        spatial_domain = CartesianDomain({"x": [0, 1]})
        domains = {"D": spatial_domain}
        conditions = {"D": Condition(domain="D", equation=Equation(equation))}

    problem = Flux()
    problem.discretise_domain(5, "grid", domains="D")
    return PINN(problem, model(1))


def supervised():
    """Data alone."""
    torch.manual_seed(0)
    at = torch.rand(8, 2)

    class Data(BaseProblem):
        input_variables = ["x", "y"]
        output_variables = ["u"]
        conditions = {
            "data": Condition(
                input=LabelTensor(at, ["x", "y"]),
                target=LabelTensor(at.prod(dim=1, keepdim=True), ["u"]),
            )
        }

    return SupervisedSolver(Data(), model(2))


SOLVERS = {
    "poisson": poisson,
    "system": system,
    "hard": hard,
    "inverse": inverse,
    "parametric": parametric,
    "expression": expression,
    "supervised": supervised,
}


def own_residuals(solver, objective):
    """Return what PINA's conditions evaluate to, with their graph, by name."""
    residuals = {}
    for name, condition in solver.problem.conditions.items():
        inputs = getattr(condition, "input", None)
        if inputs is None:
            inputs = solver.problem.discretised_domains[condition.domain]
            condition = Condition(input=inputs, equation=condition.equation)
        batch = {"input": inputs.clone()}
        if hasattr(condition, "target"):
            batch["target"] = condition.target
        residuals[name] = condition.evaluate(batch, solver).as_subclass(torch.Tensor)
    return residuals
