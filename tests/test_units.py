"""What laws are tried with: weights drawn anew, one backward pass, a law asked of another network, a law of pairs."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import deeplinear as dl


def net_of(phi=nn.ReLU):
    with dl.forked(0):
        return dl.units.redraw(nn.Sequential(nn.Linear(4, 5), phi(), nn.Dropout(0.5), nn.Linear(5, 3)).double(), dl.seeded(0))


X, y = dl.normal(7, 4, generator=dl.seeded(1)), torch.arange(7) % 3


def test_weights_are_drawn_from_the_generator_alone():
    again, other = net_of(), dl.units.redraw(net_of(), dl.seeded(1))
    for W, V, U in zip(net_of().parameters(), again.parameters(), other.parameters()):
        assert torch.equal(W, V) and not torch.equal(W, U)
    wide = dl.units.redraw(nn.Linear(400, 200).double(), dl.seeded(2))
    assert abs(wide.weight.std() * 20 - 1) < 0.02 and abs(wide.bias.std() - 1) < 0.2


def test_a_backward_pass_fills_the_gradients_and_leaves_the_global_generator():
    net, state = net_of(), torch.get_rng_state()
    value = dl.units.backpropagate(net, X, y, seed=3)
    assert torch.equal(state, torch.get_rng_state())
    first = net[0].weight.grad.clone()
    with dl.forked(3):
        loss = F.cross_entropy(net(X), y)
    assert loss.item() == value and torch.equal(torch.autograd.grad(loss, net[0].weight)[0], first)
    dl.units.backpropagate(net, X, y, seed=3)
    assert torch.equal(net[0].weight.grad, first)  # not added up
    dl.units.backpropagate(net, X, y, seed=4)
    assert not torch.equal(net[0].weight.grad, first)


def test_a_law_asked_of_another_net_has_its_weights():
    law, other = dl.laws(net_of(), X)[0], dl.units.redraw(net_of(nn.Tanh), dl.seeded(5))
    (asked,) = dl.units.asked_of(other, [law])
    W, b, V = other[0].weight, other[0].bias, other[3].weight
    expected = V.square().sum(0) - W.square().sum(1) - b**2
    assert (asked.value() - expected).abs().max() < 1e-12 and asked.terms == law.terms


def test_the_law_of_pairs_has_the_law_as_its_diagonal():
    net = net_of()
    law = dl.laws(net, X)[0]
    every = dl.units.pairs(law)
    W, b, V = net[0].weight, net[0].bias, net[3].weight
    expected = V.T @ V - W @ W.T - torch.outer(b, b)
    assert (every.value().reshape(5, 5) - expected).abs().max() < 1e-12
    assert (every.value().reshape(5, 5).diagonal() - law.value()).abs().max() < 1e-12
    with pytest.raises(ValueError, match="one of pairs"):
        dl.units.pairs(every)
