"""Matrices as shaded squares, and what an imbalanced pair of layers makes of a circle of gradients."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.colors import to_rgba
from matplotlib.patches import Ellipse, PathPatch, Rectangle
from matplotlib.path import Path
from matplotlib.transforms import Affine2D

from ..annotations import Numbers
from .figure import COLOURS, Figure, panels_of, styled, without_axes

SHADES = 6  # of each colour


@styled
def matrices(panels: Mapping[str, Numbers]) -> Figure:
    """Matrices side by side: blue entries above 0, orange ones below, darker the larger they are; NaN is left blank.

    ``panels``: ``{title: matrix (n, m)}``, all on the scale of the largest finite entry of the first.
    """
    figure, axes = panels_of(len(panels), height=1.75)
    shown = {title: np.asarray(matrix, dtype=float) for title, matrix in panels.items()}
    top = np.nanmax(np.abs(next(iter(shown.values()))))
    for ax, (title, matrix) in zip(axes, shown.items()):
        shade = np.ceil(np.clip(np.abs(np.nan_to_num(matrix)) / top, 0, 1) * SHADES - 0.5) * np.sign(np.nan_to_num(matrix))
        for value in np.unique(shade[shade != 0]):
            colour = to_rgba(COLOURS[int(value < 0)], round(0.15 + 0.75 * abs(value) / SHADES, 3))
            squares = [Path.unit_rectangle().transformed(Affine2D().translate(j, i)) for i, j in np.argwhere(shade == value)]
            ax.add_patch(PathPatch(Path.make_compound_path(*squares), facecolor=colour, edgecolor="none"))
        n, m = matrix.shape
        ax.add_patch(Rectangle((0, 0), m, n, facecolor="none", edgecolor="#999999", linewidth=0.8))
        ax.set(xlim=(-0.1, m + 0.1), ylim=(n + 0.1, -0.1), aspect="equal", xticks=[], yticks=[], title=title)
        without_axes(ax)
    return figure


@styled
def imbalances(chis: Sequence[float] = (-10.0, 0.0, 1.0, 10.0), size: float = 1.0, angle: float = 35.0) -> Figure:
    """What two layers w = a v of one hidden unit make of the unit circle of gradients, for several ``chi = a^2 - |v|^2``.

    One panel for each; every ellipse is drawn at one length, with its half axes along w, of norm ``size``, and across it
    written below. ``angle``: of w, degrees. :prf:ref:`prop-imbalance`.
    """
    figure, axes = panels_of(len(chis), height=2.3)
    turn = np.array([np.cos(np.radians(angle)), np.sin(np.radians(angle))])
    for ax, chi in zip(axes, chis):
        along = np.sqrt(chi**2 + 4 * size**2)
        across = (chi + along) / 2
        ax.add_patch(Ellipse((0, 0), 2, 2 * across / along, angle=angle, linewidth=1.6, edgecolor=COLOURS[1],
                             facecolor=to_rgba(COLOURS[1], 0.25)))
        ax.annotate("", 1.35 * turn, (0, 0), arrowprops={"arrowstyle": "-|>", "color": "#333333", "lw": 1.3, "shrinkA": 0,
                                                         "shrinkB": 0})
        ax.text(*(1.5 * turn), "$w$", ha="center", va="center")
        ax.set(xlim=(-1.3, 1.5), ylim=(-1.2, 1.2), aspect="equal", xticks=[], yticks=[], title=rf"$\chi = {chi:g}$",
               xlabel=f"along {along:.3g}\nacross {across:.2g}")
        without_axes(ax)
    return figure
