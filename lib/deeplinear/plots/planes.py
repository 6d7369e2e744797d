"""Pictures of the plane of two weights: the preconditioner, the field, the paths to a minimum."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib.colors import to_rgba
from matplotlib.patches import Ellipse

from .. import field, flow, losses
from .figure import COLOURS, DASHES, OF_DEPTH, Figure, panels_of, styled, without_axes


@styled
def ellipses(depths: Sequence[float] = (1, 2, 4), radii: Sequence[float] = (0.45, 0.8, 1.15),
             directions: int = 8) -> Figure:
    """The preconditioner of a single output in the plane: at each point the image of the unit circle, over the depth.

    One panel for each depth; points at ``radii`` in evenly spaced ``directions``. :prf:ref:`cor-single-output`.
    """
    figure, axes = panels_of(len(depths), height=2.7)
    for ax, depth in zip(axes, depths):
        colour = COLOURS[OF_DEPTH.get(int(depth), 7)]
        for radius in radii:
            for angle in np.arange(directions) * 360 / directions:
                point = radius * np.array([np.cos(np.radians(angle)), np.sin(np.radians(angle))])
                reach = 0.15 * radius ** (2 - 2 / depth)  # half of the axis along the ray
                ax.add_patch(Ellipse(point, 2 * reach, 2 * reach / depth, angle=angle, linewidth=1.2, edgecolor=colour,
                                     facecolor=to_rgba(colour, 0.25)))
        ax.plot(0, 0, "+", color="#444444")
        ax.set(xlim=(-1.35, 1.35), ylim=(-1.35, 1.35), aspect="equal", title=f"depth {depth}", xticks=[], yticks=[])
        without_axes(ax)
    return figure


@styled
def curls(loss: losses.LpLoss | losses.Polynomial, depths: Sequence[float] = (1, 2, 3, 5), r: float = 0.5,
          R: float = 1.0) -> Figure:
    """The end-to-end field of a loss of two weights: arrows, its curl as shade, and the paper's curve with its integral.

    One panel for each depth; orange where the field turns counter-clockwise, blue where clockwise, on one scale for all
    panels; the curve runs through the radii ``r`` and ``R``. :prf:ref:`lem-curl`.
    """
    figure, axes = panels_of(len(depths), height=2.6)
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
        without_axes(ax)
    return figure


@styled
def sectors(loss: losses.Polynomial, curves: Mapping[str, Sequence[float]], depth: float = 2, r: float = 0.5,
            R: float = 1.0) -> Figure:
    """Closed curves through the field of a loss of two weights, and what each sector inside adds to the integral.

    ``curves``: ``{title: angles}``; a curve runs along the ray of the first angle (degrees, falling) from radius ``R`` to
    ``r``, on the inner arc to the ray of the last, and back; those between divide it. One panel for each, its integral
    below; orange what counts positive, blue negative. :prf:ref:`thm-polar`.
    """
    figure, axes = panels_of(len(curves), height=3.0)
    ray = lambda angle: np.array([np.cos(np.radians(angle)), np.sin(np.radians(angle))])
    arc = lambda start, end: np.stack([ray(angle) for angle in np.linspace(start, end, 41)])
    part = lambda start, end: float(field.line_integral(loss, depth, r, R, directions=(ray(start).tolist(), ray(end).tolist())))
    for ax, (title, angles) in zip(axes, curves.items()):
        shares = [part(start, end) for start, end in zip(angles, angles[1:])]
        for share, start, end in zip(shares, angles, angles[1:]):
            edge = arc(start, end)
            ax.fill(*np.concatenate([r * edge, R * edge[::-1]]).T, facecolor=to_rgba(COLOURS[int(share > 0)], 0.35), linewidth=0)
            ax.text(*0.5 * (r + R) * ray((start + end) / 2), f"{share:+.3f}".replace("-", "\u2212"), ha="center", va="center",
                    fontsize=9.5)
        whole = arc(angles[0], angles[-1])
        curve = np.concatenate([R * whole[:1], r * whole, R * whole[::-1]])
        ax.plot(*curve.T, color="#222222", linewidth=1.8)
        for end, start in ((curve[1] * 0.6 + curve[0] * 0.4, curve[0]), (curve[-20], curve[-23])):
            ax.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": "#222222", "lw": 1.8})
        ax.plot(0, 0, "+", color="#444444")
        ax.set(xlim=(-1.15, 1.15), ylim=(-0.8, 1.1), aspect="equal", xticks=[], yticks=[], title=title,
               xlabel=f"integral {round(sum(shares), 3) + 0.0:.3f}")
        without_axes(ax)
    return figure


@styled
def cone(depth: float = 4, minimum: tuple[float, float] = (0.55, 0.9), start: tuple[float, float] = (-0.25, 0.1),
         reach: float = 1.7) -> Figure:
    """The flow of one depth on two weights, in the plane and on the flat sheet to which the metric of depth unrolls it.

    The plane is cut below the origin; radius r becomes sqrt(N) r^(1/N), and angles shrink by sqrt(N). In both, the level
    lines of the loss (w_1 - m_1)^2 / 2 + 2 (w_2 - m_2)^2, the path, and at one of its points the direction of the path
    (coloured) and that of steepest descent (dark). :prf:ref:`prop-cone`.
    """
    def on_sheet(w):
        angle = np.mod(np.arctan2(w[..., 1], w[..., 0]) + np.pi / 2, 2 * np.pi) - np.pi
        turned, rho = angle / np.sqrt(depth) + np.pi / 2, np.sqrt(depth) * np.linalg.norm(w, axis=-1) ** (1 / depth)
        return np.stack([rho * np.cos(turned), rho * np.sin(turned)], -1)

    value = lambda w: (w[..., 0] - minimum[0]) ** 2 / 2 + 2 * (w[..., 1] - minimum[1]) ** 2
    loss = losses.LpLoss(np.diag([1.0, 2.0]), [minimum[0], 2 * minimum[1]], p=2, reduction="sum", scale=0.5)
    path = flow.end_to_end(loss, torch.tensor([start]).double(), int(depth), np.geomspace(0.01, 60, 300)).end_to_end[:, 0].numpy()
    polar = np.stack(np.meshgrid(reach * np.linspace(0.05, 1, 45) ** 2, np.radians(np.linspace(-89.99, 269.99, 109))), -1)
    plane = polar[..., :1] * np.stack([np.cos(polar[..., 1]), np.sin(polar[..., 1])], -1)
    figure, axes = panels_of(2, height=3.2)
    colour, i = COLOURS[OF_DEPTH.get(int(depth), 7)], int(np.searchsorted(-value(path), -0.35 * value(path)[0]))
    for ax, draw, title in zip(axes, (lambda w: w, on_sheet), ("the plane of the weights", "the flat sheet")):
        grid, line, m = draw(plane), draw(path), draw(np.array(minimum))
        size = np.abs(grid).max()
        ax.contour(grid[..., 0], grid[..., 1], value(plane), levels=np.geomspace(0.02, 4, 6), colors="#b5b5b5", linewidths=0.8)
        ax.plot(*grid[:, -1].T, color="#999999", linewidth=1.0)
        for cut in (grid[0], grid[-1]):
            ax.plot([0, cut[-1, 0]], [0, cut[-1, 1]], color="#444444", linewidth=1.2, linestyle=DASHES[3])
        ax.plot(*line.T, color=colour, linewidth=2.2)
        jacobian = np.stack([(draw(path[i] + e) - draw(path[i] - e)) / 2e-6 for e in 1e-6 * np.eye(2)], -1)
        down = -np.linalg.solve(jacobian.T, loss.gradient(torch.from_numpy(path[i:i + 1]))[0].numpy())
        ahead = line[i + 1] - line[i - 1]
        for step, tint, long in ((down, "#222222", 0.33), (ahead, colour, 0.22)):
            end = line[i] + long * size * step / np.linalg.norm(step)
            ax.annotate("", end, line[i], arrowprops={"arrowstyle": "-|>", "color": tint, "lw": 2.0, "shrinkA": 0, "shrinkB": 0})
        ax.plot(*line[0], "o", color=colour, markersize=5)
        ax.plot(*m, "*", color="#222222", markersize=10)
        ax.plot(0, 0, "+", color="#444444", markersize=8)
        ax.set(aspect="equal", xticks=[], yticks=[], title=title, xlim=(-1.05 * size, 1.05 * size),
               ylim=(min(grid[..., 1].min(), 0) - 0.05 * size, 1.05 * size))
        without_axes(ax)
    return figure


@styled
def cover() -> Figure:
    """The idea of the book in one picture: two paths to one minimum, and what each makes of a circle of gradients."""
    loss = losses.LpLoss(torch.eye(2, dtype=torch.float64), [1.6, 0.8], p=4)
    start = torch.tensor([[0.12, 0.28]], dtype=torch.float64)
    figure, (ax,) = panels_of(1, height=3.4)
    x, y = np.meshgrid(np.linspace(-0.15, 1.95, 90), np.linspace(-0.1, 1.15, 60))
    levels = loss.value(torch.from_numpy(np.stack([x, y], -1))[..., None, :]).numpy()
    ax.contour(x, y, levels, levels=np.geomspace(1e-4, 5, 14), colors="#b5b5b5", linewidths=0.7)
    times = np.concatenate([[0], np.geomspace(0.02, 300, 200)])
    for depth in (1, 3):
        style = OF_DEPTH[depth]
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
    without_axes(ax)
    figure.legend(loc="outside lower center", ncols=2)
    return figure


@styled
def switches(angles: Sequence[float] = (100, 40, -20), near: int = 1) -> Figure:
    """The plane of two inputs, cut by the lines on which hidden ReLU units switch, with the units that are on in each part.

    ``angles``: of the in-vectors, in degrees, which point to the side where their unit is on; ``near``: the unit beside
    whose line two inputs are marked that differ in this unit alone. :prf:ref:`prop-relu-laws`.
    """
    figure, (ax,) = panels_of(1, height=3.6)
    inward = np.array([[np.cos(np.radians(angle)), np.sin(np.radians(angle))] for angle in angles])
    along = np.stack([-inward[:, 1], inward[:, 0]], 1)
    for unit, (a, line) in enumerate(zip(inward, along)):
        colour, wide = COLOURS[unit], 2.6 if unit == near else 1.6
        ax.plot(*np.stack([-1.5 * line, 1.5 * line]).T, color=colour, linewidth=wide, linestyle=DASHES[unit])
        ax.annotate("", -1.28 * line + 0.3 * a, -1.28 * line, arrowprops={"arrowstyle": "-|>", "color": colour, "lw": 1.6})
        ax.text(*(-1.78 * line), f"unit {unit + 1}", color=colour, ha="center", va="center", weight="bold")
    edges = np.sort(np.concatenate([np.array(angles) + 90, np.array(angles) - 90]) % 360)
    for low, high in zip(edges, np.append(edges[1:], edges[0] + 360)):
        middle = np.radians((low + high) / 2)
        place = np.array([np.cos(middle), np.sin(middle)])
        on = [str(unit + 1) for unit, a in enumerate(inward) if a @ place > 0]
        ax.text(*(0.85 * place), f"on: {', '.join(on)}" if on else "all off", color="#333333", ha="center", va="center")
    for side, name in ((1, "B"), (-1, "A")):
        place = 1.3 * along[near] + 0.11 * side * inward[near]
        ax.plot(*place, "o", color="#333333", markersize=6)
        ax.text(*(place + 0.2 * side * inward[near]), name, color="#333333", ha="center", va="center", weight="bold")
    ax.set(xlim=(-1.9, 2.1), ylim=(-1.85, 1.75), aspect="equal", xlabel="input 1", ylabel="input 2", xticks=[], yticks=[])
    without_axes(ax)
    return figure
