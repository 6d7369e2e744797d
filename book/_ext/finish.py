"""What is done to the built pages, in this order. Each page is read once, handed from step to step, and written once."""

from pathlib import Path

import access
import around
import finding
import folds
import links
import offline
import panels
import previews
import symbols


def each(change):
    """The step that changes each page by itself."""
    return lambda app, pages: pages.update({name: change(text) for name, text in pages.items()})


MENDS = (each(offline.lean), each(access.mend))  # what the one page that is printed needs too
STEPS = (MENDS[0], links.number_the_claims, panels.stack_panels, each(folds.fold), MENDS[1], symbols.mark_symbols, finding.write_search,
         previews.write_previews, around.write_around)


def finish_pages(app, failure):
    """A step is handed the text of every page by its address without ``.html``, as ``book/claims``, and changes or adds some."""
    if failure or app.builder.format != "html":
        return
    out = Path(app.outdir)
    built = {path.relative_to(out).with_suffix("").as_posix(): path.read_text(encoding="utf-8") for path in out.rglob("*.html")}
    pages = dict(sorted(built.items()))
    for step in STEPS if app.builder.name == "html" else MENDS:
        step(app, pages)
    for name, text in pages.items():
        if text != built.get(name):
            (out / f"{name}.html").write_text(text, encoding="utf-8")


def setup(app):
    app.connect("build-finished", finish_pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
