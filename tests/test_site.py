"""The built site: complete, whole, and asking nothing of the network. Run after `make book`."""

import html
import json
import re
import runpy
import sys
from pathlib import Path

import pytest
import yaml

import fonts

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "book" / "_ext"))
import symbols  # noqa: E402  # beside the build

SITE = ROOT / "_build" / "html"
TOC = yaml.safe_load((ROOT / "_toc.yml").read_text())
PAGES = [TOC["root"]] + [chapter["file"] for part in TOC["parts"] for chapter in part["chapters"]]
CHAPTERS = [page for page in PAGES if re.search(r"/\d\d-", page)]
CLAIMS = yaml.safe_load((ROOT / "book" / "claims.yml").read_text())

pytestmark = pytest.mark.skipif(not SITE.is_dir(), reason="the site is not built; run: make book")
each_page = pytest.mark.parametrize("page", PAGES)


def read(page):
    return (SITE / f"{page}.html").read_text(encoding="utf-8")


def article(page):
    text = read(page)
    return text[text.index("<article"):text.index("</article>")]


@each_page
def test_page_exists_with_its_content(page):
    text = re.sub(r"<[^>]+>", " ", article(page))
    assert len(text.split()) > 25
    assert "Traceback" not in text and "CellExecutionError" not in text


@each_page
def test_nothing_is_loaded_from_outside(page):
    text = read(page)
    loaded = re.findall(r'<(?:script|img|iframe|source|video|audio)[^>]*\ssrc="([^"]+)"', text)
    loaded += re.findall(r'<link[^>]*\shref="([^"]+)"', text)
    for address in loaded:
        assert not re.match(r"(?:https?:)?//", address), address
        assert (SITE / page).parent.joinpath(address.partition("?")[0].partition("#")[0]).exists(), address
    assert "thebe" not in text.lower() and "unpkg" not in text and "jsdelivr" not in text


def test_styles_and_scripts_load_nothing_from_outside():
    for sheet in SITE.glob("_static/**/*.css"):
        addresses = re.findall(r"url\(['\"]?(?:https?:)?//[^)]*|@import\s+['\"]?(?:https?:)?//", sheet.read_text())
        assert not addresses, f"{sheet.name}: {addresses[:2]}"
    families = re.findall(r'font-family: "([^"]+)"', (SITE / "_static/fonts.css").read_text())
    assert {"Book Serif", "Book Math", "Font Awesome 6 Free"} <= set(families)


@each_page
def test_formulas_are_set_without_a_script(page):
    text = read(page)
    assert "mathjax" not in text.lower() and "katex" not in text.lower() and "fontawesome.js" not in text
    formulas = re.findall(r"<math\b.*?</math>", text, re.S)
    if page in CHAPTERS:
        assert len(formulas) > 100
    for formula in formulas:
        tex = re.search(r'<annotation encoding="application/x-tex">(.+?)</annotation></semantics></math>$', formula, re.S)
        assert tex and not re.search(r"\\(?:R|T|norm|inner)(?![a-zA-Z])", tex[1]), formula  # no command of the book alone
    left = re.sub(r"(?s)<math\b.*?</math>|<(pre|code|script)\b.*?</\1>", "", article(page))
    assert not re.search(r"\\[(\[]|\$[^$\n]*\\[a-z]", left)


def test_the_fonts_have_what_the_pages_draw():
    """Letters of formulas are drawn slanted, from the block of mathematical letters; the rest as they are."""
    for page in PAGES:
        text = read(page)
        for formula in re.findall(r"<math\b.*?<annotation", text, re.S):
            missing = {c for c in html.unescape(re.sub(r"<[^>]+>", "", formula)) if not c.isspace()
                       and not any(first <= ord(c) <= last for first, last in fonts.RANGES)}
            assert not missing, (page, missing, formula)
        icons = {name for name in re.findall(r"\bfa-([a-z-]+)", text)} - {"solid", "lg", "sm", "fw"}
        assert icons <= set(fonts.ICONS), (page, icons - set(fonts.ICONS))


