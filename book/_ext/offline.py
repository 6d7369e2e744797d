"""A page of this book asks nothing of the network and loads nothing that it does not use; its fonts come with its style sheet."""

import base64
import re
import shutil
from pathlib import Path

from docutils import nodes

FONTS = Path(__file__).parents[1] / "_static" / "fonts"
# Family, weight, style. The icons replace those of the theme: the last rule for a family, weight and style counts.
FACES = {
    "source-serif-400-normal": ("Book Serif", 400, "normal"),
    "source-serif-400-italic": ("Book Serif", 400, "italic"),
    "source-serif-600-normal": ("Book Serif", 600, "normal"),
    "book-math": ("Book Math", 400, "normal"),
    "book-icons": ("Font Awesome 6 Free", 900, "normal"),
}
LOAD_FONTS = 'for (const face of document.fonts) if (face.family.includes("Book")) face.load();'
THEME_FONTS = re.compile(r"@font-face\s*\{[^}]*fontawesome[^}]*\}")
UNUSED_SCRIPTS = re.compile(r'\s*<script defer src="[^"]*scripts/fontawesome\.js[^"]*"></script>')
SEARCH_SCRIPTS = re.compile(r'\s*<script src="[^"]*(?:searchtools|language_data|searchindex)\.js"></script>')  # search.js searches
PRE = re.compile(r'<span class="pre">([^<]*)</span>')  # the tag has no rule of ours; it is a sixth of the library's page
UNCOLOURED = re.compile(r'<span class="(?:n|p|w)">([^<]*)</span>')  # names and commas of code, in the colour of its text
UNUSED_FILES = ("_static/scripts/fontawesome.js*", "_static/**/*.map", "_static/**/*.js.LICENSE.txt", "_static/vendor/fontawesome",
                "_static/fonts/*.woff2", "_static/sphinx-thebe.*", "_static/togglebutton.*", "_static/*webpack-macros.html")


def write_fonts(app):
    """Inside a style sheet fonts are there at the first paint: nothing moves when they come, also from a folder of files."""
    faces = []
    for name, (family, weight, style) in FACES.items():
        data = base64.b64encode((FONTS / f"{name}.woff2").read_bytes()).decode()
        faces.append(f'@font-face {{ font-family: "{family}"; font-weight: {weight}; font-style: {style}; '
                     f"src: url(data:font/woff2;base64,{data}) format(\"woff2\"); }}\n")
    target = Path(app.outdir) / "_static" / "fonts.css"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text("".join(faces), encoding="ascii")


def lean(text):
    for tag in (PRE, UNCOLOURED):
        text = tag.sub(r"\1", text)
    return SEARCH_SCRIPTS.sub("", UNUSED_SCRIPTS.sub("", text))


def drop_unused_files(app, failure):
    if failure or app.builder.format != "html":
        return
    sheet = Path(app.outdir) / "_static" / "styles" / "pydata-sphinx-theme.css"
    sheet.write_text(THEME_FONTS.sub("", sheet.read_text(encoding="utf-8")), encoding="utf-8")
    for pattern in UNUSED_FILES:
        for path in Path(app.outdir).glob(pattern):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


# Jupyter Book always loads thebe, which names a script on a public server; without a kernel it has no use. Folds need no script.


def drop_thebe_nodes(app, doctree, page):
    for node in list(doctree.findall(nodes.raw)):
        if "thebe" in node.rawsource + node.astext() or node.astext().startswith("<script>kernelName"):
            node.parent.remove(node)


def drop_thebe_files(app, page, template, context, doctree):
    for kind in ("script_files", "css_files"):
        context[kind] = [file for file in context[kind] if not any(
            name in f"{getattr(file, 'filename', '')} {getattr(file, 'attributes', {}).get('body', '')}" for name in ("thebe", "toggle"))]


def mend_single_page(app):
    """Handlers registered for the one-page builder hide those for HTML there; it should know both."""
    handlers = app.registry.translation_handlers
    if "singlehtml" in handlers:
        handlers["singlehtml"] = {**handlers.get("html", {}), **handlers["singlehtml"]}


def setup(app):
    app.connect("builder-inited", write_fonts)
    app.add_css_file("fonts.css", priority=400)
    app.add_js_file(None, body=LOAD_FONTS, priority=100)
    app.connect("builder-inited", mend_single_page)
    app.connect("doctree-resolved", drop_thebe_nodes, priority=900)
    app.connect("html-page-context", drop_thebe_files, priority=900)
    app.connect("build-finished", drop_unused_files)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
