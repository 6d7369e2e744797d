"""The built site in a real browser: nothing asked of the network, fast, whole on a phone, usable without mouse or eyes.

Skipped where there is no Chromium. Run after `make book`.
"""

import functools
import http.server
import os
import threading

import pytest
from axe_playwright_python.sync_playwright import Axe

from test_site import CHAPTERS, PAGES, SITE

pytestmark = pytest.mark.skipif(not SITE.is_dir(), reason="the site is not built; run: make book")
EVERY = [*PAGES, "search", "genindex", "prf-prf"]
CHAPTER = "book/05-not-a-gradient"  # formulas, figures, folded proofs, exercises and a figure that moves
MATHS_DONE = "window.MathJax && MathJax.startup ? MathJax.startup.promise.then(() => 1) : 1"


class Counting(http.server.SimpleHTTPRequestHandler):
    """A silent file server that counts the bytes of the files it sends, those of figures apart."""

    sent, figures = 0, 0

    def log_message(self, *_):
        pass

    def copyfile(self, source, target):
        size = os.fstat(source.fileno()).st_size
        if "/_images/" in self.path:
            Counting.figures += size
        else:
            Counting.sent += size
        super().copyfile(source, target)


@pytest.fixture(scope="module")
def server():
    """The site's address on a plain web server of this machine."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Counting, directory=SITE)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


class Visit:
    """A fresh window; ``requests`` and ``errors`` list what its pages asked for and what failed."""

    def __init__(self, browser, mode="light", width=1200, **options):
        self.context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=mode, **options)
        self.page, self.requests, self.errors = self.context.new_page(), [], []
        self.page.add_init_script(f"localStorage.setItem('mode', '{mode}'); localStorage.setItem('theme', '{mode}')")
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("requestfailed", lambda request: self.errors.append(request.url))
        self.page.on("response", lambda answer: self.errors.extend([answer.url] if answer.status >= 400 else []))

    def open(self, address):
        """Go there, wait until all formulas are set, open every fold, and return the page."""
        self.page.goto(address)
        self.page.evaluate(MATHS_DONE)
        self.page.evaluate("document.querySelectorAll('details').forEach(box => box.open = true)")
        return self.page

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.context.close()


SCROLLED = """[...document.querySelectorAll('.bd-article pre, mjx-container[display=true]')]
    .filter(box => box.scrollWidth > box.clientWidth + 1).map(box => box.textContent.slice(0, 80))"""
BEYOND = """[...document.querySelectorAll('.bd-article *')].filter(element => {
    if (element.closest('mjx-assistive-mml, .visually-hidden')) return false;
    if (element.matches('p:not(:has(mjx-container))') && element.scrollWidth > element.clientWidth + 1) return true;
    if (element.getBoundingClientRect().right <= 391) return false;
    for (let box = element; box && !box.matches('.bd-article'); box = box.parentElement)
        if (['auto', 'scroll'].includes(getComputedStyle(box).overflowX)) return false;
    return true; }).map(element => element.outerHTML.slice(0, 120))"""


def faults(page, **options):
    page.evaluate("document.querySelectorAll('mjx-container').forEach(formula => formula.remove())")  # MathJax's own
    found = Axe().run(page, options={"resultTypes": ["violations"], **options}).response["violations"]
    return [(fault["id"], len(fault["nodes"]), fault["nodes"][0]["html"][:200]) for fault in found]


@pytest.mark.parametrize("name", EVERY)
def test_page(chromium, server, name):
    """No request elsewhere, no error; nothing cut off on a phone or, in a chapter, to be scrolled at 1200 pixels; no fault."""
    with Visit(chromium) as visit:
        page = visit.open(f"{server}/{name}.html")
        assert not [address for address in visit.requests if not address.startswith((server, "data:"))]
        assert not visit.errors and page.locator("mjx-merror").count() == 0
        if name in CHAPTERS:
            assert page.evaluate(SCROLLED) == []
        page.set_viewport_size({"width": 390, "height": 844})
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        assert page.evaluate(BEYOND) == []
        page.set_viewport_size({"width": 1200, "height": 900})
        assert faults(page) == []
        page.evaluate("document.documentElement.dataset.theme = 'dark'")
        page.evaluate("getComputedStyle(document.body).color, document.getAnimations().forEach(change => change.finish())")
        assert faults(page, runOnly=["color-contrast", "link-in-text-block"]) == []  # only colours differ


@pytest.mark.parametrize("name", ["book/index", CHAPTER, "book/claims", "search"])
def test_from_the_files_in_the_dark(chromium, name):
    with Visit(chromium, "dark") as visit:
        page = visit.open(f"{SITE.as_uri()}/{name}.html")
        assert not [address for address in visit.requests if not address.startswith((SITE.as_uri(), "data:"))]
        assert not visit.errors
        assert page.evaluate("[document.documentElement.dataset.theme, getComputedStyle(document.body).backgroundColor]") == [
            "dark", "rgb(18, 18, 18)"]


def test_the_first_page_is_light_and_the_others_add_little(chromium, server):
    with Visit(chromium) as visit:
        for i, name in enumerate(PAGES):
            before, figures = Counting.sent, Counting.figures
            visit.open(f"{server}/{name}.html")
            assert Counting.sent - before < (0.45e6 if i else 4e6), name
            assert Counting.figures - figures < 0.3e6, name


def test_the_first_page_comes_quickly(chromium, server):
    """Under a second on an idle machine; three here, since the other tests take their share."""
    took = []
    for _ in range(3):
        with Visit(chromium) as visit:
            page = visit.open(f"{server}/book/index.html")
            took.append(page.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd"))
    assert 0 < min(took) < 3000, took


@pytest.mark.parametrize("place", ["server", "files"])
def test_search_finds_a_theorem(chromium, server, place):
    with Visit(chromium) as visit:
        page = visit.open(f"{server if place == 'server' else SITE.as_uri()}/search.html?q=balanced+layers")
        page.wait_for_selector("#search-results li a", timeout=20_000)
        assert any("02-balanced-layers" in link.get_attribute("href") for link in page.query_selector_all("#search-results li a"))


def test_an_old_address_leads_to_the_new_one(chromium, server):
    with Visit(chromium) as visit:
        visit.page.goto(f"{server}/book/08-going-deeper.html")
        visit.page.wait_for_url("**/book/09-going-deeper.html")


def test_without_scripts_the_text_the_figures_and_the_proofs_are_there(chromium):
    with Visit(chromium, java_script_enabled=False) as visit:
        page = visit.page
        page.goto(f"{SITE.as_uri()}/{CHAPTER}.html")
        assert page.locator("figure img").count() >= 2 and page.locator("div.proof").count() >= 5
        assert page.locator(".explore").first.bounding_box()["height"] == 0  # the still figure before it stays
        proof = page.locator("details").first
        proof.locator("summary").click()
        assert proof.locator("p").first.is_visible()


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_the_keyboard_reaches_everything_and_shows_where_it_is(chromium, mode):
    with Visit(chromium, mode) as visit:
        page = visit.page
        page.goto(f"{SITE.as_uri()}/{CHAPTER}.html")
        page.wait_for_selector(".explore svg")
        for kind in ("summary", ".explore input", ".explore select", "p.in-library a"):
            place = page.locator(f".bd-article {kind}").first
            place.focus()
            page.keyboard.press("Shift+Tab")
            page.keyboard.press("Tab")
            assert place.evaluate("element => element === document.activeElement"), kind
            line = place.evaluate("element => [getComputedStyle(element).outlineStyle, getComputedStyle(element).outlineWidth]")
            assert line[0] != "none" and float(line[1].removesuffix("px")) >= 2, (kind, line)
        summary = page.locator(".bd-article details summary").first
        summary.focus()
        page.keyboard.press("Enter")
        assert page.locator(".bd-article details").first.evaluate("box => box.open")
        slider, said = page.locator(".explore input").first, page.locator(".explore p").first
        before = said.text_content()
        slider.focus()
        page.keyboard.press("ArrowRight")
        assert said.text_content() != before


def test_the_ledger_sorts_by_keyboard(chromium):
    with Visit(chromium) as visit:
        page = visit.open(f"{SITE.as_uri()}/book/claims.html")
        page.locator("table.ledger th button", has_text="verdict").focus()
        page.keyboard.press("Enter")
        verdicts = page.locator("table.ledger td:nth-child(7)").all_text_contents()
        assert verdicts == sorted(verdicts) and len(set(verdicts)) > 3
