"""What readers touch on the built pages, in a real browser: tables, folds, search, previews. Run after `make book`."""

import re
import urllib.parse

import pytest

from faults import faults
from test_browser import DENSEST, Visit
from test_site import SITE

pytestmark = pytest.mark.skipif(not SITE.is_dir(), reason="the site is not built; run: make book")

IDS = """[...document.querySelectorAll('#preview [id]')].reduce((all, part) => {
    all[part.id] = document.querySelectorAll('#' + CSS.escape(part.id)).length; return all; }, {})"""


@pytest.mark.parametrize("width", [360, 1300])
def test_no_column_of_the_notation_is_cut(chromium, width):
    with Visit(chromium, width=width) as visit:
        page = visit.open(f"{SITE.as_uri()}/book/notation.html")
        assert page.evaluate("""[...document.querySelectorAll('#notation td')].filter(cell => {
            const box = cell.closest('.pst-scrollable-table-container').getBoundingClientRect();
            return cell.getBoundingClientRect().right > box.right + 1; }).length""") == 0


APART = """[...document.querySelectorAll('div.cell:has(> details.code)')].map(cell => {
    const [label, output] = [cell.querySelector('summary'), cell.querySelector('.output pre')].map(part => {
        const text = document.createTreeWalker(part, NodeFilter.SHOW_TEXT), range = document.createRange();
        range.selectNodeContents(text.nextNode());
        const line = [...range.getClientRects()].find(box => box.width > 0) ?? part.getBoundingClientRect();
        return (line.top + line.bottom) / 2; });
    return [cell.textContent.slice(0, 60), label - output]; }).filter(found => Math.abs(found[1]) > 3)"""


def test_the_label_of_a_check_stands_on_the_line_of_its_verdict(chromium):
    with Visit(chromium) as visit:
        visit.page.goto(f"{SITE.as_uri()}/book/02-balanced-layers.html")  # where some verdicts take two lines
        wrapped = "[...document.querySelectorAll('.verdict')].filter(verdict => verdict.getBoundingClientRect().height > 25).length"
        assert visit.page.evaluate(wrapped) > 0 and visit.page.evaluate(APART) == []


@pytest.mark.parametrize("script", [True, False])
def test_a_check_shows_its_verdict_and_opens_its_code(chromium, script):
    with Visit(chromium, java_script_enabled=script) as visit:
        page = visit.page
        page.goto(f"{SITE.as_uri()}/{DENSEST}.html")
        cell = page.locator("div.tag_check").first
        code, verdict = cell.locator(".cell_input pre"), cell.locator(".verdict").first
        assert verdict.is_visible() and not code.is_visible()
        assert cell.bounding_box()["height"] < verdict.bounding_box()["height"] * cell.locator(".verdict").count() + 60
        cell.locator("summary").click()
        assert code.is_visible() and verdict.is_visible()
        cell.locator("summary").click()
        page.emulate_media(media="print")
        assert code.bounding_box()["height"] > 50  # on paper all is open


def test_on_paper_a_page_has_its_own_title_and_tables_go_on_under_their_head(chromium):
    with Visit(chromium) as visit:
        page = visit.open(f"{SITE.as_uri()}/book/claims.html")
        page.emulate_media(media="print")
        assert page.locator("article h1").is_visible() and not page.locator("#jb-print-docs-body").is_visible()
        assert not page.locator("details.cite").is_visible()
        style = "(part, name) => getComputedStyle(part)[name]"
        table = page.locator("table.ledger")
        assert table.evaluate(style, "breakInside") == "auto" and table.locator("thead").evaluate(style, "breakInside") == "avoid"
        assert table.locator("th button").first.evaluate(style, "display") == "contents"  # Chromium repeats no head with a button


def test_a_dark_page_prints_light_and_is_dark_again(chromium):
    with Visit(chromium, "dark") as visit:
        page = visit.page
        page.goto(f"{SITE.as_uri()}/{DENSEST}.html")
        look = "[document.documentElement.dataset.theme, document.querySelectorAll('details:not([open])').length]"
        page.evaluate(f"window.addEventListener('beforeprint', () => {{ window.seen = {look}; }})")
        page.pdf()
        assert page.evaluate("seen") == ["light", 0] and page.evaluate(look) == ["dark", 0]


