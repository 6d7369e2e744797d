"""The gradient flow of the layers where it is stiff: one implicit integration, with the exact Hessian.

:func:`deeplinear.flow.layers` is explicit, so its steps shrink with the largest curvature, whatever still moves. On
ill-conditioned data, over a time of many descents, SciPy's Radau (implicit Runge-Kutta of order 5) takes seconds instead
of hours. For networks small enough to hold the Hessian of all layers.
"""

from collections.abc import Sequence

import numpy as np
import torch
from scipy.integrate import solve_ivp

from . import chain
from .annotations import Numbers, Report, Smooth
from .flow import Flow


def layers(loss: Smooth, weights: Sequence[torch.Tensor], times: Numbers, rtol: float = 1e-8, atol: float = 1e-11,
           report: Report | None = None) -> Flow:
    """The flow ``W_j' = -dL/dW_j`` of all layers, as :func:`deeplinear.flow.layers`, at the tolerances given.

    ``loss``: an object with ``gradient(W)`` and ``hessian_product(W, V)``. ``weights``: list of N layers (no batch).
    ``times``: increasing, shape (T,); the start is at time 0. ``report(t)`` is called at each Jacobian with the time
    reached; what it raises ends the flow. Returns a :class:`deeplinear.flow.Flow`. Raises ``ValueError`` for times that
    do not increase from 0 on, ``RuntimeError`` where the integration stops early.
    """
    times = np.asarray(times, dtype=float)
    if times.ndim != 1 or len(times) < 2 or times[0] < 0 or not (np.diff(times) > 0).all() or not np.isfinite(times).all():
        raise ValueError(f"times is {times!r}; expected two or more increasing finite numbers >= 0")
    weights = [W.detach().double().cpu() for W in weights]
    sizes, shapes = [W.numel() for W in weights], [W.shape for W in weights]

    def unpack(flat):
        return [part.reshape(shape) for part, shape in zip(torch.from_numpy(flat).split(sizes), shapes)]

    def velocity(_, flat):
        layers = unpack(flat)
        gradients = chain.layer_gradients(layers, loss.gradient(chain.end_to_end(layers)))
        return -torch.cat([G.flatten() for G in gradients]).numpy()

    def jacobian(t, flat):
        if report is not None:
            report(t)
        return -hessian(loss, unpack(flat)).numpy()

    start = torch.cat([W.flatten() for W in weights]).numpy()
    solution = solve_ivp(velocity, (0, times[-1]), start, method="Radau", t_eval=times, jac=jacobian, rtol=rtol, atol=atol)
    if not solution.success:
        raise RuntimeError(f"the integration stopped at time {solution.t[-1] if len(solution.t) else 0}: {solution.message}")
    rows = torch.from_numpy(np.ascontiguousarray(solution.y.T)).split(sizes, 1)
    return Flow(torch.from_numpy(times), [part.reshape(len(times), *shape) for part, shape in zip(rows, shapes)])


def hessian(loss: Smooth, weights: Sequence[torch.Tensor]) -> torch.Tensor:
    """The Hessian of the network's loss in all its layers, shape (D, D), D the number of their entries.

    ``weights``: one network, no batch, float64. The data enter by ``loss.hessian_product`` along the kd entries of the
    end-to-end matrix; what the product of the layers adds is differentiated without them, so that D passes are cheap.
    """
    sizes, shapes = [W.numel() for W in weights], [W.shape for W in weights]

    def product(flat):
        return chain.end_to_end([part.reshape(shape) for part, shape in zip(flat.split(sizes), shapes)])

    with torch.inference_mode(False), torch.enable_grad():
        flat = torch.cat([W.detach().flatten() for W in weights]).clone()
        W = product(flat)
        k, d = W.shape
        G = loss.gradient(W)
        move = torch.autograd.functional.jacobian(product, flat, vectorize=True).reshape(k * d, -1)
        bend = torch.autograd.functional.hessian(lambda flat: (G * product(flat)).sum(), flat, vectorize=True)
        curve = loss.hessian_product(W, torch.eye(k * d, dtype=W.dtype).reshape(-1, k, d)).reshape(k * d, k * d)
    return move.mT @ curve @ move + bend
