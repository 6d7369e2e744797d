"""Notation that previews: a symbol with one meaning in the whole book is marked where a section or a fold of a chapter first has it.

A mark is an attribute in the formula; book.js shows the row of the table of notation. The first line of a chapter that has the symbol is
also a link to the row, for the keyboard and for readers without scripts.
"""

import re

from maths import mathml

# The symbols, and the chapters whose formulas were read: there it has the meaning of its row in notation.md, elsewhere it does not occur.
# What stands for two things (G, N, L, E_j, P_j, Q_j, s_a and others) is marked nowhere.
SYMBOLS = {
    "W_j": (2, 3, 4, 6, 8, 9, 10, 11, 13, 14, 15), "W_e": (2, 3, 9, 13, 14, 15, 18), "G_j": (2, 3, 13, 15), "D_j": (2, 3, 13, 14, 15),
    r"\rho_t": (1,), r"\mu_{t,\tau}": (1,), r"\gamma_t": (1,), "A_W": (3, 4, 5, 6, 9), "P_W": (4,), r"\lambda_{ab}": (4,),
    r"\operatorname{Pr}_w": (4,), "F_N": (5, 6), r"\Gamma_{r,R}": (5,), r"\kappa_N": (8,), "X_G": (13,), r"\mathcal{L}": (13,),
    r"\operatorname{pol}": (15,), r"\eta": (1, 2, 3, 4, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18)}
UNMARKED = r'<(?P<tag>a|summary|h[1-6]|figcaption)\b.*?</(?P=tag)>|<p class="admonition-title">.*?</p>'
FORMULA = re.compile(UNMARKED + r"|(?P<drawn><math\b(?:(?!<annotation).)*)(?P<source>(?:(?!</math>).)*</math>)", re.S)
BEGIN = re.compile(r"(?=<section |<details )")


def pattern(tex):
    """What finds a symbol in MathML, with an exponent or a prime too: it ends before the first tag does."""
    drawn = re.search(r"<semantics>(.*?)<annotation", mathml(tex, False, {}))[1]
    drawn = re.sub(r"^<mrow><mspace/>(.*)</mrow>$", r"\1", drawn)
    if sub := re.fullmatch("<msub>(.*)</msub>", drawn):
        parts = re.sub("<mrow><mspace/>(.*?)</mrow>", r"\1", sub[1])
        return re.compile("<(?:msub|msubsup)(?=>" + re.escape(parts).replace("</mi>", "</mi>(?:</mrow>)?", 1)
                          .replace("<mi", "(?:<mrow><mspace/>)?<mi", 1) + "<)")
    return re.compile("<mi(?=" + re.escape(drawn.removeprefix("<mi")) + ")")


PATTERNS = {tex: pattern(tex) for tex in SYMBOLS}


def named_rows(text):
    """The page of notation with an id on each row that is previewed, and the id by symbol."""
    found = {}

    def named(row):
        first = row[0].split("</td>")[0]
        inside = [tex for tex, symbol in PATTERNS.items() if symbol.search(first)]
        if not inside or " id=" in first:
            return row[0]
        name = "-".join(["symbol", *re.findall("[A-Za-z]+", re.sub("operatorname|mathcal", "", inside[0]))])
        found.update(dict.fromkeys(inside, name))
        return row[0].replace("<tr", f'<tr id="{name}"', 1)
    return re.sub(r"<tr\b.*?</tr>", named, text, flags=re.S), found


def marked(text, rows):
    """The page with its symbols marked."""
    linked = set()

    def mark(formula, seen):
        if not formula["drawn"]:
            return formula[0]
        drawn, row = formula["drawn"], None
        for tex, symbol in PATTERNS.items():
            links = row is None and tex not in linked and drawn.startswith("<math>")  # a displayed formula is no link
            if (links or tex not in seen) and symbol.search(drawn):
                drawn = symbol.sub(rf'\g<0> data-symbol="{rows[tex]}"', drawn, count=1)
                seen.add(tex)
                if links:
                    linked.add(tex)
                    row = rows[tex]
        whole = drawn + formula["source"]
        return f'<a class="symbol" href="notation.html#{row}">{whole}</a>' if row else whole

    def mark_part(part):
        seen = set()
        return FORMULA.sub(lambda formula: mark(formula, seen), part)
    return "".join(map(mark_part, BEGIN.split(text)))


def mark_symbols(app, pages):
    pages["book/notation"], rows = named_rows(pages["book/notation"])
    for name, text in pages.items():
        if re.match(r"book/\d\d-", name) and "<article" in text and 'data-symbol="' not in text:
            head, article, foot = re.split(r"(?=<article)|(?=</article>)", text)
            pages[name] = head + marked(article, rows) + foot
