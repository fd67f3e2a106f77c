"""Where points are among the axes of a tensor, from its sizes and numbers at one and several."""

import pytest
import torch

from whence.arrangement import Arrangement, arrangement_of

N, T, E = 4, 3, 2
POINTS = torch.randn(N, T, E, generator=torch.Generator().manual_seed(0)).double()

FORMS = {
    "in front": (lambda x: x, Arrangement(0, 1)),
    "behind time": (lambda x: x.transpose(0, 1), Arrangement(1, 1)),
    "last": (lambda x: x.movedim(0, -1), Arrangement(2, 1)),
    "rows of points": (lambda x: x.flatten(0, 1), Arrangement(0, T)),
    "rows of times": (
        lambda x: x.transpose(0, 1).flatten(0, 1),
        Arrangement(0, T, False),
    ),
    "rows behind an axis": (lambda x: x.movedim(-1, 0).flatten(1), Arrangement(1, T)),
}


@pytest.mark.parametrize("name", FORMS)
def test_arrangements(name):
    form, expected = FORMS[name]
    several, single = form(POINTS), form(POINTS[:1])
    arrangement = arrangement_of(several, single, N)
    assert arrangement == expected
    assert arrangement.fits(N, several.shape, single.shape)
    assert arrangement.fits(7, form(torch.zeros(7, T, E)).shape, single.shape)
    assert not arrangement.fits(7, several.shape, single.shape)
    for i, point in enumerate(arrangement.of(several)):
        assert torch.equal(point, form(POINTS[i : i + 1]))


def test_what_has_no_points():
    table = torch.zeros(N, E)
    assert arrangement_of(table, table, N) is None
    pairs = torch.zeros(N, N)
    assert arrangement_of(pairs, torch.zeros(1, 1), N) is None
    assert arrangement_of(torch.zeros(N, E), torch.zeros(2, E), N) is None
    assert arrangement_of(POINTS, POINTS[0], N) is None


def test_an_order_that_numbers_do_not_tell():
    rows = torch.ones(N * T, E)
    assert arrangement_of(rows, rows[:T], N) is None
    indices = torch.arange(N * T).unsqueeze(1)
    assert arrangement_of(indices, indices[:T], N) == Arrangement(0, T)
