import functools

import numpy as np
import pytest
import torch
from conftest import generator
from hypothesis import given, settings
from hypothesis import strategies as st

import deeplinear as dl
from deeplinear import chain

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
    assert np.allclose(dl.end_to_end(arrays), dl.end_to_end(weights), rtol=1e-14, atol=0)  # another BLAS rounds otherwise


def test_draws_follow_their_generator_and_leave_the_global_one_alone():
    before = torch.get_rng_state()
    for draw in (lambda g: dl.normal(50, 2, generator=g), lambda g: dl.uniform(-1, 3, 50, generator=g),
                 lambda g: torch.from_numpy(dl.integers(-2, 2, 50, generator=g)),
                 lambda g: chain.truncated_normal(50, std=0.1, generator=g)):
        assert torch.equal(draw(dl.seeded(1)), draw(dl.seeded(1))) and not torch.equal(draw(dl.seeded(1)), draw(dl.seeded(2)))
        with pytest.raises(TypeError, match="generator is None; expected dl.seeded"):
            draw(None)
    assert torch.equal(before, torch.get_rng_state())


def test_draws_have_their_distributions():
    u = dl.uniform(-1, 3, 10**5, generator=dl.seeded(0))
    assert -1 <= u.min() < -0.999 and 2.999 < u.max() <= 3 and abs(u.mean() - 1) < 0.02
    n = dl.integers(-2, 2, 10**5, generator=dl.seeded(0))
    assert sorted(set(n.tolist())) == [-2, -1, 0, 1, 2] and max(abs((n == k).mean() - 0.2) for k in range(-2, 3)) < 0.01
    t = chain.truncated_normal(10**5, std=0.5, generator=dl.seeded(0))
    assert t.dtype == torch.float64 and 0.99 < t.abs().max() <= 1
    edge = torch.distributions.Normal(0, 1).cdf(torch.tensor(2.0, dtype=torch.float64))
    density = 4 * torch.exp(torch.tensor(-2.0).double()) / (2 * torch.pi) ** 0.5  # 2 z phi(z) at the cut z = 2
    assert abs(t.std() / (0.5 * (1 - density / (2 * edge - 1)).sqrt()) - 1) < 0.01
    assert chain.truncated_normal(3, std=0.0, generator=dl.seeded(0)).abs().max() == 0


def test_the_draws_themselves_are_fixed():
    """To eight digits, whatever the release of PyTorch and the processor: what a start was, it stays."""
    near = lambda found, expected: torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-7, atol=1e-9)
    near(dl.normal(2, generator=dl.seeded(0)), [1.5409961082, -0.2934289058])
    near(dl.uniform(0, 1, 2, generator=dl.seeded(0)), [0.9700530018, 0.7078198644])
    near(chain.truncated_normal(2, std=0.1, generator=dl.seeded(0)), [0.1632049458, 0.0519701002])
    assert dl.integers(-9, 9, 6, generator=dl.seeded(0)).tolist() == [9, 4, -1, 8, 3, 6]


def test_within_a_fork_the_global_generator_starts_at_the_seed():
    before = torch.get_rng_state()
    with dl.forked(3):
        one = torch.nn.Linear(4, 2).weight.detach().clone()
    with dl.forked(3):
        two = torch.nn.Linear(4, 2).weight.detach().clone()
    with pytest.raises(ZeroDivisionError), dl.forked(4):
        other = torch.nn.Linear(4, 2).weight.detach().clone()
        raise ZeroDivisionError
    assert torch.equal(one, two) and not torch.equal(one, other) and torch.equal(before, torch.get_rng_state())
