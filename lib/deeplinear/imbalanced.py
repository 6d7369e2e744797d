"""Off balance: how far the imbalance drifts, layers beside the end-to-end rule, how an activation shares a pull between
two layers, and two imbalanced layers solved in closed form."""

from collections.abc import Callable, Sequence

import torch

from . import chain, data, descent, flow, optimizers, preconditioner
from .annotations import Array, Differentiable, Numbers, Rule, Trainable

MULTIPLE = 1e-10  # relative distance up to which an imbalance counts as a multiple of the identity


def drift(start: Sequence[Array], end: Sequence[Array]) -> list[Array]:
    """How far each imbalance has moved, ``D_j(end) - D_j(start)``: N-1 arrays ``(..., n_j, n_j)``.

    ``start``, ``end``: N layers each, of the same shapes, as for :func:`deeplinear.chain.imbalance`. :prf:ref:`cor-drift`.
    """
    return [after - before for before, after in zip(chain.imbalance(start), chain.imbalance(end), strict=True)]


def drift_bounds(gradients: Sequence[torch.Tensor], lr: float) -> torch.Tensor:
    """The most that gradient descent can have moved each imbalance: ``lr^2 sum_t max(|G_{j+1}(t)|^2, |G_j(t)|^2)``.

    ``gradients``: N arrays, the layer gradients at each step, ``(T, n_{j+1}, n_j)``; spectral norms. Returns shape
    ``(N-1,)``. :prf:ref:`cor-drift`.
    """
    squares = torch.stack([torch.linalg.matrix_norm(G, 2).square() for G in gradients])
    return lr**2 * torch.maximum(squares[1:], squares[:-1]).sum(1)


def speeds(weights: Sequence[Numbers], G: Numbers) -> tuple[torch.Tensor, torch.Tensor]:
    """How fast the product falls under gradient flow: that of these layers, and what the end-to-end theorem says of it.

    ``weights``: N layers, balanced or not; ``G``: the gradient at their product, shape ``(..., k, d)``. Returns
    ``sum_j P_j P_j^T G R_j^T R_j`` and ``A_W(G)``, of the shape of ``G``; they agree for balanced layers.
    :prf:ref:`thm-end-to-end`, :prf:ref:`thm-near-balance`.
    """
    layers, G = [data.tensor(W) for W in weights], data.tensor(G)
    moved = chain.product_velocity(layers, chain.layer_gradients(layers, G))
    return moved, preconditioner.apply(chain.end_to_end(layers), G, len(layers))


def evened(weights: Sequence[Numbers], generator: torch.Generator) -> list[torch.Tensor]:
    """Balanced layers of the same widths with the same product; the hidden frames are random.

    ``weights``: N layers, no batch. :prf:ref:`prop-balanced-structure`.
    """
    layers = [data.tensor(W) for W in weights]
    W = chain.end_to_end(layers)
    return chain.balanced_init([layers[0].shape[1], *(layer.shape[0] for layer in layers)], generator, W=W)


def flowed(loss: Differentiable, weights: Sequence[Numbers], time: float) -> torch.Tensor:
    """The end-to-end matrix ``(k, d)`` at ``time`` of the gradient flow of the layers, without decay.

    ``loss``, ``weights``, errors: as for :func:`deeplinear.flow.layers`. :prf:ref:`prop-orders`.
    """
    return flow.layers(loss, weights, [time]).end_to_end[0]


def descended(loss: Trainable, weights: Sequence[Numbers], lr: float, steps: int, rule: Rule = "layers") -> torch.Tensor:
    """The end-to-end matrix ``(k, d)`` after gradient descent on the layers, or the end-to-end rule from their product.

    ``loss``, ``weights``, ``rule``, errors: as for :func:`deeplinear.descent.train`; ``lr``: the step. :prf:ref:`prop-orders`.
    """
    return chain.end_to_end(descent.train(loss, weights, optimizers.GD(lr), steps, max(steps, 1), rule).weights)


def elasticity(phi: Callable[[torch.Tensor], torch.Tensor], z: Numbers) -> torch.Tensor:
    """How many percent the activation ``phi`` grows where ``z`` grows by one percent, ``z phi'(z) / phi(z)``.

    ``phi`` acts entry by entry; ``z`` any shape, that of the result. Not finite where ``phi(z)`` is 0. :eq:`eq-elasticity`.
    """
    z = data.tensor(z)
    return z * _slope(phi, z) / phi(z)


