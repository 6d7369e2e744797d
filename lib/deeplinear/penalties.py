"""The L2 penalty of a net's dense layers, on their matrices or on the products that stand in their place.

A product is an ``nn.Sequential`` of two linear layers, W_1 and then W_2, the bias behind them. TensorFlow's tutorial
penalises its two dense layers, biases too; what becomes of that where a matrix is replaced by a product is a choice.
"""

from typing import Any

import torch
from torch import nn

CHOICES = ("both", "old", "new", "product", "none")


class Penalty:
    """``weight / 2`` times the squares of ``net.dense`` and ``net.output``: of their biases and, by ``penalise``, of

    ``"both"`` factors of each product, the ``"old"`` W_1 or the ``"new"`` W_2 alone, or their ``"product"`` W_2 W_1, as one
    who leaves the tutorial's line as it is would have it; ``"none"``: of nothing, biases neither. A layer that is no
    product counts as its own matrix, under ``"new"`` as none. ``ValueError`` for another choice, or where there is
    nothing new.
    """

    def __init__(self, net: nn.Module, penalise: str = "both", weight: float = 5e-4) -> None:
        if penalise not in CHOICES:
            raise ValueError(f"penalise is {penalise!r}; expected one of {', '.join(CHOICES)}")
        layers: list[list[Any]] = [list(module) if isinstance(module, nn.Sequential) else [module]
                                   for module in (net.dense, net.output)]
        if penalise == "new" and not any(len(factors) > 1 for factors in layers):
            raise ValueError("penalise is 'new' and no layer of the net is a product; expected one, as in the variant 'deep'")
        self.net, self.weight = net, weight
        self.alone: list[nn.Parameter] = []
        self.products: list[list[Any]] = []  # W_1, W_2
        for factors in layers if penalise != "none" else ():
            matrices = [factor.weight for factor in factors]
            if penalise == "product" and len(factors) > 1:
                self.products.append(matrices)
                matrices = []
            self.alone += {"old": matrices[:1], "new": matrices[1:]}.get(penalise, matrices) + [factors[-1].bias]

    def optimiser(self, lr: float, momentum: float) -> torch.optim.Optimizer:
        """Heavy ball on all parameters, with the weight decay that is the gradient of what is penalised ``alone``."""
        alone = {id(p) for p in self.alone}
        rest = [p for p in self.net.parameters() if id(p) not in alone]
        groups: list[dict[str, Any]] = [{"params": self.alone, "weight_decay": self.weight}, {"params": rest}]
        return torch.optim.SGD([group for group in groups if group["params"]], lr=lr, momentum=momentum, fused=True)

    @torch.no_grad()
    def value(self) -> torch.Tensor:
        """The penalty now."""
        squares = [p.square().sum() for p in self.alone] + [(W2 @ W1).square().sum() for W1, W2 in self.products]
        return self.weight / 2 * sum(squares, next(self.net.parameters()).new_zeros(()))

    @torch.no_grad()
    def add_gradient(self) -> None:
        """Add the gradient of the products' part: W_2^T W_2 W_1 and W_2 W_1 W_1^T, from the Gram matrices of the factors,
        which cost less than the product itself and its two products with the factors."""
        for W1, W2 in self.products:
            first, second = W1 @ W1.T, W2.T @ W2
            W1.grad.addmm_(second, W1, alpha=self.weight)
            W2.grad.addmm_(W2, first, alpha=self.weight)
