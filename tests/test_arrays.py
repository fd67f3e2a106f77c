"""Points as users have them, and results in their kind."""

import numpy as np
import pandas as pd
import pytest
import torch

from whence.arrays import DataFrameLike, in_kind_of, to_locations, to_tensor

EXPECTED = torch.tensor([[0.0, 1.0], [2.0, 3.0]], dtype=torch.float64)


@pytest.mark.parametrize(
    "points",
    [
        [[0, 1], [2, 3]],
        [[0.0, 1], [2, 3.0]],
        ((0, 1), (2, 3)),
        [np.array([0, 1]), np.array([2, 3])],
        np.array([[0, 1], [2, 3]]),
        np.array([[0, 1], [2, 3]], dtype=np.uint8),
        np.array([[0.0, 2.0], [1.0, 3.0]]).T,
        pd.DataFrame({"x": [0, 2], "t": [1, 3]}),
        pd.DataFrame({"t": [1.0, 3.0], "x": [0.0, 2.0]}),
        EXPECTED,
    ],
    ids=[
        "integers", "floats", "tuples", "rows", "int64", "uint8", "not contiguous", "frame",
        "frame of another order", "tensor",
    ],
)  # fmt: skip
def test_all_kinds_are_the_same_points(points):
    rows = to_locations("the points", points, ("x", "t"))
    assert rows.dtype == torch.float64
    assert torch.equal(rows, EXPECTED)


def test_floating_point_types_stay():
    for dtype in (np.float32, np.float64, np.float16):
        rows = to_locations("the points", np.zeros((2, 1), dtype), ("x",))
        assert rows.numpy().dtype == dtype


def test_a_tensor_is_taken_as_it_is():
    points = torch.rand(3, 2)
    assert to_locations("the points", points, ("x", "t")) is points


def test_an_array_is_read_without_a_copy():
    points = np.zeros((3, 2))
    rows = to_locations("the points", points, ("x", "t"))
    points[0, 0] = 5.0
    assert rows[0, 0] == 5.0


def test_more_columns_than_coordinates_are_left_out_of_a_frame():
    frame = pd.DataFrame({"id": [7, 8], "t": [1, 3], "x": [0, 2], "u": [9, 9]})
    assert torch.equal(to_locations("the points", frame, ("x", "t")), EXPECTED)


def test_without_coordinates_a_frame_is_all_its_columns():
    frame = pd.DataFrame({"a": [0.0, 2.0], "b": [1.0, 3.0]})
    assert torch.equal(to_tensor("the points", frame), EXPECTED)


def test_names_of_columns_need_not_be_strings():
    frame = pd.DataFrame([[0, 1], [2, 3]])
    assert torch.equal(to_locations("the points", frame, ("0", "1")), EXPECTED)


@pytest.mark.parametrize(
    ("points", "error", "message"),
    [
        ([[0, 1], [2]], TypeError, "the points must be rows of 2 numbers each"),
        ([["a", "b"]], TypeError, "the points must be rows of 2 numbers each"),
        ("ab", TypeError, r"torch.Tensor of shape \(n, 2\), got 'ab'"),
        (5, TypeError, "got 5"),
        (None, TypeError, "got None"),
        (object(), TypeError, "torch.Tensor of shape"),
        (np.array([["a", "b"]]), TypeError, "ndarray of shape"),
        (np.array([[1j, 0]]), TypeError, "ndarray of shape"),
        (np.array([[True, False]]), TypeError, "ndarray of shape"),
        ([torch.zeros(2), torch.zeros(2)], TypeError, "torch.Tensor of shape"),
        ([], ValueError, r"shape \(n, 2\)"),
        (np.zeros((0, 2)), ValueError, "n > 0"),
        (np.zeros(2), ValueError, r"got \(2,\)"),
        (np.zeros((3, 3)), ValueError, r"got \(3, 3\)"),
        ([[0, np.inf], [0, 1]], ValueError, "finite: 1 of 2 rows are not.*row 0"),
        (torch.zeros(2, 2, dtype=torch.int64), TypeError, "floating-point dtype"),
        (pd.DataFrame({"x": [0.0]}), ValueError, "'t' is missing among x"),
        (pd.DataFrame(), ValueError, "'x' is missing among none"),
        (
            pd.DataFrame({"x": ["a"], "t": [1]}),
            TypeError,
            "numbers in the columns x, t",
        ),
    ],
)
def test_what_is_no_points_is_one_clear_error(points, error, message):
    with pytest.raises(error, match=message):
        to_locations("the points", points, ("x", "t"))


# --- and back again -----------------------------------------------------------------------------


def test_results_in_the_kind_of_the_points():
    values = torch.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    assert in_kind_of(values, torch.zeros(2, 2), ("u", "v")) is values
    for like in ([[0, 1]], np.zeros((2, 2)), ()):
        array = in_kind_of(values, like, ("u", "v"))
        assert isinstance(array, np.ndarray)
        np.testing.assert_array_equal(array, [[1, 2], [3, 4]])


def test_a_frame_keeps_its_index():
    frame = pd.DataFrame({"x": [0.0, 1.0]}, index=["a", "b"])
    values = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    table = in_kind_of(values, frame, ("u", "v"))
    assert list(table.index) == ["a", "b"]
    assert table.loc["b", "v"] == 4.0
    series = in_kind_of(values[:, 0], frame, ("u",))
    assert series.name == "u"
    assert series["b"] == 3.0


def test_other_tables_than_those_of_pandas():
    class Table:
        columns = ("t", "x")
        index = (0, 1)

        def to_numpy(self):
            return np.array([[1.0, 0.0], [3.0, 2.0]])

    assert isinstance(Table(), DataFrameLike)
    assert torch.equal(to_locations("the points", Table(), ("x", "t")), EXPECTED)
