"""The API reference: its pages are written from the public names, and none may be missing.

Pages go to ``docs/reference``, which git ignores. Names in code on other pages, such as
``wh.Influence``, become links into the reference.
"""

from __future__ import annotations

import importlib
import inspect
import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from docstrings import complaints
from docutils import nodes
from public_names import canonical, found_object, public_names
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util import logging

LOGGER = logging.getLogger(__name__)

SECTIONS = {
    "core": ("whence", "The core"),
    "pinn": ("whence.pinn", "Physics-informed networks"),
    "helpers": ("whence.pinn.helpers", "Vector calculus in equations"),
    "plots": ("whence.plots", "Figures"),
    "evaluation": ("whence.evaluation", "Evaluation"),
    "explore": ("whence.explore", "The explorer"),
    "adapters": ("whence.adapters", "Adapters to other libraries"),
    "compat": ("whence.compat", "Names of other libraries"),
    "more": ("", "Named by the catalogue and in the pages"),
}
"""File, module that names are taken from, and title; the last has what is of no other module."""

GROUPS = (
    ("whence.attribution.quantities", "Quantities: what is explained"),
    ("whence.attribution", "Methods and attributions"),
    ("whence.curvature", "Curvature and solvers"),
    ("whence.evaluation", "Checks by retraining"),
    ("whence.refits", "Checks by retraining"),
    ("whence.subsets", "Checks by retraining"),
    ("whence.pinn.geometry", "Domains"),
    ("whence.pinn.networks", "Networks"),
    ("whence.pinn.optimizers", "Optimizers"),
    ("whence.pinn.pde.field_algebra", "Fields and vectors"),
    ("whence.pinn.pde.helpers", "Operators"),
    ("whence.pinn.pde", "Problems, equations and conditions"),
    ("whence.pinn.sampling", "Training points: scores, selections, resampling"),
    ("whence.pinn.training", "Training, runs and recipes"),
    ("whence.pinn.weighting", "Weights of loss terms"),
    ("whence.pinn.settings", "Published protocols"),
    ("whence.pinn.zoo", "The zoo of problems"),
    ("whence.pinn.diagnosis", "Diagnosis"),
    ("whence.diagnosis.indicators", "Indicators"),
    ("whence.diagnosis.remedies", "Remedies of a diagnosis"),
    ("whence.diagnosis", "Diagnosis"),
    ("whence.studies", "Studies"),
    ("whence.catalogue", "The catalogue"),
    ("whence.plots", "Figures"),
    ("whence.explore", "Sessions"),
    ("whence.adapters.deepxde", "DeepXDE"),
    ("whence.adapters.pina", "PINA"),
    ("whence.adapters.sklearn", "scikit-learn and skorch"),
    ("whence.adapters.huggingface", "Hugging Face"),
    ("whence.adapters.lightning", "Lightning"),
    ("whence.compat", "Names of other libraries"),
    ("whence.adapters", "Other libraries"),
)
"""Headings by the module that defines a name, the most special first."""

OTHER = "Objectives, data and losses"

ALIASES = {"Data"}
"""Type aliases in signatures that are called like a public class which they do not mean."""

SHORT = {"wh": "whence", "pinn": "whence.pinn", "plots": "whence.plots"}
"""How modules are called on the pages."""


def heading_of(name: str) -> str:
    """Return the heading under which a public name stands."""
    home = canonical(name)
    for module, heading in GROUPS:
        if home.startswith(f"{module}."):
            return heading
    return OTHER


def section_of(name: str) -> str:
    """Return the file that has a public name."""
    module = name.rpartition(".")[0]
    for section, (home, _) in SECTIONS.items():
        is_inside = section in ("adapters", "compat") and module.startswith(home)
        if module == home or is_inside:
            return section
    return "more"


def write_pages(app: Sphinx, config: Any) -> None:
    """Write the reference's pages before sphinx looks for its sources."""
    folder = Path(app.srcdir) / "reference"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()

    names = public_names()
    index = [title("API reference", "="), INTRODUCTION, *toctree(SECTIONS)]
    for section, (module, caption) in SECTIONS.items():
        chosen = [name for name in names if section_of(name) == section]
        write_section(folder, section, module, caption, chosen)
    write(folder / "index.rst", index)


INTRODUCTION = """\
Every public name, written from the code. ``import whence as wh`` and ``from whence import pinn,
plots`` are how the pages call them; what has a name of its own on the command line is listed with
its options in :doc:`the catalogue </catalogue>`.
"""


def write_section(
    folder: Path, section: str, module: str, caption: str, names: list[str]
) -> None:
    """Write the page of a module, and one for each of its headings where it has several."""
    by_heading: dict[str, list[str]] = {}
    for name in names:
        by_heading.setdefault(heading_of(name), []).append(name)

    lines = [title(caption, "=")]
    if module:
        lines += [inspect.getdoc(importlib.import_module(module)) or "", ""]

    if len(by_heading) == 1:
        write(folder / f"{section}.rst", [*lines, *described(names)])
        return

    files = {f"{section}_{slug(heading)}": heading for heading in by_heading}
    for file, heading in files.items():
        chosen = by_heading[heading]
        write(folder / f"{file}.rst", [title(heading, "="), *described(chosen)])
        lines += [title(heading, "-"), *table(chosen)]
    write(folder / f"{section}.rst", [*lines, *toctree(files, is_hidden=True)])


