"""Every figure of the book. The only module that imports a plotting library.

Each function returns a :class:`Figure`, a Matplotlib figure that shows itself as SVG: transparent, of fixed size, with
text as paths, no date and no random names, so that the same numbers give the same bytes.
"""

import functools
import io

import matplotlib
import numpy as np
from matplotlib.figure import Figure as _Figure
from matplotlib.patches import Ellipse

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
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#555555", "#e69f00")
DASHES = ("-", (0, (5, 1.6)), (0, (5, 1.4, 1.2, 1.4)), (0, (1.2, 1.2)), (0, (9, 2)), (0, (3, 1, 1, 1, 1, 1)))
MARKERS = ("o", "s", "^", "D", "v", "P")
MOST_POINTS = 160


class Figure(_Figure):
    """A Matplotlib figure that displays as SVG in a notebook; ``svg()`` is its text."""

    def svg(self):
        buffer = io.StringIO()
        with matplotlib.rc_context(STYLE):
            self.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
        text = buffer.getvalue()
        return text[text.index("<svg"):]

    def _repr_svg_(self):
        return self.svg()

    def __repr__(self):
        return f"<Figure with {len(self.axes)} panel(s)>"


def _styled(draw):
    @functools.wraps(draw)
    def in_style(*arguments, **options):
        with matplotlib.rc_context(STYLE):
            return draw(*arguments, **options)
    return in_style


@_styled
def lines(panels, x="iteration", y="loss above its minimum", scale="loglog", slopes=None, markers=False, height=3.0,
          share=False):
    """Curves in one panel or several side by side.

    ``panels``: ``{title: {label: (x values, y values)}}``; a label has the same colour and dashes in every panel.
    ``scale``: ``"loglog"``, ``"semilogy"``, ``"semilogx"`` or ``"linear"``. ``slopes``: ``{label: slope}`` draws grey
    guides of that slope on log-log axes through the first point of the label's curve. ``markers`` marks the points.
    ``share`` gives all panels one vertical axis.
    """
    labels = list(dict.fromkeys(label for curves in panels.values() for label in curves))
    figure, axes = _panels(len(panels), height, share)
    for ax, (title, curves) in zip(axes, panels.items()):
        for label, (xs, ys) in curves.items():
            style = labels.index(label) % len(COLOURS)
            xs, ys = _thin(xs, ys, logarithmic=scale in ("loglog", "semilogx"))
            ax.plot(xs, ys, color=COLOURS[style], linestyle=DASHES[style], label=label,
                    marker=MARKERS[style] if markers else None, markersize=5)
            if slopes and label in slopes:
                guide = ys[0] * (xs / xs[0]) ** slopes[label]
                ax.plot(xs, 1.6 * guide, color="#999999", linewidth=0.9, zorder=1)
                middle = len(xs) // 2
                ax.annotate(f"slope {slopes[label]:g}", (xs[middle], 1.6 * guide[middle]), xytext=(-6, 6),
                            textcoords="offset points", ha="right", color="#777777", fontsize=9)
        ax.set(xscale="log" if scale in ("loglog", "semilogx") else "linear",
               yscale="log" if scale in ("loglog", "semilogy") else "linear", xlabel=x, title=title)
    axes[0].set_ylabel(y)
    if len(labels) > 1:
        handles = {label: handle for ax in axes for handle, label in zip(*ax.get_legend_handles_labels())}
        figure.legend(handles.values(), handles, loc="outside lower center", ncols=min(len(labels), 4))
    return figure


def _panels(count, height=3.0, share=False):
    figure = Figure(figsize=(4.6 if count == 1 else 7.0, height), layout="constrained")
    return figure, figure.subplots(1, count, squeeze=False, sharey=share)[0]


def _thin(xs, ys, logarithmic):
    xs, ys = np.asarray(xs, dtype=float), np.asarray(ys, dtype=float)
    keep = np.isfinite(xs) & np.isfinite(ys) & ((xs > 0) | (not logarithmic))
    xs, ys = xs[keep], ys[keep]
    if len(xs) <= MOST_POINTS:
        return xs, ys
    if logarithmic:
        wanted = np.geomspace(xs[0], xs[-1], MOST_POINTS)
        index = np.unique(np.searchsorted(xs, wanted).clip(0, len(xs) - 1))
    else:
        index = np.unique(np.linspace(0, len(xs) - 1, MOST_POINTS).round().astype(int))
    return xs[index], ys[index]
