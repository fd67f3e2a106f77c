"""Quick-start code of pyDVL and captum, run with both imports, beside the dense exact answer.

``python -m benchmarks.compat``: the scripts below are those of the libraries' own README, docs and
tutorial, less what downloads or draws; images are scikit-learn's digits. Each runs twice, as it is
and with ``from pydvl…`` or ``from captum…`` replaced by ``from whence.compat.…``. Errors are
Frobenius norms relative to the dense answer in float64, agreement is Spearman's correlation over
training samples, mean over test samples. A bar is met where our error is at most theirs, or below
1e-8. Where captum or pyDVL is not installed, or its script fails, that is said.
"""

from __future__ import annotations

import os
import re
import tempfile
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy.stats import spearmanr
from torch import Tensor, nn
from torch.func import functional_call

from benchmarks import _digits, _measure
from benchmarks._measure import Row

EXACT = 1e-8
Script = dict[str, Any]

# --- what the libraries show ----------------------------------------------------------------------

PYDVL_README = """
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from pydvl.influence import SequentialInfluenceCalculator
from pydvl.influence.torch import DirectInfluence
from pydvl.influence.torch.util import (
   NestedTorchCatAggregator,
   TorchNumpyConverter,
   )

input_dim = (5, 5, 5)
output_dim = 3
train_x, train_y = torch.rand((10, *input_dim)), torch.rand((10, output_dim))
test_x, test_y = torch.rand((5, *input_dim)), torch.rand((5, output_dim))
train_data_loader = DataLoader(TensorDataset(train_x, train_y), batch_size=2)
test_data_loader = DataLoader(TensorDataset(test_x, test_y), batch_size=1)
model = nn.Sequential(
  nn.Conv2d(in_channels=5, out_channels=3, kernel_size=3),
  nn.Flatten(),
  nn.Linear(27, 3),
  )
loss = nn.MSELoss()

infl_model = DirectInfluence(model, loss, hessian_regularization=0.01)
infl_model = infl_model.fit(train_data_loader)

# For small datasets, instantiate the full influence matrix:
influences = infl_model.influences(test_x, test_y, train_x, train_y)

# For larger datasets, use the Influence calculators:
infl_calc = SequentialInfluenceCalculator(infl_model)

# Lazy object providing arrays batch-wise in a sequential manner
lazy_influences = infl_calc.influences(test_data_loader, train_data_loader)

# Trigger computation and pull results to memory
influences = lazy_influences.compute(aggregator=NestedTorchCatAggregator())

# Trigger computation and write results batch-wise to disk
lazy_influences.to_zarr("influences_result", TorchNumpyConverter())
"""

PYDVL_DIRECT = """
from torch.utils.data import DataLoader
from pydvl.influence.torch import DirectInfluence

infl_model = DirectInfluence(model, loss, regularization=0.01)
infl_model = infl_model.fit(training_data_loader)
influences = infl_model.influences(x_test, y_test, x, y)
"""

PYDVL_PERTURBATION = """
from pydvl.influence import InfluenceMode
from pydvl.influence.torch import DirectInfluence

infl_model = DirectInfluence(model, loss, regularization=0.01)
infl_model = infl_model.fit(training_data_loader)
influences = infl_model.influences(x_test, y_test, x, y,
                                   mode=InfluenceMode.Perturbation)
"""

PYDVL_CG = """
from pydvl.influence.torch import CgInfluence, BlockMode, SecondOrderMode
from pydvl.influence.torch import NystroemPreconditioner

if_model = CgInfluence(
    model,
    loss,
    regularization=0.01,
    rtol=1e-7,
    atol=1e-7,
    maxiter=None,
    solve_simultaneously=True,
    preconditioner=NystroemPreconditioner(rank=10),
    block_structure=BlockMode.FULL,
    second_order_mode=SecondOrderMode.HESSIAN
)
if_model.fit(training_data_loader)
influences = if_model.influences(x_test, y_test, x, y)
"""

