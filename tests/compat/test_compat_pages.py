"""What the pages for those who come from elsewhere show must run."""

import re
import warnings
from pathlib import Path

import pytest

DOCS = Path(__file__).parent.parent.parent / "docs"
NEEDS = {"Hugging Face": ("transformers", "accelerate"), "Lightning": ("lightning",)}


def blocks():
    for page in ("coming_from_captum", "coming_from_pydvl", "adapters_supervised"):
        title = page
        for part in re.split(r"^#+ ", (DOCS / f"{page}.md").read_text(), flags=re.M):
            title = part.split("\n")[0]
            for block in re.findall(r"```python\n(.*?)```", part, flags=re.S):
                yield pytest.param(title, block, id=title)


@pytest.mark.parametrize(("title", "block"), blocks())
def test_a_block_runs_as_it_stands(title, block, tmp_path, monkeypatch):
    for module in NEEDS.get(title, ()):
        pytest.importorskip(module)
    monkeypatch.chdir(tmp_path)
    scope = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exec(compile(block, title, "exec"), scope)
    assert any(name in scope for name in ("effects", "scores", "whole", "by_steps"))


def test_there_is_a_block_for_each_library():
    assert len(list(blocks())) == 5
