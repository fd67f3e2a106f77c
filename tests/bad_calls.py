"""What calls must not do, for :mod:`test_bad_input`: what is given, the error, what it says."""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

import whence as wh
from whence import pinn
from whence.pinn.training.run_folder import RunFolder

DOUBLE = torch.float64
STRIP = pinn.Interval("x", 0, 1) * pinn.Interval("t", 0, 1)
LINE = pinn.Interval("t", 0, 1)
ROWS = torch.tensor([[0.25, 0.5], [0.75, 0.125], [0.5, 0.875]], dtype=DOUBLE)
NAN, OUTSIDE = ROWS.clone(), ROWS.clone()
NAN[1, 0], OUTSIDE[2, 1] = math.nan, 1.5
STEP = [pinn.GaussNewton(1)]


@dataclass(frozen=True)
class Case:
    """What is done, the exception or exit code that is expected, and what the message says."""

    name: str
    call: object
    error: object
    says: tuple[str, ...]


def strip(pde=lambda u_t, u_xx: u_t - u_xx, outputs=("u",), **options):
    return pinn.Problem(STRIP, outputs, {"pde": pde}, **options)


def objective(pde=lambda u: u, network=None, points=ROWS, **options):
    network = network or pinn.MLP([2, 4, 1], seed=0)
    return strip(pde, **options).objective(network, {"pde": points})


def single(network, points=ROWS):
    """An objective of the core, with fixed data."""

    def residual(tensors, z):
        return torch.func.functional_call(network, tensors, (z,))

    return wh.Objective(network, [wh.Term("data", residual, points)])


def linear(dtype=DOUBLE, inputs=2):
    return torch.nn.Linear(inputs, 1, dtype=dtype)


class Pair(torch.nn.Module):
    """A network with two results, as recurrent ones have."""

    def __init__(self):
        super().__init__()
        self.inner = linear()

    def forward(self, z):
        return self.inner(z), z


def mixed():
    return torch.nn.Sequential(linear(), torch.nn.Linear(1, 1))


def buffered():
    network = pinn.MLP([2, 4, 1], bounds=[[0, 0], [1, 1]], seed=0, dtype=torch.float32)
    network.slope = network.slope.double()
    return network


def frozen():
    return linear().requires_grad_(False)


def changed(u):
    u += 1
    return u


def doubled(u, u_x):
    return u - u_x.mul_(2)


def scaled(u, c=torch.ones(2, dtype=DOUBLE)):  # noqa: B008
    return u * c


def moved(x, u):
    x -= 0.5
    return x * u


def soft(condition, pde=lambda u_t: u_t):
    return strip(pde, conditions=[condition])


def conditioned(condition, points):
    problem = soft(condition)
    return problem.objective(pinn.MLP([2, 4, 1], seed=0), {condition.name: points})


def attribute(quantity, points=None, **options):
    return wh.Influence(objective(), **options).attribute(quantity, points)


def explain(of):
    return attribute(wh.Output(ROWS, of))


def train(problem=None, **options):
    given = {
        "points": {"pde": 20},
        "schedule": STEP,
        "progress": False,
        "out": "new",
        **options,
    }
    return pinn.train(problem or strip(), pinn.MLP([2, 4, 1], seed=0), **given)


def renew(score=None, **options):
    """Check, as training does before it begins, that points could be renewed."""
    pinn.Resample(score or pinn.ResidualScore(), **options).check(objective())


def saved(points=ROWS, values=(1.0, 2.0, 3.0), term="pde"):
    return pinn.SavedScore(term, points, torch.tensor(values))


def scored(candidates, score=None):
    return (score or pinn.ResidualScore()).score(objective(), candidates)


def rank(scores, n, selection=None):
    return (selection or pinn.TopK()).select(torch.tensor(scores), n, seed=0)


def wide(seed):
    return pinn.MLP([2, 9, 1], seed=seed)