@each_page
def test_links_lead_somewhere(page):
    for written in re.findall(r'<a\b[^>]*\shref="([^"]+)"', article(page)):
        address = html.unescape(written)
        if re.match(r"https://(?:doi\.org|arxiv\.org)/|mailto:", address):
            continue
        assert "://" not in address, address
        target, _, anchor = address.partition("#")
        path = (SITE / page).parent / target if target else SITE / f"{page}.html"
        assert path.exists(), address
        if anchor and path.suffix == ".html":
            assert re.search(rf'id="{re.escape(anchor)}"', path.read_text(encoding="utf-8")), address


@each_page
def test_references_are_resolved(page):
    text = article(page)
    assert not re.search(r"\{(?:prf:ref|eq|ref|numref|cite)[^}]*\}`", text)
    assert "???" not in text and 'class="problematic"' not in text and "system-message" not in text
    assert not re.search(r'class="xref (?:std|prf|eq)[^"]*"><span[^>]*>(?:thm|lem|prop|cor|def|eq|fig)-', text)


@each_page
def test_figures_are_numbered_and_described(page):
    for figure in re.findall(r"<figure\b.*?</figure>", article(page), re.S):
        assert re.search(r'<span class="caption-number">Fig\. [\d.]+', figure)
        alternative = re.search(r'<img[^>]*\balt="([^"]*)"', figure)
        assert alternative and len(alternative[1]) > 40
    assert len(re.findall(r"<img\b", article(page))) == len(re.findall(r"<figure\b", article(page)))


@pytest.mark.parametrize("page", CHAPTERS)
def test_chapters_show_their_outputs_and_fold_their_proofs(page):
    text = article(page)
    number = int(re.search(r"/(\d\d)-", page)[1])
    assert re.search(rf"Theorem {number}\.\d", text)
    assert len(re.findall(r"<details", text)) >= 3
    assert text.count("holds  ") >= 5 and text.count("fails  ") >= 1
    assert text.count('<details class="fold solution"') >= 4 and "solution dropdown" not in text
    checks = re.findall(r'<div class="cell [^"]*\btag_(?:check|control)\b[^>]*>\n(.{30})', text)
    assert checks and set(checks) == {'<details class="fold code"><su'}


def test_every_claim_links_to_its_statement():
    text = article("book/claims")
    for claim in CLAIMS:
        address = f'{claim["chapter"]}.html#{claim["id"]}'
        name = re.search(rf'href="{re.escape(address)}" title="{claim["id"]}">([^<]+)</a>', text)[1]
        assert re.fullmatch(rf'[A-Z][a-z]+ {int(claim["chapter"][:2])}\.[\d.]+', name), (address, name)
        assert f'id="{claim["id"]}"' in read(f'book/{claim["chapter"]}'), address


def test_claims_are_set_and_their_sources_linked():
    text = article("book/claims")
    rows = re.findall(r"<tr>(.*?)</tr>", text, re.S)[1:]
    assert len(rows) >= len(CLAIMS) and text.count("<math>") > 300
    for row in rows[-len(CLAIMS):]:
        assert re.search(r'<td>(?:here|<a href="references\.html#[^"]+">[A-Z][^<]+ \d{4}</a>)</td>', row), row
        assert not re.search(r"[\^_]", re.sub(r"<math>.*?</math>|<code>.*?</code>|<[^>]+>", "", row)), row


def test_preprints_are_linked_and_the_tests_coloured():
    text = article("book/references")
    assert text.count('href="https://arxiv.org/abs/') > 30 and not re.search(r"arXiv:\d", re.sub(r"<a\b.*?</a>", "", text))
    assert article("book/tests").count('class="k"') > 100


def test_captions_hold_where_panels_stand_below_each_other():
    for page in PAGES:
        for figure in re.findall(r"<figure\b.*?</figure>", article(page), re.S):
            if 'class="panels"' in figure:
                caption = re.sub(r"<[^>]+>", "", figure[figure.index("<figcaption"):])
                assert not re.search(r"\b(?:[Ll]eft|[Rr]ight)[,:]|\((?:left|middle|right)\)", caption), caption


@each_page
def test_a_page_describes_itself_and_says_how_it_is_cited(page):
    text = read(page)
    about = re.findall(r'<meta name="description" content="([^"]{40,200})" />', text)
    assert len(about) == 1 and "\\" not in about[0]
    assert text.count('<meta property="og:title"') == 1 and "favicon.svg" in text
    assert article(page).count("@incollection{") + article(page).count("@book{") == 1
    assert len(re.findall(r'<div class="(?:proof|exercise) ', text)) == text.count('title="Link to this statement"')


