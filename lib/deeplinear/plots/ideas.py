"""Pictures of ideas: one for each core theorem, drawn before its statement."""

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.colors import to_rgba
from matplotlib.patches import Circle, Rectangle

from .. import chain, conservation, descent, flow, losses, optimizers
from .figure import COLOURS, DASHES, OF_DEPTH, Figure, panels_of, styled, without_axes

INK, FAINT = "#333333", "#888888"


def colours_of(depths):
    """The colour that each depth has throughout the book."""
    return [COLOURS[OF_DEPTH.get(depth, 7)] for depth in depths]


def arrow(ax, start, end, colour=INK, width=1.6):
    """An arrow from one point of a panel to another."""
    ax.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": colour, "lw": width, "shrinkA": 0, "shrinkB": 0})


def arrow_on(ax, path, at, colour):
    """An arrow head on a path (points, 2), where it has done the share ``at`` of its length."""
    length = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(path, axis=0), axis=1))])
    i = int(np.searchsorted(length, at * length[-1]).clip(2, len(path) - 1))
    arrow(ax, path[i - 2], path[i], colour)


@styled
def one_step(starts: Sequence[tuple[float, float]] = ((1.0, 1.0), (2.5, 0.4), (4.0, 0.25)), step: float = 0.1) -> Figure:
    """One step of gradient descent on two factors of product 1, from several places, where the loss has the slope 1.

    ``starts``: the factors; beside each arrow the product that the step leads to. :prf:ref:`prop-one-step`.
    """
    figure, (ax,) = panels_of(1, height=3.0)
    line = np.linspace(0.7, 4.6, 200)
    ax.plot(line, 1 / line, color=FAINT, linestyle=DASHES[1], linewidth=1.3)
    ax.annotate("product 1", (2.9, 1 / 2.9), (0, 8), textcoords="offset points", color="#555555")
    for first, second in starts:
        after = first - step * second, second - step * first
        arrow(ax, (first, second), after, COLOURS[1], 2.0)
        ax.plot(first, second, "o", color=COLOURS[1], markersize=6)
        ax.annotate(f"{after[0] * after[1]:.2f}".replace("-", "\u2212"), after, (-6, -4), textcoords="offset points", ha="right", va="top")
    ax.axhline(0, color=INK, linewidth=0.8)
    ax.set(xlim=(0.4, 4.6), ylim=(-0.4, 1.3), xlabel="first factor $w_1$", ylabel=r"second factor $\omega$")
    return figure


@styled
def trades(starts: Sequence[tuple[float, float]] = ((0.3, 1.3), (0.6245, 0.6245), (1.3, 0.3)), goal: float = 2.0,
           product: float | None = 0.39, names: tuple[str, str] = ("first layer $w_1$", "second layer $w_2$")) -> Figure:
    """Two scalar layers in their plane, on the hyperbolas along which gradient flow moves them, to a curve of one product.

    ``starts``: first and second layer of each network; ``product``: a second curve, where they begin; ``names``: of the axes.
    :prf:ref:`thm-balance-flow`, :prf:ref:`prop-hyperbola`.
    """
    loss = losses.LpLoss([[1.0]], [goal], p=2, scale=0.5)
    figure, (ax,) = panels_of(1, height=3.9)
    reach, colour = 1.77 * goal**0.5, COLOURS[1]  # that of depth 2
    line = np.linspace(0.05, reach, 200)
    for value, place in ((product, 0.72 * reach), (goal, 0.39 * reach)):
        if value is not None:
            ax.plot(line, value / line, color=FAINT, linestyle=DASHES[1], linewidth=1.3)
            ax.annotate(f"product {value:g}", (place, value / place), (7, 5), textcoords="offset points", color="#555555")
    for first, second in starts:
        path = flow.layers(loss, [torch.tensor([[each]]).double() for each in (first, second)], np.linspace(0, 8, 120)).weights
        points, D = np.stack([W[:, 0, 0].numpy() for W in path], -1), second**2 - first**2
        ax.plot(*points.T, color=colour, linewidth=2.2)
        arrow_on(ax, points, 0.55, colour)
        ax.plot(*points[0], "o", color=colour, markersize=6)
        ax.plot(*points[-1], "s", color=colour, markersize=6)
        ax.annotate(f"$D = {D:.1f}$" if abs(D) > 0.05 else "$D = 0$", points[-1], (9, -3), textcoords="offset points", color=colour)
    ax.set(xlim=(0, reach), ylim=(0, reach), aspect="equal", xlabel=names[0], ylabel=names[1])
    return figure


