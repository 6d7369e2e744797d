r"""When the modes of a goal are learned, under polar flow and under gradient flow, and what polar flow keeps.

Whitened least squares ``|W - Phi|_F^2 / 2`` from balanced layers with ``W_e = s_0 sum_r u_r v_r^T``, where ``Phi = sum_r
phi_r u_r v_r^T``: the modes do not feel each other, and each has its own time.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from scipy import integrate

from . import chain, data
from .annotations import Numbers


def polar_times(goals: Numbers, start: float, share: float, depth: int) -> np.ndarray:
    """When modes reach a ``share`` of their ``goals`` under polar flow: ``(share phi)^(1/N) - start^(1/N)``.

    ``goals``: shape (...), each above 0; ``start``: the singular value they start from, below every ``share * goal``;
    ``share``: above 0, at most 1; ``depth``: N. Same shape. Raises ``ValueError`` outside these. :prf:ref:`thm-polar-times`.
    """
    phi = _checked(goals, start, share, depth, share <= 1)
    return (share * phi) ** (1 / depth) - start ** (1 / depth)


def flow_times(goals: Numbers, start: float, share: float, depth: int) -> np.ndarray:
    """The same times under gradient flow: the integral of ``ds / (N s^(2 - 2/N) (phi - s))`` from ``start`` to ``share phi``.

    Arguments as for :func:`polar_times`, ``share`` below 1. By quadrature in ``log s``. :prf:ref:`cor-modes`.
    """
    phi = _checked(goals, start, share, depth, share < 1)

    def integral(low):
        power = 2 / depth - 1
        return integrate.quad(lambda v: math.exp(power * v) / -math.expm1(v), math.log(low), math.log(share),
                              epsabs=0, epsrel=1e-10, limit=500)[0]

    return phi ** (2 / depth - 2) / depth * np.vectorize(integral, otypes=[float])(start / phi)


def root_imbalance(weights: Sequence[Numbers]) -> list[torch.Tensor]:
    """``E_j = (W_{j+1}^T W_{j+1})^(1/2) - (W_j W_j^T)^(1/2)`` of each hidden layer: what polar steps keep on aligned layers.

    ``weights``: as for :func:`deeplinear.chain.imbalance`. Returns N-1 symmetric tensors ``(..., n_j, n_j)``.
    :prf:ref:`prop-polar-balance`.
    """
    layers = [data.tensor(W) for W in weights]
    chain.imbalance(layers)  # layers that do not fit say so here

    def root(W):  # (W^T W)^(1/2)
        _, s, Vh = torch.linalg.svd(W, full_matrices=False)
        return (Vh.mT * s[..., None, :]) @ Vh

    return [root(above) - root(below.mT) for below, above in zip(layers, layers[1:])]


def _checked(goals, start, share, depth, allowed):
    phi = np.asarray(goals, dtype=float)
    if isinstance(depth, bool) or not isinstance(depth, int) or depth < 1:
        raise ValueError(f"depth is {depth!r}; expected an integer >= 1")
    if not (allowed and share > 0):
        raise ValueError(f"share is {share!r}; expected a number above 0, at most 1 (below 1 under gradient flow)")
    if not (phi.size and start > 0 and (start < share * phi).all()):
        raise ValueError(f"start is {start!r}; expected a number above 0 and below {share:g} of every goal in {phi.tolist()}")
    return phi
