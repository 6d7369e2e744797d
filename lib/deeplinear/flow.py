"""Continuous time: the gradient flow of the layers and the end-to-end flow, integrated to tight tolerances.

All use SciPy's DOP853, an eighth-order Runge-Kutta method with step control, at relative tolerance 1e-12. Its steps
shrink with the largest curvature of the loss: columns in units far apart make a flow stiff, and a ``RuntimeError`` says
so after a million evaluations. ``report(t)`` is called with the time reached now and then, and what it raises ends the
flow; a flow that takes more than ``time_limit`` seconds ends in a ``TimeoutError``.
"""

import dataclasses
import math
import time
from collections.abc import Sequence

import numpy as np
import torch
from scipy.integrate import solve_ivp
from scipy.optimize import brentq

from . import chain, data, preconditioner
from .annotations import Differentiable, Numbers, Report

BALANCED = 1e-10  # relative imbalance up to which a start counts as balanced
EVALUATIONS = 10**6  # of a velocity, after which a flow counts as too stiff
LOOK_EVERY = 100  # evaluations between two looks at the clock


@dataclasses.dataclass(frozen=True)
class Flow:
    """A solution at the times asked for: ``times`` (T,), ``weights`` a list of ``(T, n_{j+1}, n_j)`` arrays."""

    times: torch.Tensor
    weights: list[torch.Tensor]

    @property
    def end_to_end(self) -> torch.Tensor:
        """The end-to-end matrix at each time, shape ``(T, k, d)``."""
        return chain.end_to_end(self.weights)


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Layer flow and end-to-end flow from one start; ``gap``: the largest entry of their difference at any time."""

    layers: Flow
    end_to_end: Flow

    @property
    def gap(self) -> float:
        return (self.layers.end_to_end - self.end_to_end.end_to_end).abs().max().item()


def layers(loss: Differentiable, weights: Sequence[Numbers], times: Numbers, weight_decay: float = 0.0,
           report: Report | None = None, time_limit: float | None = None) -> Flow:
    """The gradient flow ``W_j' = -weight_decay W_j - dL/dW_j`` of all layers, from any start.

    ``weights``: list of N layers (no batch); ``times``: increasing, the start is at time 0. Returns a :class:`Flow`.
    Raises ``ValueError`` for times, weights or a decay that are not finite. :prf:ref:`def-gradient-flow`.
    """
    _check_finite("weight_decay", weight_decay)

    def velocity(weights):
        gradients = chain.layer_gradients(weights, loss.gradient(chain.end_to_end(weights)))
        return [-weight_decay * W - G for W, G in zip(weights, gradients)]

    return _integrate(velocity, weights, times, report, time_limit)


def end_to_end(loss: Differentiable, W: Numbers, depth: int, times: Numbers, weight_decay: float = 0.0,
               rank: int | None = None, report: Report | None = None, time_limit: float | None = None) -> Flow:
    """The end-to-end flow ``W' = -N weight_decay W - A_W(grad L(W))`` of depth N.

    ``W``: shape ``(k, d)``. ``rank`` (default: that of ``W``) is preserved by the flow (:prf:ref:`prop-rank`), and
    stating it keeps rounding from being amplified. Errors as for :func:`layers`. :prf:ref:`thm-end-to-end`.
    """
    _check_finite("weight_decay", weight_decay)
    W = _finite("W", W)
    if rank is None:
        rank = int(torch.linalg.matrix_rank(W))

    def velocity(weights):
        W = weights[0]
        return [-depth * weight_decay * W - preconditioner.apply(W, loss.gradient(W), depth, rank)]

    return _integrate(velocity, [W], times, report, time_limit)


def compare(loss: Differentiable, weights: Sequence[Numbers], times: Numbers, weight_decay: float = 0.0,
            require_balanced: bool = True, report: Report | None = None, time_limit: float | None = None) -> Comparison:
    """Both flows from the same layers; the end-to-end theorem says that they agree if the layers start balanced.

    Raises ``ValueError`` where the relative imbalance of the start is above 1e-10, unless ``require_balanced`` is
    False. ``time_limit`` is that of each flow. Returns a :class:`Comparison`.
    """
    start = [data.tensor(W) for W in weights]
    found = chain.relative_imbalance(start).item()
    if require_balanced and found > BALANCED:
        raise ValueError(f"the start has relative imbalance {found:.1e}; expected at most {BALANCED:.0e}, as the "
                         "end-to-end theorem needs balanced layers (require_balanced=False compares all the same)")
    both = layers(loss, start, times, weight_decay, report, time_limit)
    W, depth = chain.end_to_end(start), len(start)
    return Comparison(both, end_to_end(loss, W, depth, times, weight_decay, None, report, time_limit))


def destination(X: Numbers, y: Numbers, W: Numbers, depth: float) -> torch.Tensor:
    """Where the end-to-end flow of one output ends that fits ``X w^T = y`` exactly, if it converges to such a fit.

    ``X``: shape (n, d); ``y``: shape (n,), in the range of ``X`` and not 0 (``ValueError`` otherwise); ``W``: the start,
    shape (1, d), not 0. Whatever the loss of the residual: the minimum-norm solution plus ``|end|^(1-1/N)`` times the
    part of ``W / |W|^(1-1/N)`` in the kernel of ``X``. Returns shape (1, d). :prf:ref:`cor-destination`.
    """
    X, y, W = (_finite(name, x) for name, x in (("X", X), ("y", y), ("W", W)))
    _check_finite("depth", depth)
    if depth < 1:
        raise ValueError(f"depth is {depth!r}; expected a number >= 1")
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


def heavy_ball(loss: Differentiable, weights: Sequence[Numbers], velocities: Sequence[Numbers], times: Numbers,
               friction: float | Sequence[float], report: Report | None = None,
               time_limit: float | None = None) -> tuple[Flow, list[torch.Tensor]]:
    """The momentum flow ``W_j'' + friction W_j' = -dL/dW_j``; returns the :class:`Flow` and the velocities along it.

    ``velocities``: the initial ``W_j'``, shaped like the layers. ``friction``: a number, or one for each layer.
    :prf:ref:`thm-momentum`.
    """
    depth = len(weights)
    frictions = [friction] * depth if np.ndim(friction) == 0 else list(friction)  # type: ignore[arg-type]
    if len(frictions) != depth or len(velocities) != depth:
        raise ValueError(f"{len(velocities)} velocities and {len(frictions)} frictions for {depth} layers; expected one each")
    for drag in frictions:
        _check_finite("friction", drag)

    def velocity(state):
        layers, speeds = state[:depth], state[depth:]
        gradients = chain.layer_gradients(layers, loss.gradient(chain.end_to_end(layers)))
        return [*speeds, *(-drag * V - G for drag, V, G in zip(frictions, speeds, gradients))]

    both = _integrate(velocity, [*weights, *velocities], times, report, time_limit).weights
    return Flow(torch.as_tensor(times, dtype=torch.float64), both[:depth]), both[depth:]


def _integrate(velocity, start, times, report, time_limit):
    times = np.asarray(times, dtype=float)
    if times.ndim != 1 or not len(times) or not (np.isfinite(times).all() and times[0] >= 0 and (np.diff(times) > 0).all()):
        raise ValueError(f"times is {times!r}; expected increasing finite numbers >= 0")
    start = [_finite(f"matrix {i} of the start", W) for i, W in enumerate(start, start=1)]
    shapes, ends = [W.shape for W in start], np.cumsum([W.numel() for W in start])

    def unpack(flat):
        parts = np.split(flat, ends[:-1])
        return [torch.from_numpy(np.ascontiguousarray(part)).reshape(shape) for part, shape in zip(parts, shapes)]

    def pack(matrices):
        return np.concatenate([W.double().cpu().numpy().ravel() for W in matrices])

    rows = pack(start)[None]  # at time 0
    if times[-1] > 0:
        watch = _Watch(times[-1], report, time_limit)
        solution = solve_ivp(lambda t, flat: watch(t) or pack(velocity(unpack(flat))), (0, times[-1]), rows[0],
                             method="DOP853", t_eval=times, rtol=1e-12, atol=1e-14)
        if not solution.success:
            raise RuntimeError(f"the integration stopped at time {solution.t[-1] if len(solution.t) else 0}: "
                               f"{solution.message}")
        rows = solution.y.T
    parts = np.split(rows, ends[:-1], axis=1)
    weights = [torch.from_numpy(np.ascontiguousarray(part)).reshape(len(rows), *shape)
               for part, shape in zip(parts, shapes)]
    return Flow(torch.from_numpy(times), weights)


class _Watch:
    """Counts the evaluations of a flow and looks at the clock; called with the time reached, it returns None or raises."""

    def __init__(self, end, report, time_limit):
        self.end, self.report, self.time_limit = end, report, time_limit
        self.count, self.begun = 0, time.monotonic()

    def __call__(self, t):
        self.count += 1
        if self.count > EVALUATIONS:
            raise RuntimeError(f"the integration has reached time {t:.3g} of {self.end:.3g} after {EVALUATIONS} evaluations; "
                               "expected a flow that is less stiff (columns of X in like units) or an earlier end")
        if self.count % LOOK_EVERY:
            return
        if self.report is not None:
            self.report(t)
        if self.time_limit is not None and time.monotonic() - self.begun > self.time_limit:
            raise TimeoutError(f"the integration has reached time {t:.3g} of {self.end:.3g} within {self.time_limit} s")


def _finite(name: str, x: Numbers) -> torch.Tensor:
    """``x`` as a tensor; raises ``ValueError`` that names it where an entry is not finite."""
    x = data.tensor(x)
    if not torch.isfinite(x).all():
        raise ValueError(f"{name} is {x.tolist()}; expected finite numbers")
    return x


def _check_finite(name, value):
    if np.ndim(value) or not math.isfinite(value):
        raise ValueError(f"{name} is {value!r}; expected a finite number")
