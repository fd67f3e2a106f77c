"""How Sphinx builds the documentation: ``make docs``."""

import os
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "_extensions"), str(HERE.parent)]

import whence  # noqa: E402

# Small tensors are slower on several threads, the more so beside other work.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["TQDM_DISABLE"] = "1"  # bars are no output of an example
os.environ.setdefault("DDE_BACKEND", "pytorch")  # which the adapter to DeepXDE needs

project = "whence"
author = "the authors of whence"
project_copyright = author
version = release = whence.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
    "reference_pages",
]
exclude_patterns = ["_build", "_extensions", "**/GALLERY_HEADER.rst"]

# --- pages ----------------------------------------------------------------------------------------

myst_enable_extensions = ["colon_fence", "deflist", "smartquotes"]
myst_heading_anchors = 3
highlight_language = "none"  # a block says what it is in, or is output

# --- reference ------------------------------------------------------------------------------------

autosummary_generate = False
autodoc_default_options = {
    "members": True,
    "inherited-members": True,  # those of whence alone, see reference_pages
}
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_typehints_format = "short"
toc_object_entries_show_parents = "hide"
autodoc_member_order = "bysource"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 80
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True

# --- gallery --------------------------------------------------------------------------------------

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "gallery",
    "subsection_order": [
        "../examples/physics",
        "../examples/influence",
        "../examples/supervised",
        "../examples/trust",
        "*",
    ],
    # Examples of one file each, run from the command line, are no pages.
    "ignore_pattern": r"^(?!plot_)",
    "filename_pattern": r"plot_",
    "image_scrapers": ("figures.scrape",),
    "reset_modules": ("figures.reset",),
    "capture_repr": (),
    "remove_config_comments": True,
    "show_memory": False,
    "min_reported_time": 0,
    "first_notebook_cell": "%matplotlib inline",
    "copyfile_regex": "",
    "write_computation_times": False,
    "plot_gallery": "True",
    "doc_module": ("whence",),
    "backreferences_dir": "gallery/backreferences",
}

# --- site -----------------------------------------------------------------------------------------

html_theme = "furo"
pygments_style = "friendly"
pygments_dark_style = "github-dark"
html_title = f"whence {version}"
html_static_path = ["_static"]
html_css_files = ["whence.css"]
html_theme_options = {
    "light_css_variables": {
        "color-brand-primary": "#0072B2",
        "color-brand-content": "#0072B2",
    },
    "dark_css_variables": {
        "color-brand-primary": "#56B4E9",
        "color-brand-content": "#56B4E9",
    },
}
