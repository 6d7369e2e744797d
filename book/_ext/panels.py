"""On a phone the panels of a figure stand one below the other: views of the one picture, cut between its axes."""

import re
from pathlib import Path
from xml.etree import ElementTree

SVG = "{http://www.w3.org/2000/svg}"
IMAGE = re.compile(r'(<img\b[^>]*\bsrc="([^"]*_images/[^"/]+\.svg)"[^>]*>)(?!<span class="panels")')
MARGIN = 10  # points that a tick label may stand out beyond its axes
HANDLE = 36  # the line before the words of a legend
RISE = 11  # of the words of a legend above their line
TITLE = 17  # above the axes, for the panel's name
SHARED = 20  # axes closer than this have their vertical scale on the first of the row alone


def places(group):
    """Where the texts of a group begin."""
    moves = [part.get("transform", "") for part in group.iter(f"{SVG}g")]
    return [tuple(map(float, re.search(r"translate\(([-\d.]+) ([-\d.]+)\)", move).groups())) for move in moves if "translate" in move]


def read(svg):
    """Width and height, axes as (left, right, top, reach of text and ticks to the left), texts of the legend, of the figure itself."""
    root = ElementTree.fromstring(svg)
    width, height = map(float, root.get("viewBox").split()[2:])
    groups = [group for group in root.find(f"{SVG}g[@id='figure_1']") if group.get("id")]
    axes = []
    for group in groups:
        if group.get("id").startswith("axes_"):
            numbers = [float(number) for number in re.findall(r"-?[\d.]+", group.find(f"{SVG}g/{SVG}path").get("d"))]
            left, right, top = min(numbers[::2]), max(numbers[::2]), round(min(numbers[1::2]))
            axes.append((left, right, top, min([left, *(x for x, _ in places(group))]) - 5))
    legend, own = (sum([places(group) for group in groups if group.get("id").startswith(kind)], []) for kind in ("legend_", "text_"))
    return width, height, axes, legend, own


def views(svg):
    """The panels of a figure, rows from the top: each a list of boxes (x, y, width, height) side by side; none of a single one."""
    width, height, axes, legend, own = read(svg)
    if len(axes) < 2:
        return []
    foot = min((y for _, y in legend), default=height + RISE) - RISE
    tops = sorted({top for _, _, top, _ in axes})
    begins = {top: max(0, top - TITLE) for top in tops}
    boxes = [[(x - 3, 0, width - 2 * x + 6, begins[tops[0]])] for x, y in own if y < begins[tops[0]]]
    for left, right, top, reach in axes:
        row = sorted(other for other in axes if other[2] == top)
        place, above = [other[0] for other in row].index(left), begins[top]
        tall = (begins[tops[tops.index(top) + 1]] if top < tops[-1] else foot) - above
        far = min(right + MARGIN, row[place + 1][3] if place + 1 < len(row) else width)
        if place and left - row[place - 1][1] < SHARED < row[0][0]:
            boxes.append([(0, above, row[0][0] - 1, tall), (left - 1, above, far - left + 1, tall)])
        else:
            near = max(0, reach if place else 0)
            boxes.append([(near, above, far - near, tall)])
    columns = sorted({round(x) for x, _ in legend})
    for start, after in zip(columns[::2], [*columns[2::2], width - min(columns, default=0) + 2 * HANDLE]):
        boxes.append([(start - HANDLE, foot, after - start, height - foot)])
    return boxes


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


def stack_panels(app, pages):
    for name, text in pages.items():
        folder = Path(app.outdir, name).parent
        for image, address in IMAGE.findall(text):
            pages[name] = pages[name].replace(image, image + stacked(address, (folder / address).read_text(encoding="utf-8")), 1)
