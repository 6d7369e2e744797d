"""The built site in a real browser: nothing asked of the network, fast, whole on a phone, usable without mouse or eyes.

Skipped where there is no Chromium. Run after `make book`.
"""

import functools
import http.server
import os
import re
import statistics
import threading

import pytest

from faults import faults
from test_site import CHAPTERS, PAGES, SITE

pytestmark = pytest.mark.skipif(not SITE.is_dir(), reason="the site is not built; run: make book")
EVERY = [*PAGES, "search", "genindex", "prf-prf"]
CHAPTER = "book/05-not-a-gradient"  # formulas, figures, folded proofs, exercises and a figure that moves
DENSEST = "book/03-end-to-end"  # most formulas
OPEN = "document.querySelectorAll('details').forEach(box => box.open = true)"
FONTS_DONE = "document.fonts.ready.then(() => 1)"


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 64  # a page asks for thirty files at once; a busy machine would refuse the sixth


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
    with Server(("127.0.0.1", 0), functools.partial(Counting, directory=SITE)) as server:
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
        """Go there, wait for the fonts, open every fold, and return the page."""
        self.page.goto(address)
        self.page.evaluate(FONTS_DONE)
        self.page.evaluate(OPEN)
        return self.page

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.context.close()


SCROLLED, WIDE = (f"""[...document.querySelectorAll('{boxes}')]
    .filter(box => box.scrollWidth > box.clientWidth + 1).map(box => box.textContent.slice(0, 80))"""
    for boxes in (".bd-article pre, .bd-article div.formula", ".bd-article div.formula:not(details *)"))
LOW = """[...document.querySelectorAll('.bd-article div.formula')]
    .filter(box => box.clientHeight < 15 || box.scrollHeight > box.clientHeight + 2).map(box => box.textContent.slice(0, 80))"""
BEYOND = """[...document.querySelectorAll('.bd-article :not(math *, svg *)')].filter(element => {
    if (element.closest('.visually-hidden')) return false;
    if (element.matches('p:not(:has(math))') && element.scrollWidth > element.clientWidth + 1) return true;
    if (element.getBoundingClientRect().right <= 391) return false;
    for (let box = element; box && !box.matches('.bd-article'); box = box.parentElement)
        if (['auto', 'scroll'].includes(getComputedStyle(box).overflowX)) return false;
    return true; }).map(element => element.outerHTML.slice(0, 120))"""
CUT = """[...document.querySelectorAll('.bd-article figure img, .bd-article figure .panels > svg, .bd-article .verdict')].filter(part => {
    const box = part.closest('figure, pre'), edge = box.getBoundingClientRect(), own = part.getBoundingClientRect();
    return own.left < Math.max(edge.left, 0) - 1 || own.right > Math.min(edge.right, 360) + 1 || part.scrollWidth > part.clientWidth + 1
        || (part.matches('img, svg') && own.height > 60 && own.width < Math.min(100, parseFloat(part.style.width || 100) - 1));
    }).map(part => part.outerHTML.slice(0, 120))"""
STACKED = """[...document.querySelectorAll('.bd-article .panels')].map(
    box => [...box.children].map(part => part.getBoundingClientRect().top))"""


def weighed(visit, address):
    """Opens the page; how many bytes of figures and of other files that took."""
    before = Counting.figures, Counting.sent
    visit.open(address)
    return Counting.figures - before[0], Counting.sent - before[1]


@pytest.mark.parametrize("name", EVERY)
def test_page(chromium, server, name):
    """A first visit of 1200 pixels' width, light, and a second on a phone, which adds little. No request elsewhere, no error;
    nothing cut off on a phone or, in a chapter, to be scrolled at 1200 pixels, nor a formula on a phone; no fault, light or dark."""
    with Visit(chromium) as visit:
        page = visit.page
        first = weighed(visit, f"{server}/{name}.html")
        pictures = page.locator("figure img").count()
        assert not [address for address in visit.requests if not address.startswith((server, "data:"))]
        assert not visit.errors
        if name in CHAPTERS:
            assert page.evaluate(SCROLLED) == []
        page.set_viewport_size({"width": 390, "height": 844})
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        assert page.evaluate(BEYOND) == []
        assert page.evaluate(LOW) == []
        page.set_viewport_size({"width": 1200, "height": 900})
        assert faults(page) == []
        page.evaluate("document.documentElement.dataset.theme = 'dark'")
        page.evaluate("getComputedStyle(document.body).color, document.getAnimations().forEach(change => change.finish())")
        assert faults(page, rules=["color-contrast", "link-in-text-block"]) == []  # only colours differ
        page.set_viewport_size({"width": 360, "height": 900})
        second = weighed(visit, f"{server}/{name}.html?2")
        if name in (*CHAPTERS, "book/index", "book/benchmarks"):
            assert page.evaluate(CUT) == []
        if name in CHAPTERS:
            assert page.evaluate(WIDE) == []  # what is not folded
        for tops in page.evaluate(STACKED):
            assert len(set(tops)) > 1, tops  # panels one below the other
        if name in PAGES:
            assert first[1] < (1.3e6 if name == "book/index" else 1.8e6) and second[1] < 0.55e6, (first, second)
            assert max(first[0], second[0]) < max(0.3e6, 60e3 * pictures)  # no more than 60 kB each, on a page of many


