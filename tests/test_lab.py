"""A chapter reads well where it is run: in JupyterLab, whose extension for MyST shows these directives and roles and no others."""

import re

import pytest

from test_notebooks import BOOK, CHAPTERS, PAGES, text

# Looked at in JupyterLab 4.6 with jupyterlab-myst 2.7. A citation shows its key, what stands in another chapter its label.
SHOWN = {"admonition", "dropdown", "exercise", "solution-start", "solution-end",
         "prf:definition", "prf:lemma", "prf:proposition", "prf:theorem", "prf:corollary"}
ROLES = {"prf:ref", "eq", "ref", "numref", "cite", "cite:t", "cite:p"}
OWN = re.compile(r"\\(?:R|T|norm|inner)(?![A-Za-z])")


@pytest.mark.parametrize("page", CHAPTERS, ids=lambda page: page.stem)
def test_a_chapter_has_only_what_jupyterlab_shows(page):
    words = re.sub(r"`[^`{}]*`(?!`)", lambda found: "`x`", text(page))
    assert set(re.findall(r"(?:^|\n)\s*(?::{3,}|`{3,})\{([^}]+)\}", words)) <= SHOWN
    assert set(re.findall(r"\{([a-z][\w:-]*)\}`", words)) <= ROLES


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_formulas_need_no_command_of_the_books_own(page):
    """KaTeX and MathJax know nothing of _config.yml; tools/refresh.py writes such a command out."""
    assert not OWN.search(text(page))


def test_make_lab_installs_what_shows_them():
    lab = re.search(r"(?m)^lab:.*\n((?:\t.*\n)+)", (BOOK.parent / "Makefile").read_text(encoding="utf-8"))[1]
    assert "import jupyterlab, jupyterlab_myst" in lab and "-c constraints.txt jupyterlab jupyterlab-myst" in lab
    assert "trust" in lab, "JupyterLab shows no stored SVG of a notebook that it does not trust"
