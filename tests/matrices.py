"""Operators made of given matrices, for tests of solvers."""

from dataclasses import dataclass

import torch


class Matrix:
    """A given symmetric matrix as a curvature without a root, as a Hessian is."""

    semidefinite = False
    is_cached = True

    def __init__(self, dense):
        self._dense = dense
        self.size = len(dense)

    def matvec(self, vector):
        return self._dense @ vector

    def matmat(self, vectors):
        return self._dense @ vectors

    def cached(self, memory_budget):
        return self

    def trace(self):
        return float(self._dense.trace())

    def like(self):
        return self._dense

    def dense(self):
        return self._dense

    def root(self):
        return None


@dataclass
class Rows:
    """A given root J."""

    rows: torch.Tensor

    @property
    def shape(self):
        return tuple(self.rows.shape)

    def dense(self):
        return self.rows

    def blocks(self):
        yield self, None


class Kernel:
    """JJᵀ of given rows J."""

    def __init__(self, rows):
        self._rows = rows
        self.gram = rows @ rows.T
        self.size = rows.shape[1]

    def dense(self):
        return self._rows

    def matmat(self, vectors):
        return self._rows @ vectors

    def rmatmat(self, vectors):
        return self._rows.T @ vectors

    def products(self, rows):
        return self._rows @ rows.dense().T


class Root(Matrix):
    """JᵀJ of given rows J."""

    semidefinite = True

    def __init__(self, rows):
        super().__init__(rows.T @ rows)
        self._rows = Rows(rows)

    def root(self):
        return self._rows

    def kernel(self):
        return Kernel(self._rows.rows)


def random(*shape, seed=0):
    return torch.randn(
        shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )


def symmetric(eigenvalues):
    vectors, _ = torch.linalg.qr(random(len(eigenvalues), len(eigenvalues)))
    values = torch.tensor(eigenvalues, dtype=torch.float64)
    return vectors @ torch.diag(values) @ vectors.T
