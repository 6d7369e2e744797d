"""Slides and problem sheets from the built book: its own statements, figures and exercises, by the plan book/slides.yml.

    python tools/slides.py             slides: _build/html/slides/hour.html, week-1.html ... week-4.html
    python tools/slides.py --sheets    problem sheets: _build/html/slides/sheet-1.pdf, sheet-1-solved.pdf, ...

Run after `make book`. The slides need the reveal.js in the package sphinx-revealjs and open from the folder, without a network: right
arrow goes on, f fills the screen, s opens the notes with the clock. The sheets need Chromium or Chrome.
"""

import html
import importlib.util
import re
import shutil
import sys
from pathlib import Path

import yaml

import pdf

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "book" / "_ext"))
import maths  # noqa: E402
from folds import end_of_box  # noqa: E402

LABEL = re.compile(r"(?:thm|lem|cor|prop|def|emp|fig|eq|ex)-[a-z0-9-]+")
MACROS = maths.commands(yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))["sphinx"]["config"]["maths_macros"])
ROOM = "1280", "720"  # of a slide, in pixels

DECK = """<!DOCTYPE html>
<html lang="en" data-theme="light"><head><meta charset="utf-8"><title>{title}</title>
<link rel="stylesheet" href="reveal/reveal.css"><link rel="stylesheet" href="fonts.css"><link rel="stylesheet" href="slides.css"></head>
<body class="deck"><div class="reveal"><div class="slides">
{slides}
</div></div>
<script src="reveal/reveal.js"></script><script src="reveal/notes.js"></script>
<script>
// Type as large as its slide allows; then the deck starts.
const sections = [...document.querySelectorAll("section")];
sections.forEach((slide) => {{ slide.style.display = "block"; }});
document.fonts.ready.then(() => Promise.all([...document.images].map((image) => image.decode().catch(() => 0)))).then(() => {{
  sections.forEach((slide) => {{
    const page = slide.firstElementChild, full = () => page.scrollHeight > page.clientHeight || page.scrollWidth > page.clientWidth
      || [...page.querySelectorAll(".formula, .proof")].some((box) => box.scrollWidth > box.clientWidth + 1);
    for (let size = 31; size > 12 && (page.style.fontSize = `${{size}}px`, full()); size -= 1);
    slide.style.display = "";
  }});
  Reveal.initialize({{ width: {width}, height: {height}, margin: 0, hash: true, center: false, transition: "none", slideNumber: "c/t",
    plugins: [RevealNotes] }});
}});
</script></body></html>
"""
SHEET = """<!DOCTYPE html>
<html lang="en" data-theme="light"><head><meta charset="utf-8"><title>{title}</title>
<link rel="stylesheet" href="fonts.css"><link rel="stylesheet" href="pygments.css"><link rel="stylesheet" href="slides.css"></head>
<body class="sheet"><h1>{title}</h1>
<p class="stars">One star is a few lines, two an idea, three a small project. Numbers are those of <em>Depth as a preconditioner</em>.</p>
{body}
</body></html>
"""


def cut(text, name):
    """The element whose id is ``name``, whole, as it stands in the text of a page."""
    opened = re.search(rf'<(\w+)\b[^>]*\sid="{re.escape(name)}"[^>]*>', text)
    if opened is None:
        raise KeyError(name)
    return text[opened.start():end_of_box(text, opened.end(), opened[1])] + f"</{opened[1]}>"


def without(text, tag, kind):
    """The text without the elements of this tag and class."""
    while found := re.search(rf'<{tag}\b[^>]*class="[^"]*\b{kind}\b[^"]*"[^>]*>', text):
        marked = text[:found.start()] + f'<{tag} id="to-cut">' + text[found.end():]
        text = marked.replace(cut(marked, "to-cut"), "", 1)
    return text


def plain(text):
    """A piece of a page that can stand elsewhere: without links, ids, copies of a figure for phones, and lists of functions."""
    for tag, kind in (("a", "headerlink"), ("span", "panels"), ("p", "in-library")):
        text = without(text, tag, kind)
    text = re.sub(r"</?a\b[^>]*>", "", text)
    text = re.sub(r'(<[^>]*?)\sid="[^"]*"', r"\1", text)
    text = re.sub(r"<(/?)section\b", r"<\1div", text)  # a section would be a slide
    return text.replace('src="../_images/', 'src="figures/')