def test_a_lost_reader_finds_the_book():
    text = (SITE / "404.html").read_text(encoding="utf-8")
    assert "There is no such page" in text and "src=" not in text
    for target in re.findall(r'<a href="([^"]+)"', text):
        assert (SITE / target).exists()


def test_previews_hold_what_chapters_refer_to():
    for page in CHAPTERS:
        shown = (SITE / "_static" / "previews" / f"{page.split('/')[1]}.js").read_text(encoding="utf-8")
        assert shown.startswith("previews(") and ' id=\\"' not in shown and len(shown) < 150_000
        for label in re.findall(r'href="#((?:thm|lem|prop|cor|def|fig)-[^"]+)"[^>]*><span', article(page)):
            assert f'"{label}":' in shown, label


@pytest.mark.parametrize("tex", symbols.SYMBOLS)
def test_a_marked_symbol_stands_only_in_chapters_that_were_read(tex):
    """Where a chapter begins to use it, read what it means there; if that is not its row of the notation, it must not be marked."""
    drawn = {page: re.sub(r'<annotation.*?</annotation>| data-symbol="[^"]*"', "", read(page), flags=re.S) for page in CHAPTERS}
    assert tuple(int(page[5:7]) for page in CHAPTERS if symbols.PATTERNS[tex].search(drawn[page])) == symbols.SYMBOLS[tex]


def test_symbols_are_marked_once_in_a_section_and_few_are_links():
    shown = (SITE / "_static" / "previews" / "notation.js").read_text(encoding="utf-8")
    for page in CHAPTERS:
        for part in symbols.BEGIN.split(article(page)):
            found = re.findall(r' data-symbol="([^"]+)"', re.sub(r'<a class="symbol".*?</a>', "", part, flags=re.S))
            assert len(found) <= len(symbols.SYMBOLS) and all(f'"{name}":' in shown for name in found), page
        assert 1 <= article(page).count('<a class="symbol"') <= 8, page


def test_the_front_page_is_reached_from_the_root():
    assert "book/index.html" in (SITE / "index.html").read_text()


def test_mending_the_pages_again_changes_nothing():
    """An incremental build mends the pages it did not write a second time."""
    mends = runpy.run_path(str(ROOT / "book" / "_ext" / "access.py"))["MENDS"]
    for page in PAGES:
        text = read(page)
        for pattern, replacement in mends:
            assert re.sub(pattern, replacement, text) == text, (page, pattern)


def test_search_holds_every_page_and_every_statement_without_tex():
    rows = json.loads((SITE / "_static/search-data.js").read_text(encoding="utf-8").removeprefix("const SEARCHED = ").rstrip(";\n"))
    addresses = {row[0] for row in rows}
    assert {f"{page}.html" for page in PAGES} <= addresses
    for page in CHAPTERS:
        labels = re.findall(r'<div class="proof [^"]*" id="([^"]+)"', article(page))
        assert labels and {f"{page}.html#{label}" for label in labels} <= addresses
    if left := [row for row in rows if re.search(r"\\[a-zA-Z]{2}|<(?:math|span|a)\b", row[2] + row[3])]:
        pytest.fail(str(left[:2])[:500])


@each_page
def test_a_page_loads_the_scripts_of_its_own_figures(page):
    scripts = re.findall(r'<script [^>]*src="[^"]*_static/explore/(\w+)\.js', read(page))
    figures = dict.fromkeys(re.findall(r'<div class="explore[^>]*data-figure="(\w+)"', read(page)))
    assert scripts == (["shared", *figures] if figures else [])


@pytest.mark.parametrize("scripts", [True, False])
def test_the_cover_is_live_and_still_on_paper_and_without_scripts(chromium, scripts):
    page = chromium.new_page(java_script_enabled=scripts)
    page.goto(f"{SITE.as_uri()}/book/index.html")
    still, live = page.locator("figure#fig-cover"), page.locator(".explore.instead")
    assert still.is_visible() != scripts and live.is_visible() == scripts
    page.emulate_media(media="print")
    assert still.is_visible() and not live.is_visible()
    page.close()
