"""Blocks of a curvature by layer, for tests of EKFAC."""

import numpy as np
import torch
from scipy import linalg
from torch import nn
from torch.func import functional_call

from whence.curvature.kronecker import EKFAC
from whence.curvature.operators import GaussNewtonMatrix
from whence.curvature.solvers import Damping
from whence.objective import Objective
from whence.term import Term

LIMITS = (2000, 1)
"""A block limit that all layers of these tests are below, and one that all are above."""


def factor(objective, damping=1e-3, **options):
    options = {"coupled": 0, **options}
    return EKFAC(**options).factor(GaussNewtonMatrix(objective), Damping(damping))


def inverse(state):
    """The approximate inverse as a matrix."""
    eye = torch.eye(state._system.size, dtype=torch.float64)
    return state.precondition(eye).numpy()


def places(objective):
    """Where the parameters of each layer are in θ, each layer as a matrix (out, in + 1)."""
    modules = {}
    start = 0
    for name, parameter in objective.network.named_parameters():
        if name not in objective.parameters.names:
            continue
        end = start + parameter.numel()
        index = np.arange(start, end).reshape(len(parameter), -1)
        module, _, _ = name.rpartition(".")
        modules.setdefault(module, []).append(index)
        start = end
    return [np.concatenate(parts, axis=1) for parts in modules.values()]


def diagonal_blocks(matrix, objective):
    blocks = []
    for index in places(objective):
        flat = index.ravel()
        blocks.append(matrix[np.ix_(flat, flat)])
    return blocks


def damped_inverse(blocks, matrix, objective, damping=1e-3):
    """The inverse of a block-diagonal matrix plus λ, relative to the eigenvalues of ``matrix``."""
    shift = damping * linalg.eigvalsh(matrix)[-1]
    total = np.zeros_like(matrix)
    for index, block in zip(places(objective), blocks, strict=True):
        flat = index.ravel()
        shifted = block + shift * np.eye(len(flat))
        total[np.ix_(flat, flat)] = linalg.inv(shifted)
    return total


def shampoo_with_corrected_eigenvalues(matrix, objective):
    """Blocks in the eigenvectors of the partial traces of the true blocks."""
    blocks = []
    true_blocks = diagonal_blocks(matrix, objective)
    for index, block in zip(places(objective), true_blocks, strict=True):
        four = block.reshape(*index.shape, *index.shape)
        left = linalg.eigh(np.einsum("oipi->op", four))[1]
        right = linalg.eigh(np.einsum("oioj->ij", four))[1]
        basis = np.kron(left, right)
        values = np.einsum("pj,pq,qj->j", basis, block, basis)
        blocks.append(basis * values @ basis.T)
    return blocks


def of(network, points, select=None):
    """An objective whose residual is what the network gives."""

    def residual(tensors, z):
        return functional_call(network, tensors, (z,))

    return Objective(network, [Term("data", residual, points)], select=select)


class Network(nn.Module):
    """A network of these parts, with ``forward(network, x)``, in double precision."""

    def __init__(self, forward, **parts):
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)
        self._forward = forward
        self.double()

    def forward(self, x):
        return self._forward(self, x)
