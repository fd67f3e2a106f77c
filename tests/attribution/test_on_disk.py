"""Attributions on disk: the same to the last bit as in memory, by whomever, whenever stopped."""

import os
import signal
import subprocess
import sys
import textwrap

import many_points
import numpy as np
import pytest
from many_points import N, objective, targets

import whence as wh
from whence._files import NotWritten
from whence.attribution import on_disk
from whence.attribution.on_disk import write_part
from whence.attribution.storage import read_zarr

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


def test_another_result_is_refused(tmp_path, monkeypatch):
    out = tmp_path / "a.zarr"
    influence = wh.Influence(objective())
    stopping(monkeypatch, 1)
    with pytest.raises(KeyboardInterrupt):
        influence.attribute(targets(), out=out)

    others = {
        "parameters": (wh.Influence(objective(seed=1)), targets()),
        "quantity": (influence, targets(4)),
        "options": (wh.Influence(objective(), damping=1e-3), targets()),
        "method": (wh.GradDot(objective()), targets()),
        "points": (wh.Influence(objective(n=2400)), targets()),
    }
    for what, (other, quantity) in others.items():
        with pytest.raises(FileExistsError, match=rf"part of another result.*{what}"):
            other.attribute(quantity, out=out)
    with pytest.raises(FileExistsError, match="of other effect"):
        influence.attribute(targets(), effect="add", out=out)


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


KILLED = """
    import os, signal, sys
    sys.path.insert(0, {tests!r})
    import whence as wh
    from many_points import objective, targets
    from whence.attribution import bands, on_disk, tiled
    from whence.attribution.on_disk import write_part

    bands.CHUNK_POINTS = 1000
    tiled.TARGET_BLOCK = 2

    def write(job, part, written=[]):
        write_part(job, part)
        written.append(part)
        if len(written) == 3:
            os.kill(os.getpid(), signal.SIGKILL)

    on_disk.write_part = write
    wh.Influence(objective()).attribute(targets(), out={out!r})
"""


def test_a_killed_process(tmp_path):
    expected = wh.Influence(objective()).attribute(targets())
    out = tmp_path / "a.zarr"
    tests = os.path.dirname(many_points.__file__)
    code = textwrap.dedent(KILLED).format(tests=tests, out=str(out))
    process = subprocess.run([sys.executable, "-c", code])
    assert process.returncode == -signal.SIGKILL
    assert os.listdir(tmp_path) == [".a.zarr.unfinished"]

    same(wh.Influence(objective()).attribute(targets(), out=out), expected)
    assert os.listdir(tmp_path) == ["a.zarr"]


SHARE = """
    import sys
    sys.path.insert(0, {tests!r})
    import whence as wh
    from many_points import objective, targets
    from whence.attribution import bands, tiled

    bands.CHUNK_POINTS = 1000
    tiled.TARGET_BLOCK = 2
    wh.Influence(objective()).attribute_share(
        targets(), out={out!r}, share=int(sys.argv[1]), of=2)
"""


def test_processes_side_by_side_write_shares(tmp_path, monkeypatch):
    expected = wh.Influence(objective()).attribute(targets())
    out = tmp_path / "a.zarr"
    tests = os.path.dirname(many_points.__file__)
    code = textwrap.dedent(SHARE).format(tests=tests, out=str(out))
    command = [sys.executable, "-c", code]
    processes = [subprocess.Popen([*command, str(share)]) for share in range(2)]
    assert [process.wait() for process in processes] == [0, 0]

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


def test_clients_that_are_none(tmp_path):
    method = wh.GradDot(objective())
    with pytest.raises(ValueError, match=r"give out='name\.zarr'"):
        method.attribute(targets(), client=object())
    with pytest.raises(TypeError, match=r"must be a dask\.distributed\.Client"):
        method.attribute(targets(), out=tmp_path / "a.zarr", client="tcp://127.0.0.1:1")
    assert not os.listdir(tmp_path)