PYDVL_CG_DEFAULT = """
from pydvl.influence.torch import CgInfluence

if_model = CgInfluence(model, loss, regularization=0.01)
if_model.fit(training_data_loader)
influences = if_model.influences(x_test, y_test, x, y)
"""

PYDVL_LISSA = """
from pydvl.influence.torch import LissaInfluence, BlockMode, SecondOrderMode
if_model = LissaInfluence(
   model,
   loss,
   regularization=0.1,
   maxiter=1000,
   dampen=0.0,
   scale=10.0,
   rtol=1e-4,
   block_structure=BlockMode.FULL,
   second_order_mode=SecondOrderMode.GAUSS_NEWTON
)
if_model.fit(training_data_loader)
influences = if_model.influences(x_test, y_test, x, y)
"""

PYDVL_GAUSS_NEWTON = """
from pydvl.influence.torch import DirectInfluence, BlockMode, SecondOrderMode

infl_model = DirectInfluence(model, loss,
                             regularization=0.1,
                             block_structure=BlockMode.LAYER_WISE,
                             second_order_mode=SecondOrderMode.GAUSS_NEWTON)
infl_model = infl_model.fit(training_data_loader)
influences = infl_model.influences(x_test, y_test, x, y)
"""

PYDVL_ARNOLDI = """
from pydvl.influence.torch import ArnoldiInfluence, BlockMode, SecondOrderMode
if_model = ArnoldiInfluence(
    model,
    loss,
    regularization=0.1,
    rank=10,
    tol=1e-6,
    block_structure=BlockMode.FULL,
    second_order_mode=SecondOrderMode.HESSIAN
)
if_model.fit(training_data_loader)
influences = if_model.influences(x_test, y_test, x, y)
"""

PYDVL_NYSTROEM = """
from pydvl.influence.torch import NystroemSketchInfluence, BlockMode, SecondOrderMode
if_model = NystroemSketchInfluence(
    model,
    loss,
    rank=10,
    regularization=0.1,
    block_structure=BlockMode.FULL,
    second_order_mode=SecondOrderMode.HESSIAN
)
if_model.fit(training_data_loader)
influences = if_model.influences(x_test, y_test, x, y)
"""

PYDVL_EKFAC = """
from pydvl.influence.torch import EkfacInfluence
if_model = EkfacInfluence(
    model,
    update_diagonal=True,
    hessian_regularization=0.1,
)
if_model.fit(training_data_loader)
influences = if_model.influences(x_test, y_test, x, y)
"""

CAPTUM_LOAD = """
import glob
import os
import torch
import torch.nn as nn
import torch.optim as optim
from captum.influence import TracInCP, TracInCPFast
from torch.utils.data import DataLoader

def train(net, num_epochs, train_dataloader, checkpoints_dir, save_every):
    if not os.path.exists(checkpoints_dir):
        os.makedirs(checkpoints_dir)
    criterion = nn.CrossEntropyLoss()
    optimizer = optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
    for epoch in range(num_epochs):  # loop over the dataset multiple times
        for i, data in enumerate(train_dataloader):
            inputs, labels = data
            optimizer.zero_grad()
            outputs = net(inputs)
            loss = criterion(outputs, labels)
            loss.backward()
            optimizer.step()
        if epoch % save_every == 0:
            checkpoint_name = "-".join(["checkpoint", str(epoch) + ".pt"])
            torch.save(
                {
                    "epoch": epoch,
                    "model_state_dict": net.state_dict(),
                    "optimizer_state_dict": optimizer.state_dict(),
                },
                os.path.join(checkpoints_dir, checkpoint_name),
            )

correct_dataset_checkpoints_dir = os.path.join("checkpoints", "digits_correct_dataset")
num_epochs = 26
train(net, num_epochs, DataLoader(correct_dataset, batch_size=128, shuffle=True),
      correct_dataset_checkpoints_dir, save_every=5)
correct_dataset_checkpoint_paths = glob.glob(
    os.path.join(correct_dataset_checkpoints_dir, "*.pt"))

def checkpoints_load_func(net, path):
    weights = torch.load(path)
    net.load_state_dict(weights["model_state_dict"])
    return 1.

correct_dataset_final_checkpoint = os.path.join(
    correct_dataset_checkpoints_dir, "-".join(['checkpoint', str(num_epochs - 1) + '.pt']))
checkpoints_load_func(net, correct_dataset_final_checkpoint)
"""

