"""Low-rank adapters: a frozen weight W0 with a trained product s B A beside it, and the laws of its two factors.

``A``: (r, d), ``B``: (k, r), ``G``: (k, d), the gradient of the loss at the merged weight W0 + s B A; leading axes batch.
Only ``@``, ``.mT``, ``+``, ``-`` and products with numbers touch them, so that exact rationals pass as well.
"""

import dataclasses
import math
import numbers
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from scipy import integrate
from torch.nn import functional

from . import chain, data
from .annotations import Array


Factors = tuple[torch.Tensor, torch.Tensor]
Rates = tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Task:
    """A frozen weight ``W0`` (k, d) and the ``loss`` of what takes its place, a function of a (k, d) tensor."""

    W0: torch.Tensor
    loss: Callable[[torch.Tensor], torch.Tensor]

    def gradient(self, W: torch.Tensor | None = None) -> torch.Tensor:
        """The gradient of the loss at ``W``, by default at W0, (k, d)."""
        return torch.func.grad(self.loss)(self.W0 if W is None else W)


@dataclasses.dataclass(frozen=True)
class Path:
    """``loss`` (times,), ``A`` (times, r, d) and ``B`` (times, k, r) along a run or a flow, the start among them."""

    loss: torch.Tensor
    A: torch.Tensor
    B: torch.Tensor

    @property
    def product(self) -> torch.Tensor:
        """``B A``, (times, k, d)."""
        return self.B @ self.A

    @property
    def memory(self) -> torch.Tensor:
        """The trace of ``A A^T - B^T B`` over its first value, (times,): 1 where the law of equal rates is kept."""
        traces = self.A.square().sum((1, 2)) - self.B.square().sum((1, 2))
        return traces / traces[0]


def turned_digits(steps: int = 60) -> Task:
    """A network that has learned 500 digits upright, and is to read them turned by a quarter.

    Three layers, 196 inputs (14 x 14 pixels), 64 and 64 hidden ReLU units, 10 outputs, no biases; ``steps`` full-batch steps
    of Adam at 0.003 from uniform weights (He's variance). ``W0`` is its middle weight, (64, 64), the loss the cross entropy.
    """
    digits, draw = data.load("mnist-5k"), chain.seeded(0)
    images = functional.avg_pool2d(digits.X[::10].double().reshape(-1, 1, 28, 28) + 0.5, 2)
    labels, sizes = digits.y[::10].long(), (196, 64, 64, 10)
    layers = [chain.uniform(-((6 / n) ** 0.5), (6 / n) ** 0.5, m, n, generator=draw).requires_grad_()
              for n, m in zip(sizes, sizes[1:])]

    def loss(x, W, first, last):
        return functional.cross_entropy((((x @ first.T).relu() @ W.T).relu()) @ last.T, labels)

    adam = torch.optim.Adam(layers, 0.003)
    for _ in range(steps):
        adam.zero_grad()
        loss(images.flatten(1), layers[1], layers[0], layers[2]).backward()
        adam.step()
    first, W0, last = (layer.detach() for layer in layers)
    turned = images.rot90(1, (2, 3)).flatten(1)
    return Task(W0, lambda W: loss(turned, W, first, last))


def scaling(rank: int, alpha: float = 1.0, stable: bool = False) -> float:
    """The factor s: ``alpha / rank`` (LoRA), or ``alpha / sqrt(rank)`` if ``stable`` (rsLoRA). :prf:ref:`def-adapter`.

    ``ValueError`` for a rank that is no integer >= 1.
    """
    _check_rank(rank)
    return alpha / (math.sqrt(rank) if stable else rank)


def usual_start(k: int, d: int, rank: int, generator: torch.Generator, batch: Sequence[int] = ()) -> Factors:
    """The usual start ``(A, B)``: A (rank, d) independent and uniform from -1/sqrt(d) to 1/sqrt(d), B (k, rank) zero; float64.

    ``batch``: leading axes.

    The law that peft draws A from, ``kaiming_uniform_`` with ``a = sqrt(5)``. :prf:ref:`def-adapter`. ``ValueError`` for a
    rank that is no integer >= 1.
    """
    _check_rank(rank)
    edge = d**-0.5
    return chain.uniform(-edge, edge, *batch, rank, d, generator=generator), torch.zeros(*batch, k, rank, dtype=torch.float64)


