"""Imports go only to a level as low or lower."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import whence

ROOT = Path(whence.__file__).parent
LEVELS = {
    "_checks": 0,
    "_files": 0,
    "_interrupts": 0,
    "_lock": 0,
    "_netcdf": 0,
    "parameters": 0,
    "samples": 0,
    "losses": 0,
    "torch_losses": 0,
    "elementwise": 0,
    "layout": 0,
    "affine": 0,
    "jets": 0,
    "pinn.domain": 0,
    "pinn.unit": 0,
    "pinn.boundary": 0,
    "pinn.networks": 0,
    "pinn.randomness": 0,
    "objective": 1,
    "layers": 1,
    "torch_layers": 1,
    "linearization": 2,
    "autodiff": 2,
    "recorder": 2,
    "gradient": 2,
    "jacobian": 2,
    "pinn.fields": 2,
    "pinn.conditions": 2,
    "pinn.problem": 2,
    "curvature.layerwise": 3,
    "curvature.operators": 3,
    "ntk": 3,
    "pinn.diagnosis": 3,
    "pinn.zoo": 3,
    "curvature": 4,
    "curvature.solvers": 4,
    "curvature.exact": 4,
    "curvature.iterative": 4,
    "curvature.datainf": 4,
    "curvature.sketched": 4,
    "curvature.automatic": 4,
    "curvature.lowrank": 4,
    "curvature.kronecker": 4,
    "attribution.groups": 5,
    "attribution.refitting": 5,
    "attribution.quality": 5,
    "attribution.result": 5,
    "attribution": 5,
    "attribution.quantities": 5,
    "attribution.influence": 5,
    "attribution.gradients": 5,
    "attribution.labels": 5,
    "attribution.method": 5,
    "attribution.perturbation": 5,
    "attribution.products": 5,
    "attribution.reductions": 5,
    "attribution.storage": 5,
    "attribution.empirical": 5,
    "pinn.sampling": 6,
    "pinn.weighting": 6,
    "pinn.reweighting": 7,
    "pinn.spectra": 7,
    "pinn.optimizers": 7,
    "pinn.loop": 7,
    "pinn.watch": 7,
    "pinn.training": 7,
    "pinn.runs": 7,
    "pinn.recipes": 7,
    "pinn": 8,
    "": 8,
    "evaluation": 8,
    "plots": 9,
    "study": 9,
    "cli": 9,
    "__main__": 9,
    "adapters": 9,
    "report": 9,
}
FAMILIES = (
    "pinn.zoo",
    "pinn.sampling",
    "pinn.weighting",
    "evaluation",
    "cli",
    "adapters",
    "report",
    "plots",
)
FILES = {
    ".".join(p.relative_to(ROOT).with_suffix("").parts)
    .removesuffix("__init__")
    .rstrip("."): p
    for p in sorted(ROOT.rglob("*.py"))
}


def level(module):
    """The level of a module named relative to whence; every module of a family has its level."""
    family = next((f for f in FAMILIES if module.startswith(f + ".")), module)
    assert family in LEVELS, (
        f"{FILES.get(module, module)} has no level: list it in {__file__}"
    )
    return LEVELS[family]


def imported(module, source):
    """Yield the modules of whence that ``source`` imports, anywhere in it."""
    package = (
        module if FILES[module].name == "__init__.py" else module.rpartition(".")[0]
    )
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [(alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join(filter(None, ["whence", *above, base]))
            names = [(base, alias.name) for alias in node.names]
        else:
            continue
        for base, name in names:
            if base == "whence" or base.startswith("whence."):
                base = base.removeprefix("whence").lstrip(".")
                inner = ".".join(filter(None, [base, name]))
                yield inner if inner in FILES else base


def too_high(module, source):
    return [m for m in imported(module, source) if level(m) > level(module)]


@pytest.mark.parametrize("module", FILES)
def test_imports_go_to_no_higher_level(module):
    wrong = too_high(module, FILES[module].read_text(encoding="utf-8"))
    assert not wrong, (
        f"{FILES[module]} (level {level(module)}) imports "
        + ", ".join(f"whence.{m} (level {level(m)})" for m in wrong)
    )  # fmt: skip


@pytest.mark.parametrize(
    "source",
    [
        "from whence.attribution.influence import Influence",
        "from whence.attribution import influence",
        "import whence.jacobian",
        "import whence",
        "from whence import Objective",
        "from whence import jacobian as j",
        "def late():\n    from whence.curvature.exact import Exact",
        "if TYPE_CHECKING:\n    from .jacobian import Jacobian",
        "from . import jacobian",
    ],
)
def test_the_test_sees_every_way_of_importing(source):
    assert too_high("objective", source)


@pytest.mark.parametrize(
    "source",
    [
        "import torch, math",
        "from whence import _checks",
        "from whence.parameters import Parameters",
        "from .jets import Jet",
    ],
)
def test_the_test_lets_the_others_pass(source):
    assert not too_high("objective", source)


def test_a_file_without_a_level_is_named():
    with pytest.raises(AssertionError, match=r"unheard_of has no level"):
        level("unheard_of")


def test_pinn_is_unknown_to_the_core():
    core = [m for m in FILES if m and not m.startswith("pinn") and level(m) <= 5]
    for module in core:
        used = list(imported(module, FILES[module].read_text(encoding="utf-8")))
        assert not [m for m in used if m.startswith("pinn")], module


SLOW = (
    "matplotlib",
    "dask",
    "dash",
    "plotly",
    "flask",
    "fastapi",
    "distributed",
    "tyro",
)
SLOW += ("xarray", "pandas", "scipy.stats", "scipy.special", "zarr")


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("from whence import *", SLOW),
        ("import whence.pinn", SLOW),
        ("import whence.cli", ("torch", "numpy")),
    ],
)
def test_importing_loads_nothing_slow(statement, absent):
    code = f"{statement}; import sys; print([m for m in {absent} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_public_names_exist_and_are_few():
    assert len(whence.__all__) <= 50
    assert len(set(whence.__all__)) == len(whence.__all__)
    for package in (whence, importlib.import_module("whence.pinn")):
        for name in package.__all__:
            assert hasattr(package, name), f"{package.__name__}.{name}"


def test_modules_are_split_before_they_grow():
    for path in FILES.values():
        lines = len(path.read_text(encoding="utf-8").splitlines())
        assert lines <= 600, f"{path} has {lines} lines, above 600"