def block(ax, left, size, text, colour=None, middle=0.0):
    """A rectangle ``size`` (width, height) from ``left`` on, about the line ``middle``, with its name; returns its right end."""
    width, height = size
    ax.add_patch(Rectangle((left, middle - height / 2), width, height, linewidth=1.2, edgecolor=colour or INK,
                           facecolor=to_rgba(colour, 0.3) if colour else "none"))
    ax.text(left + width / 2, middle, text, ha="center", va="center", color=INK)
    return left + width


@styled
def shapes() -> Figure:
    """Three balanced layers as blocks: frames that cancel where two layers meet, one list of singular values in each.

    :prf:ref:`prop-balanced-structure`.
    """
    figure = Figure(figsize=(7.0, 3.6), layout="constrained")
    ax = figure.subplots()
    sizes, tall, low = {3: 1.3, 2: 1.9, 1: 1.6, 0: 1.4}, 0.62, -2.9
    place = 0.0
    for j in (3, 2, 1):
        start = place
        place = block(ax, place, (tall, sizes[j]), f"$Q_{j}$") + 0.1
        place = block(ax, place, (tall, tall), r"$\Sigma$", COLOURS[2]) + 0.1
        place = block(ax, place, (sizes[j - 1], tall), rf"$Q_{j - 1}^\top$")
        ax.plot([start, place], [-1.15, -1.15], color=INK, linewidth=1.2)
        ax.text((start + place) / 2, -1.42, f"layer $W_{j}$", ha="center", va="center")
        if j > 1:
            ax.text(place + 0.2, 1.2, rf"$Q_{j - 1}^\top Q_{j - 1} = I$", ha="center", va="center", color="#555555")
            place += 0.4
    left = place / 2 - (2 * tall + sizes[0] + 0.2) / 2
    ax.text(left - 0.25, low, "product  $W_e$  =", ha="right", va="center")
    left = block(ax, left, (tall, sizes[3]), "$Q_3$", middle=low) + 0.1
    left = block(ax, left, (tall, tall), r"$\Sigma^3$", COLOURS[2], middle=low) + 0.1
    block(ax, left, (sizes[0], tall), r"$Q_0^\top$", middle=low)
    ax.set(xlim=(-0.1, place + 0.1), ylim=(-3.7, 1.5), aspect="equal", xticks=[], yticks=[])
    without_axes(ax)
    return figure


@styled
def walks(depths: Sequence[int] = (1, 2, 3)) -> Figure:
    """A walk through the field of the loss w_1 at each depth: along the diameter and back on the half circle, with both sums.

    :prf:ref:`lem-contour`, for r = 0 and R = 1.
    """
    figure, axes = panels_of(len(depths), height=2.7)
    angle = np.linspace(0, np.pi, 80)
    arc = np.stack([np.cos(angle), np.sin(angle)], -1)
    for ax, depth, colour in zip(axes, depths, colours_of(depths)):
        out = 2 * depth / (3 - 2 / depth)
        ax.plot([-1, 1], [0, 0], color=colour, linewidth=2.2)
        ax.plot(*arc.T, color=colour, linewidth=2.2, linestyle=DASHES[1])
        arrow(ax, (0.5, 0), (0.62, 0), colour)
        arrow_on(ax, arc, 0.55, colour)
        for place in np.linspace(-0.9, 0.9, 7):  # the field on the diameter, below the path
            long = 0.11 * depth * abs(place) ** (2 - 2 / depth)
            if long > 0.01:
                arrow(ax, (place - long / 2, -0.2), (place + long / 2, -0.2), FAINT, 1.0)
        ax.text(0, 0.13, f"out: +{out:.2f}", ha="center", color=INK)
        ax.text(0, 1.1, "back: −2.00", ha="center", color=INK)
        gain = f"gain {out - 2:.2f}"
        ax.text(0, -0.5, gain, ha="center", va="center", color=INK, weight="bold" if out - 2 > 1e-9 else "normal")
        ax.set(xlim=(-1.25, 1.25), ylim=(-0.65, 1.3), aspect="equal", xticks=[], yticks=[], title=f"depth {depth}")
        without_axes(ax)
    return figure


