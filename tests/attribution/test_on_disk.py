"""Attributions on disk: the same to the last bit as in memory, by whomever, whenever stopped."""

import dataclasses
import os
import shutil
import signal

import many_points
import numpy as np
import pytest
import torch
from many_points import MAKE, N, objective, states, targets
from zarr.storage import LocalStore

import whence as wh
from whence._files import NotWritten
from whence.attribution import on_disk
from whence.attribution.on_disk import write_part
from whence.attribution.storage import read_zarr
from whence.attribution.tiles import Solved

pytestmark = pytest.mark.usefixtures("narrow")


def same(found, expected):
    assert found.dtype == expected.dtype
    assert np.array_equal(found.values, expected.values)
    ignored = {"solver_residual"}  # of the worst system in another order
    names = expected.attrs.keys() - ignored
    assert {k: found.attrs[k] for k in names} == {k: expected.attrs[k] for k in names}


def stopping(monkeypatch, after):
    """Let an attribution be stopped when so many parts are written; return those written."""
    written = []

    def write(job, part):
        if len(written) == after:
            raise KeyboardInterrupt
        write_part(job, part)
        written.append(part.name)

    monkeypatch.setattr(on_disk, "write_part", write)
    return written


def test_it_equals_what_is_in_memory(many, tmp_path):
    expected = many.attribute(targets())
    found = many.attribute(targets(), out=tmp_path / "a.zarr")
    same(found, expected)
    assert os.listdir(tmp_path) == ["a.zarr"]


@pytest.mark.parametrize("backwards", [False, True])
def test_coordinates_have_their_order(backwards, tmp_path, monkeypatch):
    """File systems list a folder in any order: the axes of places are not to change with it."""
    expected = wh.GradDot(objective()).attribute(targets())
    wh.GradDot(objective()).attribute(targets(), out=tmp_path / "a.zarr")
    list_dir = LocalStore.list_dir

    async def in_this_order(store, prefix):
        for name in sorted(
            [one async for one in list_dir(store, prefix)], reverse=backwards
        ):
            yield name

    monkeypatch.setattr(LocalStore, "list_dir", in_this_order)
    found = read_zarr(tmp_path / "a.zarr")
    assert list(found.coords) == list(expected.coords)


@pytest.mark.parametrize("after", [0, 1, 2])
def test_a_stopped_one_is_gone_on_with(many, after, tmp_path, monkeypatch):
    expected = many.attribute(targets(), effect="add")
    out = tmp_path / "a.zarr"
    before = stopping(monkeypatch, after)
    with pytest.raises(KeyboardInterrupt):
        many.attribute(targets(), effect="add", out=out)
    assert len(before) == after
    with pytest.raises(FileNotFoundError, match="no zarr folder"):
        read_zarr(out)

    rest = stopping(monkeypatch, None)
    same(many.attribute(targets(), effect="add", out=out), expected)
    assert rest
    assert not set(before) & set(rest)


def test_what_was_solved_is_not_solved_again(tmp_path, monkeypatch):
    influence = wh.Influence(objective())
    expected = influence.attribute(targets())
    written = stopping(monkeypatch, 4)  # of two targets all parts, of the next two one
    with pytest.raises(KeyboardInterrupt):
        influence.attribute(targets(), out=tmp_path / "a.zarr")
    assert len({name.rsplit("-points", 1)[0] for name in written}) == 2

    solved = []
    transform = wh.Influence.transform_gradients

    def counted(self, gradients):
        solved.append(gradients.shape[1])
        return transform(self, gradients)

    monkeypatch.setattr(wh.Influence, "transform_gradients", counted)
    stopping(monkeypatch, None)
    same(influence.attribute(targets(), out=tmp_path / "a.zarr"), expected)
    assert solved == [1]  # the last of five


@pytest.mark.parametrize("seconds", [0.0, 1e9])
def test_after_a_power_cut_the_last_parts_are_made_again(
    seconds, tmp_path, monkeypatch
):
    influence = wh.Influence(objective())
    expected = influence.attribute(targets())
    before = stopping(monkeypatch, 4)
    with pytest.raises(KeyboardInterrupt):
        influence.attribute(targets(), out=tmp_path / "a.zarr")

    monkeypatch.setattr("whence.attribution.storage.boot", lambda: "another")
    monkeypatch.setattr("whence.attribution.storage.WRITTEN_BACK_SECONDS", seconds)
    rest = stopping(monkeypatch, None)
    same(influence.attribute(targets(), out=tmp_path / "a.zarr"), expected)
    assert set(before) & set(rest) == (set(before) if seconds else set())


def with_term(of, **changes):
    """The objective with another first term."""
    first, *others = of.terms.values()
    return of.with_terms([dataclasses.replace(first, **changes), *others])


