"""Weights of loss terms inside PINA: the same objects, through an adapter of ten lines.

``python examples/weighting_in_pina.py [EPOCHS]`` (default 300, some twenty seconds; needs
``pip install pina-mathlab``) solves PINA's Poisson problem on the unit square. What PINA calls
``losses`` are the scalar mean losses of its conditions, before any weight: what ``update`` calls
``losses``, by the same names. Weightings that need residuals, such as the traces of
``NeuralTangentKernel``, cannot have them from PINA; ``estimate="gradient_norm"`` is what PINA's
own ``NeuralTangentKernelWeighting`` does.
"""

import logging
import sys
import tempfile
import warnings

import torch
from lightning.pytorch import seed_everything
from pina import Trainer
from pina.optim import TorchOptimizer
from pina.problem.zoo import Poisson2DSquareProblem
from pina.solver import PhysicsInformedSingleModelSolver
from pina.weighting import BaseWeighting, NeuralTangentKernelWeighting

from whence import pinn


class FromWhence(BaseWeighting):
    """A weighting of whence as one of PINA's, which calls it once in each epoch."""

    def __init__(self, weighting):
        super().__init__(update_every_n_epochs=1)
        self.weighting = weighting

    def update_weights(self, losses):
        """Return the weights by condition."""
        return self.weighting.update(losses, self.solver.model.parameters())


def trained(weighting, epochs):
    """Train a network; return its relative error and the last weights."""
    seed_everything(0, verbose=False)
    problem = Poisson2DSquareProblem()
    problem.discretise_domain(n=200, mode="random", domains="D")
    problem.discretise_domain(n=80, mode="random", domains="boundary")
    model = torch.nn.Sequential(
        torch.nn.Linear(2, 24), torch.nn.Tanh(), torch.nn.Linear(24, 24), torch.nn.Tanh(),
        torch.nn.Linear(24, 1),
    )  # fmt: skip
    solver = PhysicsInformedSingleModelSolver(
        problem=problem, model=model, weighting=weighting,
        optimizer=TorchOptimizer(torch.optim.Adam, lr=5e-3),
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        Trainer(
            solver=solver, max_epochs=epochs, accelerator="cpu", default_root_dir=folder,
            logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False,
        ).train()  # fmt: skip
    points = problem.spatial_domain.sample(n=30, mode="grid")
    exact = problem.solution(points).tensor
    with torch.no_grad():
        error = (solver(points).tensor - exact).norm() / exact.norm()
    weights = {
        name: float(weight) for name, weight in weighting.last_saved_weights().items()
    }
    return float(error), weights


def main(epochs):
    """Print errors and weights of two weightings of whence and of PINA's own."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    same = pinn.NeuralTangentKernel(alpha=0.5, estimate="gradient_norm")
    for label, weighting in {
        "no weights": FromWhence(pinn.Fixed({})),
        "PINA's kernel": NeuralTangentKernelWeighting(alpha=0.5),
        "the same of whence": FromWhence(same),
        "equal gradients": FromWhence(pinn.GradientNorm(momentum=0.9, update_every=10)),
    }.items():
        error, weights = trained(weighting, epochs)
        shown = ", ".join(f"{name} {weight:.6g}" for name, weight in weights.items())
        print(f"{label:19s} relative error {error:.2e}   weights: {shown}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 300)
