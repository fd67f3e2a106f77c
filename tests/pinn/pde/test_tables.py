"""Measurements in Parquet files, and files that cannot be read."""

import sys

import numpy as np
import pandas as pd
import pytest

from whence import pinn


@pytest.fixture
def frame():
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "sensor": ["a", "b", "a", "c", "b"],
            "T": rng.normal(size=5).astype(np.float32),
            "y": rng.random(5),
            "x": [1, 0, 1, 0, 1],
            "sd": rng.uniform(0.1, 0.2, 5),
        },
        index=[7, 3, 5, 1, 9],
    )


def rod(data):
    domain = pinn.Rectangle(("x", "y"), (0, 0), (1, 1))
    return pinn.Problem(domain, ("u",), {"pde": lambda u_xx: u_xx}, conditions=[data])


@pytest.mark.parametrize("compression", ["snappy", "zstd", None])
def test_measurements_are_read_from_parquet(frame, compression, tmp_path):
    pytest.importorskip("pyarrow")
    path = tmp_path / "sensors.parquet"
    frame.to_parquet(path, compression=compression, row_group_size=2)
    # Coordinates by name, whatever their order, type and place in the file.
    data = pinn.Data("sensors", str(path), u="T", sigma="sd")
    assert data.values()[:, 0].tolist() == frame["T"].astype(float).tolist()
    assert data.errors()[:, 0].tolist() == frame["sd"].tolist()
    objective = rod(data).objective(
        pinn.MLP([2, 4, 1], seed=0).double(), {"pde": [[0.5, 0.5]]}
    )
    places = objective.locations("sensors").numpy()
    np.testing.assert_array_equal(places, frame[["x", "y"]].to_numpy())


def test_what_reads_parquet_is_named_where_it_is_missing(tmp_path, monkeypatch):
    path = tmp_path / "sensors.parquet"
    path.write_bytes(b"")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "fastparquet", None)
    message = r"'heat': .* sensors.parquet needs pyarrow: .*whence\[parquet\]"
    with pytest.raises(ImportError, match=message):
        pinn.Data("heat", path, u="T")


def test_an_empty_table_is_said_with_its_file(tmp_path):
    empty = tmp_path / "empty.csv"
    empty.write_text("")
    with pytest.raises(ValueError, match=r"'heat': empty.csv cannot be read: No col"):
        pinn.Data("heat", empty, u="T")


def test_a_damaged_parquet_file_is_said_with_its_name(frame, tmp_path):
    pytest.importorskip("pyarrow")
    path = tmp_path / "sensors.parquet"
    path.write_bytes(b"PAR1 but no table")
    with pytest.raises(ValueError, match=r"'heat': sensors.parquet cannot be read: "):
        pinn.Data("heat", path, u="T")
    frame.to_parquet(path)
    with pytest.raises(ValueError, match="'temp'"):
        pinn.Data("heat", path, u="temp").values()
