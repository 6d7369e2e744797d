"""Statements, equations, figures, references and rows of the notation as they stand on the pages, in one script a page, for previews
of links to them."""

import json
import re
from pathlib import Path

from folds import end_of_box

LINK = re.compile(r'<a class="[^"]*\binternal\b[^"]*" href="([^"#]*)\.html#([^"]+)"|<a href="([^"#]*)\.html#([^"]+)" title=')
SHOWN = r'<(div|figure|dl|tr)\b(?=[^>]* class="(?:proof|exercise|math|citation)\b|[^>]* id="(?:fig|symbol)-)[^>]* id="{}"[^>]*>'


def piece(text, anchor):
    """What stands at the anchor, without the names that would then stand on a page twice; None for a section or a cell."""
    found = re.search(SHOWN.format(re.escape(anchor)), text)
    if not found:
        return None
    end = end_of_box(text, found.end(), found[1]) + len(f"</{found[1]}>")
    shown = re.sub(r'<a class="headerlink".*?</a>|<p class="in-library">.*?</p>', "", text[found.start():end], flags=re.S)
    shown = re.sub(r"<[a-z][^>]*>", lambda tag: re.sub(r' (?:id|role|data-symbol)="[^"]*"', "", tag[0]), shown)
    return f"<table><tbody>{shown}</tbody></table>" if found[1] == "tr" else shown


def write_previews(app, pages):
    texts = {name.removeprefix("book/"): text for name, text in pages.items() if name.startswith("book/")}
    wanted = {}
    for name, text in texts.items():
        for page, anchor, table_page, table_anchor in LINK.findall(text):
            wanted.setdefault(page or table_page or name, set()).add(anchor or table_anchor)
        for anchor in re.findall(r'<a class="[^"]*\binternal\b[^"]*" href="#([^"]+)"', text):
            wanted.setdefault(name, set()).add(anchor)
    wanted.setdefault("notation", set()).update(re.findall(r'<tr id="(symbol-[^"]+)"', texts["notation"]))
    target = Path(app.outdir) / "_static" / "previews"
    target.mkdir(exist_ok=True)
    for name in sorted(set(wanted) & set(texts)):
        shown = {anchor: piece(texts[name], anchor) for anchor in sorted(wanted[name])}
        shown = {anchor: text for anchor, text in shown.items() if text}
        if shown:
            data = json.dumps(shown, ensure_ascii=False, separators=(",", ":"))
            (target / f"{name}.js").write_text(f'previews("{name}", {data});\n', encoding="utf-8")