def other_checkpoints():
    of = objective()
    moved = [{k: t + 0.2 for k, t in state.items()} for state in states(of.network)]
    return wh.TracIn(of, moved, [0.1, 0.2])


POINTS = {"pde": objective().terms["pde"].points}
OTHERS = {
    "parameters": lambda: (MAKE["influence"](objective(seed=1)), targets()),
    "quantity": lambda: (MAKE["influence"](objective()), [targets(4)]),
    "options": lambda: (wh.Influence(objective(), damping=1e-3), targets()),
    "method": lambda: (wh.GradDot(objective()), targets()),
    "training points": lambda: (wh.Influence(objective(n=2400)), targets()),
    "loss": lambda: (wh.Influence(objective().with_weight_decay(1e-3)), targets()),
    "weights": lambda: (wh.Influence(with_term(objective(), weight=2.0)), targets()),
    "checkpoints": lambda: (other_checkpoints(), targets()),
}


@pytest.mark.parametrize("what", OTHERS)
def test_another_result_is_refused(what, tmp_path, monkeypatch):
    out = tmp_path / "a.zarr"
    first = MAKE["tracin" if what == "checkpoints" else "influence"](objective())
    stopping(monkeypatch, 1)
    with pytest.raises(KeyboardInterrupt):
        first.attribute(targets(), POINTS, out=out)

    other, quantity = OTHERS[what]()
    with pytest.raises(FileExistsError, match=rf"part of another result.*{what}"):
        other.attribute(quantity, POINTS, out=out)
    with pytest.raises(FileExistsError, match="of other effect"):
        first.attribute(targets(), POINTS, effect="add", out=out)


def test_labels_in_the_middle_make_another_result(tmp_path, monkeypatch):
    x, y = torch.rand(9, 3), torch.arange(9) % 2
    model = torch.nn.Linear(3, 2)
    out = tmp_path / "a.zarr"
    stopping(monkeypatch, 0)
    with pytest.raises(KeyboardInterrupt):
        wh.GradDot(model, (x, y), wh.CrossEntropy()).attribute(wh.Loss((x, y)), out=out)
    changed = y.clone()
    changed[4] = 1 - changed[4]
    other = wh.GradDot(model, (x, changed), wh.CrossEntropy())
    with pytest.raises(FileExistsError, match="of other loss, training points"):
        other.attribute(wh.Loss((x, y)), out=out)


class Scaled(wh.GradDot):
    """A method with a function for an option."""

    def __init__(self, of, scale):
        super().__init__(of)
        self.scale = scale

    def transform_gradients(self, gradients):
        return self.scale(gradients), Solved()


def test_what_cannot_be_compared_is_not_gone_on_with(tmp_path, monkeypatch):
    out = tmp_path / "a.zarr"
    stopping(monkeypatch, 1)
    method = Scaled(objective(), torch.sign)
    with pytest.raises(KeyboardInterrupt):
        method.attribute(targets(), out=out)
    with pytest.raises(FileExistsError, match="of other options"):
        method.attribute(targets(), out=out)


def test_numbers_that_were_lost_are_no_numbers(tmp_path):
    influence = wh.Influence(objective())
    found = influence.attribute(targets(), out=tmp_path / "a.zarr")
    chunks = tmp_path / "a.zarr" / "influence" / "c"
    next(path for path in sorted(chunks.rglob("*")) if path.is_file()).unlink()
    assert np.isnan(read_zarr(tmp_path / "a.zarr").values).any()
    assert not np.isnan(found.values).all()


def test_a_result_that_was_killed_at_its_very_end(tmp_path):
    influence = wh.Influence(objective())
    out = tmp_path / "a.zarr"
    for left in (["finished"], ["finished", "identity.json"]):
        unfinished = tmp_path / ".a.zarr.unfinished"
        unfinished.mkdir()
        for name in left:
            (unfinished / name).mkdir()
        same(influence.attribute(targets(), out=out), influence.attribute(targets()))
        assert os.listdir(tmp_path) == ["a.zarr"]
        shutil.rmtree(out)


def test_it_warns_as_in_memory(tmp_path):
    influence = wh.Influence(objective())  # not trained at all
    with pytest.warns(wh.FarFromMinimum) as in_memory:
        influence.attribute(targets())
    with pytest.warns(wh.FarFromMinimum) as on_disk_too:
        influence.attribute(targets(), out=tmp_path / "a.zarr")
    for caught in (in_memory, on_disk_too):
        assert {warning.filename for warning in caught} == {__file__}


def test_shares_make_a_whole(many, tmp_path, monkeypatch):
    expected = many.attribute(targets())
    out = tmp_path / "a.zarr"
    for share in (2, 0):
        many.attribute_share(targets(), out=out, share=share, of=3)
    rest = stopping(monkeypatch, None)
    same(many.attribute(targets(), out=out), expected)
    assert rest  # the third share

    with pytest.raises(ValueError, match="share must be from 0 to 1, one of 2, got 2"):
        many.attribute_share(targets(), out=tmp_path / "b.zarr", share=2, of=2)


