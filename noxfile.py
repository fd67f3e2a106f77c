"""The checks of continuous integration on every Python: ``nox``, ``nox -s tests-3.12``.

``make test``, ``make lint`` and ``make docs`` do the same in one environment of the checkout.
"""

import nox

PYTHONS = ("3.11", "3.12", "3.13", "3.14")
CONSTRAINTS = ("-c", "constraints.txt")

nox.options.sessions = ["lint", "tests", "docs"]
nox.options.default_venv_backend = "venv"


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Run the test suite; arguments after ``--`` go to pytest."""
    session.install(*CONSTRAINTS, "-e", ".[test]")
    arguments = session.posargs or ["-n", "2", "--dist", "worksteal"]
    session.run("python", "-m", "pytest", *arguments)


@nox.session(python=PYTHONS[0])
def lint(session: nox.Session) -> None:
    """Check style and types."""
    session.install(*CONSTRAINTS, "-e", ".[test,lint]")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("mypy", "whence")


@nox.session(python=PYTHONS[0])
def docs(session: nox.Session) -> None:
    """Build the documentation, the gallery's examples run."""
    session.install(*CONSTRAINTS, "-e", ".[docs]")
    built = ("docs", "docs/_build/html")
    session.run("python", "-m", "sphinx", "-b", "html", "-W", "--keep-going", *built)


@nox.session(python=PYTHONS)
def dist(session: nox.Session) -> None:
    """Install the wheel that ``make dist`` left in ``dist`` and use it."""
    session.run(
        "bash", "-c", '.ci/smoke dist/*.whl "$(command -v python)"', external=True
    )
