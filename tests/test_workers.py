"""Parts by workers: what becomes of them when workers die, and which workers are refused."""

import os
import signal
import time

import pytest
from distributed import Client, LocalCluster

from whence.workers import in_order, in_parts


def add(common, part):
    return common + part


def killing(common, part):
    """Kill the worker at part 2, the first times."""
    folder, times = common
    deaths = len(os.listdir(folder))
    if part == 2 and deaths < times:
        (folder / str(deaths)).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return part


def failing(common, part):
    raise LookupError(f"part {part} fails")


@pytest.fixture(scope="module")
def alone(forked_workers):
    """One worker: where it dies, what was sent to it is gone."""
    cluster = LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None)
    with cluster, Client(cluster) as client:
        yield client


def test_parts_here_and_by_workers(client):
    parts = list(range(20))
    assert list(in_parts(add, 10, parts)) == [(k, k + 10) for k in parts]
    assert dict(in_parts(add, 10, iter(parts), client)) == {k: k + 10 for k in parts}
    assert list(in_parts(add, 10, [], client)) == []


def slow_at_first(common, part):
    time.sleep(0.5 if part == 0 else 0.0)
    return part


def test_answers_in_order(client):
    parts = list(range(6))
    ended = [part for part, _ in in_parts(slow_at_first, None, parts, client)]
    assert ended != parts
    assert sorted(ended) == parts
    in_turn = list(in_order(slow_at_first, None, parts, client))
    assert in_turn == [(part, part) for part in parts]


def test_the_only_worker_dies(alone, tmp_path):
    answers = dict(in_parts(killing, (tmp_path, 1), range(5), alone))
    assert answers == {k: k for k in range(5)}
    assert os.listdir(tmp_path) == ["0"]


def test_an_error_of_a_part_is_that_of_the_call(client):
    with pytest.raises(LookupError, match=r"part \d fails"):
        list(in_parts(failing, None, range(3), client))


def test_threads_of_this_process_are_refused():
    threads = Client(processes=False, dashboard_address=None)
    with threads, pytest.raises(ValueError, match="start processes, as Client"):
        list(in_parts(add, 1, range(3), threads))


def test_a_scheduler_that_dies(forked_workers):
    cluster = LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None)
    with Client(cluster) as client:
        answers = in_parts(add, 1, range(10_000), client)
        next(answers)
        cluster.close()
        with pytest.raises(ConnectionError, match="the scheduler is gone"):
            list(answers)
