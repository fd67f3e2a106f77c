"""What README shows must run."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_python_blocks_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    scope: dict[str, object] = {}
    blocks = re.findall(r"```python\n(.*?)```", README, flags=re.S)
    assert len(blocks) == 5
    for block in blocks:
        exec(compile(block, "README.md", "exec"), scope)
    printed = capsys.readouterr().out
    assert "<xarray.Attribution 'influence' (point: 10)>" in printed
    assert "'dirichlet_u': " in printed
    assert "(label: 3)" in printed
    assert "suspicion" in printed
    for file in ("solution.png", "influence.png", "runs/first/summary.json"):
        assert (tmp_path / file).is_file()


def test_a_newcomer_needs_few_lines():
    """Train a PDE of one's own, evaluate u and u_x, find the top ten points, draw."""
    script = re.search(r"```python\n(.*?)```", README, flags=re.S)[1]
    assert len(script.strip().split("\n")) <= 15


@pytest.mark.parametrize("target", re.findall(r"^make (\w+)", README, flags=re.M))
def test_make_targets_exist(target):
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), flags=re.M)


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([\w/.]+)\)", README))))
def test_links_lead_somewhere(link):
    assert (ROOT / link).is_file()


def test_commands_are_those_of_the_command_line():
    from whence import cli

    shown = set(re.findall(r"^whence (\w+)", README, flags=re.M))
    assert shown == set(cli.COMMANDS)
