"""A figure: its style, its colours and its form as SVG."""

import functools
import io
import re
from collections.abc import Callable, Sequence
from typing import ParamSpec

import matplotlib
from matplotlib.figure import Figure as _Figure

STYLE = {
    "svg.hashsalt": "deeplinear", "svg.fonttype": "path", "path.simplify": False,
    "font.family": "DejaVu Sans", "font.size": 10.5, "mathtext.fontset": "dejavusans",
    "axes.titlesize": 10.5, "axes.titleweight": "bold", "axes.labelsize": 10.5,
    "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True,
    "axes.grid": True, "grid.color": "#d8d8d8", "grid.linewidth": 0.6,
    "axes.edgecolor": "#444444", "xtick.color": "#444444", "ytick.color": "#444444",
    "legend.frameon": False, "legend.fontsize": 9.5, "legend.handlelength": 2.6, "lines.linewidth": 1.8,
}
# Okabe and Ito's colours, told apart by the colour-blind; each comes with its own dash pattern.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#555555", "#e69f00", "#56b4e9", "#000000")
DASHES = ("-", (0, (5, 1.6)), (0, (5, 1.4, 1.2, 1.4)), (0, (1.2, 1.2)), (0, (9, 2)), (0, (3, 1, 1, 1, 1, 1)),
          (0, (1, 2.5)), (0, (6, 1, 1, 1, 1, 1)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<")
OF_DEPTH = {1: 0, 2: 1, 3: 2, 4: 3, 8: 4, 6: 5, 5: 6}  # a depth has one colour and one dash in every figure
Given = ParamSpec("Given")


def styles_of(labels: Sequence[str]) -> dict[str, int]:
    """The number of each label's colour, dash and marker: that of its depth if all are "depth N", else in order."""
    depths = [int(found[1]) if (found := re.fullmatch(r"depth (\d+)", label)) else 0 for label in labels]
    if set(depths) <= OF_DEPTH.keys():
        return {label: OF_DEPTH[depth] for label, depth in zip(labels, depths)}
    return {label: place for place, label in enumerate(labels)}


class Figure(_Figure):
    """A Matplotlib figure that displays as SVG in a notebook; ``svg()`` is its text, coordinates to 0.01 points."""

    def svg(self) -> str:
        buffer = io.StringIO()
        with matplotlib.rc_context(STYLE):
            self.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
        text = buffer.getvalue()
        return lighter(re.sub(r"[1-9]\d*\.\d{3,}", lambda found: f"{float(found[0]):.2f}", text[text.index("<svg"):]))

    def _repr_svg_(self):
        return self.svg()

    def __repr__(self):
        return f"<Figure with {len(self.axes)} panel(s)>"


def lighter(svg: str) -> str:
    """An SVG without the indents of its lines and without the styles of ticks, which the tick that they place has itself."""
    placed = r'(<use xlink:href="#m[0-9a-f]+" x="[^"]*" y="[^"]*") style="fill: (#\w+); stroke: \2; stroke-width: 0\.\d"/>'
    return re.sub(placed, r"\1/>", re.sub(r"\n +", "\n", svg))


def styled(draw: Callable[Given, Figure]) -> Callable[Given, Figure]:
    """The function, drawing in the book's style."""
    @functools.wraps(draw)
    def in_style(*arguments: Given.args, **options: Given.kwargs) -> Figure:
        with matplotlib.rc_context(STYLE):
            return draw(*arguments, **options)
    return in_style


def panels_of(count, height=3.0, share=False):
    """A new figure and its panels side by side; ``height`` in inches, ``share``: one vertical axis."""
    figure = Figure(figsize=(4.6 if count == 1 else 7.0, height), layout="constrained")
    return figure, figure.subplots(1, count, squeeze=False, sharey=share)[0]


def without_axes(ax):
    """Take away the grid and the frame of a panel that is a picture, not a graph."""
    ax.grid(False)
    for side in ax.spines.values():
        side.set_visible(False)
