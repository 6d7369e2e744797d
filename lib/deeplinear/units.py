"""Hidden units of any network, and what is tried on their laws: random weights, one backward pass, a law asked of another net."""

import dataclasses
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from . import chain
from .networks import Law


@torch.no_grad()
def redraw(net: nn.Module, generator: torch.Generator) -> nn.Module:
    """Draw all parameters of ``net`` anew, in place, and return it.

    Independent normal entries: those of a weight ``(units, ...)`` over the root of the number that enters a unit, those of a
    bias ``(units,)`` of variance 1. PyTorch's own starts draw from its global generator.
    """
    for W in net.parameters():
        W.copy_(chain.normal(*W.shape, generator=generator) / W[0].numel() ** 0.5)
    return net


def backpropagate(net: nn.Module, X: torch.Tensor, y: torch.Tensor, seed: int = 0) -> float:
    """Fill the gradients of ``net`` with those of the mean cross-entropy, and return its value.

    ``X``: a batch that ``net`` takes; ``y``: labels ``(batch,)``. What is random in ``net``, its dropout, is drawn from
    ``seed``; the global generator is left as it was.
    """
    net.zero_grad()
    with chain.forked(seed):
        loss = F.cross_entropy(net(X), y)
    loss.backward()
    return loss.item()


def asked_of(net: nn.Module, laws: Sequence[Law]) -> list[Law]:
    """The laws of one network, asked of another whose parameters have the same names and shapes.

    There nothing says that they hold: :prf:ref:`thm-unit-balance` without its hypotheses.
    """
    return [dataclasses.replace(law, net=net) for law in laws]


def pairs(law: Law) -> Law:
    """The law of all pairs of units of which ``law``, one number a unit, is the diagonal; (units, units) in ``value()``.

    It need not hold: :prf:ref:`prop-matrix-balance`. Raises ``ValueError`` for a law that is one of pairs already.
    """
    if law.gram:
        raise ValueError("the law is one of pairs already; expected one number a unit")
    terms = tuple(dataclasses.replace(term, entries=term.entries[None]) for term in law.terms)
    return dataclasses.replace(law, terms=terms, gram=True)
