"""A small run and its explorer, which the tests of a file share."""

import pytest
from explorers import sessions_served, small_run

from whence.explore import Session


@pytest.fixture(scope="module")
def result():
    return small_run()


@pytest.fixture(scope="module")
def session(result):
    """The session that is served: another factors anew, which this damping does not round alike."""
    return Session(result)


@pytest.fixture(scope="module")
def explorer(session):
    with sessions_served(session) as explorer:
        yield explorer


@pytest.fixture(scope="module")
def browser():
    # Only tests of pages need these, see browsing.py.
    from browsing import CHROMIUM
    from playwright.sync_api import sync_playwright

    with sync_playwright() as tools:
        browser = tools.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()
