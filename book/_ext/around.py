"""What people expect around a text: launch, source, edit and issues, how to cite a page, a description for those who link to it,
a page for addresses that lead nowhere. Links to the repository and the book's PDF stand there only where there are these.

One setting: BOOK_REPOSITORY in the environment, the address of the repository, as the publish workflow sets it. A file book.pdf in
the root of the checkout is linked from every page.
"""

import html
import os
import re
import shutil
from pathlib import Path
from urllib.parse import quote

import yaml

from finding import contents, words

ROOT = Path(__file__).parents[2]
TITLE = re.compile(r"<h1>(.*?)</h1>(?!\n<p class=\"around\">)", re.S)
TABLE = re.compile(r"<table.*?</table>", re.S)
LOST = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Not found - {book}</title><base href="{base}"><style>:root {{ color-scheme: light dark }}
body {{ font: 1.1rem/1.5 Georgia, serif; max-width: 36rem; margin: 20vh auto; padding: 0 1rem }}</style></head>
<body><main><h1>There is no such page</h1><p>It may have been renamed. <a href="book/index.html">The book begins here</a>, and
<a href="search.html">the search</a> knows every statement by its number.</p></main></body></html>
"""


def site(repository):
    """Where the pages of a repository of GitHub are read; empty where that is not known."""
    found = re.fullmatch(r"https://github\.com/([\w.-]+)/([\w.-]+?)/?", repository)
    return f"https://{found[1].lower()}.github.io/{found[2]}/" if found else ""


def links(source, repository):
    """Links of a page to its launch copy and its source, as pairs of words and address."""
    if not repository:
        return []
    name = f"book/{source}"
    launch = [("Open in Colab", f"https://colab.research.google.com/github/{repository.split('/', 3)[3]}/blob/launch/{name}")]
    return [*(launch if source.endswith(".ipynb") else []), ("Source", f"{repository}/blob/main/{name}"),
            ("Edit", f"{repository}/edit/main/{name}"), ("Report an issue", f"{repository}/issues/new?title={quote(name + ': ')}")]


def citation(page, title, address):
    """The page as BibTeX."""
    about = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    book, year = about["title"], str(about["date-released"])[:4]
    whole = title == book.split(":")[0]
    names = {"title": book} if whole else {"title": title, "booktitle": book}
    fields = {"author": "{" + " and ".join(author["name"] for author in about["authors"]) + "}", **names, "year": year,
              "version": about["version"], **({"url": f"{address}{page}.html"} if address else {})}
    kind = "book" if whole else "incollection"
    lines = "".join(f"  {name:9} = {{{value}}},\n" for name, value in fields.items())
    return f"@{kind}{{depth{year}{re.sub(r'[^a-z]', '', page.split('/')[-1])},\n{lines}}}"


def around(text, page, source, repository, pdf):
    """The page with what stands around its text; once."""
    if 'name="description"' in text:
        return text
    article = text[text.index("<article"):text.index("</article>")]
    title = re.sub(r"^[\d.]+ ", "", words(TITLE.search(article)[1]))
    paragraphs = (words(found) for found in re.findall(r"<p>(.*?)</p>", TABLE.sub("", article), re.S))
    first = next((paragraph for paragraph in paragraphs if len(paragraph) >= 40), title)
    about = html.escape(first if len(first) < 200 else first[:first.rindex(" ", 0, 197)] + " …")
    card = {"og:title": html.escape(title), "og:description": about, "og:type": "article", "og:site_name": "Depth as a preconditioner"}
    if address := site(repository):  # those who show a card want whole addresses
        card |= {"og:url": f"{address}{page}.html", "og:image": f"{address}_static/card.png", "og:image:width": "1200",
                 "og:image:height": "630", "og:image:alt": "Two paths of gradient flow to one minimum, with and without redundant layers"}
    kind = "summary_large_image" if address else "summary"
    head = f'<meta name="description" content="{about}" />\n<meta name="twitter:card" content="{kind}" />\n' + "".join(
        f'<meta property="{name}" content="{value}" />\n' for name, value in card.items())
    found = [*links(source, repository), *([("PDF of the book", "../book.pdf")] if pdf else [])]
    if found:
        row = " · ".join(f'<a href="{html.escape(address)}">{name}</a>' for name, address in found)
        text = TITLE.sub(lambda heading: f'{heading[0]}\n<p class="around">{row}</p>', text, count=1)
    cite = (f'<details class="fold cite"><summary>Cite this page</summary><div class="fold-body"><div class="highlight"><pre>'
            f"{html.escape(citation(page, title, address))}</pre></div></div></details>\n")
    return text.replace("</head>", head + "</head>", 1).replace("</article>", cite + "</article>", 1)


def write_around(app, pages):
    repository = os.environ.get("BOOK_REPOSITORY", "").rstrip("/")
    pdf = (ROOT / "book.pdf").exists()
    if pdf:
        shutil.copy(ROOT / "book.pdf", app.outdir)
    for page in contents(app):
        pages[page] = around(pages[page], page, Path(app.env.doc2path(page)).name, repository, pdf)
    base = re.sub(r"https://[^/]+", "", site(repository)) or "/"
    pages["404"] = LOST.format(book=app.config.html_title, base=base)
