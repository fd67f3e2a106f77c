"""Calls around PINNs that users make by mistake: each is answered, or is one clear error."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

import whence as wh
from whence import pinn
from whence.coupling import CoupledPoints

DOMAIN = pinn.Interval("x", 0, 1) * pinn.Interval("t", 0, 1)
HEAT = {"pde": lambda u_t, u_xx: u_t - u_xx}
SCORE = pinn.ResidualScore()


def problem(**options: Any) -> pinn.Problem:
    return pinn.Problem(
        **{"domain": DOMAIN, "outputs": ("u",), "equations": HEAT, **options}
    )


def network() -> nn.Module:
    return pinn.MLP([2, 6, 1], seed=0)


def train(made: pinn.Problem | None = None, **options: Any) -> pinn.Result:
    made = made or problem()
    given = {
        "network": network(),
        "points": dict.fromkeys(made.terms, 12),
        "schedule": [pinn.Adam(4)],
        "validation": 10,
        "progress": False,
        "compile": False,
    }
    return pinn.train(made, **{**given, **options})


def objective(
    net: nn.Module | None = None, made: pinn.Problem | None = None
) -> wh.Objective:
    made = made or problem()
    points = made.sample(dict.fromkeys(made.terms, 12))
    return made.objective(network() if net is None else net, points)


def influence(net: nn.Module) -> Any:
    return wh.Influence(objective(net)).attribute(wh.Output([[0.5, 0.5]]))


def equation(function: Callable[..., Any]) -> wh.Objective:
    return objective(made=problem(equations={"pde": function}))


def resampled(score: Any = SCORE, selection: Any = None, **options: Any) -> Any:
    selection = selection or pinn.TopK()
    given = {"n": 2, "every": 2, "candidates": 20, **options}
    return train(resample=pinn.Resample(score, selection, **given))


class With:
    """An object with one method."""

    every = 1

    def __init__(self, **methods: Callable[..., Any]) -> None:
        for name, method in methods.items():
            setattr(self, name, method)


def scores(value: Any) -> Any:
    class Own:
        def score(self, objective: Any, candidates: Any) -> Any:
            return value

    return Own()


def selects(value: Any) -> Any:
    class Own:
        def select(self, scores: Any, n: int, seed: int) -> Any:
            return value

    return Own()


def renews(value: Any) -> Any:
    class Own:
        every = 2

        def check(self, objective: Any) -> None:
            pass

        def update_points(self, objective: Any, round: int, seed: int) -> Any:
            return value

    return Own()


class Weighting(pinn.Weighting):
    """A weighting that returns what it was made with."""

    def __init__(self, value: Any) -> None:
        super().__init__()
        self.value = value

    def renew_weights(self, terms: Any) -> Any:
        return {"pde": self.value}


class Layers(nn.Module):
    """Two linear layers with another one between."""

    def __init__(self, between: nn.Module) -> None:
        super().__init__()
        self.first = nn.Linear(2, 6).double()
        self.between = between.double()
        self.last = nn.Linear(6, 1).double()

    def forward(self, z: Tensor) -> Tensor:
        return self.last(self.between(torch.tanh(self.first(z))))


def plain() -> nn.Module:
    return Layers(nn.Identity())


def under_inference_mode(function: Callable[[], Any]) -> Any:
    with torch.inference_mode():
        return function()


def functional(of: Callable[..., Any]) -> Any:
    return wh.Influence(objective()).attribute(wh.Functional(of))


ORIGIN = torch.zeros(1, 2, dtype=torch.float64)

# --- coupling ------------------------------------------------------------------------------------

COUPLED = {
    "mean": lambda u: u - u.mean(),
    "max": lambda u: u / u.abs().max(),
    "flip": lambda u: u - u.flip(0),
    "cumsum": lambda u, x: u.cumsum(0) - x,
    "sort": lambda u: u.sort().values,
    "roll": lambda u: u - u.roll(1),
    "norm": lambda u: u / u.norm(),
    "softmax": lambda u: u.softmax(0),
    "variance": lambda u: u / u.var(unbiased=False).add(1e-3),
    "a number of the sum": lambda u: u - float(u.sum()),
    "length": lambda u: u * len(u),
    "first": lambda u: u - u[0],
    "trapezoid": lambda u, x: u - torch.trapezoid(u, x),
    "linspace": lambda u: u - torch.linspace(0, 1, len(u)).to(u),
    "median": lambda u: u - u.median(),
    "matrix": lambda u: (u[:, None] @ u[None, :]).sum(1),
    "rank": lambda u: u * u.argsort(),
    "running maximum": lambda u: u.cummax(0).values,
}


@pytest.mark.parametrize("name", COUPLED)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_equations_that_couple_points_are_found(name: str, dtype: torch.dtype) -> None:
    made = problem(equations={"pde": COUPLED[name]})
    with pytest.raises(CoupledPoints, match=r"equation 'pde' couples.*pinn\.Average"):
        made.objective(network().to(dtype), made.sample(30))


@pytest.mark.parametrize("tracks", [True, False])
def test_normalization_by_the_batch_is_found(tracks: bool) -> None:
    net = nn.BatchNorm1d(6, track_running_stats=tracks)
    with pytest.raises(CoupledPoints, match="'between' normalizes by the batch"):
        objective(Layers(net))


def test_quantities_that_couple_points_are_found() -> None:
    with pytest.raises(CoupledPoints, match="the function of an Output couples"):
        wh.Influence(objective()).attribute(
            wh.Output(torch.rand(5, 2).double(), lambda u: u / u.max())
        )


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_functions_of_each_point_alone_are_none(
    scale: float, dtype: torch.dtype
) -> None:
    made = problem(
        equations={
            "pde": lambda u, u_t, u_x, u_xx: scale * (u_t + u * u_x - 1e3 * u_xx),
            "switch": lambda u, x: torch.where(x > 0.5, u, u**2).clamp(-1, 1),
        }
    )
    made.objective(network().to(dtype), made.sample({"pde": 30, "switch": 30}))


def test_rounding_that_an_exponential_amplifies_is_no_coupling() -> None:
    # A solution by features that overlap: weights of some 1e5 that cancel, and an exponential.
    def equation(x, y, u, u_xx, u_yy):
        u_exact = torch.sin(2 * torch.pi * x) * torch.sin(torch.pi * y)
        source = torch.exp(u_exact) - 5 * torch.pi**2 * u_exact
        return u_xx + u_yy + torch.exp(u) - source

    made = pinn.Problem(
        domain=pinn.Rectangle(("x", "y"), (0, 0), (1, 1)),
        outputs=("u",),
        equations={"pde": equation},
        conditions=(pinn.Dirichlet(u=0.0, on=("x", "y")),),
    )
    recipe = pinn.features_recipe(made, features=300, scale=4.0, points=2400)
    result = pinn.train(
        made,
        recipe.network(0),
        points=recipe.points,
        schedule=recipe.schedule,
        weights=recipe.weights,
        progress=False,
    )
    assert result.summary["loss"] < 1e-6
    made.objective(result.network, made.sample({"pde": 1000, "dirichlet_u": 100}))


# --- answered ------------------------------------------------------------------------------------

ANSWERED = {
    "NumPy's integers": lambda _: train(
        schedule=[pinn.Adam(np.int64(3), lr=np.float32(1e-3))],
        points={"pde": np.int64(12)},
        validation=np.int64(10),
        seed=np.int64(1),
        resample=pinn.Resample(SCORE, n=np.int32(2), every=np.int64(2), candidates=20),
    ),
    "widths of NumPy": lambda _: pinn.MLP(np.array([2, 6, 1])),
    "data frame": lambda _: problem().objective(
        network(), {"pde": pd.DataFrame({"t": [0.1, 0.2], "x": [0.3, 0.4]})}
    ),
    "scores of NumPy": lambda _: resampled(scores(np.ones(20))),
    "selection as a list": lambda _: resampled(selection=selects([1, 2])),
    "dropout in training": lambda _: train(network=Layers(nn.Dropout(0.2))),
    "dropout put aside": lambda _: influence(Layers(nn.Dropout(0.2)).eval()),
    "running statistics": lambda _: influence(Layers(nn.BatchNorm1d(6)).eval()),
    "term 'file'": lambda path: saved(path, "file"),
    "term 'allow_pickle'": lambda path: saved(path, "allow_pickle"),
    "terms 'pde', 'pde_left'": lambda path: saved(path, "pde", "pde_left"),
    "term with spaces": lambda path: saved(path, "mass balance, x"),
    "points of a functional by NumPy": lambda _: functional(
        lambda field: field("u", np.zeros((2, 2))).sum()
    ),
    "branches in an ansatz": lambda _: train(
        problem(ansatz=lambda x, t, u: torch.where(x > 0.5, u.clamp(-1, 1), u.abs() * x))
    ),
}  # fmt: skip


def saved(path: Path, *terms: str) -> None:
    made = problem(equations=dict.fromkeys(terms, HEAT["pde"]))
    result = train(made, out=path / "run")
    again = pinn.load_run(path / "run", problem=made)
    assert again.points.keys() == result.points.keys()
    for name in terms:
        assert len(again.points[name]) == 12


@pytest.mark.parametrize("name", ANSWERED)
def test_answered(name: str, tmp_path: Path) -> None:
    ANSWERED[name](tmp_path)


# --- refused -------------------------------------------------------------------------------------

REFUSED = {
    "counts": ("would not fit in memory", lambda: train(points={"pde": 10**12})),
    "more counts": ("would not fit in memory", lambda: train(points={"pde": 2**63})),
    "validation": ("would not fit in memory", lambda: train(validation=10**11)),
    "candidates": ("would not fit in memory", lambda: resampled(candidates=10**12)),
    "inference mode": (
        "leave torch.inference_mode",
        lambda net=network(): under_inference_mode(lambda: objective(net)),  # noqa: B008
    ),
    "inference tensors": (
        "made under torch.inference_mode",
        lambda: objective(under_inference_mode(network)),
    ),
    "float16": ("torch.float64 or torch.float32", lambda: train(dtype=torch.float16)),
    "bool": ("torch.float64 or torch.float32", lambda: train(dtype=torch.bool)),
    "text as dtype": ("torch.float64 or torch.float32", lambda: train(dtype="float64")),
    "no dtype": ("torch.float64 or torch.float32", lambda: train(dtype=None)),
    "half precision": ("two or three digits", lambda: objective(network().half())),
    "bfloat16": ("two or three digits", lambda: objective(network().bfloat16())),
    "meta": ("no values", lambda: train(device="meta")),
    "dropout": (
        "draws random numbers.*network.eval",
        lambda: influence(Layers(nn.Dropout(0.2))),
    ),
    "compiled": ("network._orig_mod", lambda: objective(torch.compile(plain()))),
    "data parallel": ("network.module", lambda: objective(nn.DataParallel(plain()))),
    "lazy": (
        "no shape yet",
        lambda: objective(nn.Sequential(nn.LazyLinear(4), nn.Linear(4, 1))),
    ),
    "layers": ("parameters, more than", lambda: pinn.MLP([2, 10**6, 10**6, 1])),
    "seed of a network": ("at most", lambda: pinn.MLP([2, 4, 1], seed=2**70)),
    "seed": ("at most", lambda: train(seed=2**64)),
    "seed of a selection": (
        "non-negative",
        lambda: pinn.Proportional().select(torch.rand(9), 2, seed=-1),
    ),
    "bounds": ("two rows of 2 numbers", lambda: pinn.MLP([2, 4, 1], bounds="a")),
    "NumPy in an ansatz": (
        "the ansatz fails",
        lambda: objective(made=problem(ansatz=lambda x, t, u: np.sin(x) * u)),
    ),
    "NumPy in an equation": ("equation 'pde' fails", lambda: equation(lambda u: np.sin(u))),
    "nothing": ("must return a tensor", lambda: equation(lambda u: None)),
    "a number": ("must return a tensor", lambda: equation(lambda u: 1.0)),
    "an empty tuple": ("empty tuple", lambda: equation(lambda u: ())),
    "sparse": ("to_dense", lambda: equation(lambda u: u.to_sparse())),
    "complex": ("complex128", lambda: equation(lambda u: u + 1j * u)),
    "booleans": ("torch.bool", lambda: equation(lambda u: u > 0)),
    "without the network": ("does not depend", lambda: equation(lambda x: x)),
    "detached": ("does not depend", lambda: equation(lambda u: u.detach())),
    "no_grad": (
        "does not depend",
        lambda: equation(lambda u: torch.no_grad()(lambda v: 2 * v)(u)),
    ),
    "too few scores": ("each of 20 candidates", lambda: resampled(scores(torch.ones(3)))),
    "too many scores": ("each of 20 candidates", lambda: resampled(scores(torch.ones(50)))),
    "no scores": ("each of 20 candidates", lambda: resampled(scores(None))),
    "selected beyond": (
        "different row numbers",
        lambda: resampled(selection=selects(torch.tensor([1, 99]))),
    ),
    "selected twice": (
        "different row numbers",
        lambda: resampled(selection=selects(torch.tensor([1, 1]))),
    ),
    "renewed as a tensor": (
        "points by term",
        lambda: train(resample=renews(torch.ones(3, 2))),
    ),
    "renewed to nothing": ("points by term", lambda: train(resample=renews(None))),
    "complex weight": ("real number", lambda: train(weighting=Weighting(1j))),
    "weights in a table": (
        "one for each point",
        lambda: train(weighting=Weighting(torch.ones(2, 2))),
    ),
    "criterion that divides": (
        "criterion of Stop fails at iteration 0",
        lambda: train(observers=[pinn.Stop(lambda row: 1 / 0)]),
    ),
    "criterion of a missing column": (
        "columns iteration, seconds",
        lambda: train(observers=[pinn.Stop(lambda row: row["relative_l2"] < 1)]),
    ),
    "criterion that gives tensors": (
        "True or False",
        lambda: train(observers=[pinn.Stop(lambda row: torch.ones(2))]),
    ),
    "folder 3": ("must be a path", lambda: train(out=3)),
    "folder of bytes": ("must be a path", lambda: train(out=b"a")),
    "folder with a zero": ("a file can have", lambda: train(out="a\0b")),
    "long folder": ("300 bytes", lambda: train(out="x" * 300)),
    "term without a name": (
        "must be text",
        lambda: problem(
            conditions=[pinn.Condition(None, on="x", residual=lambda u: u)]
        ),
    ),
    "term 'iteration'": (
        "no term can be called",
        lambda: problem(equations={"iteration": HEAT["pde"]}),
    ),
    "term 'a/b'": (
        "no term can be called",
        lambda: problem(equations={"a/b": HEAT["pde"]}),
    ),
    "coordinate u_x": (
        "reads as a derivative",
        lambda: pinn.Problem(
            domain=pinn.Interval("u_x", 0, 1) * pinn.Interval("x", 0, 1),
            outputs=("u",),
            equations={"pde": lambda u: u},
        ),
    ),
    "sparse points": (
        "to_dense",
        lambda: problem().objective(network(), {"pde": ORIGIN.to_sparse()}),
    ),
    "nested points": (
        "nested",
        lambda: problem().objective(
            network(), {"pde": torch.nested.nested_tensor([ORIGIN[0], ORIGIN[0]])}
        ),
    ),
    "points of 8 bits": (
        "16 bits",
        lambda: problem().objective(
            network(), {"pde": ORIGIN.to(torch.float8_e4m3fn)}
        ),
    ),
    "derivative of a coordinate": (
        "is a coordinate",
        lambda: wh.Influence(objective()).attribute(wh.Derivative(ORIGIN, "x")),
    ),
    "quantity that is not finite": (
        "must be finite",
        lambda: wh.Influence(objective()).attribute(
            wh.Output(ORIGIN, lambda u: (u * 0 - 1).sqrt())
        ),
    ),
    "functional that is not finite": (
        "must be finite",
        lambda: functional(lambda field: field("u", ORIGIN).sum() / 0),
    ),
    "functional at a point": (
        r"of shape \(n, 2\)",
        lambda: functional(lambda field: field("u", ORIGIN[0]).sum()),
    ),
    "functional in float32": (
        "torch.float64",
        lambda: functional(lambda field: field("u", ORIGIN.float()).sum()),
    ),
    "complex functional": (
        "real number",
        lambda: functional(lambda field: field("u", ORIGIN).sum() * 1j),
    ),
    "functional of two": ("called with field", lambda: functional(lambda f, g: f)),
    "functional that raises": ("ZeroDivisionError", lambda: functional(lambda f: 1 / 0)),
    "huge damping": ("damping", lambda: wh.Influence(objective(), damping=10**400)),
    "no points": (
        "no points are given",
        lambda: wh.Influence(objective()).attribute(wh.Output(ORIGIN), points={}),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str, tmp_path: Path, monkeypatch: Any) -> None:
    """One error of a usual kind that says what is wrong, and nothing written."""
    monkeypatch.chdir(tmp_path)
    message, call = REFUSED[name]
    with pytest.raises((ValueError, TypeError, RuntimeError), match=message):
        call()
    assert not list(tmp_path.iterdir())
