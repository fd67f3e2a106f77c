"""A formula is arithmetic on arrays: whatever else is typed is refused before any of it is run."""

import time

import numpy as np
import pytest

from whence.explore.expressions import MAX_LENGTH, evaluate

VALUES = {"u": np.array([1.0, 4.0, -2.0]), "u_x": np.array([0.5, -3.0, 2.0])}


def of(formula, **options):
    return evaluate(formula, VALUES.__getitem__, **options)


@pytest.mark.parametrize(
    ("formula", "expected"),
    [
        ("u", [1, 4, -2]),
        ("u + u_x", [1.5, 1, 0]),
        ("u - 2 * u_x", [0, 10, -6]),
        ("u / u_x", [2, -4 / 3, -1]),
        ("u ** 2", [1, 16, 4]),
        ("-u ** 2", [-1, -16, -4]),
        ("+u", [1, 4, -2]),
        ("(u + 1) * 3", [6, 15, -3]),
        ("1e-1 * u", [0.1, 0.4, -0.2]),
        ("  u  ", [1, 4, -2]),
        ("7", 7),
    ],
)
def test_arithmetic(formula, expected):
    np.testing.assert_allclose(of(formula), expected, rtol=1e-15)


@pytest.mark.parametrize(
    "name",
    ["abs", "sqrt", "exp", "log", "log10", "sin", "cos", "tan", "tanh", "sign"],
)
def test_functions(name):
    with np.errstate(all="ignore"):
        expected = getattr(np, name)(VALUES["u"])
    np.testing.assert_array_equal(of(f"{name}(u)"), expected)


def test_what_is_no_number_is_blank():
    assert np.isnan(of("sqrt(u)")[2])
    assert np.isinf(of("u / 0")).all()


@pytest.mark.parametrize(
    "formula",
    [
        "", " ", "u +", "u u", "u; u", "u = 1", "import os",
        "u.real", "().__class__", "u.__class__.__mro__", "u[0]", "[u]", "(u, u)", "{}",
        "open(u)", "eval(u)", "__import__('os')", "u(1)", "sin(u)(u)", "sin.sin(u)",
        "sin()", "sin(u, u)", "sin(x=u)", "sin(*u)", "sin(**u)",
        "'u'", "b'u'", "f'{u}'", "1j", "None", "True", "-False", "...",
        "u < 1", "u == u", "u and u", "not u", "~u", "u if u else u",
        "lambda: u", "(u := 1)", "[u for u in u]", "await u", "yield u",
        "u // 2", "u % 2", "u @ u", "u << 1", "u & 1", "u | 1", "u ^ 1",
        "error(u + 1)", "error('u')", "error()",
    ],
)  # fmt: skip
def test_all_else_is_refused(formula):
    def never(name):
        pytest.fail(f"{name} was called")

    with pytest.raises(ValueError, match="is no formula of names, numbers"):
        of(formula, of_names={"error": never})


def test_what_is_refused_is_not_evaluated_before():
    asked = []

    def lookup(name):
        asked.append(name)
        return VALUES[name]

    with pytest.raises(ValueError, match="is no formula"):
        evaluate("open(u)", lookup)
    assert not asked


@pytest.mark.parametrize(
    "formula",
    [
        "1" + "+1" * MAX_LENGTH,
        "(" * 240 + "u" + ")" * 240,
        "(" * 240,
        "\0",
        "9" * 400,
    ],
)
def test_long_deep_and_large_ones_are_refused(formula):
    with pytest.raises(ValueError, match="is no formula"):
        of(formula)


def test_deep_signs_and_functions_are_worked_out():
    assert of("-" * 400 + "u")[0] == 1
    assert of("abs(" * 90 + "u" + ")" * 90)[2] == 2


@pytest.mark.parametrize("formula", ["9**9**9**9", "9**9**9**9*u", "u**9**9**9"])
def test_towers_of_powers_return_at_once(formula):
    start = time.perf_counter()
    with np.errstate(all="raise"):
        of(formula)
    assert time.perf_counter() - start < 1


def test_functions_of_names():
    names = {"error": lambda name: VALUES[name] * 10}
    np.testing.assert_array_equal(of("abs(error(u))", of_names=names), [10, 40, 20])


def test_what_the_names_mean_is_not_hidden():
    """What is wrong with a name is said by what knows the names."""

    def lookup(name):
        raise ValueError(f"{name!r} is unknown: did you mean 'u'?")

    with pytest.raises(ValueError, match="did you mean 'u'"):
        evaluate("sin(v) + 1", lookup)
    with pytest.raises(ValueError, match="did you mean 'u'"):
        evaluate("error(v)", lookup, {"error": lookup})
