"""Cut the fonts of the page to what the page draws: formulas out of STIX Two Math, icons out of Font Awesome.

    python tools/fonts.py MATH ICONS      (both woff2; run once, the results are committed in book/_static/fonts)

MATH is stix-two-math-latin-400-normal.woff2 of the npm package @fontsource/stix-two-math, ICONS fa-solid-900.woff2 of
pydata-sphinx-theme. Needs fonttools and brotli. Two shapes differ from STIX's: primes are drawn for their place in a superscript,
since browsers do not ask the font for that variant, and tall radical signs are narrower, since Chromium keeps
after each root the room that the widest of them would take.
"""

import sys
from pathlib import Path

from fontTools import subset
from fontTools.misc.transform import Transform
from fontTools.pens.transformPen import TransformPen
from fontTools.pens.ttGlyphPen import TTGlyphPen
from fontTools.ttLib import TTFont

FONTS = Path(__file__).resolve().parents[1] / "book" / "_static" / "fonts"
RANGES = ((0x20, 0x7e), (0xa0, 0xb7), (0xd7, 0xd7), (0xf7, 0xf7), (0x2c6, 0x2dd), (0x300, 0x308), (0x391, 0x3a9), (0x3b1, 0x3c9),
          (0x3d1, 0x3d6), (0x3f0, 0x3f5), (0x2010, 0x2026), (0x2032, 0x2034), (0x203e, 0x203e), (0x2061, 0x2064), (0x20d7, 0x20d7),
          (0x2102, 0x2124), (0x212c, 0x2134), (0x2190, 0x2199), (0x21a6, 0x21a6), (0x21c4, 0x21c6), (0x21d0, 0x21d5), (0x2200, 0x22a5),
          (0x22ba, 0x22f1), (0x2308, 0x230b), (0x23dc, 0x23e1), (0x25a0, 0x25a1), (0x27c2, 0x27c2), (0x27e8, 0x27e9), (0x27f5, 0x27fc),
          (0x29b5, 0x29b5), (0x2a7d, 0x2a7e), (0x2aaf, 0x2ab0), (0xfe00, 0xfe01), (0x1d400, 0x1d4ff), (0x1d504, 0x1d56b),
          (0x1d6a4, 0x1d71b), (0x1d7ce, 0x1d7e1))
PRIMES = (0x2032, 0x2033, 0x2034)
ROOT_WIDTH = 880  # of 1000 units an em; the root that a line of text needs is 794 wide
ICONS = {"angle-left": 0xf104, "angle-right": 0xf105, "arrow-up": 0xf062, "bars": 0xf0c9, "circle-half-stroke": 0xf042,
         "download": 0xf019, "expand": 0xf065, "file": 0xf15b, "file-pdf": 0xf1c1, "list": 0xf03a, "magnifying-glass": 0xf002,
         "moon": 0xf186, "sun": 0xf185, "copy": 0xf0c5, "check": 0xf00c, "chevron-down": 0xf078, "chevron-up": 0xf077,
         "chevron-right": 0xf054, "xmark": 0xf00d, "link": 0xf0c1, "lightbulb": 0xf0eb, "circle-info": 0xf05a,
         "triangle-exclamation": 0xf071}




def redraw(font, name, transform):
    """Draw a glyph anew through ``transform``; its advance width follows."""
    pen = TTGlyphPen(None)
    font.getGlyphSet()[name].draw(TransformPen(pen, transform))
    glyph = font["glyf"][name] = pen.glyph()
    glyph.recalcBounds(font["glyf"])
    font["hmtx"][name] = (round(font["hmtx"][name][0] * transform[0]), glyph.xMin)


def cut(font, characters, target, title, **options):
    """Keep the given characters and what the MATH table makes of them; name the font anew and write it."""
    chosen = subset.Options(hinting=False, layout_features=[], notdef_outline=True, name_IDs=[0, 13, 14], **options)
    cutter = subset.Subsetter(chosen)
    cutter.populate(unicodes=characters)
    cutter.subset(font)
    for number, text in ((1, title), (2, "Regular"), (3, title), (4, title), (6, title.replace(" ", ""))):
        font["name"].setName(text, number, 3, 1, 0x409)
    font.flavor = "woff2"
    font.save(target)
    print(f"{target}: {target.stat().st_size / 1e3:.0f} kB, {len(font.getBestCmap())} characters, {len(font.getGlyphOrder())} glyphs")


def maths(source):
    font = TTFont(source, recalcTimestamp=False)
    names, variants = font.getBestCmap(), font["MATH"].table.MathVariants
    for prime in PRIMES:
        redraw(font, names[prime], Transform(1.5, 0, 0, 1.75, 0, 90 - 1.75 * 399))
    root = variants.VertGlyphConstruction[variants.VertGlyphCoverage.glyphs.index(names[0x221a])]
    for part in [record.VariantGlyph for record in root.MathGlyphVariantRecord] + [part.glyph for part in root.GlyphAssembly.PartRecords]:
        redraw(font, part, Transform(min(1, ROOT_WIDTH / font["hmtx"][part][0]), 0, 0, 1, 0, 0))
    cut(font, [code for first, last in RANGES for code in range(first, last + 1)], FONTS / "book-math.woff2", "Book Math")


def icons(source):
    cut(TTFont(source, recalcTimestamp=False), ICONS.values(), FONTS / "book-icons.woff2", "Book Icons")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python tools/fonts.py MATH ICONS")
    maths(sys.argv[1])
    icons(sys.argv[2])
