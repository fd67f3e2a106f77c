"""Supervised data in arrays of zarr, of dask and in Parquet: read chunk by chunk, never whole."""

import pickle

import dask.array as da
import dask.dataframe as dd
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch
import zarr
from torch import nn

import whence as wh
from whence.samples import samples_of
from whence.stored_arrays import Rows, is_stored

N, D = 2300, 3
GENERATOR = np.random.default_rng(0)
X = GENERATOR.standard_normal((N, D))
Y = (X @ [1.0, -1.0, 0.5] > 0).astype(np.int64)


def in_zarr(tmp_path):
    group = zarr.open_group(tmp_path / "data.zarr", mode="w")
    x = group.create_array("x", shape=X.shape, chunks=(300, 2), dtype=X.dtype)
    y = group.create_array("y", shape=Y.shape, chunks=(700,), dtype=Y.dtype)
    x[:], y[:] = X, Y
    return x, y


def in_dask(tmp_path):
    return da.from_array(X, chunks=(400, 3)), da.from_array(Y, chunks=900)


def in_parquet(tmp_path):
    table = pd.DataFrame(X, columns=["a", "b", "c"]).assign(label=Y)
    dd.from_pandas(table, npartitions=4).to_parquet(tmp_path / "table")
    read = dd.read_parquet(tmp_path / "table")
    return read[["a", "b", "c"]], read["label"]


def in_hdf5(tmp_path):
    with h5py.File(tmp_path / "data.h5", "w") as file:
        file.create_dataset("x", data=X, chunks=(300, 2))
        file["group/y"] = Y  # in one piece
    file = h5py.File(tmp_path / "data.h5", "r")
    return file["x"], file["group/y"]


def beside_memory(tmp_path):
    return in_zarr(tmp_path)[0], Y


STORED = {
    "zarr": in_zarr,
    "dask": in_dask,
    "parquet": in_parquet,
    "hdf5": in_hdf5,
    "beside": beside_memory,
}


@pytest.fixture(params=list(STORED))
def stored(request, tmp_path):
    return STORED[request.param](tmp_path)


@pytest.fixture
def unread(monkeypatch):
    """Let nothing be small enough to be read once and kept."""
    monkeypatch.setattr("whence.samples.IN_MEMORY_BYTES", 0)


def influence(data):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(D, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    return wh.Influence(model, data, nn.CrossEntropyLoss())


@pytest.mark.parametrize("kept", [True, False])
def test_influence_is_that_of_the_same_data_in_memory(stored, kept, request):
    if not kept:
        request.getfixturevalue("unread")
    expected = influence((X, Y)).attribute(wh.Loss((X[:3], Y[:3])))
    found = influence(stored)
    assert found.objective.terms["data"].points.in_memory == kept
    row = found.attribute(wh.Loss((X[:3], Y[:3])))
    # Blocks of the same points: the same numbers.
    assert np.array_equal(row.values, expected.values)
    assert row.label.values.tolist() == Y.tolist()


def test_samples_at_any_places(stored, unread):
    samples = samples_of("the data", stored, None, None)
    assert not samples.in_memory
    places = torch.tensor([2299, 0, 1400, 3, 3, 400, 399])
    part = samples[places]
    assert np.array_equal(part.inputs[0].numpy(), X[places])
    assert np.array_equal(part.target.numpy(), Y[places])
    assert np.array_equal(samples.labels(), Y)


def test_labels_are_read_without_the_inputs(tmp_path, unread, monkeypatch):
    samples = samples_of("the data", in_zarr(tmp_path), None, None)
    read = []
    original = Rows.read
    monkeypatch.setattr(
        Rows,
        "read",
        lambda self, places: read.append(self.shape) or original(self, places),
    )
    samples[100:2000].labels()
    assert (N,) in read
    assert len([shape for shape in read if shape == (N, D)]) <= 1  # of one sample


def test_a_chunk_is_read_once_in_a_pass(unread):
    computed = []

    def load(block):
        computed.append(len(block))
        return block

    x = da.from_array(X, chunks=(1000, 3)).map_blocks(load, meta=X[:0])
    rows = Rows("the data", x)
    for start in range(0, N, 100):
        rows.read(np.arange(start, min(start + 100, N)))
    assert computed == [1000, 1000, 300]


@pytest.mark.parametrize("kind", ["zarr", "hdf5"])
def test_workers_read_for_themselves(kind, tmp_path, unread, client):
    method = influence(STORED[kind](tmp_path))
    target = wh.Loss((X[:3], Y[:3]))
    expected = method.attribute(target).values
    found = method.attribute(target, out=tmp_path / "a.zarr", client=client)
    assert np.array_equal(found.values, expected)

    samples = method.objective.terms["data"].points
    assert len(pickle.dumps(samples)) < X.nbytes  # no chunk goes along


def test_inputs_alone(tmp_path):
    x, _ = in_dask(tmp_path)
    samples = samples_of("the inputs", x, torch.float32, None, targets=False)
    assert samples.target is None
    assert np.array_equal(samples.inputs[0].numpy(), X.astype(np.float32))


def test_what_is_no_array_on_disk():
    class Pairs(torch.utils.data.Dataset):
        shape, dtype = (4,), "pairs"

        def __len__(self):
            return 4

        def __getitem__(self, place):
            return torch.zeros(2), torch.tensor(place)

    assert not is_stored(Pairs())
    assert samples_of("the data", Pairs(), None, None).target.tolist() == [0, 1, 2, 3]
    assert not is_stored(scipy.sparse.eye_array(3, format="csr"))


def test_tensors_beside_arrays_on_disk(tmp_path):
    x, _ = in_dask(tmp_path)
    weights = torch.ones(N, requires_grad=True)
    samples = samples_of("the data", (x, weights), None, None)
    assert not samples.target.requires_grad
    with pytest.raises(TypeError, match="keyword inputs must be in memory"):
        samples_of("the data", ({"x": X}, x), None, None)


def test_what_cannot_be_read(tmp_path):
    x, y = in_dask(tmp_path)
    with pytest.raises(ValueError, match=r"of one length.*\(2300, 3\), \(2299,\)"):
        samples_of("the data", (x, y[1:]), None, None)
    with pytest.raises(
        ValueError, match="chunks of unknown length: call compute_chunk"
    ):
        samples_of("the data", (x[x[:, 0] > 0], y), None, None)
    with pytest.raises(TypeError, match=r"must be tuples \(inputs, ..., target\)"):
        samples_of("the data", x, None, None)
    with pytest.raises(TypeError, match="must be arrays of numbers"):
        samples_of("the data", (x.astype(str), y), None, None)
    x = X.copy()
    x[7] = np.nan
    with pytest.raises(ValueError, match="must be finite"):
        samples_of("the data", (da.from_array(x, chunks=100), y), None, None)