V, T = ValueError, TypeError
CALLS = [
    # Names.
    Case("derivative", lambda: strip(lambda u_z: u_z), V, ("'u_z'", "did you mean 'u", "x, t")),
    Case("output in an equation", lambda: strip(lambda w: w), V, ("'w'", "an output (u)")),
    Case("a normal derivative in an equation", lambda: strip(lambda u_n: u_n), V, ("'u_n'",)),
    Case(
        "argument of the ansatz", lambda: strip(ansatz=lambda x, y, u: u), V,
        ("argument of the ansatz 'y'", "'x', 't', 'u'"),
    ),
    Case(
        "argument of the reference solution", lambda: strip(solution=lambda x, y: x), V,
        ("argument of the solution 'y'", "'x', 't'"),
    ),
    Case(
        "text in a data frame",
        lambda: objective(points=pd.DataFrame({"x": ["a"], "t": [0.5]})), TypeError,
        ("the points of term 'pde'", "numbers in the columns x, t"),
    ),
    Case("output explained", lambda: explain("v"), V, ("output 'v'", "choose 'u'")),
    Case("output explained by no name", lambda: explain(3), V, ("output 3", "choose 'u'")),
    Case(
        "derivative explained", lambda: attribute(wh.Derivative(ROWS, "u_y")), V,
        ("'u_y'", "did you mean 'u", "coordinate (x, t)"),
    ),
    Case(
        "derivative without a name", lambda: attribute(wh.Derivative(ROWS, None)), V, ("'None'",)
    ),
    Case(
        "field of a function explained", lambda: explain(lambda u, v: u + v), V,
        ("'v'", "an output (u)"),
    ),
    Case(
        "field of a functional",
        lambda: attribute(wh.Functional(lambda field: field("u_y", ROWS).mean())), V, ("'u_y'",),
    ),
    Case(
        "term of a residual", lambda: attribute(wh.Residual(ROWS, "pdf")), V,
        ("term 'pdf'", "did you mean 'pde'"),
    ),
    Case(
        "term of a loss", lambda: attribute(wh.Loss({"pdf": ROWS})), V,
        ("term 'pdf'", "did you mean 'pde'"),
    ),
    Case(
        "term with points", lambda: strip().objective(linear(), {"pdf": ROWS}), V,
        ("term 'pdf'", "did you mean 'pde'"),
    ),
    Case(
        "term with a weight", lambda: strip().objective(linear(), {"pde": ROWS}, {"dpe": 1.0}), V,
        ("term 'dpe'", "did you mean 'pde'"),
    ),
    Case("term resampled", lambda: renew(terms=("pdf",)), V, ("'pdf'", "did you mean 'pde'")),
    Case(
        "part of the boundary", lambda: soft(pinn.Dirichlet(u=0.0, on="xmin")), V,
        ("'xmin'", "did you mean 'x_min'"),
    ),
    Case("field of a condition", lambda: soft(pinn.Initial(w=0.0)), V, ("'w'", "an output (u)")),
    Case(
        "coordinate of a period", lambda: soft(pinn.Periodic("u", along="y")), V,
        ("'y'", "choose 'x', 't'"),
    ),
    Case("coordinate of time", lambda: strip(time="T"), V, ("time= 'T'", "did you mean 't'")),
    Case("problem", lambda: pinn.zoo.load("burger"), V, ("'burger'", "did you mean 'burgers'")),
    Case("constraints", lambda: pinn.zoo.load("wave", "sift"), V, ("did you mean 'soft'",)),
    Case("sampling method", lambda: STRIP.sample(5, "sobel"), V, ("did you mean 'sobol'",)),
    Case("activation", lambda: pinn.MLP([2, 1], "tahn"), V, ("did you mean 'tanh'",)),
    Case(
        "selected parameters", lambda: wh.Parameters(linear(), "weights"), V,
        ("'weights'", "did you mean 'weight'"),
    ),
    Case(
        "curvature", lambda: wh.Influence(objective(), curvature="hesse"), V,
        ("'hesse'", "did you mean 'hessian'"),
    ),
    Case("form of a solver", lambda: wh.Exact("duel"), V, ("'duel'", "did you mean 'dual'")),
    Case(
        "effect", lambda: wh.Influence(objective()).attribute(wh.Output(ROWS), effect="removed"),
        V, ("'removed'", "did you mean 'remove'"),
    ),
    Case("reduction of a loss", lambda: wh.Loss(reduce="sums"), V, ("did you mean 'sum'",)),
    Case(
        "reduction of a score", lambda: pinn.InfluenceScore(reduce="sum"), V,
        ("'sum'", "'abs_of_sum', 'sum_of_abs'"),
    ),
    Case("sign of a score", lambda: pinn.GradDotScore(sign="positiv"), V, ("'positive'?",)),
    Case("update", lambda: pinn.Resample(update="replaced"), V, ("did you mean 'replace'",)),
    Case("form of a step", lambda: pinn.GaussNewton(1, form="prime"), V, ("'primal'?",)),
    Case("what is kept", lambda: train(keep="bets"), V, ("'bets'", "did you mean 'best'")),
    # Equations, ansatz and conditions.
    Case("equation that is none", lambda: strip(3), T, ("equation 'pde'", "a function", "got 3")),
    Case("equation of anything", lambda: strip(lambda *a: a), V, ("'pde'", "*a", "u, u_x")),
    Case(
        "equation by keyword only", lambda: strip(lambda u, *, u_x: u - u_x), V,
        ("equation 'pde'", "'u_x' by keyword only", "leave out the *"),
    ),
    Case("equation without names", lambda: strip(torch.sin), V, ("equation 'pde'", "sin(u)")),
    Case(
        "equation returns a column", lambda: objective(lambda u: u[:, None]), V,
        ("equation 'pde'", "shape (2,)", "got (2, 1)"),
    ),
    Case("equation returns a number", lambda: objective(lambda u: 1.0), V, ("(2,)", "got float")),
    Case("equation returns nothing", lambda: objective(lambda u: None), V, ("got NoneType",)),
    Case(
        "equation sums over points", lambda: objective(lambda u: (u, u.sum())), V,
        ("equation 'pde'", "got ()"),
    ),
    Case(
        "equation of another dtype",
        lambda: objective(scaled, linear(torch.float32)), V,
        ("equation 'pde'", "torch.float64", "the network is torch.float32", "c.to("),
    ),
    Case(
        "equation of integers", lambda: objective(lambda u: torch.zeros(2, dtype=torch.int64)), V,
        ("torch.int64", "torch.float64"),
    ),
    Case(
        "equation on two devices",
        lambda: objective(lambda u: u * torch.ones(2, dtype=DOUBLE, device="meta")), V,
        ("equation 'pde'", "meta"),
    ),
    Case(
        "equation that fails", lambda: objective(lambda u: u * torch.ones(3, dtype=DOUBLE)), V,
        ("equation 'pde' fails", "RuntimeError", "size"),
    ),
    Case(
        "equation changes an output", lambda: objective(changed), V,
        ("equation 'pde'", "'u' in place", "u = u + 1"),
    ),
    Case("equation changes a slope", lambda: objective(doubled), V, ("'u_x' in place",)),
    Case(
        "equations without names", lambda: pinn.Problem(STRIP, ("u",), changed), T,
        ("functions by term name", '{"pde": function}'),
    ),
    Case(
        "no equations", lambda: pinn.Problem(STRIP, ("u",), {}), V, ("at least one equation",)
    ),
    Case(
        "ansatz gives a list too long", lambda: objective(ansatz=lambda x, u: [u, x * u]), V,
        ("the ansatz must return 1", "got [(2,), (2,)]"),
    ),
    Case("ansatz gives a number", lambda: objective(ansatz=lambda u: 0.0), V, ("['float']",)),
    Case(
        "ansatz of another dtype",
        lambda: objective(ansatz=scaled, network=linear(torch.float32)), V,
        ("the ansatz gives torch.float64", "torch.float32"),
    ),
    Case(
        "ansatz changes a coordinate", lambda: objective(ansatz=moved), V,
        ("the ansatz", "'x' in place"),
    ),
    Case("ansatz that is none", lambda: strip(ansatz=1.0), T, ("the ansatz must be a function",)),
    Case(
        "period of normals", lambda: soft(pinn.Periodic("u_n", along="x")), V,
        ("'periodic_u_n'", "opposite", "compare 'u_x'"),
    ),
    Case("condition of two fields", lambda: pinn.Dirichlet(on="x", u=0, v=0), T, ("u, v",)),
    Case("condition of no field", lambda: pinn.Neumann(on="x"), T, ("one field", "got none")),
    Case("value of a condition", lambda: pinn.Initial(u="0"), V, ("Initial(u=...)", "'0'")),
    Case("missing value", lambda: pinn.Initial(u=None), V, ("a finite number, got None",)),
    Case(
        "value of a wrong shape",
        lambda: conditioned(pinn.Initial(u=lambda x: x[:, None]), torch.tensor([[0.5, 0.0]])), V,
        ("condition 'initial_u'", "got (2, 2)"),
    ),
    Case("part by number", lambda: soft(pinn.Dirichlet(u=0.0, on=3)), T, ("got 3", "'x_min'")),
    Case(
        "factor of a condition",
        lambda: pinn.Robin(u=0.0, on="x", value_factor=math.nan, normal_factor=1.0), V,
        ("value_factor must be a finite number, got nan",),
    ),
    Case(
        "one condition, no list", lambda: strip(conditions=pinn.Initial(u=0.0)), T,
        ("a list of conditions",),
    ),
    Case(
        "two terms of one name",
        lambda: strip(conditions=[pinn.Initial(u=0.0), pinn.Initial(u=1.0)]), V,
        ("2 terms are called 'initial_u'", "name='initial_u_left'"),
    ),
    Case("outputs as text", lambda: strip(outputs="u"), T, ("tuple of names", "('u',)")),
    Case(
        "domain that is none", lambda: pinn.Problem((0, 1), ("u",), {"pde": changed}), T,
        ("pinn.Interval", "got (0, 1)"),
    ),
    Case(
        "solution of a wrong shape",
        lambda: strip(solution=lambda x, t: np.stack([x, t])).reference(ROWS), V,
        ("the solution must return 1 array(s) of shape (3,)", "got [(2, 3)]"),
    ),
    # Networks.
    Case(
        "network with other inputs", lambda: objective(network=linear(inputs=3)), V,
        ("2 input(s) (x, t)", "1 output(s) (u)", "pinn.MLP([2, 32, 32, 1])"),
    ),
    Case(
        "network with other outputs", lambda: objective(network=pinn.MLP([2, 4, 3])), V,
        ("pinn.MLP([2, 32, 32, 1])", "this one maps (2, 2) to (2, 3)"),
    ),
    Case("network with two results", lambda: objective(network=Pair()), V, ("to tuple",)),
    Case(
        "network without parameters", lambda: objective(network=torch.nn.Tanh()), V,
        ("no parameters",),
    ),
    Case("network all frozen", lambda: objective(network=frozen()), V, ("weight, bias",)),
    Case("network that is none", lambda: objective(network="mlp"), T, ("Module, got 'mlp'",)),
    Case(
        "network of two dtypes", lambda: objective(network=mixed()), V,
        ("mix dtypes", "torch.float32, torch.float64"),
    ),
    Case(
        "network with buffers of another dtype", lambda: objective(network=buffered()), V,
        ("the network must map", "dtype"),
    ),
    Case("no default network", lambda: strip().network(), V, ("pinn.MLP([2, 32, 32, 1])",)),
    Case("layers", lambda: pinn.MLP([2, 0, 1]), V, ("layers[1]", "positive integer, got 0")),
    Case("one layer", lambda: pinn.MLP([2]), V, ("at least two widths", "got [2]")),
    Case("no layers", lambda: pinn.MLP(None), V, ("at least two widths", "got None")),
    Case(
        "bounds of a network", lambda: pinn.MLP([2, 1], bounds=[0, 1]), V, ("shape (2, 2)",)
    ),
    Case("scale of a network", lambda: pinn.MLP([2, 1], scale_to=None), V, ("got None",)),
    Case("seed of a network", lambda: pinn.MLP([2, 1], seed=-1), V, ("seed", "got -1")),
    # Points.
    Case(
        "points outside", lambda: objective(points=OUTSIDE), V,
        ("1 of 3 points of term 'pde'", "row 2", "[0.5, 1.5]", "t=[0.0, 1.0]"),
    ),
    Case(
        "points off the boundary", lambda: conditioned(pinn.Dirichlet(u=0.0, on="x"), ROWS), V,
        ("3 of 3 points of term 'dirichlet_u'", "outside"),
    ),
    Case(
        "points twice", lambda: objective(points=torch.cat([ROWS, ROWS[1:2]])), V,
        ("points of term 'pde' must differ", "row 3, equal to row 1", "[0.75, 0.125]"),
    ),
    Case("points not finite", lambda: objective(points=NAN), V, ("1 of 3 rows", "row 1")),
    Case("no points", lambda: objective(points=ROWS[:0]), V, ("n > 0", "got (0, 2)")),
    Case("points too wide", lambda: objective(points=torch.ones(3, 3)), V, ("(n, 2)", "(3, 3)")),
    Case("points in words", lambda: objective(points=[["a", "b"]]), T, ("2 numbers each", "'a'")),
    Case("rows of two lengths", lambda: objective(points=[[0.5], [0.5, 1.0]]), T, ("2 numbers",)),
    Case("points in a flat list", lambda: objective(points=[0.5, 0.5]), V, ("(n, 2)", "(2,)")),
    Case(
        "points in an array of words", lambda: objective(points=ROWS.numpy().astype(str)), T,
        ("shape (n, 2)",),
    ),
    Case(
        "a table without a coordinate", lambda: objective(points=pd.DataFrame({"x": [0.5]})), V,
        ("'t' is missing among x",),
    ),
    Case("points of integers", lambda: objective(points=torch.ones(3, 2).int()), T, ("int32",)),
    Case(
        "points of no term", lambda: strip().objective(linear(), ROWS), T,
        ("by term", "{'pde': ...}", "Tensor of shape (3, 2)"),
    ),
    Case("points for nothing", lambda: strip().objective(linear(), {}), V, ("no points", "pde")),
    Case("a negative weight", lambda: strip().objective(linear(), {"pde": ROWS}, {"pde": -1.0}),
         V, ("weight of term 'pde'", "got -1.0")),
    Case("no points asked for", lambda: strip().sample({"pde": 0}), V, ("term 'pde'", "got 0")),
    Case("half a point", lambda: strip().sample({"pde": 1.5}), V, ("integer, got 1.5",)),
    Case("points as text", lambda: strip().sample("pde"), T, ("numbers by term", "got 'pde'")),
    Case(
        "a term left out", lambda: soft(pinn.Initial(u=0.0)).sample({"pde": 3}), V,
        ("'initial_u'", "every term"),
    ),
    Case(
        "an end asked for twice",
        lambda: pinn.Problem(
            LINE, ("u",), {"pde": lambda u_t: u_t}, conditions=[pinn.Initial(u=1.0)]
        ).sample({"pde": 9, "initial_u": 5}), V, ("1 point(s) only", "5 points", "'initial_u': 1"),
    ),
    Case("points to contain", lambda: STRIP.contains(NAN), V, ("finite", "row 1")),
    Case("normals inside", lambda: STRIP.part("x_min").normals(ROWS), V, ("'x_min' only",)),
    Case("an interval backwards", lambda: pinn.Interval("x", 1, 0), V, ("low < high", "low=1")),
    Case("an interval from nothing", lambda: pinn.Interval("x", None, 1), V, ("got None",)),
    Case("a coordinate twice", lambda: STRIP * LINE, V, ("different coordinates", "'t'")),
    Case(
        "weights of terms in order", lambda: strip().objective(linear(), {"pde": ROWS}, [1.0]), T,
        ("weights must be given by term", "got [1.0]"),
    ),
    # Objectives of the core.
    Case("no terms", lambda: wh.Objective(linear(), []), V, ("at least one term",)),
    Case("terms that are none", lambda: wh.Objective(linear(), [ROWS]), T, ("Terms", "Tensor of")),
    Case(
        "data of another dtype", lambda: single(linear(torch.float32)), V,
        ("term 'data' are torch.float64", "parameters torch.float32"),
    ),
    Case(
        "network on another device", lambda: single(linear().to("meta")), V,
        ("on cpu, the parameters torch.float64 on meta",),
    ),
    Case("residual of a term", lambda: wh.Term("data", None, ROWS), T, ("'data'", "got None")),
    Case("data of one axis", lambda: wh.Term("data", len, ROWS[0]), V, ("(n, d)", "got (2,)")),
    Case(
        "new points outside", lambda: objective().with_points({"pde": OUTSIDE}), V, ("row 2",)
    ),
    Case("select in a list", lambda: wh.Parameters(linear(), [0]), T, ("select must be", "[0]")),
    Case(
        "parameters of another length",
        lambda: wh.Parameters(linear()).assign(torch.zeros(4, dtype=DOUBLE)), V, ("(3,)", "(4,)"),
    ),
    Case(
        "parameters left out", lambda: wh.Parameters(linear()).flatten({"bias": ROWS[0, :1]}), V,
        ("'weight' of shape (1, 2)", "only bias"),
    ),
    # What is explained.
    Case("targets outside", lambda: attribute(wh.Output(OUTSIDE)), V, ("outside", "row 2")),
    Case("targets not finite", lambda: attribute(wh.Output(NAN)), V, ("finite", "row 1")),
    Case("targets too wide", lambda: attribute(wh.Output(torch.ones(1, 3))), V, ("(n, 2)",)),
    Case("targets in words", lambda: attribute(wh.Output([["a", 0.5]])), T, ("2 numbers each",)),
    Case(
        "targets of a loss in a tensor", lambda: attribute(wh.Loss(ROWS)), T,
        ("by term", "{'pde': points}"),
    ),
    Case(
        "a function of fields that sums", lambda: explain(lambda u: u.sum()), V,
        ("shape (3,)", "got ()"),
    ),
    Case("a function of nothing", lambda: explain(torch.sin), V, ("lambda u: sin(u)",)),
    Case("a functional that is none", lambda: wh.Functional("u"), T, ("lambda field", "'u'")),
    Case(
        "a functional with many values",
        lambda: attribute(wh.Functional(lambda field: field("u", ROWS))), V,
        ("scalar tensor, got (3,)",),
    ),
    Case(
        "a functional cut off",
        lambda: attribute(wh.Functional(lambda field: field("u", ROWS).mean().detach())), V,
        ("does not depend on the network", "detach"),
    ),
    Case(
        "attributed points outside", lambda: attribute(wh.Output(ROWS), OUTSIDE), V, ("row 2",),
    ),
    Case(
        "attributed points in words", lambda: attribute(wh.Output(ROWS), [["a", "b"]]), T,
        ("2 numbers each",),
    ),
    Case(
        "a quantity by name", lambda: attribute("u"), T, ("wh.Output", "'u'")
    ),
    # Damping, budgets.
    Case("negative damping", lambda: wh.Damping(-1e-6), V, ("damping", "-1e-06")),
    Case("damping by name", lambda: wh.Damping("auto"), V, ("a positive number, got 'auto'",)),
    Case(
        "no damping of a singular system", lambda: attribute(wh.Output(ROWS), damping=0.0), V,
        ("singular", "λ = 0", "damping="),
    ),
    Case(
        "no damping of a singular Hessian",
        lambda: wh.Influence(
            single(linear(), ROWS[:1]), damping=0.0, curvature="hessian"
        ).attribute(wh.Output(ROWS)), V, ("singular", "damping="),
    ),
    Case(
        "no damping of the dual form",
        lambda: attribute(wh.Output(ROWS), damping=0.0, solver=wh.Exact("dual")), V,
        ("damping above zero",),
    ),
    Case("a budget too small", lambda: attribute(wh.Output(ROWS), memory_budget=1), MemoryError,
         ("memory budget", "attribute_blocks")),
    Case("a negative budget", lambda: attribute(wh.Output(ROWS), memory_budget=-1), V,
         ("memory_budget", "got -1")),
    Case("a negative budget of a solver", lambda: wh.Exact(memory_budget=-1), V, ("got -1",)),
    # Scores and resampling.
    Case("candidates outside", lambda: scored(OUTSIDE), V, ("row 2", "[0.5, 1.5]")),
    Case("candidates not finite", lambda: scored({"pde": NAN}), V, ("candidates", "row 1")),
    Case("no candidates", lambda: scored(ROWS[:0]), V, ("n > 0", "got (0, 2)")),
    Case("candidates of nothing", lambda: scored({}), T, ("(n, 2)", "got {}")),
    Case("candidates in words", lambda: scored([["a", "b"]]), T, ("2 numbers each",)),
    Case("candidates of an unknown term", lambda: scored({"pdf": ROWS}), V, ("'pde'?",)),
    Case("more than the candidates", lambda: rank([1.0, 2.0], 3), V, ("3 of 2", "candidates")),
    Case("none of the candidates", lambda: rank([1.0, 2.0], 0), V, ("n must be", "got 0")),
    Case("less than none", lambda: rank([1.0, 2.0], -1), V, ("n must be", "got -1")),
    Case("scores not finite", lambda: rank([1.0, math.nan], 1), V, ("1 of 2", "candidate 1")),
    Case("scores in a table", lambda: rank([[1.0], [2.0]], 1), V, ("(n,)", "got (2, 1)")),
    Case(
        "scores below zero", lambda: rank([1.0, -1.0], 1, pinn.Proportional()), V,
        ("not negative",),
    ),
    Case("exponent", lambda: pinn.Proportional(k=-1.0), V, ("k must be", "got -1.0")),
    Case(
        "n beyond the candidates", lambda: pinn.Resample(n=20, candidates=10), V,
        ("n = 20 of 10", "raise `candidates`"),
    ),
    Case("n beyond the limit", lambda: pinn.Resample(n=9, max_points=5), V, ("max_points = 5",)),
    Case(
        "more points than the limit", lambda: renew(n=2, max_points=2), V,
        ("points of term 'pde' are more than max_points = 2", "raise max_points"),
    ),
    Case(
        "a limit that does nothing", lambda: pinn.Resample(update="replace", max_points=50), V,
        ("max_points does nothing", "leave it out"),
    ),
    Case(
        "a weighting that is a class", lambda: train(weighting=pinn.GradientNorm), T,
        ("weighting must be an object such as pinn.NeuralTangentKernel()", "GradientNorm"),
    ),
    Case(
        "an observer that is a number", lambda: train(observers=[100]), T,
        ("pinn.Spectra()", "100"),
    ),
    Case(
        "weights of an unknown term", lambda: train(weighting=pinn.Fixed({"pdf": 2.0})), V,
        ("unknown term 'pdf'", "did you mean 'pde'"),
    ),
    Case("smoothing", lambda: pinn.NeuralTangentKernel(alpha=1.5), V, ("alpha must", "got 1.5")),
    Case("alpha", lambda: pinn.NeuralTangentKernel(alpha=2), V, ("between 0 and 1", "got 2")),
    Case(
        "updates never", lambda: pinn.NeuralTangentKernel(update_every=0), V,
        ("update_every must be a positive integer", "got 0"),
    ),
    Case("no n", lambda: pinn.Resample(n=None), V, ("needs the number n",)),
    Case("rounds never", lambda: pinn.Resample(every=0), V, ("every must be", "got 0")),
    Case("no test points", lambda: pinn.InfluenceScore(n_test=0), V, ("n_test", "got 0")),
    Case(
        "a score that is a class", lambda: pinn.Resample(pinn.ResidualScore), T,
        ("score must be an object such as pinn.ResidualScore()",),
    ),
    Case(
        "a selection by name", lambda: pinn.Resample(selection="top_k"), T,
        ("selection", "pinn.TopK()", "'top_k'"),
    ),
    Case("terms as text", lambda: pinn.Resample(terms="pde"), T, ("('pde',)",)),
    Case(
        "resampling fixed data",
        lambda: pinn.Resample(pinn.ResidualScore()).check(single(linear())), V, ("fixed data",),
    ),
    Case(
        "a goal that is unknown",
        lambda: renew(pinn.InfluenceScore(quantity=wh.Derivative(ROWS, "u_y"))), V, ("'u_y'",),
    ),
    Case("saved scores too few", lambda: saved(values=(1.0,)), V, ("each of 3", "(1,)")),
    Case("saved scores not finite", lambda: saved(values=(1.0, math.inf, 0.0)), V, ("1 of 3",)),
    Case("saved scores of nothing", lambda: saved(ROWS[:0], ()), V, ("candidates", "(0, 2)")),
    Case(
        "saved scores of another term", lambda: renew(saved(term="data"), n=1, terms=("pde",)), V,
        ("'data'", "'pde'", "terms=('data',)"),
    ),
    Case("saved scores outside", lambda: renew(saved(OUTSIDE), n=1), V, ("outside", "row 2")),
    Case(
        "saved scores below zero", lambda: renew(saved(values=(1.0, -1.0, 0.0)), n=1), V,
        ("not negative",),
    ),
    Case(
        "saved scores fewer than asked", lambda: renew(saved(), n=4), V, ("n = 4 of 3",)
    ),
    Case("saved scores missing", lambda: pinn.SavedScore.load("none.npz"), OSError, ("none.npz",)),
    # Training.
    Case("no schedule", lambda: train(schedule=[]), V, ("at least one optimizer", "pinn.Adam")),
    Case("a criterion", lambda: pinn.Stop(0.1), T, ("Stop", "function of a row", "0.1")),
    Case("one observer", lambda: train(observers=pinn.Spectra()), T, ("a list such as",)),
    Case(
        "an optimizer of torch",
        lambda: train(schedule=[torch.optim.Adam(linear().parameters())]), T,
        ("a torch Adam", "pinn.Adam(iterations)"),
    ),
    Case(
        "an operator's class", lambda: train(schedule=wh.GaussNewtonMatrix), T,
        ("the class GaussNewtonMatrix", "the optimizer is pinn.GaussNewton"),
    ),
    Case("an optimizer's class", lambda: train(schedule=pinn.Adam), T, ("the class Adam",)),
    Case(
        "an operator", lambda: train(schedule=[wh.GaussNewtonMatrix(objective())]), T,
        ("curvature operator", "pinn.GaussNewton"),
    ),
    Case("a schedule of words", lambda: train(schedule="adam"), T, ("pinn.Adam(1000)", "'adam'")),
    Case("an empty schedule", lambda: train(schedule=[]), V, ("at least one optimizer",)),
    Case("a resampler's class", lambda: train(resample=pinn.Resample), T, ("an object such as",)),
    Case(
        "an activation's class", lambda: pinn.MLP([2, 1], activation=torch.nn.Tanh), T,
        ("the class Tanh", "nn.Tanh()"),
    ),
    Case("an activation", lambda: pinn.MLP([2, 1], activation=3), T, ("a function of a", "got 3")),
    Case("no steps", lambda: pinn.Adam(0), V, ("iterations", "got 0")),
    Case("a rate below zero", lambda: pinn.Adam(1, lr=-1.0), V, ("lr", "got -1.0")),
    Case("betas", lambda: pinn.Adam(1, betas=(0.9, 1.0)), V, ("[0, 1)", "(0.9, 1.0)")),
    Case("damping of a step", lambda: pinn.GaussNewton(1, damping=0.0), V, ("damping", "0.0")),
    Case("damping that never rises", lambda: pinn.GaussNewton(1, increase=0.5), V,
         ("increase", "above 1", "0.5")),
    Case("damping that never falls", lambda: pinn.GaussNewton(1, decrease=0.5), V,
         ("decrease", "above 1", "0.5")),
    Case("history of a step", lambda: pinn.LBFGS(1, history=-1), V, ("history", "got -1")),
    Case("no time", lambda: train(max_seconds=0), V, ("max_seconds", "positive", "got 0")),
    Case("negative time", lambda: train(max_seconds=-5.0), V, ("max_seconds", "got -5.0")),
    Case("no number of seconds", lambda: train(max_seconds=math.nan), V, ("got nan",)),
    Case("no validation", lambda: train(validation=0), V, ("validation", "got 0")),
    Case("seed", lambda: train(seed=-1), V, ("seed", "got -1")),
    Case("device", lambda: train(device="tpu"), V, ("device 'tpu'",)),
    Case("points of training", lambda: train(points={"pdf": 9}), V, ("did you mean 'pde'",)),
    Case("points of training twice", lambda: train(points={"pde": ROWS[[0, 0]]}), V, ("row 1",)),
    Case("points of training as a table", lambda: train(points=ROWS), T, ("by term", "Tensor")),
    Case("sampling of training", lambda: train(sampling="sobl"), V, ("did you mean 'sobol'",)),
    Case(
        "network of training", lambda: pinn.train(
            strip(), pinn.MLP([3, 4, 1]), points=9, schedule=STEP, out="new", progress=False
        ), V, ("2 input(s) (x, t)", "pinn.MLP([2, 32, 32, 1])"),
    ),
    Case(
        "equation of training", lambda: train(strip(changed)), V, ("'pde'", "'u' in place")
    ),
    Case(
        "resampling in training", lambda: train(resample=pinn.Resample(terms=("pdf",))), V,
        ("did you mean 'pde'",),
    ),
    Case("resume nowhere", lambda: train(resume=True, out=None), V, ("out=",)),
    Case("resume nothing", lambda: train(resume=True), OSError, ("new holds no whence run",)),
    Case("resume otherwise", lambda: train(resume=True, out="run"), V, ("run was made with",)),
    Case("start from nothing", lambda: train(start="none"), OSError, ("none", "checkpoint")),
    Case("start from another network", lambda: train(start="run"), V, ("run", "does not fit")),
    Case("out holds a run", lambda: train(out="run"), OSError, ("run already holds a run",)),
    Case("out holds files", lambda: train(out="full"), OSError, ("full", "not an empty folder")),
    Case("out is a file", lambda: train(out="full/notes.txt"), OSError, ("full/notes.txt",)),
    # Run folders.
    Case("a run that is missing", lambda: RunFolder("none").config(), OSError, ("none", "config")),
    Case("a run half written", lambda: pinn.load_points("half"), OSError, ("half", "checkpoint")),
    Case("a run damaged", lambda: pinn.load_points("damaged"), V, ("damaged/checkpoint",)),
    Case("a run of another version", lambda: RunFolder("old").config(), V, ("format 0",)),
    Case("a run garbled", lambda: RunFolder("garbled").config(), V, ("not valid JSON",)),
    Case("a run of another network", lambda: pinn.load_network(wide(0), "run"), V, ("linears",)),
]  # fmt: skip
