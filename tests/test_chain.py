import functools

import numpy as np
import pytest
import torch
from conftest import generator
from hypothesis import given, settings
from hypothesis import strategies as st

import deeplinear as dl

shapes = st.lists(st.integers(1, 5), min_size=2, max_size=7)
batches = st.lists(st.integers(1, 3), max_size=2).map(tuple)


def layers(dims, seed=0, batch=()):
    return dl.near_zero_init(dims, 1.0, generator(seed), batch)


@settings(max_examples=60)
@given(dims=shapes, batch=batches, seed=st.integers(0, 10**6))
def test_layer_gradients_against_autograd(dims, batch, seed):
    weights = [W.requires_grad_() for W in layers(dims, seed, batch)]
    G = torch.randn(*batch, dims[-1], dims[0], generator=generator(seed), dtype=torch.float64)
    product = functools.reduce(lambda below, above: above @ below, weights)
    expected = torch.autograd.grad((product * G).sum(), weights)
    found = dl.layer_gradients(weights, G)
    torch.testing.assert_close(dl.end_to_end(weights), product)
    assert not any(g.requires_grad for g in found)
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs)


@settings(max_examples=40)
@given(dims=shapes, seed=st.integers(0, 10**6))
def test_balanced_init_is_balanced(dims, seed):
    weights = dl.balanced_init(dims, generator(seed))
    assert [tuple(W.shape) for W in weights] == [(b, a) for a, b in zip(dims, dims[1:])]
    assert all(D.abs().max() < 1e-13 for D in dl.imbalance(weights))
    assert dl.chain.relative_imbalance(weights) < 1e-13


def test_balanced_init_at_a_given_matrix():
    W = torch.randn(3, 4, generator=generator(1), dtype=torch.float64)
    for hidden in ((3,), (5, 7), (4, 3, 9)):
        weights = dl.balanced_init((4, *hidden, 3), generator(2), W=W)
        torch.testing.assert_close(dl.end_to_end(weights), W)
    W[2] = W[0] + W[1]
    torch.testing.assert_close(dl.end_to_end(dl.balanced_init((4, 2, 3), generator(2), W=W)), W)
    assert dl.end_to_end(dl.balanced_init((4, 2, 3), generator(2), W=0 * W)).abs().max() == 0
    with pytest.raises(ValueError, match=r"W has rank 2; layers of widths \(4, 1, 3\) reach rank 1"):
        dl.balanced_init((4, 1, 3), generator(2), W=W)


def test_starts_are_reproducible_and_of_the_stated_size():
    a, b = (dl.near_zero_init((200, 300, 100), 0.01, generator(3)) for _ in range(2))
    assert all(torch.equal(x, y) for x, y in zip(a, b))
    assert abs(torch.cat([W.flatten() for W in a]).std() - 0.01) < 1e-4
    assert [W.tolist() for W in dl.identity_init((2, 3, 1))] == [[[1, 0], [0, 1], [0, 0]], [[1, 0, 0]]]


@pytest.mark.parametrize("call, message", [
    (lambda: dl.end_to_end([]), "weights is empty"),
    (lambda: dl.end_to_end([torch.ones(4, 10), torch.ones(3, 5)]),
     r"W_2 has shape \(3, 5\); expected \(\*, 4\) to follow W_1 of shape \(4, 10\)"),
    (lambda: dl.imbalance([torch.ones(4)]), r"W_1 has shape \(4,\); expected \(..., n_1, n_0\)"),
    (lambda: dl.layer_gradients([torch.ones(4, 10)], torch.ones(10, 4)), r"G has shape \(10, 4\); expected \(..., 4, 10\)"),
    (lambda: dl.near_zero_init((3,), 0.1, generator(0)), r"dims is \(3,\); expected at least two positive integers"),
    (lambda: dl.identity_init((3, 0)), r"dims is \(3, 0\)"),
    (lambda: dl.near_zero_init((3, 1), -0.1, generator(0)), "std is -0.1; expected a finite number >= 0"),
    (lambda: dl.balanced_init((3, 1), generator(0), W=torch.ones(3, 1)), r"W has shape \(3, 1\); expected \(1, 3\)"),
])
def test_bad_layers_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_randomness_is_an_argument():
    with pytest.raises(TypeError, match="generator is 0; expected dl.seeded"):
        dl.near_zero_init((3, 1), 0.1, 0)


def test_arrays_are_layers():
    weights = dl.near_zero_init((3, 2, 1), 0.1, dl.seeded(np.int64(3)))
    arrays = [W.numpy() for W in weights]
    assert torch.equal(weights[0], dl.near_zero_init((3, 2, 1), 0.1, dl.seeded(3))[0])
    assert torch.equal(dl.chain.relative_imbalance(arrays), dl.chain.relative_imbalance(weights))
    assert (dl.end_to_end(arrays) == dl.end_to_end(weights).numpy()).all()
