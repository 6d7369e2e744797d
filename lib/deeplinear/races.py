"""Races of chapter 8, each model at its own best rate: steps of gradient descent to a goal, and gaps over the work done.

Work is counted in products of the data with a vector: a gradient takes two, and so does each column of a Hessian. A gap is
the loss above its minimum; curves end before the first gap of ``LEAST`` or less.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from scipy.optimize import minimize

from . import chain, descent, losses, optimizers
from .annotations import Numbers, Optimizer

LEAST = 1e-8
STD = 0.02  # of the start's end-to-end matrix
RATES = -2.5, -0.5, 21  # powers of ten, ten rates a decade
Curve = tuple[np.ndarray, np.ndarray]


def fewest_steps(X: Numbers, y: Numbers, depths: Sequence[int] = (1, 2, 3), horizon: int = 1000, share: float = 1e-3,
                 power: int = 4) -> list[float]:
    """The steps of gradient descent until the gap has fallen to ``share`` of that of zero weights, one number a depth.

    ``X``: shape (n, d), ``y``: shape (n,); the loss is :class:`deeplinear.losses.LpLoss` of this ``power``. The median of five
    balanced starts near zero, at the best of 21 rates; infinity for a start that is not there at the ``horizon``, or lost.
    """
    loss = losses.LpLoss(X, y, power)
    d, record, found = loss.shape[1], descent.logarithmic(horizon, 300), []
    least = loss.value(losses.minimiser(loss))
    goal = least + share * (loss.value(torch.zeros(1, d).double()) - least)
    for depth in depths:
        starts = [chain.balanced_init((d,) + (1,) * depth, chain.seeded(seed), std=STD) for seed in range(5)]
        layers = [torch.stack(W) for W in zip(*starts)]
        run = descent.train(loss, layers, optimizers.GD(_rates()[:, None]), horizon, record)
        count = run.steps_to(goal).where((run.diverged_at < 0).all(1, True), torch.inf)
        count = count.where(run.loss[-1] <= goal, torch.inf)  # still there
        found.append(count.median(1).values.min().item())
    return found


def lbfgs(loss: losses.LpLoss) -> Curve:
    """L-BFGS from zero weights: products with the data and the smallest gap so far, two arrays of one shape (evaluations,)."""
    seen: list[float] = []

    def value(w):
        seen.append(loss.value(torch.from_numpy(w)[None]).item())
        return seen[-1]

    slope = lambda w: loss.gradient(torch.from_numpy(w)[None])[0].numpy()
    minimize(value, np.zeros(loss.shape[1]), jac=slope, method="L-BFGS-B", options={"ftol": 1e-15})
    return _cut(2 * np.arange(1, len(seen) + 1), np.minimum.accumulate(seen) - _least(loss))


def newton(loss: losses.LpLoss, steps: int = 8) -> Curve:
    """Newton's method from zero weights: products with the data and the gap, two arrays of one shape (steps,) at most."""
    d, gaps, least = loss.shape[1], [], _least(loss)
    W, units = torch.zeros(1, d).double(), torch.eye(d).double()[:, None]
    for _ in range(steps):
        gaps.append(loss.value(W).item() - least)
        H = loss.hessian_product(W, units)[:, 0]
        W = W - torch.linalg.solve(H, loss.gradient(W)[0])
    return _cut((2 + 2 * d) * np.arange(1, steps + 1), np.array(gaps))


def first_order(loss: losses.LpLoss, rule: Callable[[torch.Tensor], Optimizer], depth: int, steps: int = 3000,
                every: int = 20) -> Curve:
    """``rule``, such as :class:`deeplinear.optimizers.GD`, on layers of width 1: products with the data and the gap every so many steps.

    One balanced start near zero, at that of 21 rates whose curve lies lowest on average in the logarithm, as it is drawn.
    """
    start = chain.balanced_init((loss.shape[1],) + (1,) * depth, chain.seeded(0), std=STD)
    layers = [W.expand(len(_rates()), *W.shape) for W in start]
    records = steps // every + 1
    gaps = descent.train(loss, layers, rule(_rates()), steps, every).padded_loss(records) - _least(loss)
    height = gaps.nan_to_num(torch.inf).clamp(LEAST, 1 / LEAST).log().sum(0)
    return _cut(2 * every * np.arange(records) + 2, gaps[:, height.argmin()].numpy())


def power_law(loss: losses.LpLoss, path: torch.Tensor, depth: int, times: Numbers,
              floor: float = 0.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The loss above ``floor`` along an end-to-end flow, and the powers of time between which it lies where all labels are met.

    ``path``: end-to-end matrices (T, 1, d) at the ``times`` (T,), of which the first is 0; ``loss``: a mean of even powers
    from 4 on. Returns loss, lower and upper bound, each (T,). :prf:ref:`thm-noise-floor`, part 1.
    """
    n, q, t = len(loss.X), 1 - 2 / loss.p, np.asarray(times, dtype=float)
    eigenvalues = torch.linalg.eigvalsh(loss.X.T @ loss.X / n)
    sizes = path.norm(dim=(1, 2)) ** (2 - 2 / depth)
    gaps = loss.value(path).numpy() - floor
    most, least = n**q * eigenvalues[-1] * depth * sizes.max(), eigenvalues[0] * sizes.min()
    below, above = ((gaps[0] ** -q + loss.p * (loss.p - 2) * c.item() * t) ** (-1 / q) for c in (most, least))
    return gaps, below, above


def _rates():
    return torch.logspace(*RATES, dtype=torch.float64)


def _least(loss):
    return loss.value(losses.minimiser(loss)).item()


def _cut(work, gaps):
    small = gaps <= LEAST
    end = small.argmax() if small.any() else len(gaps)
    return work[:end], gaps[:end]
