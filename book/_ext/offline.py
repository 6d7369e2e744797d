"""A page of this book asks nothing of the network: MathJax comes along, live-code scripts stay out."""

import importlib.util
import shutil
from pathlib import Path

from docutils import nodes

PARTS = ("tex-chtml.js", "output/chtml/fonts/woff-v2", "input/tex/extensions")  # 2 MB of the package's 24


def copy_mathjax(app):
    package = importlib.util.find_spec("sphinx-mathjax-offline").submodule_search_locations[0]
    source, target = Path(package) / "static" / "mathjax", Path(app.outdir) / "_static" / "mathjax"
    for part in PARTS:
        if (source / part).is_dir():
            shutil.copytree(source / part, target / part, dirs_exist_ok=True)
        else:
            target.mkdir(parents=True, exist_ok=True)
            shutil.copy(source / part, target / part)


# Jupyter Book always loads thebe, which names a script on a public server; without a kernel it has no use.


def drop_thebe_nodes(app, doctree, page):
    for node in list(doctree.findall(nodes.raw)):
        if "thebe" in node.rawsource + node.astext() or node.astext().startswith("<script>kernelName"):
            node.parent.remove(node)


def drop_thebe_files(app, page, template, context, doctree):
    for kind in ("script_files", "css_files"):
        context[kind] = [file for file in context[kind] if "thebe" not in str(getattr(file, "filename", "") or "")
                         and "thebe" not in str(getattr(file, "attributes", {}).get("body", ""))]


def mend_single_page(app):
    """Handlers registered for the one-page builder hide those for HTML there; it should know both."""
    handlers = app.registry.translation_handlers
    if "singlehtml" in handlers:
        handlers["singlehtml"] = {**handlers.get("html", {}), **handlers["singlehtml"]}


def setup(app):
    app.connect("builder-inited", copy_mathjax)
    app.connect("builder-inited", mend_single_page)
    app.connect("doctree-resolved", drop_thebe_nodes, priority=900)
    app.connect("html-page-context", drop_thebe_files, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
