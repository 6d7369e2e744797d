"""The plan of slides and sheets: what it names is in the book, an hour is an hour, and the page for lecturers says the same."""

import json
import re
from pathlib import Path

import pytest
import yaml

import deeplinear as dl
import slides

BOOK = Path(__file__).parents[1] / "book"
PLAN = yaml.safe_load((BOOK / "slides.yml").read_text(encoding="utf-8"))
TEACHING = (BOOK / "teaching.md").read_text(encoding="utf-8")
SOURCES = {page.stem: "\n".join("".join(cell["source"]) for cell in json.loads(page.read_text(encoding="utf-8"))["cells"])
           for page in BOOK.glob("[01]*.ipynb")}
FIGURES = {cell["id"] for page in BOOK.glob("[01]*.ipynb") for cell in json.loads(page.read_text(encoding="utf-8"))["cells"]
           if cell["id"].startswith("fig-")}
LABELS = FIGURES | {name for text in SOURCES.values() for name in re.findall(r"(?<=:label: )\S+|(?<=\()eq-[\w-]+(?=\))", text)}
KEYS = {"title", "minutes", "show", "notes", "board", "ask"}


def pieces(deck):
    return [piece for slide in PLAN[deck]["slides"] for piece in slide["show"] if slides.LABEL.fullmatch(piece)]


@pytest.mark.parametrize("deck", PLAN)
def test_what_a_deck_shows_is_in_the_book(deck):
    assert not set(pieces(deck)) - LABELS
    for slide in PLAN[deck]["slides"]:
        assert {"title", "minutes", "show"} <= set(slide) <= KEYS, slide["title"]
        for text in [slide["title"], *slide["show"], slide.get("board", ""), slide.get("notes", ""), *slide.get("ask", [])]:
            slides.line(text)  # its formulas can be set


def test_an_hour_takes_an_hour_and_a_week_two_lectures():
    minutes = {deck: sum(slide["minutes"] for slide in PLAN[deck]["slides"]) for deck in PLAN}
    assert list(minutes) == ["hour", "week-1", "week-2", "week-3", "week-4"]
    assert 55 <= minutes.pop("hour") <= 60
    assert all(170 <= total <= 180 for total in minutes.values()), minutes


@pytest.mark.parametrize("deck", PLAN)
def test_no_figure_is_shown_twice(deck):
    figures = [piece for piece in pieces(deck) if piece.startswith("fig-")]
    assert len(figures) == len(set(figures))


def hour_rows():
    """When each row of the page's hour begins and ends, and the labels it names in order."""
    hour = TEACHING[TEACHING.index("## One hour"):TEACHING.index("## Four weeks")]
    return [(int(begins), int(ends), re.findall(r"\{prf:ref\}`([\w-]+)`", rest), re.findall(r"\{numref\}`([\w-]+)`", rest))
            for begins, ends, rest in re.findall(r"^\| (\d+) to (\d+) \|(.*)$", hour, re.M)]


