"""Formulas that a reader types, such as ``u_xx + sin(u)``: arithmetic on arrays, no code."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping

import numpy as np

Lookup = Callable[[str], np.ndarray]
"""What a name stands for."""

MAX_LENGTH = 500
FUNCTIONS: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "abs": np.abs, "sqrt": np.sqrt, "exp": np.exp, "log": np.log, "log10": np.log10,
    "sin": np.sin, "cos": np.cos, "tan": np.tan, "tanh": np.tanh, "sign": np.sign,
}  # fmt: skip
OPERATORS: Mapping[type[ast.operator], Callable[[np.ndarray, np.ndarray], np.ndarray]]
OPERATORS = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}


def evaluate(
    formula: str, lookup: Lookup, of_names: Mapping[str, Lookup] | None = None
) -> np.ndarray:
    """Return what a formula comes to.

    Parameters
    ----------
    formula:
        Names, numbers, ``+ − * / **``, parentheses and the functions ``abs``, ``sqrt``, ``exp``,
        ``log``, ``log10``, ``sin``, ``cos``, ``tan``, ``tanh`` and ``sign``.
    lookup:
        The array of a name.
    of_names:
        Functions of a name rather than of numbers, such as ``error`` in ``error(u)``.

    Raises
    ------
    ValueError
        If the formula is none, or has something else in it: nothing of it is run.

    Examples
    --------
    >>> import numpy as np
    >>> from whence.explore.expressions import evaluate
    >>> values = {"u": np.array([1.0, 4.0]), "u_x": np.array([2.0, -3.0])}
    >>> evaluate("sqrt(u) + abs(u_x) ** 2", values.__getitem__)
    array([ 5., 11.])
    >>> evaluate("().__class__", values.__getitem__)
    Traceback (most recent call last):
        ...
    ValueError: '().__class__' is no formula of names, numbers, + - * / ** and functions (abs, ...
    """
    known = dict(of_names or {})
    names = ", ".join([*FUNCTIONS, *known])
    refused = ValueError(
        f"{formula!r} is no formula of names, numbers, + - * / ** and functions ({names})"
    )
    if len(formula) > MAX_LENGTH:
        raise refused
    try:
        tree = ast.parse(formula.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise refused from error

    def value(node: ast.expr) -> np.ndarray:
        """Return what a part of the formula comes to."""
        match node:
            case ast.Constant(value=bool()):
                raise refused
            case ast.Constant(value=int() | float() as number):
                # As an array, whose powers overflow to infinity rather than take for ever.
                return np.asarray(float(number))
            case ast.Name(id=name):
                return lookup(name)
            case ast.UnaryOp(op=ast.USub(), operand=part):
                return -value(part)
            case ast.UnaryOp(op=ast.UAdd(), operand=part):
                return value(part)
            case ast.BinOp(left=left, op=sign, right=right) if type(sign) in OPERATORS:
                return OPERATORS[type(sign)](value(left), value(right))
            case ast.Call(func=ast.Name(id=name), args=[part], keywords=[]):
                if name in known and isinstance(part, ast.Name):
                    return known[name](part.id)
                if name in FUNCTIONS:
                    return FUNCTIONS[name](value(part))
        raise refused

    # What is not a number at a place, such as a logarithm of −1, is blank there.
    with np.errstate(all="ignore"):
        try:
            return value(tree.body)
        except OverflowError as error:  # a whole number that no float holds
            raise refused from error
