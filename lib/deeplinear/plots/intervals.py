"""Means with their intervals."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from .figure import COLOURS, MARKERS, Figure, styled


@styled
def intervals(panels: Mapping[str, Mapping[str, Mapping[str, Sequence[float]]]], x: str, at: float = 1.0,
              height: float = 3.4) -> Figure:
    """Means with intervals, a line for each row, on a logarithmic axis.

    ``panels``: ``{title: {label: {row: (mean, low, high)}}}``, all positive; a label has one colour and marker, its mark in a
    row lies beside those of the others. ``x``: what is shown; a grey line stands at ``at``.
    """
    rows = list(dict.fromkeys(row for groups in panels.values() for found in groups.values() for row in found))
    labels = list(dict.fromkeys(label for groups in panels.values() for label in groups))
    figure = Figure(figsize=(7.0, height), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    for ax, (title, groups) in zip(axes, panels.items()):
        ax.axvline(at, color="#777777", linewidth=1.2, zorder=1)
        for label, found in groups.items():
            style = labels.index(label)
            shift = 0.36 * ((style + 0.5) / len(labels) - 0.5)
            places = np.array([rows.index(row) for row in found]) + shift
            mean, low, high = np.array(list(found.values()), dtype=float).T
            ax.errorbar(mean, places, xerr=[mean - low, high - mean], fmt=MARKERS[style], color=COLOURS[style], markersize=5,
                        linewidth=1.5, label=label)
        ax.set(xscale="log", xlabel=x, title=title, yticks=range(len(rows)), yticklabels=rows)
        ax.grid(axis="y", visible=False)
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 1.4, 2, 3, 5, 7)))
        ax.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        ax.xaxis.set_minor_formatter(NullFormatter())
    axes[0].invert_yaxis()
    if len(labels) > 1:
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(labels))
    return figure
