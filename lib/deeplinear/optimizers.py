"""First-order optimisers as small in-place updates, with the settings of the frameworks they come from.

``lr`` is a number, or a list, array or tensor with one rate per configuration of a batch. ``start(parameters)``
returns the state, a
list of tensors with the parameters' leading axes; ``step(parameters, gradients, state)`` changes parameters and state in
place and asks nothing of the host, so that a step can be captured in a CUDA graph. Negative or infinite settings, and
means that never forget, raise ``ValueError``.
"""

import dataclasses
from collections.abc import Callable, Sequence

import torch

from . import data
from .annotations import Numbers, Optimizer

Tensors = Sequence[torch.Tensor]


class _Optimizer:
    rotates = False  # whether training commutes with a rotation of the features

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            try:
                numbers = torch.as_tensor(value, dtype=torch.float64)
            except (TypeError, ValueError, RuntimeError) as error:
                raise ValueError(f"{field.name} is {value!r}; expected finite numbers >= 0") from error
            if field.name != "lr" and numbers.ndim:
                raise ValueError(f"{field.name} is {value!r}; expected one number (a rate alone may differ in a batch)")
            if not (torch.isfinite(numbers).all() and (numbers >= 0).all()):
                raise ValueError(f"{field.name} is {value!r}; expected finite numbers >= 0")
            if field.name in ("beta1", "beta2", "rho") and (numbers >= 1).any():
                raise ValueError(f"{field.name} is {value!r}; expected a number below 1")

    def start(self, parameters: Tensors) -> list[torch.Tensor]:
        return []

    def _column(self, parameters):
        """The rates, shaped to multiply a batch of matrices."""
        lr = torch.as_tensor(self.lr, dtype=parameters[0].dtype, device=parameters[0].device)
        return lr[..., None, None] if lr.ndim else lr


@dataclasses.dataclass(frozen=True)
class GD(_Optimizer):
    """Gradient descent ``W <- (1 - lr * weight_decay) W - lr * gradient``.

    ``weight_decay`` is the factor lambda of a penalty of lambda/2 times the squared norm of every layer.
    """

    rotates = True
    lr: Numbers
    weight_decay: float = 0.0

    def step(self, parameters: Tensors, gradients: Tensors, state: Tensors) -> None:
        lr = self._column(parameters)
        for W, G in zip(parameters, gradients):
            if self.weight_decay:
                W.mul_(1 - lr * self.weight_decay)
            W.addcmul_(G, lr, value=-1)


@dataclasses.dataclass(frozen=True)
class HeavyBall(_Optimizer):
    """Polyak's heavy ball ``V <- momentum V + gradient``, ``W <- W - lr V``; effective rate ``lr / (1 - momentum)``.

    The same in PyTorch (SGD with momentum) and TensorFlow 1 (MomentumOptimizer).
    """

    rotates = True
    lr: Numbers
    momentum: float = 0.9

    def start(self, parameters: Tensors) -> list[torch.Tensor]:
        return [torch.zeros_like(W) for W in parameters]

    def step(self, parameters: Tensors, gradients: Tensors, state: Tensors) -> None:
        lr = self._column(parameters)
        for W, G, V in zip(parameters, gradients, state):
            V.mul_(self.momentum).add_(G)
            W.addcmul_(V, lr, value=-1)


@dataclasses.dataclass(frozen=True)
class Nesterov(_Optimizer):
    """Nesterov's momentum as PyTorch and TensorFlow write it: ``V <- m V + G``, ``W <- W - lr (G + m V)``."""

    rotates = True
    lr: Numbers
    momentum: float = 0.9

    start = HeavyBall.start

    def step(self, parameters: Tensors, gradients: Tensors, state: Tensors) -> None:
        lr = self._column(parameters)
        for W, G, V in zip(parameters, gradients, state):
            V.mul_(self.momentum).add_(G)
            W.addcmul_(torch.add(G, V, alpha=self.momentum), lr, value=-1)


@dataclasses.dataclass(frozen=True)
class AdaGrad(_Optimizer):
    """AdaGrad (Duchi, Hazan and Singer 2011): ``S <- S + G^2``, ``W <- W - lr G / (sqrt(S) + eps)``, entry by entry."""

    lr: Numbers
    initial: float = 0.0
    eps: float = 1e-10

    @classmethod
    def pytorch(cls, lr: Numbers) -> "AdaGrad":
        """PyTorch's settings: accumulator from 0, eps 1e-10."""
        return cls(lr)

    @classmethod
    def tensorflow1(cls, lr: Numbers) -> "AdaGrad":
        """TensorFlow 1's settings, those of the paper's framework: accumulator from 0.1, no eps."""
        return cls(lr, initial=0.1, eps=0.0)

    def start(self, parameters: Tensors) -> list[torch.Tensor]:
        return [torch.full_like(W, self.initial) for W in parameters]

    def step(self, parameters: Tensors, gradients: Tensors, state: Tensors) -> None:
        lr = self._column(parameters)
        for W, G, S in zip(parameters, gradients, state):
            S.addcmul_(G, G)
            W.addcdiv_(G * lr, S.sqrt().add_(self.eps), value=-1)


