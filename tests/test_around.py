"""What stands around a page: links only where they lead somewhere, a citation that parses, copies that install the library."""

import re
import sys
from pathlib import Path

import nbformat
import pytest
from PIL import Image
from pybtex.database import parse_string

import card
import launch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "book" / "_ext"))
import around  # noqa: E402  # beside the build

PAGE = ('<html><head><title>T</title></head><body><article class="bd-article"><h1><span>3. </span>The theorem<a class="headerlink" '
        'href="#t">#</a></h1>\n<table><p>A cell that is as long as a paragraph, or longer.</p></table><p>Short.</p>\n'
        '<p>It is "so" in a long paragraph, first &amp; <math><semantics><msub><mi>W</mi><mi>N</mi></msub><annotation>W_N</annotation>'
        "</semantics></math>.</p></article></body></html>")
REPOSITORY = "https://github.com/Owner/depth.book"


def test_without_a_repository_no_link_stands_there():
    text = around.around(PAGE, "book/03-x", "03-x.ipynb", "", False)
    assert "<p class=\"around\">" not in text and "github" not in text and "book.pdf" not in text
    assert '<meta name="description" content="It is &quot;so&quot; in a long paragraph, first &amp; W_N." />' in text
    assert around.around(text, "book/03-x", "03-x.ipynb", "", False) == text


def test_one_setting_gives_all_links():
    text = around.around(PAGE, "book/03-x", "03-x.ipynb", REPOSITORY, True)
    found = dict(re.findall(r'<a href="([^"]+)">([^<]+)</a>', text))
    assert found == {"https://colab.research.google.com/github/Owner/depth.book/blob/launch/book/03-x.ipynb": "Open in Colab",
                     f"{REPOSITORY}/blob/main/book/03-x.ipynb": "Source", f"{REPOSITORY}/edit/main/book/03-x.ipynb": "Edit",
                     f"{REPOSITORY}/issues/new?title=book/03-x.ipynb%3A%20": "Report an issue", "../book.pdf": "PDF of the book"}
    assert "Colab" not in around.around(PAGE, "book/n", "n.md", REPOSITORY, False)
    assert around.site(REPOSITORY) == "https://owner.github.io/depth.book/" and around.site("https://example.org/x") == ""


def test_a_card_is_named_by_its_whole_address_or_not_at_all():
    known, unknown = (around.around(PAGE, "book/03-x", "03-x.ipynb", repository, False) for repository in (REPOSITORY, ""))
    found = dict(re.findall(r'<meta (?:name|property)="((?:og|twitter):[^"]+)" content="([^"]*)" />', known))
    assert found["og:image"] == "https://owner.github.io/depth.book/_static/card.png" and found["twitter:card"] == "summary_large_image"
    assert found["og:url"] == "https://owner.github.io/depth.book/book/03-x.html"
    assert (int(found["og:image:width"]), int(found["og:image:height"])) == card.SIZE
    assert "og:image" not in unknown and "og:url" not in unknown and '"twitter:card" content="summary" ' in unknown


def test_the_card_shows_the_cover_of_today():
    path = ROOT / "book" / "_static" / "card.png"
    with Image.open(path) as picture:
        assert picture.size == card.SIZE and path.stat().st_size <= 60_000
        assert picture.info["cover"] == card.digest_of_cover(), "the cover changed; run: python tools/card.py"


@pytest.mark.parametrize(("page", "title", "kind"), [("book/03-x", "The theorem", "incollection"),
                                                     ("book/index", "Depth as a preconditioner", "book")])
def test_a_page_is_cited_as_bibtex(page, title, kind):
    entry, = parse_string(around.citation(page, title, "https://a.b/"), "bibtex").entries.values()
    assert entry.type == kind and entry.fields["url"] == f"https://a.b/{page}.html" and re.fullmatch(r"\d{4}", entry.fields["year"])
    assert "Depth as a preconditioner" in entry.fields["booktitle" if kind == "incollection" else "title"]
    assert len(entry.persons["author"]) == 1


def test_copies_to_launch_install_the_library_first(tmp_path):
    launch.main(tmp_path, REPOSITORY, "v1.0.0")
    copies = sorted(tmp_path.glob("book/*.ipynb"))
    assert [path.name for path in copies] == sorted(path.name for path in (ROOT / "book").glob("*.ipynb"))
    first, *others = nbformat.read(copies[0], as_version=4).cells
    assert first.source == f'%pip install -q "deeplinear @ git+{REPOSITORY}@v1.0.0"'
    book = nbformat.read(ROOT / "book" / copies[0].name, as_version=4).cells
    assert [cell for cell in others if cell.cell_type == "code"] == [cell for cell in book if cell.cell_type == "code"]
    assert [cell.id for cell in others] == [cell.id for cell in book]
    left = re.compile(r":::|\{[\w:-]+\}`|^\(\S+\)=$|\$\$ *\(eq-|^:label:", re.M)
    for copy in copies:
        for cell in nbformat.read(copy, as_version=4).cells:
            assert cell.cell_type == "code" or not left.search(cell.source), f"{copy.name}, {cell.id}: a reader of Colab sees MyST"
    with pytest.raises(SystemExit, match="expected the address"):
        launch.main(tmp_path, "git@host", "v1")


def test_a_copy_to_launch_says_in_markdown_what_the_book_says_in_directives():
    text = (":::{prf:theorem} Balance\n:label: thm-b\n\nBy {eq}`eq-a`,\n\n$$ a = b $$ (eq-a)\n:::\n\n:::{dropdown} Proof\n"
            "Proof of {prf:ref}`thm-b`.\nSay {cite:p}`du2018, saxe2014`. $\\blacksquare$\n:::\n\n"
            ":::{exercise} Break it\n:label: ex-b\n\nHow?\n:::\n\n"
            ":::{solution-start} ex-b\n:class: dropdown\n:::\n\nSo.\n\n:::{solution-end}\n:::")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("(sec-x)=\n# Layers\n\n" + text)])
    named = launch.names([("07-x", notebook), ("networks", notebook)])
    assert named == {"thm-b": "Theorem 7.1", "eq-a": "(7.1)", "ex-b": "Exercise 7.1", "sec-x": "Layers"}
    said = launch.plain(text, named, launch.works(ROOT / "book" / "references.bib"))
    assert said.startswith("**Theorem 7.1 (Balance).**\n\nBy (7.1),\n\n$$ a = b \\tag{7.1}$$\n\n<details><summary>Proof</summary>\n\n"
                           "Proof of Theorem 7.1.\n")
    assert "Say (Du et al., 2018; Saxe et al., 2014). $\\blacksquare$\n\n</details>" in said
    after = said.split("</details>")[1].split("\n\n")[1:]
    assert after == ["**Exercise 7.1 (Break it).**", "How?", "*Solution of Exercise 7.1.*", "So.", ""]
