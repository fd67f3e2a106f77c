"""The parts of the page that need no browser, by node's own test runner where there is node."""

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
    assert "# pass 14" in done.stdout
