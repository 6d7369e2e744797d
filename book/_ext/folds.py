"""What is opened by a click, without a script: solutions, and the code of checks and of controls, whose verdicts stay in sight."""

import re

LABELS = {"check": "Check", "control": "Must fail"}
CELL = re.compile(r'(<div class="cell (?:[^"]* )?tag_(check|control)\b[^"]*"[^>]*>\n)'
                  r'(<div class="cell_input .*?</pre></div>\n</div>\n</div>\n)(?=<div class="cell_output)', re.S)
SOLUTION = re.compile(r'<div class="solution dropdown admonition"( id="[^"]*")>\s*<p class="admonition-title">([^<]*)</p>\n')
MARKER = re.compile(r'<span class="sd-summary-state-marker.*?</svg></span>', re.S)


def end_of_box(text, start, tag="div"):
    """Where the closing ``tag`` of the box begins that was opened before ``start``."""
    depth = 1
    for found in re.finditer(rf"<(/?){tag}\b", text[start:]):
        depth += -1 if found[1] else 1
        if depth == 0:
            return start + found.start()
    raise ValueError("a box is not closed")


def fold(text):
    """The page with its checks and solutions folded; what is folded already stays."""
    text = CELL.sub(lambda found: f'{found[1]}<details class="fold code"><summary class="{found[2]}">{LABELS[found[2]]}'
                                  f"<span class=\"visually-hidden\">: its code</span></summary>{found[3]}</details>\n", text)
    while found := SOLUTION.search(text):
        end = end_of_box(text, found.end())
        text = (f'{text[:found.start()]}<details class="fold solution"{found[1]}><summary>{found[2]}</summary><div class="fold-body">\n'
                f"{text[found.end():end]}</div></details>{text[end + len('</div>'):]}")
    return MARKER.sub("", text)
