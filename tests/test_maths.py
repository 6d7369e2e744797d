"""Formulas at build: set as MathML with their TeX, or an error that names page and formula."""

import runpy
from pathlib import Path

import pytest
import yaml
from sphinx.errors import ExtensionError

ROOT = Path(__file__).parents[1]
MATHS = runpy.run_path(str(ROOT / "book" / "_ext" / "maths.py"))
CONFIGURED = yaml.safe_load((ROOT / "_config.yml").read_text())["sphinx"]["config"]["maths_macros"]
MACROS = MATHS["commands"](CONFIGURED)


def test_the_books_commands_become_common_tex():
    assert MATHS["expand"](r"\norm{\norm{W^\T}_F^{2}} \in \R", MACROS) == r"\lVert \lVert W^\top \rVert_F^{2} \rVert \in \mathbb{R}"
    assert MATHS["expand"](r"\inner {a, \{b\}} \Tr \top", MACROS) == r"\langle a, \{b\} \rangle \Tr \top"


@pytest.mark.parametrize("display", [True, False])
def test_a_formula_carries_its_tex(display):
    text = MATHS["mathml"](r"a < \norm{w}", display, MACROS)
    assert text.startswith('<math display="block">' if display else "<math>") and text.endswith("</math>")
    assert r'<annotation encoding="application/x-tex">a &lt; \lVert w \rVert</annotation>' in text


@pytest.mark.parametrize("tex", [r"\nosuchcommand", r"\norm{w", r"\frac{1}", r"\begin{aligned} a"])
def test_a_formula_that_cannot_be_set_stops_the_build_by_name(tex):
    with pytest.raises(ExtensionError) as error:
        MATHS["mathml"](tex, False, MACROS, "book/99-page")
    assert "book/99-page: cannot set the formula" in str(error.value) and repr(tex) in str(error.value)


def test_a_bracket_of_stated_size_with_an_exponent_is_not_alone():
    text = MATHS["mathml"](r"\bigl( a \bigr)^{2}", True, MACROS)
    assert '<msup><mrow><mo minsize="1.2em" maxsize="1.2em">)</mo><mi></mi></mrow><mn>2</mn></msup>' in text


def test_the_space_between_two_rows_is_not_drawn():
    text = MATHS["mathml"](r"\begin{cases} a \\[1.5ex] [b] \end{cases}", True, MACROS)
    assert "1.5" not in text and text.partition("<annotation")[0].count("[") == 1
