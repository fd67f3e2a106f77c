"""Work in the background: one piece at a time, in order, and what went wrong is said."""

import threading

import pytest

from whence.explore.jobs import Jobs


def test_what_comes_of_it():
    jobs = Jobs()
    number = jobs.start(lambda: {"measured": 2.5})
    jobs.wait(number)
    assert jobs.state(number) == {"state": "done", "measured": 2.5}


def test_it_runs_until_it_is_done():
    jobs = Jobs()
    go = threading.Event()
    number = jobs.start(lambda: {"went": go.wait(60)})
    assert jobs.state(number) == {"state": "running"}
    go.set()
    jobs.wait(number)
    assert jobs.state(number) == {"state": "done", "went": True}


def test_one_at_a_time():
    jobs = Jobs()
    first_may, second_began = threading.Event(), threading.Event()

    def first():
        began_meanwhile = second_began.wait(0.2)
        first_may.wait(60)
        return {"began_meanwhile": began_meanwhile}

    def second():
        second_began.set()
        return {}

    one, two = jobs.start(first), jobs.start(second)
    assert (one, two) == (0, 1)
    assert jobs.state(two) == {"state": "running"}
    first_may.set()
    jobs.wait(two)
    jobs.wait(one)
    assert jobs.state(one) == {"state": "done", "began_meanwhile": False}
    assert second_began.is_set()


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("no such run"), "no such run"),
        (RuntimeError("singular"), "singular"),
        (AssertionError(), "AssertionError"),
    ],
)
def test_what_went_wrong_is_said_and_the_next_is_done(error, said):
    def work():
        raise error

    jobs = Jobs()
    failed, good = jobs.start(work), jobs.start(lambda: {"fine": 1})
    jobs.wait(failed)
    jobs.wait(good)
    assert jobs.state(failed) == {"state": "failed", "error": said}
    assert jobs.state(good) == {"state": "done", "fine": 1}


@pytest.mark.parametrize("number", [-1, 1, 7])
def test_numbers_of_no_work(number):
    jobs = Jobs()
    jobs.wait(jobs.start(dict))
    with pytest.raises(ValueError, match=f"there is no job {number}"):
        jobs.state(number)
