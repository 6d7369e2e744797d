"""On a phone the panels of a figure stand one below the other: views of the one picture, cut between its axes."""

import re
from pathlib import Path

AXES = re.compile(r'<g id="axes_\d+">\s*<g id="patch_\d+">\s*<path d="([^"]+)"')
TEXT = re.compile(r'<g id="text_\d+">.*?translate\(([-\d.]+) ([-\d.]+)\)', re.S)
NUMBER = re.compile(r"-?[\d.]+")
IMAGE = re.compile(r'(<img\b[^>]*\bsrc="([^"]*_images/[^"/]+\.svg)"[^>]*>)(?!<span class="panels")')
MARGIN = 10  # points that a tick label may stand out beyond its axes
HANDLE = 36  # the line before the words of a legend
SHARED = 20  # axes closer than this have their vertical scale on the first of the row alone


def read(svg):
    """Width and height of the picture, its axes as (left, right, top, reach of their text to the left), and the places of its legend."""
    width, height = (float(number) for number in re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg).groups())
    plots, _, legend = svg.partition('<g id="legend_1"')
    axes = []
    for part in re.split(r'(?=<g id="axes_\d+">)', plots)[1:]:
        numbers = [float(number) for number in NUMBER.findall(AXES.search(part)[1])]
        left, right, top = min(numbers[::2]), max(numbers[::2]), round(min(numbers[1::2]))
        axes.append((left, right, top, min([left, *(float(x) for x, _ in TEXT.findall(part))]) - 3))
    return width, height, axes, [(float(x), float(y)) for x, y in TEXT.findall(legend)]


def views(svg):
    """The panels of a figure, rows from the top: each a list of boxes (x, y, width, height) side by side; none of a single one."""
    width, height, axes, entries = read(svg)
    foot = min((y for _, y in entries), default=height + 9) - 9
    tops = sorted({top for _, _, top, _ in axes})
    boxes = []
    for left, right, top, reach in axes:
        row = sorted(other for other in axes if other[2] == top)
        place, above = [other[0] for other in row].index(left), top - tops[0]
        tall = tops[1] - tops[0] if top < tops[-1] else foot - above
        near = reach if place else 0
        far = min(right + MARGIN, row[place + 1][3] if place + 1 < len(row) else width)
        if place and left - row[place - 1][1] < SHARED < row[0][0]:
            boxes.append([(0, above, row[0][0] - 1, tall), (left - 1, above, far - left + 1, tall)])
        else:
            boxes.append([(near, above, far - near, tall)])
    columns = sorted({round(x) for x, _ in entries})
    for start, after in zip(columns[::2], [*columns[2::2], width - min(columns, default=0) + 2 * HANDLE]):
        boxes.append([(start - HANDLE, foot, after - start, height - foot)])
    return boxes if len(axes) > 1 else []


def stacked(address, svg):
    """The HTML of the panels of the picture at ``address``."""
    width, height = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg).groups()
    drawn = []
    for panel in views(svg):
        total, tall = sum(box[2] for box in panel), panel[0][3]
        parts, at = "", 0
        for x, y, wide, _ in panel:
            parts += (f'<svg x="{at:.1f}" width="{wide:.1f}" height="{tall:.1f}" viewBox="{x:.1f} {y:.1f} {wide:.1f} {tall:.1f}">'
                      f'<image href="{address}" width="{width}" height="{height}"/></svg>')
            at += wide
        drawn.append(f'<svg viewBox="0 0 {total:.1f} {tall:.1f}" style="width: {total * 4 / 3:.0f}px; max-width: 100%">{parts}</svg>')
    return f'<span class="panels" aria-hidden="true">{"".join(drawn)}</span>' if drawn else ""


def stack_panels(app, failure):
    if failure or app.builder.name != "html":
        return
    for path in Path(app.outdir).rglob("*.html"):
        text = with_panels = path.read_text(encoding="utf-8")
        for image, address in IMAGE.findall(text):
            with_panels = with_panels.replace(image, image + stacked(address, (path.parent / address).read_text(encoding="utf-8")), 1)
        if with_panels != text:
            path.write_text(with_panels, encoding="utf-8")


def setup(app):
    app.connect("build-finished", stack_panels)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
