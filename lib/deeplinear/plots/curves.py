"""Curves over an axis."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from ..annotations import Numbers
from .figure import COLOURS, DASHES, MARKERS, Figure, panels_of, styled, styles_of

MOST_POINTS = 160


@styled
def lines(panels: Mapping[str, Mapping[str, Sequence[Any]]], x: str = "iteration", y: str = "loss above its minimum",
          scale: Literal["loglog", "semilogy", "semilogx", "linear"] = "loglog",
          slopes: Mapping[Any, float | tuple[float, float]] | None = None, markers: bool = False, height: float = 3.0,
          share: bool = False,
          dots: Collection[str] | Mapping[str, str] = (), equal: bool = False, starts: bool = False,
          paint: Mapping[str, tuple[int, int]] | None = None, levels: Mapping[str, float] | None = None) -> Figure:
    """Curves in one panel or several side by side.

    ``panels``: ``{title: {label: (x values, y values)}}``; a label has the same colour and dashes in every panel, those of its
    depth if all labels are "depth N". Two more sequences of y values, as finite as the first, are the edges of a band
    behind the curve.
    ``scale``: ``"loglog"``, ``"semilogy"``, ``"semilogx"`` or ``"linear"``. ``slopes``: ``{label: slope}`` draws grey
    guides of that slope on log-log axes from below the first point of the label's curve, in the panel of a title if the key
    is ``(title, label)``; ``(slope, share)`` starts at that share of the point. ``levels``: ``{label: y value}`` draws a
    thin line across in the label's colour.
    ``markers`` marks the points, ``starts`` the first point of each curve.
    ``share`` gives all panels one vertical axis. ``dots``: labels drawn as points without a line; a dict
    gives each the label whose colour it takes. ``paint``: ``{label: (number of a colour, number of a dash)}`` for curves
    that share one of the two. ``equal``: one unit is as long on both axes. Raises ``ValueError`` for more curves than
    there are styles.
    """
    labels = list(dict.fromkeys(label for curves in panels.values() for label in curves))
    own = [label for label in labels if not (isinstance(dots, dict) and label in dots)]
    if len(own) > len(COLOURS):
        raise ValueError(f"{len(own)} curves, but only {len(COLOURS)} styles to tell them apart: draw two figures")
    if isinstance(dots, dict) and not set(dots.values()) <= set(own):
        raise ValueError(f"dots take the colours of {sorted(set(dots.values()) - set(own))}; expected labels of curves: {own}")
    places = {label: (place, place) for label, place in styles_of(own).items()} | dict(paint or {})
    figure, axes = panels_of(len(panels), height, share)
    for ax, (title, curves) in zip(axes, panels.items()):
        for label, (across, up, *band) in curves.items():
            like = dots[label] if isinstance(dots, dict) and label in dots else label
            (tint, dash), logarithmic = places[like], scale in ("loglog", "semilogx")
            if band:
                edges = [thin(across, edge, logarithmic) for edge in band]
                ax.fill_between(edges[0][0], edges[0][1], edges[1][1], color=COLOURS[tint], alpha=0.2, linewidth=0)
            xs, ys = thin(across, up, logarithmic)
            ax.plot(xs, ys, color=COLOURS[tint], linestyle="" if label in dots else DASHES[dash], label=label,
                    marker=MARKERS[dash] if markers or label in dots else None, markersize=5)
            if starts:
                ax.plot(xs[0], ys[0], "o", color=COLOURS[tint], markersize=6)
            if levels and label in levels:
                ax.axhline(levels[label], color=COLOURS[tint], linewidth=0.9, linestyle=(0, (2, 2)), zorder=1)
            slope = (slopes or {}).get((title, label), (slopes or {}).get(label))
            if slope is not None:
                guide(ax, xs, ys, *(slope if isinstance(slope, tuple) else (slope,)))
        ax.set(xscale="log" if scale in ("loglog", "semilogx") else "linear",
               yscale="log" if scale in ("loglog", "semilogy") else "linear", xlabel=x, title=title)
        ticks(ax, xs if markers else None)
        if equal:
            ax.set_aspect("equal")
        if not markers and len(panels) > 3 and scale in ("loglog", "semilogx"):  # narrow: room for the ends alone
            ax.set_xticks([min(xs), max(xs)], [f"{value:g}" for value in (min(xs), max(xs))])
            for side, tick in zip(("left", "right"), ax.get_xticklabels()):
                tick.set_horizontalalignment(side)
    axes[0].set_ylabel(y)
    if len(labels) > 1:
        key(figure, axes, labels)
    return figure


def band(runs: Numbers, window: int = 1, steps: Sequence[float] | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """A curve with its band for :func:`lines`: steps, and the median, the least and the most over the runs.

    ``runs``: (steps, runs), each smoothed over the last ``window`` steps first. ``steps``: those of the rows, 1, 2, ... if
    not given. ``ValueError`` where there are fewer rows than the window has.
    """
    runs = np.asarray(runs)
    if runs.ndim != 2 or not 1 <= window <= len(runs):
        raise ValueError(f"runs has shape {runs.shape}; expected (steps, runs) with {window} steps or more")
    means = [np.convolve(run, np.ones(window) / window, "valid") for run in runs.T]
    at = np.arange(1, len(runs) + 1) if steps is None else np.asarray(steps)
    return at[window - 1:], np.median(means, 0), np.min(means, 0), np.max(means, 0)


def guide(ax, xs, ys, slope, share=0.6):
    """A grey line of this slope from this share of the first point of a curve, with its name."""
    down = share * ys[0] * (xs / xs[0]) ** slope
    ax.plot(xs, down, color="#999999", linewidth=0.9, zorder=1)
    middle = np.argsort(xs)[len(xs) // 2]
    ax.annotate(f"slope {slope:g}", (xs[middle], down[middle]), xytext=(4, -5), ha="left", va="top",
                textcoords="offset points", color="#666666", fontsize=9)


def ticks(ax, at=None):
    """Labels of the axes: powers of ten, 2 and 5 as well where these are few; ``at``: the only ones across."""
    for axis, (low, high) in ((ax.xaxis, ax.get_xlim()), (ax.yaxis, ax.get_ylim())):
        axis.set_minor_formatter(NullFormatter())
        if axis.get_scale() == "log" and high < 60 * low:
            axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    if at is not None:
        ax.set_xticks(at, [f"{value:g}" for value in at])


def key(figure, axes, labels):
    """The labels of all panels, below them."""
    handles = {label: handle for ax in axes for handle, label in zip(*ax.get_legend_handles_labels())}
    columns = 2 if len(axes) == 1 else 4 if len(labels) <= 6 else 3
    figure.legend(handles.values(), handles, loc="outside lower center", ncols=min(len(labels), columns))


def thin(xs, ys, logarithmic):
    """The finite points, at most ``MOST_POINTS`` of them, evenly spaced on the axis."""
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