CAPTUM_FAST = (
    CAPTUM_LOAD
    + """
tracin_cp_fast = TracInCPFast(
    model=net,
    final_fc_layer=list(net.children())[-1],
    train_dataset=correct_dataset,
    checkpoints=correct_dataset_checkpoint_paths,
    checkpoints_load_func=checkpoints_load_func,
    loss_fn=nn.CrossEntropyLoss(reduction="sum"),
    batch_size=2048,
    vectorize=False,
)
k = 10
proponents_indices, proponents_influence_scores = tracin_cp_fast.influence(
    (test_examples_features, test_examples_true_labels), k=k, proponents=True
)
opponents_indices, opponents_influence_scores = tracin_cp_fast.influence(
    (test_examples_features, test_examples_true_labels), k=k, proponents=False
)
self_influence_scores = tracin_cp_fast.self_influence()
influences = tracin_cp_fast.influence((test_examples_features, test_examples_true_labels))
"""
)

CAPTUM_TRACIN = (
    CAPTUM_LOAD
    + """
tracin_cp = TracInCP(
    model=net,
    train_dataset=correct_dataset,
    checkpoints=correct_dataset_checkpoint_paths,
    checkpoints_load_func=checkpoints_load_func,
    loss_fn=nn.CrossEntropyLoss(reduction="sum"),
    batch_size=2048,
    sample_wise_grads_per_batch=True,
)
influences = tracin_cp.influence((test_examples_features, test_examples_true_labels))
self_influence_scores = tracin_cp.self_influence()
"""
)

CAPTUM_ARNOLDI = (
    CAPTUM_LOAD
    + """
from captum.influence._core.arnoldi_influence_function import ArnoldiInfluenceFunction

arnoldi = ArnoldiInfluenceFunction(
    net,
    correct_dataset,
    correct_dataset_final_checkpoint,
    checkpoints_load_func=checkpoints_load_func,
    loss_fn=nn.CrossEntropyLoss(reduction="none"),
    batch_size=2048,
)
influences = arnoldi.influence(
    DataLoader(test_examples, batch_size=len(test_examples)))
"""
)


# --- running them ---------------------------------------------------------------------------------


def with_our_import(script: str) -> str:
    """Return a script whose import lines name whence."""
    return re.sub(
        r"from (pydvl|captum)[.\w]* import", r"from whence.compat.\1 import", script
    )


def outcome(script: str, scope: Script) -> tuple[Script | None, str]:
    """Run a script in a folder of its own with seed 0; return its names, or why it failed."""
    names = dict(scope)
    torch.manual_seed(0)
    if "make" in scope:
        names.update(scope["make"]())
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        here = os.getcwd()
        os.chdir(folder)
        try:
            exec(compile(script, "quick start", "exec"), names)
        except Exception as error:
            return None, f"{type(error).__name__}: {str(error).splitlines()[0]}"
        finally:
            os.chdir(here)
    return names, ""


# --- the dense answer -----------------------------------------------------------------------------


def flat(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().reshape(-1) for p in model.parameters()])


def output_at(model: nn.Module, theta: Tensor, x: Tensor) -> Tensor:
    tensors, start = {}, 0
    for name, p in model.named_parameters():
        tensors[name] = theta[start : start + p.numel()].view(p.shape)
        start += p.numel()
    return functional_call(model, tensors, (x,))


Loss = Callable[[Tensor, Tensor], Tensor]


def gradients(model: nn.Module, loss: Loss, x: Tensor, y: Tensor) -> Tensor:
    """Return the gradient of the loss of every sample, (n, P), one backward pass each."""
    rows = []
    for k in range(len(x)):
        value = loss(model(x[k : k + 1]), y[k : k + 1]).sum()
        parts = torch.autograd.grad(value, list(model.parameters()))
        rows.append(torch.cat([part.reshape(-1) for part in parts]))
    return torch.stack(rows)


