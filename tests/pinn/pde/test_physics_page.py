"""What docs/physics.md shows must run, be short, and mean what it says."""

import math
import re
from pathlib import Path

import whence
from whence import pinn

PAGE = (Path(whence.__file__).parent.parent / "docs" / "physics.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, flags=re.S)


def test_blocks_run_as_they_are(capsys):
    scope: dict[str, object] = {}
    assert len(BLOCKS) == 15
    for block in BLOCKS:
        exec(compile(block, "physics.md", "exec"), scope)
    printed = capsys.readouterr().out
    assert re.search(r"k = (1\.0|0\.99)\d* ± 0\.0", printed)
    assert "deviation" in printed

    # The blocks that only make problems make some that can be trained.
    for name in (
        "field",
        "density",
        "memory",
        "materials",
        "family",
        "drum",
        "plate",
        "inviscid",
    ):
        problem = scope[name]
        counts = {n: 3 for n in problem.terms if n not in problem.given_terms}
        if "dirichlet_u" in counts:
            counts["dirichlet_u"] = 2
        network = pinn.MLP([problem.domain.dimension, 4, len(problem.outputs)], seed=0)
        loss = problem.objective(network.double(), problem.sample(counts)).loss()
        assert math.isfinite(float(loss))


def test_no_construct_takes_more_than_twelve_lines():
    for block in BLOCKS:
        assert len([line for line in block.split("\n") if line.strip()]) <= 12, block
