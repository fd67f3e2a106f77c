"""Bases of layers against dense sums over rows, however rows are turned and cut."""

import pytest
import torch

from whence.curvature import kronecker_bases
from whence.curvature.kronecker_bases import ProductBasis

ROWS, OUTPUTS, INPUTS = 11, 6, 8


def rows(channels):
    generator = torch.Generator().manual_seed(channels)
    shape = (ROWS, channels)
    left = torch.randn(*shape, OUTPUTS, generator=generator, dtype=torch.float64)
    # As patches of images lie in memory: channel by channel.
    patches = torch.randn(
        ROWS, INPUTS, channels, generator=generator, dtype=torch.float64
    )
    return left, patches.mT


def basis():
    generator = torch.Generator().manual_seed(0)
    factors = [
        torch.randn(size, size, generator=generator, dtype=torch.float64)
        for size in (OUTPUTS, INPUTS)
    ]
    left, right = (torch.linalg.qr(factor).Q for factor in factors)
    return ProductBasis(left, right)


def coordinates(left, right):
    matrices = torch.einsum("nco,nci->noi", left, right)
    return basis().into(matrices)


@pytest.mark.parametrize("numbers", [1, 100, 2**20])
@pytest.mark.parametrize("channels", [1, 2, 5, 6, 40])
def test_curvature_is_the_sum_of_squared_coordinates(channels, numbers, monkeypatch):
    """One channel, pairs of a few, more that are turned first, and many that are summed first."""
    monkeypatch.setattr(kronecker_bases, "BLOCK_NUMBERS", numbers)
    monkeypatch.setattr(kronecker_bases, "LARGE_BLOCK_NUMBERS", numbers)
    left, right = rows(channels)
    expected = coordinates(left, right).square().sum(dim=0)
    torch.testing.assert_close(basis().curvature(left, right), expected)


@pytest.mark.parametrize("numbers", [1, 100, 2**20])
@pytest.mark.parametrize("channels", [1, 5, 40])
@pytest.mark.parametrize("places", [[3], [0, 1, 2, 9, 47], list(range(48))])
def test_coordinates_along_some_directions(channels, places, numbers, monkeypatch):
    monkeypatch.setattr(kronecker_bases, "LARGE_BLOCK_NUMBERS", numbers)
    left, right = rows(channels)
    expected = coordinates(left, right).flatten(1)[:, places]
    found = basis().along(left, right, torch.tensor(places))
    torch.testing.assert_close(found, expected)
