"""What docs/geometry.md shows must run, and be short."""

import re
from pathlib import Path

import whence

PAGE = (Path(whence.__file__).parent.parent / "docs" / "geometry.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, flags=re.S)


def test_blocks_run_as_they_are():
    scope: dict[str, object] = {}
    assert len(BLOCKS) == 10
    for block in BLOCKS:
        exec(compile(block, "geometry.md", "exec"), scope)
    assert set(scope["points"]) == {"heat", "middle", "ring", "neumann_u"}
    names = [part.name for part in scope["domain"].boundary]
    assert names == [
        "x_min",
        "x_max",
        "y_min",
        "y_max",
        "left",
        "right",
        "rim",
        "t_min",
        "t_max",
    ]


def test_no_construct_takes_more_than_twelve_lines():
    for block in BLOCKS:
        assert len([line for line in block.split("\n") if line.strip()]) <= 12, block
