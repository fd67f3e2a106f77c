"""What a release says of itself in several places is the same everywhere."""

import re
import tomllib
from pathlib import Path

import pytest

import whence

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def read(path):
    return (ROOT / path).read_text()


def test_the_version_is_one():
    version = PROJECT["version"]
    assert whence.__version__ == version
    assert f"\nversion: {version}\n" in read("CITATION.cff")
    assert f"\n  version: {version}\n" in read("conda/recipe/recipe.yaml")
    assert (
        f"({version})" in re.findall(r"^## (.*)$", read("CHANGELOG.md"), flags=re.M)[0]
    )


def test_conda_asks_for_what_pip_asks_for():
    recipe = read("conda/recipe/recipe.yaml")
    needed = re.findall(r"^    - ([\w-]+) >=([\d.]+)$", recipe, flags=re.M)
    names = {"pytorch": "torch", "matplotlib-base": "matplotlib", "netcdf4": "netCDF4"}
    conda = {f"{names.get(name, name)}>={version}" for name, version in needed}
    assert conda - {"setuptools>=77"} == set(PROJECT["dependencies"])
    assert f'python_min: "{PROJECT["requires-python"].removeprefix(">=")}"' in recipe


@pytest.mark.parametrize("file", ["noxfile.py", ".github/workflows/tests.yml"])
def test_the_matrix_has_every_python(file):
    versions = set(re.findall(r'"(3\.\d+)"', read(file)))
    assert versions == {"3.11", "3.12", "3.13", "3.14"}
    least = PROJECT["requires-python"].removeprefix(">=")
    assert min(versions, key=lambda v: int(v[2:])) == least


def test_workflows_call_targets_that_there_are():
    called: set[str] = set()
    for workflow in (ROOT / ".github/workflows").glob("*.yml"):
        for line in re.findall(r"run: make (.*)$", workflow.read_text(), flags=re.M):
            called |= {word for word in line.split() if "=" not in word}
    assert {"lint", "test", "docs", "dist"} <= called
    for target in called:
        assert re.search(rf"^{target}:", read("Makefile"), flags=re.M), target


def test_the_smoke_test_looks_for_all_data():
    patterns = tomllib.loads(read("pyproject.toml"))["tool"]["setuptools"][
        "package-data"
    ]
    looked_for = re.findall(r'^    "([\w./]+)",$', read(".ci/smoke.py"), flags=re.M)
    for pattern in patterns["whence"]:
        files = {
            str(p.relative_to(ROOT / "whence")) for p in (ROOT / "whence").glob(pattern)
        }
        assert files & set(looked_for), pattern
