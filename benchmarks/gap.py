"""How long one run of gradient descent takes to come close to a minimum, beside L-BFGS and Newton's method."""

import time

import numpy as np
import scipy.optimize
import torch

import deeplinear as dl


def time_to_gap(X, y, options):
    """Seconds until the l4 loss is within a share of the gap at zero of its minimum, one run of each method."""
    loss = dl.LpLoss(X.cpu().double(), y.cpu().double(), 4)
    minimum = loss.value(dl.losses.minimiser(loss)).item()
    zero = loss.value(torch.zeros(loss.shape, dtype=torch.float64)).item()
    levels = {share: minimum + share * (zero - minimum) for share in (0.04, 0.01)}
    rows = []
    for name, method in (("L-BFGS", _lbfgs), ("Newton", _newton)):
        trace = method(loss)
        rows.append({"method": name, "steps": len(trace) - 1, **_reached(trace, levels)})
    steps = 200 if options.smoke else 100_000
    for depth, rate in ((1, 5e-4), (2, 1e-4)):
        layers = dl.near_zero_init((loss.shape[1],) + (1,) * depth, 0.01, dl.seeded(0))
        start = time.process_time()
        run = dl.train(loss, layers, dl.GD(rate), steps, dl.descent.logarithmic(steps, 400))
        pace = (time.process_time() - start) / steps
        trace = [(step * pace, value) for step, value in zip(run.steps.tolist(), run.loss.tolist())]
        rows.append({"method": f"gradient descent, depth {depth}, rate {rate:g}", "steps": steps, **_reached(trace, levels)})
    return rows


def _reached(trace, levels):
    return {f"to {share:.0%}": next((seconds for seconds, value in trace if value <= level), None)
            for share, level in levels.items()}


def _lbfgs(loss):
    start, trace = time.process_time(), []

    def value(w):
        W = torch.from_numpy(w).reshape(loss.shape)
        found, G = loss.value_and_gradient(W)
        trace.append((time.process_time() - start, found.item()))
        return found.item(), G.numpy().ravel()

    scipy.optimize.minimize(value, np.zeros(loss.shape[1]), jac=True, method="L-BFGS-B", options={"maxiter": 2000})
    return trace


def _newton(loss):
    start, trace, W = time.process_time(), [], torch.zeros(loss.shape, dtype=torch.float64)
    for _ in range(30):
        value, G = loss.value_and_gradient(W)
        trace.append((time.process_time() - start, value.item()))
        basis = torch.eye(loss.shape[1], dtype=W.dtype)[:, None, :]
        H = loss.hessian_product(W, basis)[:, 0]
        step, size = torch.linalg.lstsq(H, G[0][:, None], driver="gelsd").solution.T, 1.0
        while loss.value(W - size * step) > value and size > 1e-4:
            size /= 2
        W = W - size * step
    return trace
