"""Solutions of one or of many coordinates on lines through the middle of the domain."""

import numpy as np
import pytest
import torch
from torch import nn

from whence import pinn, plots
from whence.plots.slices import middle_of


class Waves(nn.Module):
    """The solution of poisson_5d, but for a part of it."""

    def __init__(self, off=0.0):
        super().__init__()
        self.off = nn.Parameter(torch.tensor(off, dtype=torch.float64))

    def forward(self, x):
        return (1 + self.off) * torch.cos(torch.pi * x).sum(dim=1, keepdim=True)


def box(n, outputs=("u",), **options):
    domain = pinn.Interval("x0", 0, 1)
    for k in range(1, n):
        domain = domain * pinn.Interval(f"x{k}", 0, k + 1)
    equations = {"pde": lambda u: u}
    return pinn.Problem(domain=domain, outputs=outputs, equations=equations, **options)


def test_network_reference_and_error_along_each_coordinate():
    problem = pinn.zoo.load("poisson_5d")
    figure = plots.solution(problem, Waves(0.5), resolution=11)
    figure.draw_without_rendering()
    above, below = figure.axes[:5], figure.axes[5:]
    assert [ax.get_xlabel() for ax in below] == [f"x{k}" for k in range(1, 6)]
    assert [ax.get_ylabel() for ax in (above[0], below[0])] == ["u", "error"]

    reference, network = above[2].lines
    places = np.linspace(0, 1, 11)
    wave = np.cos(np.pi * places)  # the other four are zero in the middle
    assert np.allclose(reference.get_data(), [places, wave])
    assert np.allclose(network.get_ydata(), 1.5 * wave)
    errors = np.maximum(np.abs(wave) / 2, 1e-17)
    assert np.allclose(below[2].lines[0].get_ydata(), errors, rtol=1e-12, atol=1e-15)
    assert "relative L2 error 5.00e-01" in figure.get_suptitle()
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["reference", "network"]


@pytest.mark.parametrize("n", [1, 3, 7])
def test_problems_of_any_number_of_coordinates_without_a_reference(n):
    problem = box(n, outputs=("u", "v"))
    figure = plots.solution(problem, pinn.MLP([n, 4, 2], seed=0), resolution=5)
    figure.draw_without_rendering()
    assert len(figure.axes) == 2 * n
    names = [ax.get_xlabel() for ax in figure.axes]
    assert names == [f"x{k}" for k in range(n)] * 2
    assert figure.axes[0].get_ylabel() == "u"
    assert figure.axes[n].get_ylabel() == "v"


def test_an_exact_network_and_one_that_diverged_are_drawn():
    problem = pinn.zoo.load("poisson_5d")
    with np.errstate(invalid="ignore"):
        for off in (0.0, float("nan")):
            plots.slices(problem, Waves(off), resolution=5).draw_without_rendering()


def test_the_middle_is_in_the_domain_and_holes_are_gaps():
    square = pinn.Rectangle(("x", "y"), (0, 0), (4, 2))
    assert middle_of(square).tolist() == [2, 1]
    holed = (square - pinn.Disk(("x", "y"), (2, 1), 0.5)) * pinn.Interval("t", 0, 1)
    middle = middle_of(holed)
    assert holed.contains(middle[None])[0]
    assert abs(middle[:2] - [2, 1]).max() < 0.8

    problem = pinn.Problem(domain=holed, outputs=("u",), equations={"pde": lambda u: u})
    figure = plots.slices(problem, pinn.MLP([3, 4, 1], seed=0), resolution=41)
    lines = [ax.lines[0].get_ydata() for ax in figure.axes]
    assert any(np.isnan(line).any() for line in lines[:2])
    assert not np.isnan(lines[2]).any()
