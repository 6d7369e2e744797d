"""Every figure of the book. The only module that imports a plotting library.

Each function returns a :class:`Figure`, a Matplotlib figure that shows itself as SVG: transparent, of fixed size, with
text as paths, no date and no random names, so that the same numbers give the same bytes.
"""

import functools
import io

import matplotlib
import numpy as np
import torch
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure as _Figure
from matplotlib.patches import Ellipse
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from . import field, flow, losses

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
MOST_POINTS = 160
HALF_UP = 1 + 1e-9  # a number that lies between two roundings, 1/8 say, takes the upper one on every machine


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
          share=False, dots=(), equal=False):
    """Curves in one panel or several side by side.

    ``panels``: ``{title: {label: (x values, y values)}}``; a label has the same colour and dashes in every panel. Two more
    sequences of y values, as finite as the first, are the edges of a band behind the curve.
    ``scale``: ``"loglog"``, ``"semilogy"``, ``"semilogx"`` or ``"linear"``. ``slopes``: ``{label: slope}`` draws grey
    guides of that slope on log-log axes through the first point of the label's curve. ``markers`` marks the points.
    ``share`` gives all panels one vertical axis. ``dots``: labels drawn as points without a line; a dict
    gives each the label whose colour it takes. ``equal``: one unit is as long on both axes. Raises ``ValueError`` for more
    curves than there are styles.
    """
    labels = list(dict.fromkeys(label for curves in panels.values() for label in curves))
    own = [label for label in labels if not (isinstance(dots, dict) and label in dots)]
    if len(own) > len(COLOURS):
        raise ValueError(f"{len(own)} curves, but only {len(COLOURS)} styles to tell them apart: draw two figures")
    if isinstance(dots, dict) and not set(dots.values()) <= set(own):
        raise ValueError(f"dots take the colours of {sorted(set(dots.values()) - set(own))}; expected labels of curves: {own}")
    figure, axes = _panels(len(panels), height, share)
    for ax, (title, curves) in zip(axes, panels.items()):
        for label, (xs, ys, *band) in curves.items():
            like = dots[label] if isinstance(dots, dict) and label in dots else label
            style, logarithmic = own.index(like), scale in ("loglog", "semilogx")
            if band:
                edges = [_thin(xs, edge, logarithmic) for edge in band]
                ax.fill_between(edges[0][0], edges[0][1], edges[1][1], color=COLOURS[style], alpha=0.2, linewidth=0)
            xs, ys = _thin(xs, ys, logarithmic)
            ax.plot(xs, ys, color=COLOURS[style], linestyle="" if label in dots else DASHES[style], label=label,
                    marker=MARKERS[style] if markers or label in dots else None, markersize=5)
            if slopes and label in slopes:
                guide = 0.6 * ys[0] * (xs / xs[0]) ** slopes[label]
                ax.plot(xs, guide, color="#999999", linewidth=0.9, zorder=1)
                middle = np.argsort(xs)[len(xs) // 2]
                ax.annotate(f"slope {slopes[label]:g}", (xs[middle], guide[middle]), xytext=(4, -5), ha="left", va="top",
                            textcoords="offset points", color="#666666", fontsize=9)
        ax.set(xscale="log" if scale in ("loglog", "semilogx") else "linear",
               yscale="log" if scale in ("loglog", "semilogy") else "linear", xlabel=x, title=title)
        for axis, (low, high) in ((ax.xaxis, ax.get_xlim()), (ax.yaxis, ax.get_ylim())):
            axis.set_minor_formatter(NullFormatter())
            if axis.get_scale() == "log" and high < 60 * low:  # few powers of ten: label 2 and 5 as well
                axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
                axis.set_major_formatter(StrMethodFormatter("{x:g}"))
        if equal:
            ax.set_aspect("equal")
        if markers:
            ax.set_xticks(xs, [f"{value:g}" for value in xs])
    axes[0].set_ylabel(y)
    if len(labels) > 1:
        handles = {label: handle for ax in axes for handle, label in zip(*ax.get_legend_handles_labels())}
        columns = 2 if len(panels) == 1 else 4 if len(labels) <= 6 else 3
        figure.legend(handles.values(), handles, loc="outside lower center", ncols=min(len(labels), columns))
    return figure


def _panels(count, height=3.0, share=False):
    figure = Figure(figsize=(4.6 if count == 1 else 7.0, height), layout="constrained")
    return figure, figure.subplots(1, count, squeeze=False, sharey=share)[0]


def _without_axes(ax):
    """Take away the grid and the frame of a panel that is a picture, not a graph."""
    ax.grid(False)
    for side in ax.spines.values():
        side.set_visible(False)


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


@_styled
def ellipses(depths=(1, 2, 4), radii=(0.45, 0.8, 1.15), directions=8):
    """The preconditioner of a single output in the plane: at each point the image of the unit circle, over the depth.

    One panel for each depth; points at ``radii`` in evenly spaced ``directions``. :prf:ref:`cor-single-output`.
    """
    figure, axes = _panels(len(depths), height=2.7)
    for ax, depth, colour in zip(axes, depths, COLOURS):
        for radius in radii:
            for angle in np.arange(directions) * 360 / directions:
                point = radius * np.array([np.cos(np.radians(angle)), np.sin(np.radians(angle))])
                reach = 0.15 * radius ** (2 - 2 / depth)  # half of the axis along the ray
                ax.add_patch(Ellipse(point, 2 * reach, 2 * reach / depth, angle=angle, linewidth=1.2, edgecolor=colour,
                                     facecolor=to_rgba(colour, 0.25)))
        ax.plot(0, 0, "+", color="#444444")
        ax.set(xlim=(-1.35, 1.35), ylim=(-1.35, 1.35), aspect="equal", title=f"depth {depth}", xticks=[], yticks=[])
        _without_axes(ax)
    return figure


@_styled
def curls(loss, depths=(1, 2, 3, 5), r=0.5, R=1.0):
    """The end-to-end field of a loss of two weights: arrows, its curl as shade, and the paper's curve with its integral.

    One panel for each depth; orange where the field turns counter-clockwise, blue where clockwise, on one scale for all
    panels; the curve runs through the radii ``r`` and ``R``. :prf:ref:`lem-curl`.
    """
    figure, axes = _panels(len(depths), height=2.6)
    grid = np.linspace(-1.25, 1.25, 25)
    points = torch.from_numpy(np.stack(np.meshgrid(grid, grid), -1))[..., None, :] + 1e-9
    shades = [field.curl(loss, points, depth)[..., 1, 0].numpy() for depth in depths]
    top = max(np.abs(shade).max() for shade in shades)
    levels = top * np.array([-1.01, -0.6, -0.3, -0.12, -0.01, 0.01, 0.12, 0.3, 0.6, 1.01])
    colours = [to_rgba(COLOURS[0], a) for a in (0.65, 0.45, 0.28, 0.12)] + ["none"]
    colours += [to_rgba(COLOURS[1], a) for a in (0.12, 0.28, 0.45, 0.65)]
    e = loss.gradient(torch.zeros(1, 2, dtype=torch.float64))[0].numpy()
    e, half = e / np.linalg.norm(e), np.linspace(0, np.pi, 40)[:, None]
    arc = np.cos(half) * e + np.sin(half) * np.array([-e[1], e[0]])
    curve = np.concatenate([-R * e[None], r * arc[::-1], R * arc])
    for ax, depth, shade in zip(axes, depths, shades):
        if np.abs(shade).max() > 1e-9:
            ax.contourf(grid, grid, shade, levels=levels, colors=colours)
        x, y = points[2::4, 2::4, 0, 0].numpy(), points[2::4, 2::4, 0, 1].numpy()
        F = field.vector_field(loss, points[2::4, 2::4], depth)[..., 0, :].numpy()
        ax.quiver(x, y, F[..., 0], F[..., 1], color="#555555", width=0.009, pivot="mid",
                  scale=7.5 * np.linalg.norm(F, axis=-1).max())
        ax.plot(*curve.T, color="#222222", linewidth=1.6)
        for end, start in ((-(r + 0.4 * (R - r)) * e, -R * e), (R * arc[20], R * arc[18])):
            ax.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": "#222222", "lw": 1.6})
        total = field.line_integral(loss, depth, r, R)
        ax.set(xlim=(-1.25, 1.25), ylim=(-1.25, 1.25), aspect="equal", xticks=[], yticks=[],
               title=f"depth {depth}", xlabel=f"integral {total + 0.0:.3f}")
        _without_axes(ax)
    return figure


@_styled
def factors(panels, columns, rows, x, y, over):
    """Tables of factors as coloured maps: blue above 1, orange below 1, the number in every cell.

    ``panels``: ``{title: array (rows, columns)}``; infinity is drawn as ``>``, zero as ``<`` and NaN as a dash.
    ``columns``, ``rows``: the labels; ``x``, ``y``: what they are; ``over``: what is divided by what, the heading. Three
    panels a line.
    """
    lines_ = -(-len(panels) // 3)
    figure = Figure(figsize=(7.0, 2.35 * lines_ + 0.55), layout="constrained")
    axes = figure.subplots(lines_, min(3, len(panels)), squeeze=False, sharex=True, sharey=True)
    for ax, (name, values) in zip(axes.flat, panels.items()):
        values = np.asarray(values, dtype=float)
        strength = np.clip(np.log2(np.clip(np.nan_to_num(values, nan=1.0), 1e-9, 1e9)) / 5, -1, 1)
        corners, colours = [], []
        for i, j in np.ndindex(values.shape):
            corners.append([(j, i), (j + 1, i), (j + 1, i + 1), (j, i + 1)])
            colours.append(to_rgba(COLOURS[int(strength[i, j] < 0)], 0.75 * abs(strength[i, j])))
            value = values[i, j]
            text = "–" if np.isnan(value) else ">" if np.isinf(value) else "<" if value == 0 else f"{value * HALF_UP:.2g}"
            ax.text(j + 0.5, i + 0.5, text, ha="center", va="center", fontsize=8.5)
        ax.add_collection(PolyCollection(corners, facecolors=colours, edgecolors="#999999", linewidths=0.5))
        ax.set(xticks=np.arange(len(columns)) + 0.5, xticklabels=columns, yticks=np.arange(len(rows)) + 0.5,
               yticklabels=rows, xlim=(0, len(columns)), ylim=(0, len(rows)), title=name)
        ax.tick_params(length=0, labelsize=9)
        _without_axes(ax)
    figure.suptitle(over, fontsize=STYLE["axes.labelsize"])
    for ax in axes[-1]:
        ax.set_xlabel(x)
    for ax in axes[:, 0]:
        ax.set_ylabel(y)
    return figure


@_styled
def cover():
    """The idea of the book in one picture: two paths to one minimum, and what each makes of a circle of gradients."""
    loss = losses.LpLoss(torch.eye(2, dtype=torch.float64), [1.6, 0.8], p=4)
    start = torch.tensor([[0.12, 0.28]], dtype=torch.float64)
    figure, (ax,) = _panels(1, height=3.4)
    x, y = np.meshgrid(np.linspace(-0.15, 1.95, 90), np.linspace(-0.1, 1.15, 60))
    levels = loss.value(torch.from_numpy(np.stack([x, y], -1))[..., None, :]).numpy()
    ax.contour(x, y, levels, levels=np.geomspace(1e-4, 5, 14), colors="#b5b5b5", linewidths=0.7)
    times = np.concatenate([[0], np.geomspace(0.02, 300, 200)])
    for style, depth in enumerate((1, 3)):
        path = flow.end_to_end(loss, start, depth, times).end_to_end[:, 0].numpy()
        ax.plot(*path.T, color=COLOURS[style], linestyle=DASHES[style], label=f"depth {depth}")
        length = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(path, axis=0), axis=1))])
        for point in path[np.searchsorted(length, np.linspace(0, 0.92, 5) * length[-1])]:
            along = 0.13 * np.linalg.norm(point) ** (2 - 2 / depth)
            angle = np.degrees(np.arctan2(point[1], point[0]))
            ax.add_patch(Ellipse(point, 2 * along, 2 * along / depth, angle=angle, linewidth=1.2, zorder=3,
                                 edgecolor=COLOURS[style], facecolor=to_rgba(COLOURS[style], 0.25)))
    ax.plot(*start[0], "o", color="#333333", markersize=4)
    ax.plot(1.6, 0.8, "*", color="#333333", markersize=11)
    ax.set(aspect="equal", xticks=[], yticks=[], xlim=(-0.15, 1.95), ylim=(-0.1, 1.15))
    _without_axes(ax)
    figure.legend(loc="outside lower center", ncols=2)
    return figure
