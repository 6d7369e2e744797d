"""Discrete training: of the layers, or of the end-to-end matrix by the end-to-end rule; batched over leading axes.

Each step costs the same two products with the data for every depth and width: the loss gives its gradient at the
end-to-end matrix, ``chain`` turns it into layer gradients (or ``preconditioner`` into the end-to-end step), and the
optimiser moves.
"""

import dataclasses
import numbers

import torch

from . import chain, preconditioner


@dataclasses.dataclass(frozen=True)
class GD:
    """Gradient descent ``W <- (1 - lr * weight_decay) W - lr * gradient``.

    ``lr`` is a number, or a tensor with one rate per configuration of the batch. ``weight_decay`` is the factor lambda
    of a penalty of lambda/2 times the squared norm of every layer. Raises ``ValueError`` for negative or infinite values.
    """

    lr: object
    weight_decay: float = 0.0

    def __post_init__(self):
        _check_rates(self)

    def start(self, parameters):
        return ()

    def step(self, parameters, gradients, state):
        lr, decay = _column(self.lr), self.weight_decay
        return [(1 - lr * decay) * W - lr * G for W, G in zip(parameters, gradients)], state


@dataclasses.dataclass(frozen=True)
class HeavyBall:
    """Polyak's heavy ball ``V <- momentum V + gradient``, ``W <- W - lr V``; effective rate ``lr / (1 - momentum)``."""

    lr: object
    momentum: float = 0.9

    def __post_init__(self):
        _check_rates(self)

    def start(self, parameters):
        return [torch.zeros_like(W) for W in parameters]

    def step(self, parameters, gradients, state):
        velocity = [self.momentum * V + G for V, G in zip(state, gradients)]
        return [W - _column(self.lr) * V for W, V in zip(parameters, velocity)], velocity


@dataclasses.dataclass(frozen=True)
class Adam:
    """Adam (Kingma and Ba 2015) with bias correction, entry by entry; the defaults are PyTorch's and TensorFlow's."""

    lr: object
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8

    def __post_init__(self):
        _check_rates(self)

    def start(self, parameters):
        zeros = [torch.zeros_like(W) for W in parameters]
        return 0, zeros, zeros

    def step(self, parameters, gradients, state):
        t, first, second = state
        t += 1
        first = [self.beta1 * M + (1 - self.beta1) * G for M, G in zip(first, gradients)]
        second = [self.beta2 * S + (1 - self.beta2) * G**2 for S, G in zip(second, gradients)]
        scale = (1 - self.beta2**t) ** 0.5
        moved = [W - _column(self.lr) / (1 - self.beta1**t) * M / (S.sqrt() / scale + self.eps)
                 for W, M, S in zip(parameters, first, second)]
        return moved, (t, first, second)


@dataclasses.dataclass(frozen=True)
class Trajectory:
    """A training run, or a batch of them.

    ``steps``: the recorded steps, shape (T,). ``loss``: the loss there, shape (T, ...), NaN from a divergence on.
    ``weights``: the final layers (one matrix under the end-to-end rule). ``diverged_at``: the step at which a run was
    stopped because its loss was not finite or had grown a million times, -1 where it was not, shape (...).
    ``history``: with ``keep_weights``, a list with one array ``(T, ..., n_{j+1}, n_j)`` a layer.
    """

    steps: torch.Tensor
    loss: torch.Tensor
    weights: list
    diverged_at: torch.Tensor
    history: list | None = None

    def steps_to(self, level):
        """The first recorded step at which the loss is at most ``level``, shape (...); infinity where it never is."""
        reached = self.loss <= level
        first = self.steps.double()[reached.to(torch.uint8).argmax(0)]
        return torch.where(reached.any(0), first, torch.inf)

    @property
    def end_to_end(self):
        """The end-to-end matrix at each recorded step, ``(T, ..., k, d)``; needs ``keep_weights=True``."""
        if self.history is None:
            raise ValueError("history is None; expected a run trained with keep_weights=True")
        return chain.end_to_end(self.history)


def iterate(loss, weights, lr, steps, weight_decay=0):
    """Plain gradient descent on the layers, in one line, for any arrays: the layers at steps 0, 1, ..., ``steps``.

    The reference for :func:`train`, and the form in which exact rationals and symbols run through the same code.
    ``loss`` needs ``gradient(W)`` only. Returns a list of ``steps + 1`` lists of layers.
    """
    run = [list(weights)]
    for _ in range(steps):
        G = chain.layer_gradients(run[-1], loss.gradient(chain.end_to_end(run[-1])))
        run.append([(1 - lr * weight_decay) * W - lr * dW for W, dW in zip(run[-1], G)])
    return run


