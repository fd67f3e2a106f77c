"""A small run and its explorer, which the tests of a file share."""

import pytest
from explorers import served, small_run


@pytest.fixture(scope="module")
def result():
    return small_run()


@pytest.fixture(scope="module")
def explorer(result):
    with served(result) as explorer:
        yield explorer
