import pytest
import torch
from conftest import generator

import deeplinear as dl
from deeplinear.products import Direct, Moments, Plain, Spectrum, eigenbasis, products


def setup(p, k=1, dtype=torch.float64, seed=0):
    X = torch.randn(30, 5, generator=generator(seed), dtype=dtype)
    Y = torch.randn(30, k, generator=generator(seed + 1), dtype=dtype)
    W = torch.randn(7, k, 5, generator=generator(seed + 2), dtype=dtype)
    return dl.LpLoss(X, Y, p, scale=0.5), W


def evaluate(way, W):
    value, G = torch.empty(len(W), dtype=W.dtype), torch.empty_like(W)
    way(W, value, G)
    return value, G, way.exact(W, value)


@pytest.mark.parametrize("way, p", [(Direct, 2), (Direct, 4), (Direct, 6), (Direct, 8), (Moments, 2), (Plain, 4)])
@pytest.mark.parametrize("k", [1, 3])
def test_every_way_gives_value_and_gradient(way, p, k):
    loss, W = setup(p, k)
    made = way(loss) if way is Plain else way(loss, len(W))
    value, G, exact = evaluate(made, W)
    torch.testing.assert_close(value, loss.value(W), rtol=1e-13, atol=0)
    torch.testing.assert_close(exact, loss.value(W), rtol=1e-13, atol=0)
    torch.testing.assert_close(G, loss.gradient(W), rtol=1e-12, atol=1e-12)
    again = evaluate(made, W + 1)  # the buffers hold nothing over
    torch.testing.assert_close(again[1], loss.gradient(W + 1), rtol=1e-12, atol=1e-11)


@pytest.mark.parametrize("k", [1, 3])
def test_the_eigenbasis_gives_value_and_gradient(k):
    loss, W = setup(2, k)
    Q = eigenbasis(loss)
    value, G, exact = evaluate(Spectrum(loss, len(W), Q), W @ Q)
    torch.testing.assert_close(value, loss.value(W), rtol=1e-13, atol=0)
    torch.testing.assert_close(exact, loss.value(W), rtol=1e-13, atol=0)
    torch.testing.assert_close(G @ Q.T, loss.gradient(W), rtol=1e-12, atol=1e-12)


def test_only_optimisers_that_commute_with_a_rotation_are_run_in_the_eigenbasis():
    """Rotating features and first layer together: the same run for gradient descent and momentum, another for the rest."""
    loss, _ = setup(4)
    Q = torch.linalg.qr(torch.randn(5, 5, generator=generator(5), dtype=torch.float64)).Q
    turned = dl.LpLoss(loss.X @ Q, loss.Yt[0], 4, scale=0.5)
    start = dl.near_zero_init((5, 2, 1), 0.5, generator(6))
    for optimizer in (dl.GD(0.001, 0.1), dl.HeavyBall(0.0001), dl.Nesterov(0.0001), dl.Adam(0.01), dl.AdaGrad(0.01),
                      dl.AdaDelta(0.1)):
        a, b = (dl.train(each, layers, optimizer, 50).loss
                for each, layers in ((loss, start), (turned, [start[0] @ Q, start[1]])))
        apart = abs(a / b - 1).max()
        assert (apart < 1e-11) == optimizer.rotates and (optimizer.rotates or apart > 1e-5)


def test_recorded_values_keep_their_digits_where_moments_lose_them():
    loss, _ = setup(2)
    fitted = dl.LpLoss(loss.X, loss.X @ torch.ones(5, dtype=torch.float64), 2)
    W = torch.ones(1, 1, 5, dtype=torch.float64) + 1e-9
    value, _, exact = evaluate(products(fitted, 1), W)
    torch.testing.assert_close(exact, fitted.value(W), rtol=1e-14, atol=0)
    assert abs(value / exact - 1) > 1e-3  # control: the by-product is all rounding here


def test_the_way_is_chosen_by_the_loss():
    assert isinstance(products(setup(2)[0], 3), Moments) and isinstance(products(setup(4)[0], 3), Direct)
    assert isinstance(products(setup(2, dtype=torch.float32)[0], 3), Direct)  # moments lose digits: double only
    few = dl.LpLoss(torch.eye(2, 3).double(), torch.ones(2).double(), 2)
    assert isinstance(products(few, 3), Direct)
    assert isinstance(products(setup(2)[0], 3, rows=lambda: torch.arange(3)), Plain)