def sharpness(loss, weights):
    """The largest eigenvalue of the Hessian of the network's loss in all its layers, a float.

    By automatic differentiation, for networks small enough to hold the Hessian. ``weights``: one network, no batch.
    """
    shapes, sizes = [W.shape for W in weights], [W.numel() for W in weights]

    def value(flat):
        layers = [part.reshape(shape) for part, shape in zip(flat.split(sizes), shapes)]
        return loss.value(chain.end_to_end(layers))

    flat = torch.cat([W.detach().flatten() for W in weights])
    return torch.linalg.eigvalsh(torch.autograd.functional.hessian(value, flat))[-1].item()


EXPLODED = 1e6  # a loss this many times its first value is a divergence


@torch.no_grad()
def train(loss, weights, optimizer, steps, record_every=1, rule="layers", keep_weights=False, batch_size=None,
          generator=None):
    """Train layers, or the end-to-end matrix by the end-to-end rule of the same depth, from the same start.

    ``loss``: an object with ``value_and_gradient(W)``. ``weights``: list of N layers ``(..., n_{j+1}, n_j)``, leading
    axes batch and broadcast against the learning rates. ``optimizer``: :class:`GD`, :class:`HeavyBall`, :class:`Adam`. ``steps``: how many; the loss is recorded
    at steps 0, record_every, 2 record_every, ... and at the last. ``rule``: ``"layers"`` moves every layer;
    ``"end-to-end"`` collapses the start to one matrix and moves that by the end-to-end rule (:prf:ref:`thm-end-to-end`).
    ``batch_size``: gradients from that many rows drawn afresh with ``generator`` at each step, the same for all layers.
    Returns a :class:`Trajectory`; the input is not changed. Raises ``ValueError`` for a negative count or unknown rule.
    """
    for name, count, least in (("steps", steps, 0), ("record_every", record_every, 1)):
        if isinstance(count, bool) or not isinstance(count, numbers.Integral) or count < least:
            raise ValueError(f"{name} is {count!r}; expected an integer >= {least}")
    if rule not in ("layers", "end-to-end"):
        raise ValueError(f"rule is {rule!r}; expected 'layers' or 'end-to-end'")
    if batch_size is not None and not 1 <= batch_size <= len(loss.X):
        raise ValueError(f"batch_size is {batch_size!r}; expected 1 to {len(loss.X)}")
    depth, parameters = len(weights), list(weights)
    if rule == "end-to-end":
        parameters = [chain.end_to_end(weights)]
        if getattr(optimizer, "weight_decay", 0):  # each of the N layers shrinks, so their product shrinks N-fold
            optimizer = dataclasses.replace(optimizer, weight_decay=depth * optimizer.weight_decay)
    parameters = _one_for_each_rate(parameters, optimizer.lr)
    state = optimizer.start(parameters)
    recorded, losses, history, limit, diverged = [], [], [], None, None
    for t in range(steps + 1):
        W = chain.end_to_end(parameters)
        value, G = loss.value_and_gradient(W)
        if limit is None:
            limit, diverged = EXPLODED * value, torch.full_like(value, -1, dtype=torch.long)
        wild = ~(value <= torch.where(limit > 0, limit, torch.inf)) & (diverged < 0)
        if wild.any():
            diverged = torch.where(wild, t, diverged)
        if t % record_every == 0 or t == steps or (diverged >= 0).all():
            recorded.append(t)
            losses.append(torch.where(diverged >= 0, torch.nan, value))
            history.append(parameters)
        if t == steps or (diverged >= 0).all():
            break
        if batch_size is not None:
            rows = torch.randperm(len(loss.X), generator=generator)[:batch_size]
            G = loss.rows(rows).gradient(W)
        gradients = (chain.layer_gradients(parameters, G) if rule == "layers"
                     else [preconditioner.apply(W, G, depth)])
        parameters, state = optimizer.step(parameters, gradients, state)
    kept = [torch.stack(layer) for layer in zip(*history)] if keep_weights else None
    return Trajectory(torch.tensor(recorded), torch.stack(losses), parameters, diverged, kept)


def _one_for_each_rate(parameters, lr):
    rates = torch.as_tensor(lr).shape
    return [W.expand(torch.broadcast_shapes(W.shape[:-2], rates) + W.shape[-2:]) for W in parameters]


def _column(lr):
    return lr[..., None, None] if isinstance(lr, torch.Tensor) and lr.ndim else lr


def _check_rates(optimizer):
    for field in dataclasses.fields(optimizer):
        values = torch.as_tensor(getattr(optimizer, field.name), dtype=torch.float64)
        if not (torch.isfinite(values).all() and (values >= 0).all()):
            raise ValueError(f"{field.name} is {getattr(optimizer, field.name)!r}; expected finite numbers >= 0")
