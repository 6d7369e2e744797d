"""Continuous time: the gradient flow of the layers and the end-to-end flow, integrated to tight tolerances.

Both use SciPy's DOP853, an eighth-order Runge-Kutta method with step control, at relative tolerance 1e-12.
"""

import dataclasses
import math
import numbers

import numpy as np
import torch
from scipy.integrate import solve_ivp
from scipy.optimize import brentq

from . import chain, preconditioner

BALANCED = 1e-10  # relative imbalance up to which a start counts as balanced


@dataclasses.dataclass(frozen=True)
class Flow:
    """A solution at the times asked for: ``times`` (T,), ``weights`` a list of ``(T, n_{j+1}, n_j)`` arrays."""

    times: torch.Tensor
    weights: list

    @property
    def end_to_end(self):
        """The end-to-end matrix at each time, shape ``(T, k, d)``."""
        return chain.end_to_end(self.weights)


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Layer flow and end-to-end flow from one start; ``gap``: the largest entry of their difference at any time."""

    layers: Flow
    end_to_end: Flow

    @property
    def gap(self):
        return (self.layers.end_to_end - self.end_to_end.end_to_end).abs().max().item()


def layers(loss, weights, times, weight_decay=0.0):
    """The gradient flow ``W_j' = -weight_decay W_j - dL/dW_j`` of all layers, from any start.

    ``weights``: list of N layers (no batch); ``times``: increasing, the start is at time 0. Returns a :class:`Flow`.
    :prf:ref:`def-gradient-flow`.
    """
    def velocity(weights):
        gradients = chain.layer_gradients(weights, loss.gradient(chain.end_to_end(weights)))
        return [-weight_decay * W - G for W, G in zip(weights, gradients)]

    return _integrate(velocity, weights, times)


def end_to_end(loss, W, depth, times, weight_decay=0.0, rank=None):
    """The end-to-end flow ``W' = -N weight_decay W - A_W(grad L(W))`` of depth N.

    ``W``: shape ``(k, d)``. ``rank`` (default: that of ``W``) is preserved by the flow (:prf:ref:`prop-rank`), and
    stating it keeps rounding from being amplified. :prf:ref:`thm-end-to-end`.
    """
    if rank is None:
        rank = int(torch.linalg.matrix_rank(W))

    def velocity(weights):
        W = weights[0]
        return [-depth * weight_decay * W - preconditioner.apply(W, loss.gradient(W), depth, rank)]

    return _integrate(velocity, [W], times)


def compare(loss, weights, times, weight_decay=0.0, require_balanced=True):
    """Both flows from the same layers; the end-to-end theorem says that they agree if the layers start balanced.

    Raises ``ValueError`` where the relative imbalance of the start is above 1e-10, unless ``require_balanced`` is
    False. Returns a :class:`Comparison`.
    """
    found = chain.relative_imbalance(weights).item()
    if require_balanced and found > BALANCED:
        raise ValueError(f"the start has relative imbalance {found:.1e}; expected at most {BALANCED:.0e}, as the "
                         "end-to-end theorem needs balanced layers (require_balanced=False compares all the same)")
    both = layers(loss, weights, times, weight_decay)
    W, depth = chain.end_to_end(weights), len(weights)
    return Comparison(both, end_to_end(loss, W, depth, times, weight_decay))


def destination(X, y, W, depth):
    """Where the end-to-end flow of one output ends that fits ``X w^T = y`` exactly, if it converges to such a fit.

    ``X``: shape (n, d); ``y``: shape (n,), in the range of ``X`` and not 0 (``ValueError`` otherwise); ``W``: the start,
    shape (1, d), not 0. Whatever the loss of the residual: the minimum-norm solution plus ``|end|^(1-1/N)`` times the
    part of ``W / |W|^(1-1/N)`` in the kernel of ``X``. Returns shape (1, d). :prf:ref:`cor-destination`.
    """
    inverse = torch.linalg.pinv(X)
    least = (inverse @ y)[None]
    size = least.norm().item()
    if not (X @ least[0] - y).norm() <= 1e-9 * y.norm() or size == 0:
        raise ValueError(f"y is {y!r}; expected a vector that is not 0 in the range of X")
    if tuple(W.shape) != tuple(least.shape) or not W.norm() > 0:
        raise ValueError(f"W is {W!r}; expected a start of shape {tuple(least.shape)} that is not 0")
    start = W / W.norm() ** (1 - 1 / depth)
    kernel = start - (inverse @ (X @ start[0]))[None]
    share = kernel.norm().item()

    # the norm R of the end solves R^2 = size^2 + share^2 R^(2-2/N); the unknown is t = log R
    def gap(t):
        return 1 - (size / math.exp(t)) ** 2 - (share * math.exp(-t / depth)) ** 2

    low = math.log(size)
    high = 1 + max(low + math.log(2), depth * math.log(2 * share) if share > 0 else low)
    radius = math.exp(brentq(gap, low - 1, high, xtol=1e-15, rtol=1e-15))
    return least + radius ** (1 - 1 / depth) * kernel


def heavy_ball(loss, weights, velocities, times, friction):
    """The momentum flow ``W_j'' + friction W_j' = -dL/dW_j``; returns the :class:`Flow` and the velocities along it.

    ``velocities``: the initial ``W_j'``, shaped like the layers. ``friction``: a number, or one for each layer.
    :prf:ref:`thm-momentum`.
    """
    depth = len(weights)
    frictions = [friction] * depth if isinstance(friction, numbers.Real) else list(friction)

    def velocity(state):
        layers, speeds = state[:depth], state[depth:]
        gradients = chain.layer_gradients(layers, loss.gradient(chain.end_to_end(layers)))
        return [*speeds, *(-drag * V - G for drag, V, G in zip(frictions, speeds, gradients, strict=True))]

    both = _integrate(velocity, [*weights, *velocities], times).weights
    return Flow(torch.as_tensor(times, dtype=torch.float64), both[:depth]), both[depth:]


def _integrate(velocity, start, times):
    times = np.asarray(times, dtype=float)
    if times.ndim != 1 or not len(times) or times[0] < 0 or (np.diff(times) <= 0).any():
        raise ValueError(f"times is {times!r}; expected increasing numbers >= 0")
    shapes, ends = [W.shape for W in start], np.cumsum([W.numel() for W in start])

    def unpack(flat):
        parts = np.split(flat, ends[:-1])
        return [torch.from_numpy(np.ascontiguousarray(part)).reshape(shape) for part, shape in zip(parts, shapes)]

    def pack(matrices):
        return np.concatenate([W.double().cpu().numpy().ravel() for W in matrices])

    solution = solve_ivp(lambda t, flat: pack(velocity(unpack(flat))), (0, times[-1]), pack(start), method="DOP853",
                         t_eval=times, rtol=1e-12, atol=1e-14)
    if not solution.success:
        raise RuntimeError(f"the integration stopped at time {solution.t[-1] if len(solution.t) else 0}: "
                           f"{solution.message}")
    rows = solution.y.T
    parts = np.split(rows, ends[:-1], axis=1)
    weights = [torch.from_numpy(np.ascontiguousarray(part)).reshape(len(rows), *shape)
               for part, shape in zip(parts, shapes)]
    return Flow(torch.from_numpy(times), weights)