@dataclasses.dataclass(frozen=True)
class AdaDelta(_Optimizer):
    """AdaDelta (Zeiler 2012): running means of squared gradients and of squared updates, entry by entry."""

    lr: Numbers
    rho: float = 0.9
    eps: float = 1e-6

    @classmethod
    def pytorch(cls, lr: Numbers) -> "AdaDelta":
        """PyTorch's settings: rho 0.9, eps 1e-6."""
        return cls(lr)

    @classmethod
    def tensorflow1(cls, lr: Numbers) -> "AdaDelta":
        """TensorFlow 1's settings, those of the paper's framework: rho 0.95, eps 1e-8."""
        return cls(lr, rho=0.95, eps=1e-8)

    def start(self, parameters: Tensors) -> list[torch.Tensor]:
        return [torch.zeros_like(W) for W in parameters for _ in range(2)]

    def step(self, parameters: Tensors, gradients: Tensors, state: Tensors) -> None:
        lr = self._column(parameters)
        for W, G, S, D in zip(parameters, gradients, state[::2], state[1::2]):
            S.mul_(self.rho).addcmul_(G, G, value=1 - self.rho)
            update = (D + self.eps).sqrt_().div_((S + self.eps).sqrt_()).mul_(G)
            D.mul_(self.rho).addcmul_(update, update, value=1 - self.rho)
            W.addcmul_(update, lr, value=-1)


@dataclasses.dataclass(frozen=True)
class Adam(_Optimizer):
    """Adam (Kingma and Ba 2015) with bias correction, entry by entry.

    ``eps_inside``: add eps to the uncorrected root of the second moment, as TensorFlow 1 does, not to the corrected one.
    """

    lr: Numbers
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    eps_inside: bool = False

    @classmethod
    def pytorch(cls, lr: Numbers) -> "Adam":
        """PyTorch's settings."""
        return cls(lr)

    @classmethod
    def tensorflow1(cls, lr: Numbers) -> "Adam":
        """TensorFlow 1's settings, those of the paper's framework: eps beside the uncorrected root."""
        return cls(lr, eps_inside=True)

    def start(self, parameters: Tensors) -> list[torch.Tensor]:
        powers = [parameters[0].new_ones(parameters[0].shape[:-2] + (1, 1), dtype=torch.float64) for _ in range(2)]
        return powers + [torch.zeros_like(W) for W in parameters for _ in range(2)]

    def step(self, parameters: Tensors, gradients: Tensors, state: Tensors) -> None:
        power1, power2 = state[0].mul_(self.beta1), state[1].mul_(self.beta2)
        lr = self._column(parameters)
        lr, correct2 = lr / (1 - power1).to(lr.dtype), (1 - power2).sqrt_().to(lr.dtype)
        for W, G, M, S in zip(parameters, gradients, state[2::2], state[3::2]):
            M.lerp_(G, 1 - self.beta1)
            S.mul_(self.beta2).addcmul_(G, G, value=1 - self.beta2)
            root = S.sqrt()
            if self.eps_inside:
                root = root.add_(self.eps).div_(correct2)
            else:
                root = root.div_(correct2).add_(self.eps)
            W.addcdiv_(M * lr, root, value=-1)


PRESETS: dict[str, Callable[[Numbers], Optimizer]] = {
    "gd": GD, "heavy-ball": HeavyBall, "nesterov": Nesterov,
    "adagrad-pytorch": AdaGrad.pytorch, "adagrad-tensorflow1": AdaGrad.tensorflow1,
    "adadelta-pytorch": AdaDelta.pytorch, "adadelta-tensorflow1": AdaDelta.tensorflow1,
    "adam-pytorch": Adam.pytorch, "adam-tensorflow1": Adam.tensorflow1,
}


def preset(name: str, lr: Numbers) -> Optimizer:
    """The optimiser of this name in ``PRESETS`` with the rate ``lr``; ``ValueError`` with the close ones if unknown."""
    return data.named("optimiser", name, PRESETS)(lr)
