"""What the page of search looks through: titles, statements, figures and texts of the built pages, as one script without TeX."""

import html
import json
import re
from pathlib import Path
from xml.etree import ElementTree

from folds import end_of_box

OPERATORS = "=≤≥<>≠≈→∈+−⊂∝↦"
ACCENTS = "¯ˆ^~˜˙˙.→‾_⏞⏟"
HEADING = re.compile(r'<section id="([^"]+)">\s*(?:<span id="[^"]*"></span>\s*)*<h([123])>(.*?)</h\2>', re.S)
BOX = re.compile(r'<div class="(?:proof|exercise) [^"]*" id="([^"]+)">\s*<p class="admonition-title">(.*?)</p>', re.S)
FIGURE = re.compile(r'<figure [^>]*id="([^"]+)">.*?<figcaption>\s*<p><span class="caption-number">(.*?)</span>(.*?)</figcaption>'
                    r"\s*</figure>", re.S)
NAME = re.compile(r'<dt class="sig[^"]*" id="([^"]+)">.*?</dt>\s*<dd>(.*?)(?:</p>|</dd>)', re.S)
UNREAD = re.compile(r"<(script|style|svg|pre|nav)\b.*?</\1>|<a class=\"headerlink\".*?</a>|<span class=\"eqno\">.*?</span>"
                    r"|<summary.*?</summary>|<p class=\"in-library\">.*?</p>", re.S)


def group(text):
    text = text.replace(" ", "")
    return text if len(text) == 1 or re.fullmatch(r"-?\d+|\w+", text) else f"({text})"


def plain(node):
    """The formula in letters: ``W_N``, ``s^(2/N)``, ``σ``."""
    parts = [plain(child) for child in node if child.tag != "annotation"]
    if node.tag in ("mi", "mn", "mo", "mtext"):
        text = (node.text or "").strip() if node.tag != "mtext" else node.text or ""
        return f" {text} " if node.tag == "mo" and text and text in OPERATORS else text
    if node.tag in ("msub", "munder"):
        return f"{parts[0]}_{group(parts[1])}"
    if node.tag in ("msup", "mover"):
        return parts[0] if parts[1].strip() in ACCENTS else f"{parts[0]}^{group(parts[1])}"
    if node.tag in ("msubsup", "munderover"):
        return f"{parts[0]}_{group(parts[1])}^{group(parts[2])}"
    if node.tag == "mfrac":
        return f"{group(parts[0])}/{group(parts[1])}"
    if node.tag == "msqrt":
        return f"√({''.join(parts)})"
    return "".join(parts) + {"mspace": " ", "mtr": "; ", "mtd": " "}.get(node.tag, "")


def read_formula(text):
    return ElementTree.fromstring(re.sub(r"&(?!lt;|gt;|amp;|#)\w+;", lambda found: html.unescape(found[0]), text))


def words(fragment):
    """The text of a piece of a page."""
    text = UNREAD.sub(" ", fragment)
    text = re.sub(r"(?s)<math\b.*?</math>", lambda found: html.escape(plain(read_formula(found[0]))), text)
    text = re.sub(r"</?(?:span|a|em|strong|b|i|code|sub|sup)\b[^>]*>", "", text)
    text = html.unescape(re.sub(r"<[^>]*>", " ", text)).replace("\u2061", "")  # the sign of an applied function, which nobody sees
    return re.sub(r"\s+([,.;:)])", r"\1", " ".join(text.split()))


def entries(page, text):
    """The entries of a page: address, kind, title, text; the page itself first."""
    text = text[text.index("<article"):text.index("</article>")]
    found, inside = [], []
    for kind, pattern in (("statement", BOX), ("figure", FIGURE), ("name", NAME)):
        while box := pattern.search(text):
            end = end_of_box(text, box.end()) if kind == "statement" else box.end()
            if kind == "statement":
                title, body = words(box[2]), words(text[box.end():end])
            else:
                title, body = (words(box[2]), words(box[3])) if kind == "figure" else (box[1], words(box[2]))
            inside.append([f"{page}.html#{box[1]}", kind, title, body])
            text = text[:box.start()] + " " + text[end:]
    parts = HEADING.split(text)[1:]
    for anchor, level, title, body in zip(*(parts[i::4] for i in range(4))):
        address = f"{page}.html" + (f"#{anchor}" if level != "1" else "")
        found.append([address, "page" if level == "1" else "section", words(title), words(body)])
    return found + inside


def write_search(app, pages):
    rows = []
    for page in contents(app):
        rows += entries(page, pages[page])
    data = json.dumps(rows, ensure_ascii=False, separators=(",", ":"))
    Path(app.outdir, "_static", "search-data.js").write_text(f"const SEARCHED = {data};\n", encoding="utf-8")
    if "search-data.js" not in pages["search"]:
        scripts = "".join(f'<script defer src="_static/{name}.js"></script>\n' for name in ("search-data", "search"))
        pages["search"] = pages["search"].replace("</head>", f"{scripts}</head>", 1)


def contents(app):
    """The pages in the order of the table of contents."""
    root = app.config.root_doc
    seen = [root]
    for page in seen:
        seen += [name for name in app.env.toctree_includes.get(page, []) if name not in seen]
    return seen
