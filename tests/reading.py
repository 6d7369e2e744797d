"""What the limits on a chapter count: words that are read, pictures, formulas in lines and displayed."""

import re

PROOF = re.compile(r":::\{dropdown\} Proof.*?\n:::", re.S)
SOLUTION = re.compile(r":::\{solution-start\}.*?:::\{solution-end\}", re.S)
DISPLAYED = re.compile(r"\$\$.*?\$\$", re.S)
INLINE = re.compile(r"\$[^$]+\$")


def words(markdown, proofs=False):
    """The number of words outside formulas, code, labels and options of directives, solutions and (unless asked) proofs."""
    text = SOLUTION.sub(" ", markdown)
    text = text if proofs else PROOF.sub(" ", text)
    for formula in (DISPLAYED, INLINE):
        text = formula.sub(" ", text)
    for silent in (r"```.*?```", r"`[^`]*`", r"^:\w+:.*$", r"^\(\S+\)=$", r"^:::\S*", r"\{[\w:]+\}", r"\(eq-\S+\)", r"<[^>]*>"):
        text = re.sub(silent, " ", text, flags=re.S if "```" in silent else re.M)
    return sum(bool(re.search(r"\w", word)) for word in text.split())


def pictures(cells):
    """How many numbered figures and interactives these cells have, each once."""
    sources = ["".join(cell["source"]) for cell in cells]
    return sum(cell["id"].startswith("fig-") for cell in cells) + sum('<div class="explore"' in text for text in sources)


def formulas(markdown):
    """How many formulas stand in lines, and how many are displayed."""
    return len(INLINE.findall(DISPLAYED.sub(" ", markdown))), len(DISPLAYED.findall(markdown))