def hessian(model: nn.Module, loss: Loss, x: Tensor, y: Tensor) -> Tensor:
    """Return the Hessian of the mean loss, (P, P), a row at a time."""

    def gradient(theta: Tensor) -> Tensor:
        return torch.func.grad(lambda t: loss(output_at(model, t, x), y).mean())(theta)

    theta = flat(model)
    _, pull_back = torch.func.vjp(gradient, theta)
    eye = torch.eye(len(theta), dtype=theta.dtype)
    return torch.cat(
        [torch.func.vmap(lambda v: pull_back(v)[0])(p) for p in eye.split(200)]
    )


def gauss_newton(model: nn.Module, x: Tensor) -> Tensor:
    """Return the Gauss–Newton matrix of the mean cross-entropy, (P, P)."""
    theta = flat(model)
    total = torch.zeros(len(theta), len(theta), dtype=theta.dtype)
    for row in x.split(1):
        p = output_at(model, theta, row)[0].softmax(0)
        j = torch.func.jacrev(lambda t, row=row: output_at(model, t, row)[0])(theta)
        total += j.T @ (torch.diag(p) - torch.outer(p, p)) @ j / len(x)
    return total


def inverted(matrix: Tensor, damping: float, left: Tensor, right: Tensor) -> Tensor:
    """Return ``left (A + λI)⁻¹ rightᵀ``."""
    system = matrix + damping * torch.eye(len(matrix), dtype=matrix.dtype)
    return left @ torch.linalg.solve(system, right.T)


def by_layer(model: nn.Module, matrix: Tensor) -> Tensor:
    """Return what is within the model's children, zero between them."""
    blocks, start = torch.zeros_like(matrix), 0
    for child in model.children():
        stop = start + sum(p.numel() for p in child.parameters())
        blocks[start:stop, start:stop] = matrix[start:stop, start:stop]
        start = stop
    return blocks


def error(values: Tensor, truth: Tensor) -> float:
    """Return the norm of the difference relative to that of the truth."""
    return float((values.detach() - truth).norm() / truth.norm())


def agreement(values: Tensor, truth: Tensor) -> float:
    """Return Spearman's correlation over training samples, mean over test samples; NaN counts 0."""
    rows = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a row of zeros
        for a, b in zip(values.detach().flatten(1), truth.flatten(1), strict=True):
            rows.append(spearmanr(a.numpy(), b.numpy()).statistic)
    return float(np.nan_to_num(rows).mean())


# --- rows -----------------------------------------------------------------------------------------


def compared(
    what: str, script: str, scope: Script, truth: Callable[[Script], Tensor]
) -> list[Row]:
    """Run a script with both imports; return a row for theirs and for ours with its bar."""
    _measure.say(f"  {what}")
    theirs, reason = outcome(script, scope)
    ours, our_reason = outcome(with_our_import(script), scope)
    rows = []
    bar = EXACT
    if theirs is None:
        rows.append(Row(f"{what}: theirs", None, "error", f"fails: {reason}"))
    else:
        exact = truth(theirs)
        their_error = error(theirs["influences"], exact)
        detail = f"agreement {agreement(theirs['influences'], exact):.4f}"
        rows.append(Row(f"{what}: theirs", their_error, "error", detail))
        # Equal but for rounding is no worse.
        bar = max(bar, 1.000001 * their_error)

    if ours is None:
        rows.append(
            Row(f"{what}: ours", None, "error", f"fails: {our_reason}", most=bar)
        )
        return rows
    exact = truth(ours)
    detail = f"agreement {agreement(ours['influences'], exact):.4f}"
    our_error = error(ours["influences"], exact)
    rows.append(Row(f"{what}: ours", our_error, "error", detail, most=bar))
    return rows


def cross_entropy(output: Tensor, target: Tensor) -> Tensor:
    """Return the mean cross-entropy; pyDVL takes a function, not one built in."""
    return F.cross_entropy(output, target)


