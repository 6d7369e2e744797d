"""What readers touch on the built pages, in a real browser: tables, folds, search, previews. Run after `make book`."""

import pytest

from test_browser import Visit
from test_site import SITE

pytestmark = pytest.mark.skipif(not SITE.is_dir(), reason="the site is not built; run: make book")


@pytest.mark.parametrize("width", [360, 1300])
def test_no_column_of_the_notation_is_cut(chromium, width):
    with Visit(chromium, width=width) as visit:
        page = visit.open(f"{SITE.as_uri()}/book/notation.html")
        assert page.evaluate("""[...document.querySelectorAll('#notation td')].filter(cell => { const own = cell.getBoundingClientRect(),
            box = cell.closest('.pst-scrollable-table-container').getBoundingClientRect(); return own.right > box.right + 1; }).length""") == 0