def described(names: list[str]) -> list[str]:
    """Return a table of names, then each with its docstring."""
    lines = table(names)
    for name in names:
        kind = "class" if inspect.isclass(found_object(name)) else "function"
        lines += [f".. auto{kind}:: {name}", ""]
    return lines


def table(names: list[str]) -> list[str]:
    """Return a table of names with what each is in one line."""
    return [
        ".. autosummary::",
        "   :nosignatures:",
        "",
        *(f"   ~{n}" for n in names),
        "",
    ]


def toctree(files: Iterable[str], is_hidden: bool = False) -> list[str]:
    """Return a table of contents."""
    look = "   :hidden:" if is_hidden else "   :maxdepth: 2"
    return [".. toctree::", look, "", *(f"   {file}" for file in files), ""]


def slug(text: str) -> str:
    """Return a heading as part of a file's name."""
    return re.sub(r"[^a-z]+", "_", text.lower()).strip("_")


def title(text: str, line: str) -> str:
    """Return a title of reStructuredText."""
    return f"{text}\n{line * len(text)}\n"


def write(path: Path, lines: list[str]) -> None:
    """Write a page."""
    path.write_text("\n".join(lines) + "\n")


# --- links ----------------------------------------------------------------------------------------


def link_code(app: Sphinx, tree: nodes.document) -> None:
    """Make references of inline code that is the name of something public."""
    aliases = "|".join(SHORT)
    pattern = re.compile(rf"^(?:({aliases})|whence)((?:\.\w+)+)(?:\(.*)?$", flags=re.S)
    for literal in list(tree.findall(nodes.literal)):
        match = pattern.match(literal.astext())
        if match is None or isinstance(
            literal.parent, nodes.reference | addnodes.pending_xref
        ):
            continue

        target = SHORT.get(match[1] or "", "whence") + match[2]
        reference = addnodes.pending_xref(
            "", refdomain="py", reftype="obj", reftarget=target, refexplicit=True,
            refwarn=False, refdoc=app.env.docname,
        )  # fmt: skip
        literal.replace_self(reference)
        reference += literal


def unlink_aliases(app: Sphinx, tree: nodes.document) -> None:
    """Make plain text of references to type aliases."""
    for reference in list(tree.findall(addnodes.pending_xref)):
        is_type = (
            reference.get("refdomain") == "py" and reference.get("reftype") == "class"
        )
        if is_type and reference["reftarget"] in ALIASES:
            reference.replace_self(nodes.Text(reference["reftarget"]))


def resolve(app: Sphinx, env: Any, node: Any, content: nodes.Element) -> Any:
    """Find what is documented under its public name and referred to by where it is defined."""
    if node.get("refdomain") != "py":
        return None

    sought = node["reftarget"].lstrip(".")
    # A method of what is public is where its class is.
    home, _, method = sought.rpartition(".")
    target = app.config.whence_public.get(sought)
    if target is None and home in app.config.whence_public:
        target = f"{app.config.whence_public[home]}.{method}"
    if target is None:
        if sought.startswith("whence."):
            LOGGER.info("no page for %s, which %s speaks of", sought, node["refdoc"])
        return None

    domain = env.get_domain("py")
    return domain.resolve_xref(
        env, node["refdoc"], app.builder, "obj", target, node, content
    )


def public_by_home(app: Sphinx, config: Any) -> None:
    """Remember each public name by where it is defined."""
    config.whence_public = {canonical(name): name for name in public_names()}


def is_foreign(
    app: Sphinx, what: str, name: str, thing: Any, skip: bool, options: Any
) -> bool | None:
    """Leave out what a class has from bases of other packages, which document it themselves."""
    if isinstance(thing, property):
        thing = thing.fget
    home = getattr(thing, "__module__", None) or "builtins"
    is_elsewhere = not home.startswith("whence")
    return True if inspect.isroutine(thing) and is_elsewhere else None


def check_complete(app: Sphinx, error: Exception | None) -> None:
    """Warn of every public name that the reference lacks, and of what docstrings lack."""
    if error is not None or app.builder.name != "html":
        return

    documented = app.env.get_domain("py").objects
    names = public_names()
    for name in names:
        if name not in documented:
            LOGGER.warning("the reference lacks the public name %s", name)
        for complaint in complaints(name):
            LOGGER.warning(complaint)
    LOGGER.info("the reference has all %d public names", len(names))


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect what this module does with sphinx's build."""
    app.add_config_value("whence_public", {}, "")
    app.connect("config-inited", write_pages)
    app.connect("config-inited", public_by_home)
    app.connect("autodoc-skip-member", is_foreign)
    app.connect("doctree-read", link_code)
    app.connect("doctree-read", unlink_aliases)
    app.connect("missing-reference", resolve)
    app.connect("build-finished", check_complete)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