def test_solutions_open_by_keyboard_and_look_like_proofs(chromium):
    with Visit(chromium) as visit:
        page = visit.page
        page.goto(f"{SITE.as_uri()}/{DENSEST}.html")
        proof, solution = page.locator("details.sd-dropdown > summary").first, page.locator("details.solution > summary").first
        look = "part => ['color', 'backgroundColor', 'fontSize', 'borderLeftWidth'].map(name => getComputedStyle(part)[name])"
        assert proof.evaluate(look) == solution.evaluate(look)
        assert not page.locator("details.solution p").first.is_visible()
        solution.focus()
        page.keyboard.press("Enter")
        assert page.locator("details.solution p").first.is_visible()


KINDS = {"statement": "#lem-powers", "equation": "#equation-eq-operator", "reference": "references.html#", "figure": "#fig-"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_link_shows_what_it_leads_to_from_the_files(chromium, kind):
    with Visit(chromium, width=900) as visit:
        page, box = visit.open(f"{SITE.as_uri()}/{'book/teaching' if kind == 'figure' else DENSEST}.html"), visit.page.locator("#preview")
        link = page.locator(f".bd-article > section a[href*='{KINDS[kind]}']:not(.headerlink):visible").first
        link.hover()
        box.wait_for()
        inside = {"statement": "Lemma 3.1", "equation": "math", "reference": "20", "figure": "Fig. "}[kind]
        assert inside in (box.inner_html() if kind == "equation" else box.text_content())
        own = box.bounding_box()
        assert own["x"] >= 0 and own["x"] + own["width"] <= 900 and own["y"] >= 0
        assert not [name for name, count in page.evaluate(IDS).items() if count > 1]
        page.mouse.move(1, 1)
        box.wait_for(state="hidden")
        link.focus()
        page.keyboard.press("Shift+Tab")
        page.keyboard.press("Tab")
        box.wait_for()
        assert link.get_attribute("aria-describedby") == "preview"
        assert not visit.errors
        assert faults(page, "#preview") == []
        page.keyboard.press("Escape")
        assert box.is_hidden()


def test_the_first_tap_shows_and_the_second_goes(chromium):
    with Visit(chromium, width=390, has_touch=True) as visit:
        page = visit.page
        page.goto(f"{SITE.as_uri()}/{DENSEST}.html")
        link = page.locator(".bd-article p a[href$='02-balanced-layers.html#thm-balance-flow']").first
        link.tap()
        page.locator("#preview").wait_for()
        assert "Theorem 2.7" in page.locator("#preview").text_content() and page.url.endswith("03-end-to-end.html")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        link.tap()
        page.wait_for_url("**/book/02-balanced-layers.html#thm-balance-flow")


def test_a_marked_symbol_shows_its_row_of_the_notation_from_the_files(chromium):
    with Visit(chromium, width=900) as visit:
        page, box = visit.open(f"{SITE.as_uri()}/{DENSEST}.html"), visit.page.locator("#preview")
        page.locator("div.formula [data-symbol=symbol-A-W]").first.hover()
        box.wait_for()
        assert "operator of depth" in box.text_content()
        assert box.locator("td").first.evaluate("cell => getComputedStyle(cell).display") == "block"
        assert not [name for name, count in page.evaluate(IDS).items() if count > 1]
        page.mouse.move(1, 1)
        box.wait_for(state="hidden")
        link = page.locator("a.symbol[href$=symbol-W-e]")
        link.focus()
        page.keyboard.press("Shift+Tab")
        page.keyboard.press("Tab")
        box.wait_for()
        assert "end-to-end matrix" in box.text_content() and link.get_attribute("aria-describedby") == "preview"
        assert not visit.errors
        assert faults(page, "#preview") == []
        page.keyboard.press("Enter")
        page.wait_for_url("**/book/notation.html#symbol-W-e")


def test_a_tap_on_a_symbol_shows_it_and_leads_nowhere(chromium):
    with Visit(chromium, width=390, has_touch=True) as visit:
        page = visit.page
        page.goto(f"{SITE.as_uri()}/{DENSEST}.html")
        symbol, box = page.locator("div.formula [data-symbol=symbol-A-W]").first, page.locator("#preview")
        symbol.tap()
        box.wait_for()
        assert "operator of depth" in box.text_content() and "Tap the link again" not in box.text_content()
        symbol.tap()
        box.wait_for(state="hidden")
        assert page.url.endswith("03-end-to-end.html")


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_a_figure_fills_the_window_and_escape_leads_back(chromium, mode):
    with Visit(chromium, mode) as visit:
        page, room = visit.open(f"{SITE.as_uri()}/book/05-not-a-gradient.html"), visit.page.locator("dialog.room")
        figure = page.locator("figure#fig-walks")
        key = figure.locator("button.enlarge")
        key.focus()
        before = figure.locator("> img").bounding_box()["width"]
        page.keyboard.press("f")
        shown = room.locator("img").bounding_box()
        assert shown["width"] > 1.5 * before and shown["y"] + shown["height"] <= 900 and "Fig. 5.1" in room.text_content()
        assert not [name for name, count in page.evaluate(IDS.replace("#preview", "dialog.room")).items() if count > 1]
        assert not visit.errors
        assert faults(page, "dialog.room") == []
        page.keyboard.press("Escape")
        assert not room.is_visible() and key.evaluate("element => element === document.activeElement")
        figure.locator("> img").click()
        room.locator("img").click()
        assert not room.is_visible()


def test_an_interactive_figure_fills_the_window_and_returns_to_its_place(chromium):
    with Visit(chromium) as visit:
        page, room = visit.open(f"{SITE.as_uri()}/book/05-not-a-gradient.html"), visit.page.locator("dialog.room")
        figure, around = page.locator(".explore"), "box => [box.previousElementSibling.textContent, box.nextElementSibling?.textContent]"
        place, width = figure.evaluate(around), figure.locator("svg").first.bounding_box()["width"]
        figure.locator("svg").first.hover()
        page.keyboard.press("F")
        page.wait_for_function(f"document.querySelector('dialog.room svg').getBoundingClientRect().width > {1.1 * width}")
        said = room.locator(".said").text_content()
        room.locator("input").first.focus()
        page.keyboard.press("ArrowRight")
        assert room.locator(".said").text_content() != said
        page.keyboard.press("f")
        page.wait_for_function("!document.querySelector('dialog.room .explore')")
        assert figure.evaluate(around) == place and not visit.errors


@pytest.mark.parametrize(("query", "first"), [
    ("balanced", "2. Balanced layers"), ("balanced layers", "2. Balanced layers"), ("Theorem 3.4", "Theorem 3.4 (End-to-end dynamics)"),
    ("thm 3.4", "Theorem 3.4 (End-to-end dynamics)"), ("Fig. 3.1", "Fig. 3.1"), ("sigma", "Notation"), ("W_N", "Notation"),
    ("line_integral", "deeplinear.field.line_integral"), ("claims", "Claims")])
def test_search_ranks_titles_and_finds_symbols_from_the_files(chromium, query, first):
    with Visit(chromium) as visit:
        page = visit.page
        page.goto(f"{SITE.as_uri()}/search.html?q={urllib.parse.quote(query)}")
        results = page.locator("#search-results li")
        results.first.wait_for()
        assert results.first.locator("a").text_content() == first
        snippets = results.locator("p").all_text_contents()
        assert not [text for text in snippets if re.search(r"\\\\[a-zA-Z]|\\$", text)]
        page.locator(".bd-search-container input").fill("%")
        assert "%" in results.first.locator("mark").first.text_content()
        assert not visit.errors


def test_a_result_of_the_search_leads_to_its_place(chromium):
    with Visit(chromium) as visit:
        visit.page.goto(f"{SITE.as_uri()}/search.html?q=Theorem+3.4")
        visit.page.locator("#search-results a").first.click()
        visit.page.wait_for_url("**/book/03-end-to-end.html#thm-end-to-end")


def test_arrow_keys_turn_pages_and_an_anchor_of_a_statement_leads_to_it(chromium):
    with Visit(chromium) as visit:
        page = visit.page
        page.goto(f"{SITE.as_uri()}/{DENSEST}.html")
        title = page.locator("#thm-end-to-end .admonition-title")
        title.hover()
        title.locator("a.headerlink").click()
        page.wait_for_url("**/03-end-to-end.html#thm-end-to-end")
        page.locator("details.cite summary").click()
        assert "@incollection{" in page.locator("details.cite pre").text_content()
        page.locator("article h1").click()
        page.keyboard.press("ArrowRight")
        page.wait_for_url("**/04-preconditioner.html")
