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


@pytest.fixture(scope="module")
def browser():
    # Only tests of pages need these, see browsing.py.
    from browsing import CHROMIUM
    from playwright.sync_api import sync_playwright

    with sync_playwright() as tools:
        browser = tools.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()
