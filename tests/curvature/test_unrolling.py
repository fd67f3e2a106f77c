"""What many steps do together, as functions of the curvature."""

import numpy as np
import pytest
import torch

from whence.curvature.unrolling import Steps


def steps(n_steps, form="power"):
    return Steps(n_steps, torch.ones(1), torch.zeros(1), form)


@pytest.mark.parametrize("n_steps", [1, 3, 50])
def test_filters_are_those_of_a_loop_of_steps(n_steps):
    """y ← (1 − h/K) y + g/K, from y = 1 without a push and from 0 with one."""
    h = torch.tensor([0.0, 1e-3, 0.4, 1.0, 1.9], dtype=torch.float64)
    kept = torch.ones_like(h)
    gathered = torch.zeros_like(h)
    for _ in range(n_steps):
        kept = (1 - h / n_steps) * kept
        gathered = (1 - h / n_steps) * gathered + 1 / n_steps
    filters = steps(n_steps).filters(h)
    torch.testing.assert_close(filters, (gathered, kept), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("form", ["power", "exponential"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_directions_of_little_curvature_gather_every_push(dtype, form):
    """φ(h) = 1 − O(h), which 1 − (1 − h/K)^K divided by h loses to cancellation."""
    eps = torch.finfo(dtype).eps
    h = eps * torch.tensor([0.5, 1.5, 3.0, 10.0, 1e3], dtype=dtype)
    gathered, kept = steps(7, form).filters(h)
    np.testing.assert_allclose(gathered, 1 - h / 2, rtol=1e3 * eps)
    np.testing.assert_allclose(kept, 1 - h, rtol=2 * eps)


def test_steps_that_grow_are_refused():
    with pytest.raises(ValueError, match="diverge"):
        steps(3).filters(torch.tensor([0.1, 6.1]))
