"""Slides and sheets in a real browser, from their files: nothing asked of the network, nothing that runs over. After `make book`."""

import importlib.util

import pytest

import slides
from test_site import SITE

pytestmark = [pytest.mark.skipif(not SITE.is_dir(), reason="the site is not built; run: make book"),
              pytest.mark.skipif(importlib.util.find_spec("sphinx_revealjs") is None,
                                 reason="sphinx-revealjs is not installed, which carries reveal.js; `make slides` installs it")]
DECKS = {"hour": 60, "week-1": 180, "week-2": 180, "week-3": 180, "week-4": 180}
LOOK = """() => { const slide = Reveal.getCurrentSlide(), page = slide.firstElementChild, edge = page.getBoundingClientRect();
  const over = [...page.querySelectorAll('*')].filter((part) => { const box = part.getBoundingClientRect();
    return !part.closest('math, .visually-hidden')
      && (box.right > edge.right + 1 || box.bottom > edge.bottom + 1 || box.left < edge.left - 1); });
  return { size: [edge.width, edge.height], type: parseFloat(page.style.fontSize), over: over.map((part) => part.outerHTML.slice(0, 90)),
    rolls: [page.scrollHeight - page.clientHeight, page.scrollWidth - page.clientWidth], colour: getComputedStyle(page).color,
    wide: [...page.querySelectorAll('.formula')].filter((box) => box.scrollWidth > box.clientWidth + 1).length,
    pictures: [...page.querySelectorAll('img')].map((image) => [image.naturalWidth > 0, image.getBoundingClientRect().height]) }; }"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    target = tmp_path_factory.mktemp("slides")
    slides.main(folder=target)
    return target


@pytest.fixture
def window(chromium):
    """A window of a projector's size; what it asked for and what failed."""
    context = chromium.new_context(viewport={"width": 1280, "height": 720})
    page = context.new_page()
    page.asked, page.failed = [], []
    page.on("request", lambda request: page.asked.append(request.url))
    page.on("requestfailed", lambda request: page.failed.append(request.url))
    page.on("pageerror", lambda error: page.failed.append(str(error)))
    yield page
    context.close()


@pytest.mark.parametrize("deck", DECKS)
def test_a_deck_opens_from_its_file_goes_on_and_every_slide_fits(window, folder, deck):
    window.goto((folder / f"{deck}.html").as_uri())
    window.wait_for_function("window.Reveal && Reveal.isReady()")
    total = window.evaluate("Reveal.getTotalSlides()")
    assert total > 10
    seconds = window.evaluate("[...document.querySelectorAll('[data-timing]')].map((slide) => +slide.dataset.timing)")
    assert sum(seconds) == 60 * DECKS[deck]
    for number in range(total):
        assert window.evaluate("Reveal.getIndices().h") == number
        seen = window.evaluate(LOOK)
        assert seen["size"] == [1280, 720] and seen["rolls"] == [0, 0] and not seen["over"] and not seen["wide"], (number, seen)
        assert seen["type"] >= 20 and max(map(int, seen["colour"][4:-1].split(","))) < 60, (number, seen)
        assert all(drawn and height > 300 for drawn, height in seen["pictures"]), (number, seen)
        window.keyboard.press("ArrowRight")
    assert window.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not window.failed and all(address.startswith(("file://", "data:")) for address in window.asked)


@pytest.mark.parametrize("week", [1, 2, 3, 4])
@pytest.mark.parametrize("solved", [False, True])
def test_a_sheet_has_every_exercise_of_its_chapters_and_its_key_the_solutions(window, folder, week, solved):
    book, plan = slides.Book(), slides.yaml.safe_load((slides.ROOT / "book" / "slides.yml").read_text(encoding="utf-8"))
    page = folder / "sheet.html"
    page.write_text(slides.sheet(book, plan[f"week-{week}"], week, solved), encoding="utf-8")
    slides.furnish(folder, SITE)
    window.set_viewport_size({"width": 643, "height": 1000})  # A4 between its margins
    window.goto(page.as_uri())
    titles = window.evaluate("[...document.querySelectorAll('.exercise .admonition-title')].map((title) => title.textContent)")
    chapters = [text for name in plan[f"week-{week}"]["sheet"] for text in [book.pages[name]]]
    assert len(titles) == sum(text.count('<div class="exercise') for text in chapters) > 7
    assert all(title.startswith("Exercise ") and "★" in title for title in titles)
    assert window.locator("h4", has_text="Solution").count() == (len(titles) if solved else 0)
    assert window.evaluate("document.documentElement.scrollWidth") <= 643
    assert not window.failed and window.locator("a, details").count() == 0