def pydvl_scope(quick: bool, n_test: int = 10) -> Script:
    """Return a trained classifier of digits with its data, under the names of pyDVL's docs."""
    from torch.utils.data import DataLoader, TensorDataset

    data = _digits.digits(torch.float64)
    n = 100 if quick else 300
    x, y = data.x[:n], data.y[:n]
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 12), nn.Tanh(), nn.Linear(12, 10)).double()
    _digits.train(model, x, y, 40)
    return {
        "model": model,
        "loss": cross_entropy,
        "training_data_loader": DataLoader(TensorDataset(x, y), 100),
        "x": x,
        "y": y,
        "x_test": data.x_test[:n_test],
        "y_test": data.y_test[:n_test],
    }


def pydvl_rows(quick: bool) -> list[Row]:
    """Return the rows of pyDVL's README and docs."""

    def readme_truth(names: Script) -> Tensor:
        model, mean_square = names["model"], nn.MSELoss()
        matrix = hessian(model, mean_square, names["train_x"], names["train_y"])
        left = gradients(model, mean_square, names["test_x"], names["test_y"])
        right = gradients(model, mean_square, names["train_x"], names["train_y"])
        return inverted(matrix, 0.01, left, right)

    rows = compared("pyDVL README", PYDVL_README, {}, readme_truth)
    renamed = PYDVL_README.replace("hessian_regularization", "regularization")
    rows += compared("pyDVL README, argument renamed", renamed, {}, readme_truth)

    scope = pydvl_scope(quick)
    model, x, y = scope["model"], scope["x"], scope["y"]
    test = scope["x_test"], scope["y_test"]
    left, right = (
        gradients(model, cross_entropy, *test),
        gradients(model, cross_entropy, x, y),
    )
    of_hessian, of_outputs = hessian(model, cross_entropy, x, y), gauss_newton(model, x)
    blocks = by_layer(model, of_outputs)

    def truth(matrix: Tensor, damping: float) -> Callable[[Script], Tensor]:
        return lambda _: inverted(matrix, damping, left, right)

    def mixed(_: Script) -> Tensor:
        size = len(of_hessian)
        factors = inverted(of_hessian, 0.01, left, torch.eye(size, dtype=left.dtype))

        def of_one(image: Tensor, label: Tensor) -> Tensor:
            def gradient(inputs: Tensor) -> Tensor:
                def loss(theta: Tensor) -> Tensor:
                    return cross_entropy(
                        output_at(model, theta, inputs[None]), label[None]
                    )

                return torch.func.grad(loss)(flat(model))

            return factors @ torch.func.jacrev(gradient)(image)

        return torch.stack([of_one(a, b) for a, b in zip(x, y, strict=True)], dim=1)

    many = {**scope, "model": nn.Linear(64, 1).double(), "loss": nn.MSELoss()}
    target = y.double()[:, None] / 10
    from torch.utils.data import DataLoader, TensorDataset

    many.update(y=target, x_test=x, y_test=target)
    many["training_data_loader"] = DataLoader(TensorDataset(x, target), 100)

    def many_truth(names: Script) -> Tensor:
        line = names["model"]
        slopes = gradients(line, nn.MSELoss(), x, target)
        return inverted(hessian(line, nn.MSELoss(), x, target), 0.01, slopes, slopes)

    cases = (
        ("pyDVL docs, direct", PYDVL_DIRECT, scope, truth(of_hessian, 0.01)),
        ("pyDVL docs, perturbation", PYDVL_PERTURBATION, scope, mixed),
        ("pyDVL docs, CG", PYDVL_CG, scope, truth(of_hessian, 0.01)),
        ("pyDVL, CG by default", PYDVL_CG_DEFAULT, scope, truth(of_hessian, 0.01)),
        ("pyDVL, CG of more tests than parameters", PYDVL_CG_DEFAULT, many, many_truth),
        (
            "pyDVL docs, LiSSA (Gauss–Newton)",
            PYDVL_LISSA,
            scope,
            truth(of_outputs, 0.1),
        ),
        (
            "pyDVL docs, Gauss–Newton by layer",
            PYDVL_GAUSS_NEWTON,
            scope,
            truth(blocks, 0.1),
        ),
        ("pyDVL docs, Arnoldi, rank 10", PYDVL_ARNOLDI, scope, truth(of_hessian, 0.1)),
        ("pyDVL docs, Nyström, rank 10", PYDVL_NYSTROEM, scope, truth(of_hessian, 0.1)),
        ("pyDVL docs, EKFAC", PYDVL_EKFAC, scope, truth(of_outputs, 0.1)),
    )
    for what, script, at, exact in cases:
        rows += compared(what, script, at, exact)
    return rows


