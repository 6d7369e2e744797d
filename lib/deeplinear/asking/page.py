"""An answer as one page of HTML that needs no other file."""

import html

from .answer import Answer
from .racing import LEAST, SEEDS

STYLE = ("body{font:17px/1.5 Georgia,serif;max-width:46rem;margin:2rem auto;padding:0 1rem;color:#222;background:#fff}"
         "pre{font:14px/1.45 monospace;overflow-x:auto}svg{max-width:100%;height:auto}")


def page(answer: Answer, title: str) -> str:
    """The text of the page: the verdict first, then the figure and all that ``print`` shows.

    ``title``: of the table, such as the name of its file.
    """
    heading, verdict = html.escape(f"{title}: will depth help?"), html.escape(answer.verdict)
    warned = "".join(f"<p>Warning: {html.escape(words)}.</p>\n" for words in answer.warnings)
    figure = answer.figure.svg().replace("<svg", f'<svg role="img" aria-label="{html.escape(described(answer))}"', 1)
    caption = f"The median gap over {len(SEEDS)} starts, each model at its best rate that all survive; the band is their range."
    return (f'<!DOCTYPE html>\n<html lang="en">\n<head><meta charset="utf-8"><title>{heading}</title>\n'
            f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head>\n<body>\n<h1>{heading}</h1>\n'
            f"<p><strong>{verdict}</strong></p>\n<p>Predicted: {html.escape(str(answer.prediction))}.</p>\n{warned}<figure>{figure}"
            f"<figcaption>{caption}</figcaption></figure>\n<pre>{html.escape(str(answer))}</pre>\n</body>\n</html>\n")


def described(answer: Answer) -> str:
    """The figure in words, for those who do not see it."""
    ends = ", ".join(f"{name} {max(runner.gap, LEAST):.0e}" for name, runner in answer.race.runners.items())
    return f"Gap over the first gap against gradients, on logarithmic axes; at the end: {ends}"