class Book:
    """The pages of the built book: ``piece(label)`` is a statement, figure, displayed equation or exercise, ready to stand alone."""

    def __init__(self, site=ROOT / "_build" / "html"):
        self.site = site
        self.pages = {page.stem: page.read_text(encoding="utf-8") for page in sorted((site / "book").glob("*.html"))}
        self.where = {}
        for name, text in self.pages.items():
            for found in re.findall(rf'\sid="(?:equation-)?({LABEL.pattern})"', text):
                self.where.setdefault(found, name)

    def raw(self, label):
        if label not in self.where:
            raise KeyError(f"{label} is on no page of the built book")
        return cut(self.pages[self.where[label]], f"equation-{label}" if label.startswith("eq-") else label)

    def piece(self, label):
        return plain(self.raw(label))

    def figure(self, label):
        """The picture with its number, and its caption for the notes."""
        drawn = self.piece(label)
        image = re.search(r"<img\b[^>]*>", drawn)[0]
        number = re.search(r'<span class="caption-number">(.*?)\s*</span>', drawn)[1]
        caption = re.search(r"<p>(.*?)</p>|<span class=\"caption-text\">(.*?)</span>\s*</p>", drawn, re.S)
        words = next(filter(None, caption.groups())) if caption else ""
        image = re.sub(r'\s(?:width|height|style)="[^"]*"', "", image)
        return f'<figure>{image}<figcaption>{number}</figcaption></figure>', f"{number} {words}"

    def exercises(self, chapter):
        """The chapter's title, and its exercises, each with its solution."""
        text = self.pages[chapter]
        title = re.sub(r"<[^>]+>", "", plain(re.search(r"<h1>(.*?)</h1>", text, re.S)[1])).strip()
        found = []
        for label, name in self.where.items():
            if name == chapter and label.startswith("ex-") and 'class="exercise' in self.raw(label)[:60]:
                after = text[text.index(self.raw(label)):]
                folded = re.search(r'<details class="fold solution" id="([^"]+)"', after)
                solution = cut(after, folded[1])
                solution = re.sub(r"<(/?)summary[^>]*>", r"<\1h4>", re.sub(r"<(/?)details[^>]*>", r"<\1div>", plain(solution)))
                found.append((self.piece(label), re.sub(r'<h4>(?:Check|Must fail).*?</h4>', "", solution, flags=re.S)))
        return title, found


def line(text):
    """A line of the plan: words, *stressed* ones, and formulas between dollars."""
    parts = re.split(r"\$([^$]+)\$", text)
    for i, part in enumerate(parts):
        if i % 2:
            parts[i] = maths.mathml(part, False, MACROS, "book/slides.yml")
        else:
            parts[i] = re.sub(r"\*([^*]+)\*", r"<em>\1</em>", html.escape(part, quote=False))
    return "".join(parts)


def shown(book, pieces):
    """What a slide shows, and what its notes add."""
    parts, notes = [], []
    for piece in pieces:
        if not LABEL.fullmatch(piece):
            parts.append(f"<p>{line(piece)}</p>")
        elif piece.startswith("fig-"):
            figure, caption = book.figure(piece)
            parts.append(figure)
            notes.append(caption)
        else:
            parts.append(book.piece(piece))
    return "\n".join(parts), notes


def slide(book, plan, begins):
    """One slide with its notes: when it begins and ends, what is for the board, what to ask, what to say."""
    body, notes = shown(book, plan["show"])
    ends = begins + plan["minutes"]
    said = [f"Minutes {begins} to {ends}."]
    said += [f"Board: {line(plan['board'])}"] if "board" in plan else []
    said += [f"Ask: {line(question)}" for question in plan.get("ask", [])]
    said += [line(plan["notes"])] if "notes" in plan else []
    aside = "".join(f"<p>{part}</p>" for part in said + notes)
    return (f'<section data-timing="{60 * plan["minutes"]}"><div class="page"><h2>{line(plan["title"])}</h2>\n{body}</div>'
            f'<aside class="notes">{aside}</aside></section>')


