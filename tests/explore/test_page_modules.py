"""The parts of the pages that need no browser, by node's own test runner where there is node."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

NODE = shutil.which("node")
TESTS = sorted((Path(__file__).parent / "page").glob("*.test.mjs"))


@pytest.mark.skipif(NODE is None, reason="no node")
def test_modules():
    done = subprocess.run(
        [NODE, "--test", *map(str, TESTS)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout
    n = sum(path.read_text().count("\ntest(") for path in TESTS)
    assert n > 15
    assert re.search(rf"pass {n}\b", done.stdout)