@styled
def two_speeds(depths: Sequence[int] = (1, 2, 3), kappa: float = 4.0) -> Figure:
    """Two coordinates under the end-to-end rule: what limits the step of each depth, and the second one at 0.9 of the limit.

    First the factor N s^c (1 - s)^2 on the step of coordinate 1, whose peak sets the largest step that overshoots nowhere;
    then coordinate 2 over the steps, from (kappa / 10, 0) to (kappa, 1). :prf:ref:`thm-constant-gain` for p = 4.
    """
    figure, (factor, speed) = panels_of(2, height=3.2)
    gains = []
    loss = losses.LpLoss(np.eye(2), [kappa, 1.0], 4, reduction="sum", scale=0.25)
    start, s = torch.tensor([[0.1 * kappa, 0.0]]).double(), np.linspace(0, 1, 120)
    for depth, colour, dash in zip(depths, colours_of(depths), DASHES):
        c = 2 - 2 / depth
        load = depth * s**c * (1 - s) ** 2
        top, peak = load.max(), s[load.argmax()]
        factor.plot(s, load, color=colour, linestyle=dash, label=f"depth {depth}")
        factor.plot(peak, top, "o", color=colour, markersize=6)
        gains.append(f"{1 / top:.2g}")
        rate = 0.9 / top * kappa ** (2 / depth - 4)
        layers = chain.balanced_init((2,) + (1,) * depth, chain.seeded(0), W=start)
        run = descent.train(loss, layers, optimizers.GD(rate), 60, rule="end-to-end", keep_weights=True)
        assert run.history is not None
        path = run.history[0][:, 0].numpy()
        speed.plot(run.steps, path[:, 1], color=colour, linestyle=dash)
    factor.text(1, 0.92, "no overshoot up to\n1 / peak: " + ", ".join(gains), ha="right", va="center", color=INK)
    speed.axhline(1, color=FAINT, linewidth=1)
    speed.set(xlabel="steps", ylabel="coordinate 2", ylim=(0, 1.1), title="at nine tenths of it")
    factor.set(xlabel="coordinate 1, share of its way", ylabel="factor on its step", title="what limits the step")
    figure.legend(*factor.get_legend_handles_labels(), loc="outside lower center", ncols=len(depths))
    return figure


@styled
def unit(w: float = 2.0, v: float = 3.0) -> Figure:
    """One hidden unit at the input 1, with a ReLU and with tanh: what goes forwards, what comes back, and both products.

    ``w``, ``v``: the weights in and out; the loss has the slope -1 in the output. :prf:ref:`lem-in-out`.
    """
    figure, axes = panels_of(2, height=2.9)
    activations = {"ReLU: in = out": (max(w, 0.0), float(w > 0)), "tanh: in and out differ": (np.tanh(w), 1 - np.tanh(w) ** 2)}
    for ax, (name, (a, slope)), colour in zip(axes, activations.items(), (COLOURS[6], COLOURS[5])):
        for x, text in ((0, "1"), (2.4, f"{a:.3g}"), (4.8, f"{v * a:.3g}")):
            ax.add_patch(Circle((x, 0), 0.46, linewidth=1.4, edgecolor=colour, facecolor=to_rgba(colour, 0.2)))
            ax.text(x, 0, text, ha="center", va="center")
        for x, weight, back in ((0, f"$w = {w:g}$", -v * slope), (2.4, f"$v = {v:g}$", -a)):
            arrow(ax, (x + 0.55, 0.08), (x + 1.85, 0.08), INK)
            arrow(ax, (x + 1.85, -0.12), (x + 0.55, -0.12), FAINT, 1.2)
            ax.text(x + 1.2, 0.3, weight, ha="center")
            ax.text(x + 1.2, -0.5, rf"$\partial {weight[1]} = {back:.3g}$", ha="center", color="#555555")
        ax.text(1.2, -1.15, rf"$w\,\partial w = {-w * v * slope:.3g}$", ha="center", color=INK)
        ax.text(3.6, -1.15, rf"$v\,\partial v = {-v * a:.3g}$", ha="center", color=INK)
        ax.set(xlim=(-0.6, 5.4), ylim=(-1.5, 0.9), aspect="equal", xticks=[], yticks=[], title=name)
        without_axes(ax)
    return figure