def deck(book, plan):
    """The page of a deck: its title, then its slides."""
    minutes = sum(part["minutes"] for part in plan["slides"])
    slides = [f'<section data-timing="0"><div class="page first"><h1>{line(plan["title"])}</h1><p>{line(plan["under"])}</p>'
              f'<p class="small">{minutes} minutes. All numbers of statements and figures are those of the book '
              f'<em>Depth as a preconditioner</em>.</p></div></section>']
    clock = 0
    for part in plan["slides"]:
        slides.append(slide(book, part, clock))
        clock += part["minutes"]
    return DECK.format(title=html.escape(plan["title"]), slides="\n".join(slides), width=ROOM[0], height=ROOM[1])


def sheet(book, plan, week, solved):
    """The page of a problem sheet, with or without its solutions."""
    body = []
    for chapter in plan["sheet"]:
        title, exercises = book.exercises(chapter)
        body.append(f"<h2>{title}</h2>")
        body += [exercise + (solution if solved else "") for exercise, solution in exercises]
    title = f"Week {week}: " + ("answer key" if solved else "problems")
    return SHEET.format(title=title, body="\n".join(body))


def reveal():
    """The folder of reveal.js inside the package sphinx-revealjs."""
    package = importlib.util.find_spec("sphinx_revealjs")
    if package is None:
        sys.exit("error: sphinx-revealjs is not installed, which carries reveal.js; `make slides` installs it")
    return Path(package.origin).parent / "_static" / "revealjs"


def furnish(folder, site):
    """What the pages in ``folder`` need beside them: fonts, style sheets, figures."""
    folder.mkdir(parents=True, exist_ok=True)
    for source in (site / "_static" / "fonts.css", site / "_static" / "pygments.css", ROOT / "tools" / "slides.css"):
        shutil.copy(source, folder)
    for page in folder.glob("*.html"):
        for name in set(re.findall(r'src="figures/([^"]+)"', page.read_text(encoding="utf-8"))):
            (folder / "figures").mkdir(exist_ok=True)
            shutil.copy(site / "_images" / name, folder / "figures")


def link(folder, site):
    """On the built page for lecturers the names of slides and sheets lead to those that are there, and to no others."""
    page = site / "book" / "teaching.html"
    name = re.compile(r'(?:<a class="deck" href="[^"]*">)?'
                      r'(<code class="[^"]*">slides/([\w-]+\.(?:html|pdf))</code>)(?:</a>)?')
    text = page.read_text(encoding="utf-8")
    linked = name.sub(lambda found: f'<a class="deck" href="../slides/{found[2]}">{found[1]}</a>' if (folder / found[2]).is_file()
                      else found[1], text)
    if linked != text:
        page.write_text(linked, encoding="utf-8")


def main(sheets=False, folder=None, site=ROOT / "_build" / "html"):
    folder = folder or site / "slides"
    if not (site / "book" / "index.html").is_file():
        sys.exit("error: the book is not built; run: make book")
    book, plan = Book(site), yaml.safe_load((ROOT / "book" / "slides.yml").read_text(encoding="utf-8"))
    folder.mkdir(parents=True, exist_ok=True)
    if sheets:
        for week in range(1, 5):
            for solved in (False, True):
                page = folder / f"sheet-{week}{'-solved' if solved else ''}.html"
                page.write_text(sheet(book, plan[f"week-{week}"], week, solved), encoding="utf-8")
        furnish(folder, site)
        for page in sorted(folder.glob("sheet-*.html")):
            pdf.print_page(page, page.with_suffix(".pdf"))
            page.unlink()  # what remains is the PDF
            print(f"a problem sheet: {page.with_suffix('.pdf')}")
        link(site / "slides", site)
        return
    carried = reveal()
    (folder / "reveal").mkdir(exist_ok=True)
    for source in ("dist/reveal.css", "dist/reveal.js", "plugin/notes/notes.js", "LICENSE"):
        shutil.copy(carried / source, folder / "reveal")
    for name, one in plan.items():
        (folder / f"{name}.html").write_text(deck(book, one), encoding="utf-8")
    furnish(folder, site)
    link(site / "slides", site)  # elsewhere that page does not reach
    print(*(f"slides: {(folder / f'{name}.html').as_uri()}" for name in plan), sep="\n")


if __name__ == "__main__":
    main(sheets="--sheets" in sys.argv[1:])
