"""What the theme's pages lack for readers with a keyboard or a screen reader, and marks on what a check printed."""

import re

MENDS = (
    # A name that differs from the words on a button cannot be spoken to; the words alone are the name.
    (r'(<button class="btn search-button-field[^>]*) title="Search" aria-label="Search"', r"\1"),
    (r'title="(?:Light|Dark|System Settings)"></i>', 'aria-hidden="true"></i>'),
    # The side bar is a landmark of its own.
    (r'<div id="pst-primary-sidebar"(?! role)', '<div id="pst-primary-sidebar" role="navigation" aria-label="Book"'),
    # One id for the text of every box.
    (r' id="(?:proof|exercise|solution)-content"', ""),
    # Every statement and exercise has a link to itself.
    (r'(?s)(<div class="(?:proof|exercise) [^"]*" id="([^"]+)">\s*<p class="admonition-title">(?:(?!headerlink|</p>).)*)</p>',
     r'\1<a class="headerlink" href="#\2" title="Link to this statement">#</a></p>'),
    # Deprecated roles of the list of references; lists that are not lists.
    (r' role="doc-biblioentry"', ' role="listitem"'),
    (r'(?s)<dl>\s*(<dd><em class="sig-param">.*?)</dl>',
     lambda found: f'<ul class="signature">{found[1].replace("dd>", "li>")}</ul>'),
    # No line begins with the comma that follows a formula.
    (r'(?s)(?<!<span class="together">)(<math>(?:(?!</math>).)*</math>[,.;:)]+)', r'<span class="together">\1</span>'),
    # The verdicts of checks and of controls, told apart by more than a word.
    (r"(?m)(^|<span></span>)(holds  [^\n]*)", r'\1<span class="verdict">\2</span>'),
    (r"(?m)(^|<span></span>)(fails  [^\n]*)", r'\1<span class="verdict fails">\2</span>'),
    # On a phone a verdict breaks before what was measured.
    (r'(<span class="verdict(?: fails)?">(?:holds|fails)  [^\n<]*?  )([^\n<]+)</span>', r'\1<span class="measured">\2</span></span>'),
)


def mend(text):
    for pattern, replacement in MENDS:
        text = re.sub(pattern, replacement, text)
    return text
