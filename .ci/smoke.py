"""What an installed whence must do at least: ``.ci/smoke`` runs this away from the checkout."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

DATA = (
    "py.typed",
    "__init__.pyi",
    "pinn/__init__.pyi",
    "pinn/zoo/data/navier_stokes.npz",
    "explore/page/run.html",
    "explore/page/samples.html",
    "explore/page/main.js",
    "explore/page/style.css",
)
"""Files that are no modules, without which a part of whence does not work."""


def check_files() -> None:
    """Look for what is not Python in the installed package."""
    missing = [name for name in DATA if not files("whence").joinpath(name).is_file()]
    assert not missing, f"the installed package lacks {missing}"


def check_library() -> None:
    """Train a small network and explain one of its answers."""
    import whence as wh
    from whence import pinn

    here = Path(wh.__file__).resolve()
    assert "site-packages" in here.parts, f"this is not an installed package: {here}"
    assert wh.__version__ == version("whence"), "two versions in one package"

    result = pinn.train(
        pinn.zoo.load("diffusion"),
        pinn.MLP([2, 8, 8, 1], seed=0),
        points=60,
        schedule=pinn.GaussNewton(20),
        progress=False,
    )
    assert result.summary["relative_l2"] < 0.05, result.summary
    row = wh.Influence(result.objective).attribute(wh.Output([[0.1, 0.5]]))
    assert row.sizes["point"] == 60
    assert pinn.zoo.load("navier_stokes").solution is not None


def check_commands(folder: Path) -> None:
    """Go through the main commands, as a user would."""
    run = str(folder / "run")
    train = "train diffusion --points pde=60 --layers 2 8 1 --schedule gauss_newton:10"
    for command in (
        ["--help"],
        ["problems", "burgers"],
        [*train.split(), "--out", run],
        ["influence", run],
        ["plot", run],
        ["report", run],
        ["check", run],
    ):
        subprocess.run(
            [sys.executable, "-m", "whence.cli", *command],
            check=True,
            cwd=folder,
            stdout=subprocess.DEVNULL,
        )

    assert (folder / "run" / "figures" / "influence.png").is_file()
    assert list((folder / "run").glob("*.html"))


if __name__ == "__main__":
    check_files()
    check_library()
    with tempfile.TemporaryDirectory() as folder:
        check_commands(Path(folder))
    print(f"whence {version('whence')} on Python {sys.version.split()[0]}: works")