def captum_scope(quick: bool) -> Script:
    """Return digits and a small convolutional network, under the names of captum's tutorial."""
    from torch.utils.data import TensorDataset

    data = _digits.digits(torch.float64)
    n = 150 if quick else 600

    def made() -> Script:
        return {
            "net": nn.Sequential(
                nn.Unflatten(1, (1, 8, 8)),
                nn.Conv2d(1, 4, 3),
                nn.ReLU(),
                nn.MaxPool2d(2),
                nn.Flatten(),
                nn.Linear(36, 12),
                nn.ReLU(),
                nn.Linear(12, 10),
            ).double()
        }

    return {
        "make": made,
        "correct_dataset": TensorDataset(data.x[:n], data.y[:n]),
        "test_examples": TensorDataset(data.x_test[:8], data.y_test[:8]),
        "test_examples_features": data.x_test[:8],
        "test_examples_true_labels": data.y_test[:8],
    }


def captum_rows(quick: bool) -> list[Row]:
    """Return the rows of captum's tutorial on TracIn, and of its Arnoldi method."""
    scope = captum_scope(quick)
    train, test = scope["correct_dataset"].tensors, scope["test_examples"].tensors

    def sums(last_layer: bool) -> Callable[[Script], Tensor]:
        def truth(names: Script) -> Tensor:
            total: Tensor | float = 0.0
            net = names["net"]
            for state in names["states"]:
                net.load_state_dict(state)
                left = gradients(net, cross_entropy, *test)
                right = gradients(net, cross_entropy, *train)
                part = slice(-130, None) if last_layer else slice(None)
                total = total + left[:, part] @ right[:, part].T
            assert isinstance(total, Tensor)
            return total

        return truth

    def arnoldi_truth(names: Script) -> Tensor:
        net = names["net"]
        net.load_state_dict(names["states"][-1])
        left, right = (
            gradients(net, cross_entropy, *test),
            gradients(net, cross_entropy, *train),
        )
        total = len(train[0]) * hessian(net, cross_entropy, *train)
        # What the class is to return: the 50 largest eigenvalues, ρ added, above its tolerance.
        values, vectors = torch.linalg.eigh(total)
        values, vectors = values[-50:] + 1e-3, vectors[:, -50:]
        vectors, values = vectors[:, values > 1e-4], values[values > 1e-4]
        return left @ (vectors / values) @ (right @ vectors).T

    keep_states = """
states = []
for path in sorted(correct_dataset_checkpoint_paths, key=lambda p: int(p[:-3].split("-")[-1])):
    states.append(torch.load(path)["model_state_dict"])
"""
    cases = (
        ("captum tutorial, TracInCPFast", CAPTUM_FAST, sums(True)),
        ("captum tutorial, TracInCP", CAPTUM_TRACIN, sums(False)),
        (
            "captum Arnoldi, beside the dense one of rank 50",
            CAPTUM_ARNOLDI,
            arnoldi_truth,
        ),
    )
    rows = []
    for what, script, exact in cases:
        rows += compared(what, script + keep_states, scope, exact)
    return rows


def measure(quick: bool) -> list[Row]:
    """Return all rows."""
    torch.set_default_dtype(torch.float64)
    try:
        return pydvl_rows(quick) + captum_rows(quick)
    finally:
        torch.set_default_dtype(torch.float32)


if __name__ == "__main__":
    options = _measure.parser(__doc__).parse_args()
    _measure.run(options, lambda: measure(options.quick))
