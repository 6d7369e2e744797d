"""How the L2 penalty of a product of two layers decays when nothing else moves them: gradient flow in closed form.

The flow of ``(lambda / 2) ||W_2 W_1||_F^2`` at time t is that of half the square at time ``lambda t``; heavy ball with rate
``lr`` and momentum ``m`` is at time ``lr / (1 - m)`` a step, to first order. Factors are ``W_1`` (h, d) and ``W_2`` (k, h).
"""

import torch

from .annotations import Numbers


def product(W1: torch.Tensor, W2: torch.Tensor, times: Numbers) -> torch.Tensor:
    """``||W_2 W_1||_F^2`` at ``times``, shape (times,), under the flow of half of it from these factors: :prf:ref:`prop-penalty-decay`.

    With D = W_2^T W_2 - W_1 W_1^T, which stays, A = W_1 W_1^T is a rational function of its start, of e^(-D t) and of an
    integral of it, and the square is tr(A^2 + D A). Computed in float64 in the eigenbasis of D, with the roles of the
    factors exchanged where W_1 is the larger one, so that most exponentials fall; what is left of the cancellation is a
    rounding error of ``||D||_F^2``.
    """
    first, second = W1.detach().double() @ W1.detach().double().T, W2.detach().double().T @ W2.detach().double()
    if first.shape != second.shape:
        raise ValueError(f"W1 has shape {tuple(W1.shape)} and W2 {tuple(W2.shape)}; expected (h, d) and (k, h)")
    if first.trace() > second.trace():
        first, second = second, first
    kept, basis = torch.linalg.eigh(second - first)
    start, found = basis.T @ first @ basis, []
    for t in torch.as_tensor(times, dtype=torch.float64, device=start.device):
        shrunk = (-kept * t).exp()
        integral = torch.where(kept.abs() * t > 1e-12, -torch.expm1(-2 * kept * t) / kept, 2 * t)
        A = torch.linalg.solve(torch.eye(len(kept)).to(start) + start * integral, start)
        A = shrunk[:, None] * A * shrunk
        found.append(A.square().sum() + (kept * A.diagonal()).sum())
    return torch.stack(found)


def singular_value(s: Numbers, d: Numbers, times: Numbers) -> torch.Tensor:
    """The singular value ``s`` of a product whose factors are aligned and have there the imbalance ``d``, at ``times``:
    the solution of ``s' = -s sqrt(d^2 + 4 s^2)``, which is ``|d| / (2 sinh(|d| t + arsinh(|d| / 2s)))``, or
    ``s / (1 + 2 s t)`` for d = 0: :prf:ref:`prop-penalty-decay`. ``s``, ``d`` and ``times`` broadcast."""
    s, d, t = (torch.as_tensor(value, dtype=torch.float64) for value in (s, d, times))
    angle = d.abs() * t + torch.asinh(d.abs() / (2 * s))
    return torch.where(d == 0, s / (1 + 2 * s * t), d.abs() / (2 * torch.sinh(angle)))