def shortfall(phi: Callable[[torch.Tensor], torch.Tensor], z: Numbers) -> torch.Tensor:
    """``phi(z) - z phi'(z)``, what an activation falls short of an homogeneous one. :prf:ref:`thm-activation-drift`."""
    z = data.tensor(z)
    return phi(z) - z * _slope(phi, z)


def kernel_cosine(chi: float, start: Numbers, end: Numbers) -> torch.Tensor:
    """The cosine between the kernels of one hidden unit, ``w = a v`` with ``a^2 - |v|^2 = chi``, at two points.

    ``start`` and ``end``: rows ``w``, shape ``(..., 1, d)``, not 0 (``ValueError``). Returns shape ``(...)``.
    :prf:ref:`prop-kernel-movement`.
    """
    rows = torch.broadcast_tensors(data.tensor(start), data.tensor(end))
    if rows[0].ndim < 2 or rows[0].shape[-2] != 1 or any((w.norm(dim=-1) == 0).any() for w in rows):
        raise ValueError(f"start and end have shapes {tuple(rows[0].shape)}; expected (*, 1, d), without a row of zeros")
    d, sizes = rows[0].shape[-1], [w.norm(dim=(-2, -1)) for w in rows]
    along = torch.nn.functional.cosine_similarity(rows[0], rows[1], dim=-1)[..., 0] ** 2
    roots = [(chi**2 + 4 * size**2).sqrt() for size in sizes]
    # (chi + root) / 2 and (root - chi) / 2, the smaller one without cancellation
    c = [(chi + root) / 2 if chi >= 0 else 2 * size**2 / (root - chi) for root, size in zip(roots, sizes)]
    n = [2 * size**2 / (chi + root) if chi >= 0 else (root - chi) / 2 for root, size in zip(roots, sizes)]
    both = d * c[0] * c[1] + c[0] * n[1] + n[0] * c[1] + n[0] * n[1] * along
    norms = [(d * ci**2 + 2 * ci * ni + ni**2).sqrt() for ci, ni in zip(c, n)]
    return both / norms[0] / norms[1]


def closed_form(Phi: Numbers, weights: list[torch.Tensor], times: Numbers, require_multiple: bool = True) -> torch.Tensor:
    """The product of two layers under the gradient flow of ``|W_2 W_1 - Phi|_F^2 / 2``, without integrating it.

    ``Phi``: shape (k, d); ``weights``: ``[W_1, W_2]`` of shapes (h, d) and (k, h), with an imbalance that is a multiple
    of the identity (``ValueError`` otherwise, unless ``require_multiple`` is False); ``times``: (T,). Returns (T, k, d).
    Good while ``exp(t |Phi|)`` is far from overflow. :prf:ref:`thm-riccati`.
    """
    Phi, inner, outer = data.tensor(Phi), *(data.tensor(W) for W in weights)
    k, d = Phi.shape
    if inner.shape[1] != d or outer.shape != (k, inner.shape[0]):
        raise ValueError(f"W_1 and W_2 have shapes {tuple(inner.shape)} and {tuple(outer.shape)}; "
                         f"expected (h, {d}) and ({k}, h) for Phi of shape {(k, d)}")
    D = chain.imbalance([inner, outer])[0]
    lam = D.diagonal().mean()
    off = (D - lam * torch.eye(len(D), dtype=D.dtype)).norm() / (inner.square().sum() + outer.square().sum())
    if require_multiple and off > MULTIPLE:
        raise ValueError(f"the imbalance is off a multiple of the identity by {off:.1e} of the squares of the layers; "
                         f"expected at most {MULTIPLE:.0e} (require_multiple=False goes on all the same)")
    Q, eye = torch.cat([inner.T, outer]), torch.eye(k + d, dtype=Phi.dtype)
    F = torch.diag(lam / 2 * torch.cat([-torch.ones(d, dtype=Phi.dtype), torch.ones(k, dtype=Phi.dtype)]))
    F[d:, :d], F[:d, d:] = Phi, Phi.T
    block = torch.cat([torch.cat([2 * F, eye], 1), torch.zeros(k + d, 2 * (k + d), dtype=Phi.dtype)])
    t = data.tensor(times)[:, None, None]
    J = torch.matrix_exp(t * block)[:, : k + d, k + d:]  # the integral of exp(2 s F) from 0 to t
    grown = torch.matrix_exp(t * F) @ Q
    R = grown @ torch.linalg.solve(torch.eye(len(D), dtype=Phi.dtype) + Q.T @ J @ Q, grown.mT)
    return R[:, d:, :d]


def _slope(phi, z):
    return torch.func.grad(lambda z: phi(z).sum())(z)
