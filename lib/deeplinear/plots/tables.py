"""Tables as coloured maps."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_rgba

from ..annotations import Numbers
from .figure import COLOURS, STYLE, Figure, styled, without_axes

HALF_UP = 1 + 1e-9  # 1/8 takes the upper of two roundings, and 1 is no orange, on every machine


@styled
def factors(panels: Mapping[str, Numbers], columns: Sequence[object], rows: Sequence[object], x: str, y: str,
            over: str) -> Figure:
    """Tables of factors as coloured maps: blue above 1, orange below 1, the number in every cell.

    ``panels``: ``{title: array (rows, columns)}``; infinity is drawn as ``>``, zero as ``<`` and NaN as a dash.
    ``columns``, ``rows``: the labels; ``x``, ``y``: what they are; ``over``: what is divided by what, the heading. Three
    panels a line.
    """
    lines_ = -(-len(panels) // 3)
    figure = Figure(figsize=(7.0, 2.35 * lines_ + 0.55), layout="constrained")
    axes = figure.subplots(lines_, min(3, len(panels)), squeeze=False, sharex=True, sharey=True)
    for ax, (name, given) in zip(axes.flat, panels.items()):
        values = np.asarray(given, dtype=float) * HALF_UP
        strength: Any = np.clip(np.log2(np.clip(np.nan_to_num(values, nan=1.0), 1e-9, 1e9)) / 5, -1, 1)
        corners, colours = [], []
        for i, j in np.ndindex(values.shape):
            corners.append([(j, i), (j + 1, i), (j + 1, i + 1), (j, i + 1)])
            colours.append(to_rgba(COLOURS[int(strength[i, j] < 0)], round(0.75 * abs(strength[i, j]), 3)))
            value = values[i, j]
            text = "–" if np.isnan(value) else ">" if np.isinf(value) else "<" if value == 0 else f"{value:.2g}"
            ax.text(j + 0.5, i + 0.5, text, ha="center", va="center", fontsize=8.5)
        ax.add_collection(PolyCollection(corners, facecolors=colours, edgecolors="#999999", linewidths=0.5))
        ax.set(xticks=np.arange(len(columns)) + 0.5, xticklabels=columns, yticks=np.arange(len(rows)) + 0.5,
               yticklabels=rows, xlim=(0, len(columns)), ylim=(0, len(rows)), title=name)
        ax.tick_params(length=0, labelsize=9)
        without_axes(ax)
    figure.suptitle(over, fontsize=STYLE["axes.labelsize"])
    for ax in axes[-1]:
        ax.set_xlabel(x)
    for ax in axes[:, 0]:
        ax.set_ylabel(y)
    return figure
