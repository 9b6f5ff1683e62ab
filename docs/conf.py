r"""The documentation site: ``make docs`` builds it into docs/_build/html."""

import sys
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from _generate import api, catalogue, pages

import kgat

project = "kgat"
author = "the kgat developers"
copyright = author
version = release = kgat.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx.ext.mathjax",
    "sphinx-mathjax-offline",  # formulas need no network
    "sphinx_copybutton",
    "sphinx_design",
]
exclude_patterns = ["_build", "_generate", "**/.ipynb_checkpoints"]

# Docstrings are written as PyG writes them: types stand in "Args:".
autodoc_typehints = "none"
autodoc_member_order = "bysource"
autosummary_generate = False  # pages are written by _generate/api.py, from each room's __all__
napoleon_custom_sections = ["Shapes"]
napoleon_use_rtype = False
add_module_names = False
toc_object_entries_show_parents = "hide"

myst_enable_extensions = ["amsmath", "colon_fence", "dollarmath"]
myst_heading_anchors = 3

nb_execution_mode = "cache"  # each tutorial runs at the first build, and again when its text changes
nb_execution_cache_path = str(HERE / "_build" / "executed")
nb_execution_timeout = 300
nb_execution_raise_on_error = True
nb_merge_streams = True
nb_output_stderr = "remove"  # that loops are compiled is news once per machine

html_theme = "pydata_sphinx_theme"
html_title = "kgat"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_theme_options: dict[str, Any] = {
    "logo": {"image_light": "_static/logo.svg", "image_dark": "_static/logo.svg", "text": "kgat"},
    "header_links_before_dropdown": 6,
    "navigation_with_keys": False,
    "show_toc_level": 2,
    "secondary_sidebar_items": ["page-toc"],
    "article_header_start": ["breadcrumbs"],
    "footer_start": [],
    "footer_end": [],
    "show_prev_next": True,
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
html_sidebars = {"index": [], "faq": [], "changelog": [], "contributing": []}
html_show_copyright = False
html_copy_source = True


def missing(app: Sphinx, env: Any, node: nodes.Element, inner: nodes.Element) -> None:
    r"""What is named must exist in kgat, if not have a page. Names of torch and PyG are on other sites, which
    would have to be asked."""
    target = str(node.get("reftarget", ""))
    if node.get("refdomain") == "py" and target.split(".")[0] == "kgat" and not api.exists(target):
        logging.getLogger(__name__).warning("'%s' does not exist", target, location=node, type="kgat")


def setup(app: Sphinx) -> None:
    # Before Sphinx looks for sources: these pages are sources.
    folder = Path(app.srcdir)
    api.write(folder / "api")
    catalogue.write(folder / "catalogue")
    pages.write(folder)
    app.connect("missing-reference", missing)