@pytest.mark.parametrize("name", ["book/index", CHAPTER, "book/claims", "search"])
def test_from_the_files_in_the_dark(chromium, name):
    with Visit(chromium, "dark") as visit:
        page = visit.open(f"{SITE.as_uri()}/{name}.html")
        assert not [address for address in visit.requests if not address.startswith((SITE.as_uri(), "data:"))]
        assert not visit.errors
        assert page.evaluate("[document.documentElement.dataset.theme, getComputedStyle(document.body).backgroundColor]") == [
            "dark", "rgb(18, 18, 18)"]


SHIFT = """window.shift = 0, new PerformanceObserver(list => list.getEntries().forEach(entry => { shift += entry.value; }))
    .observe({type: 'layout-shift', buffered: true})"""


def moved(page):
    """How much moved while the page loaded, which Chromium keeps, and moves until every fold is open."""
    page.evaluate(SHIFT)
    page.evaluate(OPEN)
    page.wait_for_timeout(300)
    return page.evaluate("shift")


def test_the_first_page_comes_quickly_and_nothing_moves(chromium, server):
    """Under a second on an idle machine; three here, since the other tests take their share."""
    took, shifts = [], []
    for _ in range(5):
        with Visit(chromium) as visit:
            page = visit.open(f"{server}/book/index.html")
            shifts.append(moved(page))
            took.append(page.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd"))
    assert 0 < min(took) < 3000, took
    assert max(shifts) < 0.1, shifts


def work(browser, address, formulas):
    """Seconds of the processor that the page's own thread needs to load it, with or without its formulas, and how much moves."""
    def without(route):
        answer = route.fetch()
        route.fulfill(response=answer, body=re.sub(r"<math\b.*?</math>", "", answer.text(), flags=re.S))

    with Visit(browser) as visit:
        if not formulas:
            visit.page.route("**/book/*.html", without)
        session = visit.context.new_cdp_session(visit.page)
        session.send("Performance.enable", {"timeDomain": "threadTicks"})
        visit.page.goto(address)
        visit.page.evaluate(FONTS_DONE)
        assert (visit.page.locator("math").count() > 0) == formulas
        metrics = {entry["name"]: entry["value"] for entry in session.send("Performance.getMetrics")["metrics"]}
        return metrics["TaskDuration"], moved(visit.page) if formulas else 0


@pytest.mark.parametrize("name", [CHAPTER, DENSEST])
def test_formulas_cost_little_and_nothing_moves(chromium, server, name):
    """At most half the work of the same page without them, measured by turns."""
    loads = [[work(chromium, f"{server}/{name}.html", formulas) for formulas in (True, False)] for _ in range(5)]
    with_them, without = (statistics.median(seconds for seconds, _ in column) for column in zip(*loads))
    assert with_them < 1.5 * without, loads
    assert max(moves for (_, moves), _ in loads) < 0.1, loads


def test_formulas_are_drawn_in_the_books_font(chromium, server):
    with Visit(chromium) as visit:
        page = visit.open(f"{server}/{CHAPTER}.html")
        session = visit.context.new_cdp_session(page)
        session.send("DOM.enable")
        session.send("CSS.enable")
        root = session.send("DOM.getDocument")["root"]["nodeId"]
        found = session.send("DOM.querySelectorAll", {"nodeId": root, "selector": "math :is(mi, mo, mn)"})["nodeIds"]
        assert len(found) > 2000
        for node in found[::40]:
            drawn = session.send("CSS.getPlatformFontsForNode", {"nodeId": node})["fonts"]
            assert {font["familyName"] for font in drawn} <= {"Book Math"}, drawn


COPY = """paragraph => { const range = document.createRange(); range.selectNodeContents(paragraph);
    getSelection().removeAllRanges(); getSelection().addRange(range);
    const event = new ClipboardEvent('copy', {clipboardData: new DataTransfer(), cancelable: true, bubbles: true});
    paragraph.dispatchEvent(event); return event.clipboardData.getData('text/plain'); }"""


def test_formulas_are_copied_as_tex(chromium):
    with Visit(chromium) as visit:
        page = visit.open(f"{SITE.as_uri()}/{DENSEST}.html")
        paragraph = page.locator(".bd-article p:has(math)").first
        formula = paragraph.locator("math").first.locator("annotation").text_content()
        assert f"${formula}$" in paragraph.evaluate(COPY)
        block = page.locator(".bd-article div.formula").first
        assert block.evaluate(COPY).strip() == f"$${block.locator('annotation').text_content()}$$"


def test_an_old_address_leads_to_the_new_one(chromium, server):
    with Visit(chromium) as visit:
        visit.page.goto(f"{server}/book/08-going-deeper.html")
        visit.page.wait_for_url("**/book/09-going-deeper.html")


def test_without_scripts_the_text_the_figures_and_the_proofs_are_there(chromium):
    with Visit(chromium, java_script_enabled=False) as visit:
        page = visit.page
        page.goto(f"{SITE.as_uri()}/{CHAPTER}.html")
        assert page.locator("figure img").count() >= 2 and page.locator("div.proof").count() >= 5
        formulas = page.locator("p math")
        assert formulas.count() > 300 and formulas.first.bounding_box()["width"] > 5
        assert page.locator(".explore").first.bounding_box()["height"] == 0  # the still figure before it stays
        proof = page.locator("details.sd-dropdown").first
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
        slider, said = page.locator(".explore input").first, page.locator(".explore .said").first
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
