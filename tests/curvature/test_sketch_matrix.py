from collections import Counter

import numpy as np
import oracles
import pytest
import torch
from matrices import random

from whence.curvature.sketch_matrix import BLOCK, SparseSketch
from whence.curvature.sketched import Sketched, distinct

SIZES = (1, 300, BLOCK - 1, BLOCK, 2 * BLOCK + 5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("size", SIZES)
def test_products_are_those_of_the_dense_matrix(size, dtype):
    sketch = Sketched(7, nonzeros=3, seed=1).draw(size, torch.empty(0, dtype=dtype))
    matrix = sketch.dense().double()
    assert matrix.shape == (size, 7) == (sketch.size, sketch.columns)

    bound = 1e-12 if dtype == torch.float64 else 1e-5
    for count in (1, 4):
        rows, vectors = random(count, size).to(dtype), random(7, count).to(dtype)
        for found, expected in (
            (sketch.project(rows), rows.double() @ matrix),
            (sketch.lift(vectors), matrix @ vectors.double()),
        ):
            assert found.dtype == dtype
            oracles.close(found.double(), expected, bound)


def test_rows_and_vectors_may_lie_in_any_order():
    sketch = Sketched(5, nonzeros=2).draw(40, torch.empty(0, dtype=torch.float64))
    columns = random(40, 3)
    oracles.close(sketch.project(columns.T), columns.T @ sketch.dense(), 1e-12)
    vectors = random(3, 5)
    oracles.close(sketch.lift(vectors.T), sketch.dense() @ vectors.T, 1e-12)


def test_columns_without_entries_are_zero():
    places = torch.tensor([[5], [2], [5]], dtype=torch.int32)
    values = torch.tensor([[1.0], [-1.0], [3.0]], dtype=torch.float64)
    projected = SparseSketch(places, values, 8).project(torch.ones(1, 3).double())
    assert projected.tolist() == [[0, 0, -1, 0, 0, 4, 0, 0]]


def test_its_memory_is_what_its_tensors_hold():
    size, columns, nonzeros = 2 * BLOCK + 100, 50, 3
    sketch = Sketched(columns, nonzeros=nonzeros).draw(size, torch.empty(0))
    tensors = [sketch._places, sketch._values]
    for block in sketch._blocks:
        tensors += [block.parameters, block.values, block.starts]
    held = sum(tensor.untyped_storage().nbytes() for tensor in tensors)
    assert held == SparseSketch.bytes_needed(size, nonzeros, columns, itemsize=4)


@pytest.mark.parametrize(("count", "end"), [(1, 3), (2, 4), (3, 5), (4, 4)])
def test_all_sets_of_distinct_numbers_are_as_likely(count, end):
    n = 60_000
    drawn = distinct(np.random.default_rng(0), n, count, end)
    assert int(drawn.min()) >= 0
    assert int(drawn.max()) < end

    found = Counter(map(frozenset, drawn.tolist()))
    assert all(len(places) == count for places in found)
    sets = int(np.round(np.prod([(end - i) / (i + 1) for i in range(count)])))
    assert len(found) == sets

    # Six standard deviations of a count of n draws.
    expected = n / sets
    width = 6 * np.sqrt(expected * (1 - 1 / sets))
    assert all(abs(times - expected) <= width for times in found.values())
