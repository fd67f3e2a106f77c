"""Which numbers of a parameter a tensor shows."""

import pytest
import torch

from whence.parameter_views import view_of

WEIGHT = torch.arange(24.0).view(6, 4)

VIEWS = {
    "whole": (lambda w: w, True, True),
    "rows": (lambda w: w[1:3], False, True),
    "a chunk": (lambda w: w.chunk(3)[2], False, True),
    "one row": (lambda w: w[2], False, True),
    "another shape": (lambda w: w.view(2, 12), False, True),
    "an axis more": (lambda w: w[None], False, True),
    "transposed": (lambda w: w.T, False, False),
    "columns": (lambda w: w[:, 1:3], False, False),
    "every other row": (lambda w: w[::2], False, False),
    "repeated": (lambda w: w[:1].expand(3, 4), False, False),
}


@pytest.mark.parametrize("name", VIEWS)
def test_views(name):
    make, is_whole, is_run = VIEWS[name]
    tensor = make(WEIGHT)
    view = view_of(WEIGHT, "weight", tensor)
    assert (view.is_whole, view.is_run) == (is_whole, is_run)
    shown = WEIGHT.flatten().as_strided(view.shape, view.strides, view.offset)
    assert torch.equal(shown, tensor)
    if is_run:
        assert torch.equal(WEIGHT.flatten()[view.columns].view(view.shape), tensor)


def test_what_shows_nothing():
    assert view_of(WEIGHT, "weight", WEIGHT.clone()) is None
    assert view_of(WEIGHT, "weight", WEIGHT.double()) is None
    assert view_of(WEIGHT.T, "weight", WEIGHT) is None  # not stored row by row
    part = WEIGHT[1:]
    assert view_of(part, "weight", part[1:]).offset == 4
