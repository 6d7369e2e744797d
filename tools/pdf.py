"""Print the whole book to one PDF, through the one-page build and Chromium.

    python tools/pdf.py [TARGET]      (default: _build/book.pdf)

Maths and figures stay vectors, proofs are open, links lead to pages of the file. Needs Chromium or Chrome.
"""

import html
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge",
         "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome")


def one_page():
    """Build the one-page book; the path of a copy whose links and addresses are its own."""
    folder = ROOT / "_build" / "single"
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([Path(sys.executable).with_name("jupyter-book"), "build", ROOT, "--builder", "singlehtml", "--path-output",
                    folder, "-q"], check=True)
    site = folder / "_build" / "singlehtml"
    text = (site / "book" / "index.html").read_text(encoding="utf-8")
    page = site / "print.html"
    page.write_text(without_dead_links(with_contents(own_links(text))), encoding="utf-8")
    return page


def own_links(text):
    """Links between pages become links inside the one page."""
    text = re.sub(r'href="(?:\.\./)?(?:book/)?[\w-]+\.html(#[^"]+)"', r'href="\1"', text)
    return re.sub(r'href="(?:\.\./)?(?:book/)?([\w-]+)\.html"', r'href="#document-book/\1"', text)


def without_dead_links(text):
    """The page with the words of a link alone where its target is left out on paper, as the source of a test."""
    targets = {html.unescape(name) for name in re.findall(r'\sid="([^"]+)"', text)}
    return re.sub(r'<a\b[^>]*\shref="#([^"]+)"[^>]*>(.*?)</a>',
                  lambda link: link[0] if html.unescape(link[1]) in targets else link[2], text, flags=re.S)


def with_contents(text):
    """The page with a table of contents in front of the first chapter."""
    chapters = re.findall(r'<span id="(document-book/[^"]+)"></span>.*?<h[12]>(.*?)<a class="headerlink"', text, re.S)
    if not chapters:
        sys.exit("error: the one-page book has no chapters that a table of contents could name")
    entries = "".join(f'<li><a href="#{html.escape(target)}">{title}</a></li>' for target, title in chapters)
    contents = f'<nav class="print-contents" aria-label="Contents"><h2>Contents</h2><ul>{entries}</ul></nav>'
    first = text.index('<span id="document-book/')
    return text[:first] + contents + text[first:]


def find_browser():
    """The path of an installed Chromium or Chrome, or None."""
    return next(filter(None, map(shutil.which, NAMES)), None)


def browser_or_exit():
    return find_browser() or sys.exit(f"error: none of {', '.join(NAMES)} is installed; the PDF is printed by one of them")


def print_page(page, target):
    """Print a page of this machine to the file ``target``."""
    browser = browser_or_exit()
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as profile:
        done = subprocess.run([browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}",
                               "--allow-file-access-from-files", "--no-pdf-header-footer", "--generate-pdf-document-outline",
                               "--virtual-time-budget=120000", f"--print-to-pdf={target}", page.as_uri()],
                              capture_output=True, text=True, timeout=600)
    if done.returncode or not target.is_file():
        sys.exit(f"error: {browser} did not print: {done.stderr[-500:]}")


def main(target):
    browser_or_exit()  # before the book is built for nothing
    print_page(one_page(), target)
    print(f"the book on paper: {target} ({target.stat().st_size / 1e6:.1f} MB)")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "_build" / "book.pdf").resolve())