def merged(W0: Array, A: Array, B: Array, s: Any = 1) -> Array:
    """The weight that the layer uses, ``W0 + s B A``, (k, d). ``ValueError`` for shapes that do not fit."""
    _check_shapes(W0, A, B)
    return W0 + s * (B @ A)


def gradients(A: Array, B: Array, G: Array, s: Any = 1) -> tuple[Array, Array]:
    """The gradients of the loss in A and in B, ``s B^T G`` and ``s G A^T``. ``ValueError`` for shapes that do not fit."""
    _check_shapes(G, A, B)
    return s * (B.mT @ G), s * (G @ A.mT)


def step(A: Array, B: Array, G: Array, s: Any = 1, rates: tuple[Any, Any] = (1, 1)) -> tuple[Array, Array]:
    """The factors ``(A, B)`` after one step of gradient descent with these rates."""
    in_A, in_B = gradients(A, B, G, s)
    return A - rates[0] * in_A, B - rates[1] * in_B


def law(A: Array, B: Array, rates: tuple[Any, Any] = (1, 1)) -> Array:
    """``B^T B / rates[1] - A A^T / rates[0]``, (r, r): what gradient flow with these rates for A and B keeps.

    With equal rates the imbalance of chapter 2. :prf:ref:`thm-adapter-flow`.
    """
    return (B.mT @ B) / rates[1] - (A @ A.mT) / rates[0]


def law_added(A: Array, B: Array, G: Array, s: Any = 1, rates: tuple[Any, Any] = (1, 1)) -> Array:
    """What one step of gradient descent with these rates adds to :func:`law`, exactly, (r, r). :prf:ref:`thm-adapter-step`."""
    in_A, in_B = gradients(A, B, G, s)
    return rates[1] * (in_B.mT @ in_B) - rates[0] * (in_A @ in_A.mT)


def merged_added(A: Array, B: Array, G: Array, s: Any = 1, rates: tuple[Any, Any] = (1, 1)) -> Array:
    """What one step of gradient descent with these rates adds to the merged weight, exactly, (k, d).

    :prf:ref:`thm-adapter-step`.
    """
    in_A, in_B = gradients(A, B, G, s)
    return s * (rates[0] * rates[1] * (in_B @ in_A) - rates[1] * (in_B @ A) - rates[0] * (B @ in_A))


def first_progress(A: torch.Tensor, G: torch.Tensor, s: float) -> torch.Tensor:
    """The progress of the first step from B = 0 over that of full fine-tuning at the same rate, to first order; shape ``(...)``.

    Of gradient descent: ``s^2 |G A^T|^2 / |G|^2``. ``A``: (..., r, d). :prf:ref:`prop-first-step`.
    """
    return s**2 * (G @ A.mT).square().sum((-2, -1)) / G.square().sum((-2, -1))


def first_sign_progress(A: torch.Tensor, G: torch.Tensor, s: float) -> torch.Tensor:
    """The same of steps by the sign, as Adam's first: in sums of absolute values, ``s |G A^T|_1 / |G|_1``."""
    return s * (G @ A.mT).abs().sum((-2, -1)) / G.abs().sum((-2, -1))


def one_rate(factors: Factors, rates: Rates, degree: float = 1.0) -> tuple[Factors, Rates]:
    """The start and the rates of plain LoRA, one for both, that is LoRA+ with ``rates = (eta_A, eta_B)`` at every step.

    ``degree``: of the method in the gradient, 1 for gradient descent with or without momentum, 0 for Adam without epsilon
    and for steps by the sign. A is multiplied by ``(eta_B / eta_A)^(1 / (2 degree + 2))``, B divided by it.
    :prf:ref:`thm-rate-ratio`. ``ValueError`` for rates that are not positive, or a degree that is not above -1.
    """
    if not (rates[0] > 0 and rates[1] > 0 and degree > -1):
        raise ValueError(f"rates are {rates!r} and degree is {degree!r}; expected positive rates and a degree above -1")
    A, B = factors
    root = math.sqrt(rates[1] / rates[0])
    size = root ** (1 / (degree + 1))
    return (A * size, B / size), (rates[0] * root,) * 2


