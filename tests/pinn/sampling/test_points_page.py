"""What docs/points.md shows must run, and be short."""

import re
from pathlib import Path

import whence

PAGE = (Path(whence.__file__).parent.parent / "docs" / "points.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, flags=re.S)


def test_blocks_run_as_they_are():
    scope: dict[str, object] = {}
    for block in BLOCKS:
        exec(compile(block, "points.md", "exec"), scope)
        assert len([line for line in block.split("\n") if line.strip()]) <= 18