def test_the_hour_is_the_one_of_the_page_for_lecturers():
    clock, at, shown = 0, 0, {}
    rows = hour_rows()
    for slide in PLAN["hour"]["slides"]:
        while clock >= rows[at][1]:
            at += 1
        shown.setdefault(at, []).extend(slide["show"])
        clock += slide["minutes"]
        assert clock <= rows[at][1], f"{slide['title']} runs beyond minute {rows[at][1]}"
    assert clock == rows[-1][1]
    for at, (_, _, statements, figures) in enumerate(rows):
        assert [piece for piece in shown[at] if piece.startswith("fig-")] == figures
        assert [name for name in statements if name.startswith("thm-")] == [name for name in shown[at] if name.startswith("thm-")]
    index = (BOOK / "index.md").read_text(encoding="utf-8")
    hour = index[index.index("**You have an hour.**"):index.index("**You want the story.**")]
    words = {"four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8}
    assert words[re.search(r"(\w+) pictures", hour)[1]] == sum(len(row[3]) for row in rows)
    assert words[re.search(r"(\w+) theorems", hour)[1]] == sum(name.startswith("thm-") for row in rows for name in row[2])


def test_board_times_are_those_of_the_page_for_lecturers():
    rows = dict(re.findall(r"^\| \{prf:ref\}`([\w-]+)` \| (\d+) \|", TEACHING, re.M))
    assert len(rows) >= 20
    timed = {}
    for week in range(1, 5):
        for slide in PLAN[f"week-{week}"]["slides"]:
            proved = [piece for piece in slide["show"] if piece.startswith(("thm-", "lem-", "cor-", "prop-"))]
            said = re.findall(r"(?:([a-z]+-[a-z-]+), )?(?:[a-z 0-9]+, )?(\d+) minutes", slide.get("board", ""))
            timed |= {name or proved[0]: minutes for name, minutes in said if name or proved}
            assert not said or sum(int(minutes) for _, minutes in said) <= slide["minutes"], slide["title"]
    assert rows == timed


def test_every_data_set_has_a_card_with_its_size():
    for name in ("diabetes", "macrodata", "mnist-5k", "ethanol", "mnist", "mnist-test"):
        assert name in dl.data.SETS and f"| `{name}` |" in TEACHING, name
    assert set(re.findall(r"^\| `([\w-]+)` \|", TEACHING[TEACHING.index("## The data"):], re.M)) == set(dl.data.SETS)
    for name in ("diabetes", "macrodata", "mnist-5k"):
        rows, columns = dl.data.load(name).X.shape
        assert f"| `{name}` | {rows} by {columns}" in TEACHING, name


PAGE = """<html><body><a href="x.html#thm-a">link</a>
<div class="proof" id="thm-a"><p class="admonition-title">Theorem 1.1</p><section id="proof-content"><div class="math" id="equation-eq-a">
<span class="eqno">(1.1)<a class="headerlink" href="#equation-eq-a">#</a></span><div class="formula"><math>a</math></div></div></section>
<p class="in-library">In the library: <a href="api.html">f</a></p></div>
<figure class="align-default" id="fig-a"><img alt="a line" src="../_images/abc.svg" /><span class="panels"><svg><image/></svg></span>
<figcaption><p><span class="caption-number">Fig. 1.1 </span><span class="caption-text">What it shows.</span></p></figcaption></figure>
</body></html>"""


@pytest.fixture
def book(tmp_path):
    (tmp_path / "book").mkdir()
    (tmp_path / "book" / "01-a.html").write_text(PAGE)
    return slides.Book(tmp_path)


def test_a_piece_is_whole_and_stands_alone(book):
    piece = book.piece("thm-a")
    assert piece.startswith('<div class="proof">') and piece.endswith("</div>") and piece.count("<div") == piece.count("</div>")
    for gone in ("<a", "headerlink", "section", "In the library", ' id="'):
        assert gone not in piece
    assert "(1.1)" in piece and "(1.1)" in book.piece("eq-a") and "Theorem" not in book.piece("eq-a")
    figure, caption = book.figure("fig-a")
    assert 'src="figures/abc.svg"' in figure and 'alt="a line"' in figure and "panels" not in figure
    assert caption.startswith("Fig. 1.1") and "What it shows." in caption
    with pytest.raises(KeyError, match="thm-b is on no page"):
        book.piece("thm-b")


def test_a_slide_says_when_it_begins_and_what_to_ask(book):
    text = slides.slide(book, {"title": "A $b$ & *c*", "minutes": 3, "show": ["thm-a"], "ask": ["Why?"], "board": "5 minutes"}, 7)
    assert 'data-timing="180"' in text and "Minutes 7 to 10." in text and "Ask: Why?" in text and "Board: 5 minutes" in text
    assert "<em>c</em>" in text and "&amp;" in text and "<math>" in text and text.count("<section") == 1


def test_names_become_links_where_the_file_is_there(tmp_path):
    name = '<code class="docutils literal notranslate">slides/hour.html</code>'
    (tmp_path / "book").mkdir()
    page, folder = tmp_path / "book" / "teaching.html", tmp_path / "slides"
    page.write_text(name)
    slides.link(folder, tmp_path)
    assert page.read_text() == name
    folder.mkdir()
    (folder / "hour.html").touch()
    for _ in range(2):
        slides.link(folder, tmp_path)
        assert page.read_text() == f'<a class="deck" href="../slides/hour.html">{name}</a>'


def test_without_the_book_or_the_package_it_says_so(monkeypatch, tmp_path):
    with pytest.raises(SystemExit, match="make book"):
        slides.main(site=tmp_path)
    monkeypatch.setattr(slides.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match="make slides"):
        slides.reveal()
