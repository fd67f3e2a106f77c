"""The parts of the page of a supervised model that need no browser, by node's own test runner."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

NODE = shutil.which("node")
TESTS = Path(__file__).parent / "page" / "samples.test.mjs"


@pytest.mark.skipif(NODE is None, reason="no node")
def test_modules():
    done = subprocess.run(
        [NODE, "--test", str(TESTS)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout
    n = TESTS.read_text().count("\ntest(")
    assert n > 5
    assert re.search(rf"pass {n}\b", done.stdout)
