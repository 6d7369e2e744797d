"""What readers touch on the built pages, in a real browser: tables, folds, search, previews. Run after `make book`."""

import pytest

from test_browser import DENSEST, Visit
from test_site import SITE

pytestmark = pytest.mark.skipif(not SITE.is_dir(), reason="the site is not built; run: make book")


@pytest.mark.parametrize("width", [360, 1300])
def test_no_column_of_the_notation_is_cut(chromium, width):
    with Visit(chromium, width=width) as visit:
        page = visit.open(f"{SITE.as_uri()}/book/notation.html")
        assert page.evaluate("""[...document.querySelectorAll('#notation td')].filter(cell => {
            const box = cell.closest('.pst-scrollable-table-container').getBoundingClientRect();
            return cell.getBoundingClientRect().right > box.right + 1; }).length""") == 0


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
