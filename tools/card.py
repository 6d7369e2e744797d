"""Draw the card that stands for the book where someone links to it: the cover and the title, book/_static/card.png.

    python tools/card.py      (run after a change of the cover; needs Chromium or Chrome)

The card carries the digest of the cover that it shows, so that a test can tell whether it is the one of today.
"""

import hashlib
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml
from PIL import Image
from PIL.PngImagePlugin import PngInfo

import pdf

ROOT = Path(__file__).resolve().parents[1]
STATIC = ROOT / "book" / "_static"
SIZE = (1200, 630)
PAGE = """<!DOCTYPE html><html><head><meta charset="utf-8"><style>
@font-face {{ font-family: Book; font-weight: 600; src: url({fonts}/source-serif-600-normal.woff2) }}
@font-face {{ font-family: Book; font-weight: 400; src: url({fonts}/source-serif-400-normal.woff2) }}
body {{ margin: 0; width: 1200px; height: 630px; background: white; color: #222; font-family: Book; overflow: hidden; position: relative }}
h1 {{ position: absolute; left: 64px; top: 168px; width: 480px; margin: 0; font-size: 62px; line-height: 1.1; font-weight: 600 }}
p {{ position: absolute; left: 64px; top: 345px; width: 440px; margin: 0; font-size: 29px; line-height: 1.35; color: #444 }}
img {{ position: absolute; left: 530px; top: 70px; width: 650px }}
</style></head><body><img src="{cover}"><h1>{title}</h1><p>{about}</p></body></html>"""


def digest_of_cover():
    return hashlib.sha256((STATIC / "cover.svg").read_bytes()).hexdigest()


def draw(target):
    title, _, about = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["title"].partition(": ")
    browser = pdf.browser_or_exit()
    with tempfile.TemporaryDirectory() as folder:
        page, picture = Path(folder, "card.html"), Path(folder, "card.png")
        page.write_text(PAGE.format(fonts=(STATIC / "fonts").as_uri(), cover=(STATIC / "cover.svg").as_uri(), title=title, about=about),
                        encoding="utf-8")
        done = subprocess.run([browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
                               "--allow-file-access-from-files", f"--user-data-dir={folder}/profile",
                               f"--window-size={SIZE[0]},{SIZE[1] + 200}",  # and its own frame
                               "--virtual-time-budget=5000", f"--screenshot={picture}", page.as_uri()],
                              capture_output=True, text=True, timeout=120)
        if done.returncode or not picture.is_file():
            sys.exit(f"error: {browser} did not draw the card: {done.stderr[-500:]}")
        notes = PngInfo()
        notes.add_text("cover", digest_of_cover())
        image = Image.open(picture).convert("RGB").crop((0, 0, *SIZE))
        image.quantize(64, dither=Image.Dither.NONE).save(target, optimize=True, pnginfo=notes)
    print(f"{target}: {target.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    draw(STATIC / "card.png")