def test_where_all_points_are_solved_for_at_once(tmp_path):
    influence = wh.Influence(objective("hard", n=20))  # fewer than parameters
    expected = influence.attribute(targets())
    same(influence.attribute(targets(), out=tmp_path / "a.zarr"), expected)
    with pytest.raises(ValueError, match="no shares"):
        influence.attribute_share(targets(), out=tmp_path / "b.zarr", share=0, of=2)
    assert os.listdir(tmp_path) == ["a.zarr"]


def test_chosen_points_keep_their_weights(tmp_path):
    influence = wh.Influence(objective())
    chosen = wh.TrainingPoints({"pde": np.arange(0, N, 2), "dirichlet_u": [3, 1]})
    expected = influence.attribute(targets(), chosen)
    found = influence.attribute(targets(), chosen, out=tmp_path / "a.zarr")
    same(found, expected)
    assert found["index"].values.tolist() == expected["index"].values.tolist()


def test_a_killed_process(tmp_path, process):
    expected = wh.Influence(objective()).attribute(targets())
    out = tmp_path / "a.zarr"
    killed = process(many_points.attribute_and_die, out)
    killed.join()
    assert killed.exitcode == -signal.SIGKILL
    assert os.listdir(tmp_path) == [".a.zarr.unfinished"]

    same(wh.Influence(objective()).attribute(targets(), out=out), expected)
    assert os.listdir(tmp_path) == ["a.zarr"]


def test_processes_side_by_side_write_shares(tmp_path, monkeypatch, process):
    expected = wh.Influence(objective()).attribute(targets())
    out = tmp_path / "a.zarr"
    processes = [process(many_points.attribute_share, out, share) for share in range(2)]
    for one in processes:
        one.join()
    assert [one.exitcode for one in processes] == [0, 0]

    rest = stopping(monkeypatch, None)
    same(wh.Influence(objective()).attribute(targets(), out=out), expected)
    assert not rest


def test_two_processes_do_not_complete_one_result(tmp_path, monkeypatch):
    influence = wh.Influence(objective())
    out = tmp_path / "a.zarr"

    def write(job, part):
        with pytest.raises(BlockingIOError, match="in use by"):
            influence.attribute(targets(), out=out)
        raise KeyboardInterrupt

    monkeypatch.setattr(on_disk, "write_part", write)
    with pytest.raises(KeyboardInterrupt):
        influence.attribute(targets(), out=out)


def test_a_file_in_the_way(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(NotWritten, match="a file stands where its folder should be"):
        wh.GradDot(objective()).attribute(targets(), out=tmp_path / "file" / "a.zarr")


# --- by workers ----------------------------------------------------------------------------------


def test_workers_make_the_same(many, client, tmp_path):
    expected = many.attribute(targets())
    found = many.attribute(targets(), out=tmp_path / "a.zarr", client=client)
    same(found, expected)


def test_a_worker_that_dies_is_replaced(client, tmp_path):
    influence = wh.Influence(objective())
    expected = influence.attribute(targets())
    killed = client.submit(os.getpid, pure=False).result()
    os.kill(killed, signal.SIGKILL)
    same(
        influence.attribute(targets(), out=tmp_path / "a.zarr", client=client), expected
    )


def test_an_error_of_a_worker_is_that_of_the_call(client, tmp_path, monkeypatch):
    influence = wh.Influence(objective())
    out = tmp_path / "a.zarr"
    stopping(monkeypatch, 1)
    with pytest.raises(KeyboardInterrupt):
        influence.attribute(targets(), out=out)
    monkeypatch.setattr(on_disk, "write_part", write_part)

    # Nobody can write there any more.
    folder = tmp_path / ".a.zarr.unfinished" / "zarr" / "influence" / "c"
    for chunk in folder.iterdir():
        chunk.rename(folder.parent / f"moved-{chunk.name}")
    folder.rmdir()
    folder.touch()
    with pytest.raises(NotWritten, match="a file stands where its folder should be"):
        influence.attribute(targets(), out=out, client=client)


def test_workers_of_another_folder(client, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    influence = wh.Influence(objective())
    expected = influence.attribute(targets())
    same(influence.attribute(targets(), out="a.zarr", client=client), expected)
    assert os.listdir(tmp_path) == ["a.zarr"]


def test_clients_that_are_none(tmp_path):
    method = wh.GradDot(objective())
    with pytest.raises(ValueError, match=r"give out='name\.zarr'"):
        method.attribute(targets(), client=object())
    with pytest.raises(TypeError, match=r"must be a dask\.distributed\.Client"):
        method.attribute(targets(), out=tmp_path / "a.zarr", client="tcp://127.0.0.1:1")
    assert not os.listdir(tmp_path)