@styled
def saddle(starts: Sequence[tuple[float, float]] = ((0.2, 0.1), (0.9, -0.8), (-0.8, 0.88), (-0.1, -0.2), (0.7, -0.8)),
           reach: float = 1.75) -> Figure:
    """The plane of (a, b) of rank one: flow from small starts to the curve ab = 1, past the saddle at 0.

    :prf:ref:`thm-rank-one`, for singular value 1 and nothing off the two directions.
    """
    figure, (ax,) = panels_of(1, height=4.0)
    loss = losses.LpLoss([[1.0]], [1.0], p=2, scale=0.5)
    line = np.linspace(1 / reach, reach, 100)
    for sign in (1, -1):
        ax.plot(sign * line, sign / line, color=INK, linewidth=2.2)
    ax.plot([-reach, reach], [reach, -reach], color=FAINT, linestyle=DASHES[1], linewidth=1.3)
    for a, b in starts:
        colour = COLOURS[1]  # that of depth 2
        weights = flow.layers(loss, [torch.tensor([[each]]).double() for each in (a, b)], np.linspace(0, 12, 140)).weights
        path = np.stack([W[:, 0, 0].numpy() for W in weights], -1)
        ax.plot(*path.T, color=colour)
        ax.plot(*path[0], "o", color=colour, markersize=5)
        arrow_on(ax, path, 0.6, colour)
    ax.plot(0, 0, "+", color=INK, markersize=9)
    ax.text(1.12, 1.12, "$ab = 1$", color=INK)
    ax.text(-1.1, 1.3, "$a + b = 0$", color="#555555")
    ax.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal", xlabel="$a$", ylabel="$b$")
    return figure


@styled
def directions(widths: Sequence[int] = (1, 2, 3, 4)) -> Figure:
    """Left, a walk along two fields and back that does not close; right, what weights are moved in, and what is kept.

    Two inputs, one output, one hidden layer of each of the ``widths``: counted by :func:`deeplinear.conservation.count_laws`.
    :prf:ref:`thm-two-layer-count`.
    """
    figure, (left, right) = panels_of(2, height=3.0)
    corners = np.array([[0, 0], [1.5, 0.1], [1.75, 1.15], [0.5, 1.3], [0.32, 0.42]])
    for start, end, name, shift in zip(corners, corners[1:], ("$X$", "$Y$", "$-X$", "$-Y$"), ((0, -13), (9, -4), (0, 7), (-20, 0))):
        arrow(left, start, end, COLOURS[6])
        left.annotate(name, (start + end) / 2, shift, textcoords="offset points", color=INK, ha="left")
    arrow(left, corners[0], corners[-1], COLOURS[5], 2.4)
    left.annotate("$[X, Y]$", corners[-1], (6, -10), textcoords="offset points", color=INK)
    left.set(xlim=(-0.35, 2.1), ylim=(-0.3, 1.6), aspect="equal", xticks=[], yticks=[], title="four moves do not close")
    without_axes(left)
    counts = [conservation.count_laws((2, width, 1)) for width in widths]
    moved = np.array([found.parameters - found.count for found in counts])
    kept = np.array([found.count for found in counts])
    places = np.arange(len(widths))
    right.bar(places, moved, 0.62, color=COLOURS[6], alpha=0.75, label="directions moved in")
    right.bar(places, kept, 0.62, bottom=moved, color=COLOURS[5], alpha=0.75, label="laws")
    for x, low, high in zip(places, moved, kept):
        right.text(x, low / 2, str(low), ha="center", va="center", color="black")
        right.text(x, low + high / 2, str(high), ha="center", va="center", color="black")
    right.set(xticks=places, yticks=range(0, 13, 3), xticklabels=widths, xlabel="hidden units", ylabel="weights",
              title="2 inputs, 1 output")
    right.grid(axis="x", visible=False)
    figure.legend(*right.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure
