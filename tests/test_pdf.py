"""The one page that is printed: links lead inside it, and a table of contents stands in front."""

import re

import pytest

import pdf

PAGE = """<p>Front</p><span id="document-book/01-warm-up"></span><section id="warm-up"><h1>Warm-up<a class="headerlink" href="#x">#</a></h1>
<a href="02-balanced-layers.html">on</a><a href="book/02-balanced-layers.html#thm-x">there</a><a href="../book/claims.html">c</a>
<a href="https://doi.org/10.1/a.html">out</a></section><span id="document-book/02-balanced-layers"></span>
<section id="b"><h2><span>2. </span>Balanced<a class="headerlink" href="#b">#</a></h2><p id="thm-x"></p></section>"""


def test_links_between_pages_become_links_in_the_page():
    text = pdf.own_links(PAGE)
    assert re.findall(r'href="([^"]+)"', text) == ["#x", "#document-book/02-balanced-layers", "#thm-x", "#document-book/claims",
                                                   "https://doi.org/10.1/a.html", "#b"]


def test_the_contents_name_every_chapter_before_the_first():
    text = pdf.with_contents(PAGE)
    contents = text.partition('<nav class="print-contents"')[2].partition("</nav>")[0]
    assert re.findall(r'href="#([^"]+)">(.*?)</a>', contents) == [
        ("document-book/01-warm-up", "Warm-up"), ("document-book/02-balanced-layers", "<span>2. </span>Balanced")]
    assert text.index("Front") < text.index("print-contents") < text.index('<span id="document-book/01-warm-up">')


def test_links_without_a_target_become_words():
    text = pdf.without_dead_links(pdf.own_links(PAGE))
    assert re.findall(r'href="([^"]+)"', text) == ["#document-book/02-balanced-layers", "#thm-x", "https://doi.org/10.1/a.html", "#b"]
    assert "claims" not in text and "\nc\n" not in text and ">there</a>" in text


def test_a_book_without_chapters_is_an_error():
    with pytest.raises(SystemExit, match="has no chapters"):
        pdf.with_contents('<p>Front</p>')


def test_without_a_browser_it_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(pdf.shutil, "which", lambda name: None)
    with pytest.raises(SystemExit, match="none of chromium, chromium-browser, .* is installed"):
        pdf.main(tmp_path / "book.pdf")
