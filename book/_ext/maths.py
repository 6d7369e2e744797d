"""Formulas are set when the book is built: MathML, which browsers draw and read aloud without a script, with its TeX beside it."""

import re

from docutils import nodes
from math_core import LatexError, LatexToMathML
from sphinx.errors import ExtensionError
from sphinx.util.math import get_node_equation_number

CONVERTER = LatexToMathML(annotation=True, fancy_error=False)
# Chromium stretches a bracket of stated size beside others, not as the only thing that has an exponent.
BRACKET_WITH_EXPONENT = re.compile(r"(<m(?:sup|sub|subsup)>)(<mo [^>]*minsize=[^>]*>[^<]*</mo>)")
ROW_SKIP = re.compile(r"(\\\\)\[[\d.]+(?:ex|em|pt)\]")  # math-core would draw it, and MathML keeps rows apart


def commands(configured):
    """The book's own commands: what each stands for and how many arguments it takes."""
    return {name: (value, 0) if isinstance(value, str) else tuple(value) for name, value in configured.items()}


def expand(tex, macros):
    """The formula without the book's own commands, so that its TeX can be used anywhere."""
    for name, (body, arguments) in macros.items():
        pattern = re.compile(rf"\\{name}(?![a-zA-Z])" + (r"\s*(?=\{)" if arguments else ""))
        while found := pattern.search(tex):
            end, value = found.end(), body
            for i in range(arguments):
                start, end = end, closing_brace(tex, end)
                value = value.replace(f"#{i + 1}", tex[start + 1:end - 1])
            tex = tex[:found.start()] + value + tex[end:]
    return tex


def closing_brace(tex, start):
    """The position behind the group that opens at ``start``."""
    depth = 0
    for found in re.finditer(r"\\.|[{}]", tex[start:], re.S):
        depth += {"{": 1, "}": -1}.get(found[0], 0)
        if depth == 0:
            return start + found.end()
    raise ValueError(f"a group is not closed: {tex[start:]}")


def mathml(tex, display, macros, place="formula"):
    """The formula as MathML; an error names its place."""
    try:
        text = CONVERTER.convert_with_local_state(ROW_SKIP.sub(r"\1", expand(tex, macros)).strip(), displaystyle=display)
    except (LatexError, ValueError) as error:
        raise ExtensionError(f"{place}: cannot set the formula {tex!r}: {error}") from error
    return BRACKET_WITH_EXPONENT.sub(r"\1<mrow>\2<mi></mi></mrow>", text)


def set_formula(translator, node, display):
    return mathml(node.astext(), display, commands(translator.config.maths_macros), translator.builder.current_docname)


def visit_inline(translator, node):
    translator.body.append(set_formula(translator, node, display=False))
    raise nodes.SkipNode


def visit_block(translator, node):
    translator.body.append(translator.starttag(node, "div", CLASS="math notranslate nohighlight"))
    if node["number"]:
        translator.body.append(f'<span class="eqno">({get_node_equation_number(translator, node)})')
        translator.add_permalink_ref(node, "Link to this equation")
        translator.body.append("</span>")
    translator.body.append(f'<div class="formula">{set_formula(translator, node, display=True)}</div></div>\n')
    raise nodes.SkipNode


def setup(app):
    app.add_config_value("maths_macros", {}, "env")
    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
