"""How the pages in this folder become the site: `make docs`, without the net."""

from __future__ import annotations

from importlib.metadata import version as installed

from docutils.nodes import Element, reference
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

project = "flask_chest"
author = "The flask_chest maintainers"
copyright = "The flask_chest maintainers"  # noqa: A001 - Sphinx's name for it
release = version = installed("flask-request-chest")

extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "flask_chest"
html_static_path: list[str] = []
myst_heading_anchors = 3
myst_enable_extensions = ["attrs_inline"]

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "undoc-members": True}
python_use_unqualified_type_names = True

nitpicky = True
# What is not of this package, as no inventory of the net is asked, and names of types.
nitpick_ignore_regex = [
    ("py:.*", r"(?!flask_chest\.).*"),
    ("py:class", r"flask_chest\.(decorator\.View|declared\.V|background\.export_run\.RecordFilter)"),
]


def setup(app: Sphinx) -> None:
    """Have what is exported found by the name under which it is defined, too."""
    app.connect("missing-reference", _exported)


def _exported(app: Sphinx, env: BuildEnvironment, node: pending_xref, shown: Element) -> reference | None:
    name = str(node.get("reftarget", ""))
    if node.get("refdomain") != "py" or not name.startswith("flask_chest."):
        return None
    python = env.domains.python_domain
    found = [each for each in python.objects if each.endswith(f".{name.rpartition('.')[2]}")]
    if len(found) != 1:
        return None
    return python.resolve_xref(env, node["refdoc"], app.builder, "obj", found[0], node, shown)
