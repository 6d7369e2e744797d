"""A page loads the scripts of the interactive figures that it has, and no others."""

import re

FIGURE = re.compile(r'class="explore(?: instead)?" data-figure="([a-z]+)"')


def add_scripts(app, page, template, context, doctree):
    figures = dict.fromkeys(FIGURE.findall(context.get("body", "")))
    for name in ("shared", *figures) if figures else ():
        app.add_js_file(f"explore/{name}.js", loading_method="defer")


def setup(app):
    app.connect("html-page-context", add_scripts)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
