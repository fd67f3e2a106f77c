import itertools
import math
from fractions import Fraction

import pytest
import torch
from torch.func import grad, vmap

from whence import elementwise, ladders
from whence.ladders import RULES

ORDER = 7
X = 0.2 + torch.rand(
    20, generator=torch.Generator().manual_seed(0), dtype=torch.float64
)
ALL = {**RULES, **{f"power {n}": ladders.power(n) for n in (0.5, -2.5, 3, 8, 0, 1)}}
RATIONAL = [Fraction(n, 8) for n in (-55, -26, -11, -3, 0, 5, 14, 37, 50)]


def test_every_function_of_second_order_has_a_ladder():
    assert set(RULES) == set(elementwise.RULES)


@pytest.mark.parametrize("ladder", ALL.values(), ids=ALL)
def test_each_derivative_is_that_of_the_one_before(ladder):
    derivatives = ladder(X, ORDER)
    for k, (_, upper) in enumerate(itertools.pairwise(derivatives)):
        expected = vmap(grad(lambda z, k=k: ladder(z, ORDER)[k]))(X)
        assert (upper - expected).abs().max() <= 1e-12 * expected.abs().max()
    if len(derivatives) <= ORDER:  # what is left out vanishes
        assert not vmap(grad(lambda z: ladder(z, ORDER)[-1]))(X).any()


@pytest.mark.parametrize("ladder", ALL.values(), ids=ALL)
def test_few_derivatives_are_the_first_of_many(ladder):
    many = ladder(X, ORDER)
    for order in (2, 3, 5):
        few = ladder(X, order)
        assert len(few) == min(order + 1, len(many))
        for ours, theirs in zip(few, many, strict=False):
            assert torch.equal(ours, theirs)


def times_x_minus(p, scale):
    """Coefficients of p′ − scale · x p."""
    derived = [*(k * c for k, c in enumerate(p) if k), 0, 0]
    shifted = [0, *p]
    return [d - scale * c for d, c in zip(derived, shifted, strict=True)]


def exact(p, x):
    return float(sum(c * x**k for k, c in enumerate(p)))


@pytest.mark.parametrize(("name", "scale"), [("erf", 2), ("gelu", 1)])
def test_no_digits_are_lost_by_densities(name, scale):
    """Against p(x) e^(−scale x²/2) with p in exact arithmetic, also far out."""
    x = torch.tensor([float(v) for v in RATIONAL], dtype=torch.float64)
    found = RULES[name](x, 8)
    # erf′ = 2/√π e^(−x²); gelu″ = (2 − x²) φ.
    first, p = (1, [Fraction(1)]) if name == "erf" else (2, [Fraction(2), 0, -1])
    factor = 2 / math.sqrt(math.pi) if name == "erf" else 1 / math.sqrt(2 * math.pi)
    for k in range(first, 9):
        for i, v in enumerate(RATIONAL):
            value = factor * exact(p, v) * math.exp(-scale * float(v) ** 2 / 2)
            assert math.isclose(
                float(found[k][i]), value, rel_tol=1e-11, abs_tol=1e-300
            )
        p = times_x_minus(p, scale)


def test_no_digits_are_lost_by_the_arc_tangent():
    """f⁽ⁿ⁾ = (−1)ⁿ⁻¹ (n − 1)! Im (x − i)⁻ⁿ, in exact arithmetic."""
    x = torch.tensor([float(v) for v in RATIONAL], dtype=torch.float64)
    found = RULES["atan"](x, 8)
    for i, v in enumerate(RATIONAL):
        real, imaginary = Fraction(1), Fraction(0)
        size = v * v + 1
        for n in range(1, 9):
            # Times 1/(x − i) = (x + i)/(x² + 1).
            real, imaginary = (
                (real * v - imaginary) / size,
                (real + imaginary * v) / size,
            )
            expected = (-1) ** (n - 1) * math.factorial(n - 1) * float(imaginary)
            # Relative to the size of the derivatives around: it has roots.
            around = math.factorial(n - 1) / float(size) ** (n / 2)
            assert abs(float(found[n][i]) - expected) < 1e-13 * around


@pytest.mark.parametrize("name", ["tanh", "sigmoid"])
def test_logistic_functions_against_polynomials_in_exact_arithmetic(name):
    x = torch.tensor([float(v) for v in RATIONAL], dtype=torch.float64)
    found = RULES[name](x, 8)
    for i in range(len(RATIONAL)):
        y = Fraction(float(found[0][i]))
        p = [Fraction(0), Fraction(1)]
        for k in range(1, 9):
            derived = [j * c for j, c in enumerate(p)][1:]
            # d/dx p(y) = p′(y) y′ with y′ = 1 − y² or y − y².
            times = [1, 0, -1] if name == "tanh" else [0, 1, -1]
            p = [Fraction(0)] * (len(derived) + 2)
            for a, c in enumerate(derived):
                for b, t in enumerate(times):
                    p[a + b] += c * t
            expected = exact(p, y)
            slope = exact(times, y)
            # The slope's own rounding, 1 − y² for y near one, is absolute.
            scale = math.factorial(k) * (slope + 1e-16) * 2**k
            assert abs(float(found[k][i]) - expected) < 1e-14 * scale + 1e-15 * 2**k


@pytest.mark.parametrize("name", sorted(RULES))
def test_far_out_everything_is_finite(name):
    x = torch.tensor([30.0, 700.0], dtype=torch.float64)
    assert all(d.isfinite().all() for d in RULES[name](x, ORDER))
    if name not in ("log", "sqrt", "sinh", "cosh", "exp"):
        assert all(d.isfinite().all() for d in RULES[name](-x, ORDER))


def test_powers_at_zero_end():
    zero = torch.zeros(1, dtype=torch.float64)
    for n in range(5):
        derivatives = ladders.power(n)(zero, ORDER)
        assert len(derivatives) == n + 2
        assert [float(d) for d in derivatives] == [
            math.factorial(n) if k == n else 0.0 for k in range(n + 2)
        ]


def test_softplus_is_linear_where_torch_has_it_so():
    _, first, *others = RULES["softplus"](torch.tensor([20.5]).double(), ORDER)
    assert float(first) == 1
    assert not any(other.any() for other in others)