def train(task: Task, factors: Factors, rates: Rates, steps: int, s: float = 1.0,
          optimiser: Callable[..., torch.optim.Optimizer] = torch.optim.SGD, clip: float | None = None, **options: Any) -> Path:
    """Train A and B of ``factors`` with the rates ``(eta_A, eta_B)`` for so many steps.

    ``optimiser``: of PyTorch, with ``options`` as its keywords; ``clip``: the largest norm of both gradients together.
    Returns a :class:`Path` of steps + 1 times.
    """
    A, B = (factor.detach().clone().requires_grad_() for factor in factors)
    chosen = optimiser([{"params": [A], "lr": rates[0]}, {"params": [B], "lr": rates[1]}], **options)
    found = []
    for step in range(steps + 1):
        value = task.loss(merged(task.W0, A, B, s))
        found.append((value.detach(), A.detach().clone(), B.detach().clone()))
        if step < steps:
            chosen.zero_grad()
            value.backward()
            if clip is not None:
                torch.nn.utils.clip_grad_norm_([A, B], clip)
            chosen.step()
    return Path(*(torch.stack(each) for each in zip(*found)))


def both(task: Task, factors: Factors, rates: Rates, degree: float = 1.0, steps: int = 60, **options: Any) -> tuple[Path, Path]:
    """LoRA+ with these rates, and the plain LoRA of :func:`one_rate` for a method of this degree; ``options`` of :func:`train`."""
    plain = one_rate(factors, rates, degree)
    return train(task, factors, rates, steps, **options), train(task, *plain, steps, **options)


def flow(task: Task, factors: Factors, times: Sequence[float], s: float = 1.0, rates: Rates = (1.0, 1.0),
         weight_decay: float = 0.0) -> Path:
    """The flow ``A' = -rates[0] (s B^T G + weight_decay A)``, ``B' = -rates[1] (s G A^T + weight_decay B)`` at ``times``.

    The first of ``times`` is 0 or later. Integrated with the relative tolerance 1e-10. :prf:ref:`thm-adapter-flow`.
    ``RuntimeError`` where the integrator gives up.
    """
    A, B = factors
    split = lambda flat: (flat[:A.numel()].reshape(A.shape), flat[A.numel():].reshape(B.shape))

    def velocity(_, flat):
        now = split(torch.from_numpy(flat))
        found = gradients(*now, task.gradient(merged(task.W0, *now, s)), s)
        return torch.cat([-rate * (g + weight_decay * W).flatten() for rate, g, W in zip(rates, found, now)]).numpy()

    at = np.asarray(times, dtype=float)
    solved = integrate.solve_ivp(velocity, (0.0, at[-1]), torch.cat([A.flatten(), B.flatten()]).numpy(), method="DOP853",
                                 t_eval=at, rtol=1e-10, atol=1e-12)
    if not solved.success:
        raise RuntimeError(f"the flow was not integrated to {at[-1]:g}: {solved.message}")
    pairs = [split(column) for column in torch.from_numpy(solved.y.T.copy())]
    return Path(torch.stack([task.loss(merged(task.W0, *pair, s)) for pair in pairs]),
                *(torch.stack(each) for each in zip(*pairs)))


def _check_rank(rank):
    if isinstance(rank, bool) or not isinstance(rank, numbers.Integral) or rank < 1:
        raise ValueError(f"rank is {rank!r}; expected an integer >= 1")


def _check_shapes(W, A, B):
    if B.shape[-1] != A.shape[-2] or tuple(W.shape[-2:]) != (B.shape[-2], A.shape[-1]):
        raise ValueError(f"B has shape {tuple(B.shape)} and A {tuple(A.shape)}; expected (k, r) and (r, d) beside a weight "
                         f"or gradient of shape {tuple(W.shape)}")
