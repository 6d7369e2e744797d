from fractions import Fraction

import numpy as np
import pytest
import sympy
import torch
from conftest import generator

import deeplinear as dl
from deeplinear import optimizers


def path(optimizer, gradients):
    """Where one entry goes under given gradients."""
    W = [torch.zeros(1, 1, 1, dtype=torch.float64)]
    state, visited = optimizer.start(W), []
    for g in gradients:
        optimizer.step(W, [torch.full_like(W[0], g)], state)
        visited.append(W[0].item())
    return visited


def test_adam_of_tensorflow_1_adds_eps_to_the_uncorrected_root():
    """The published update, written out: lr_t = lr sqrt(1 - b2^t) / (1 - b1^t), w <- w - lr_t m / (sqrt(v) + eps)."""
    gradients, w, m, v, expected = [1e-9, -2e-8, 3e-8, 1e-7], 0.0, 0.0, 0.0, []
    for t, g in enumerate(gradients, start=1):
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        w -= 0.1 * (1 - 0.999**t) ** 0.5 / (1 - 0.9**t) * m / (v**0.5 + 1e-8)
        expected.append(w)
    assert path(dl.Adam.tensorflow1(0.1), gradients) == pytest.approx(expected, rel=1e-12)
    assert abs(path(dl.Adam.pytorch(0.1), gradients)[0] / expected[0] - 1) > 1  # control: the other place for eps


def test_the_settings_of_the_two_frameworks_differ():
    gradients = [1.0, -0.5, 0.25]
    for name in ("adagrad", "adadelta", "adam"):
        one, two = (path(optimizers.preset(f"{name}-{framework}", 0.1), [g * 1e-4 for g in gradients])
                    for framework in ("pytorch", "tensorflow1"))
        assert abs(one[-1] / two[-1] - 1) > 1e-3


@pytest.mark.parametrize("name", optimizers.PRESETS)
def test_one_rate_for_each_configuration(name):
    rates = torch.tensor([0.1, 0.01], dtype=torch.float64)
    G = torch.randn(5, 2, 3, 4, generator=generator(0), dtype=torch.float64)
    both, singles = [torch.zeros(2, 3, 4, dtype=torch.float64)], []
    optimizer = optimizers.preset(name, rates)
    state = optimizer.start(both)
    for g in G:
        optimizer.step(both, [g], state)
    for i, rate in enumerate(rates.tolist()):
        alone, optimizer = [torch.zeros(1, 3, 4, dtype=torch.float64)], optimizers.preset(name, rate)
        state = optimizer.start(alone)
        for g in G:
            optimizer.step(alone, [g[i:i + 1]], state)
        singles.append(alone[0])
    torch.testing.assert_close(both[0], torch.cat(singles), rtol=1e-13, atol=0)


def test_an_unknown_optimiser_is_answered_with_close_ones():
    with pytest.raises(ValueError, match="optimiser 'adam' is unknown; did you mean adam-pytorch"):
        optimizers.preset("adam", 0.1)


@pytest.mark.parametrize("name", optimizers.PRESETS)
def test_rates_come_in_any_form(name):
    loss = dl.LpLoss(torch.eye(3, dtype=torch.float64), torch.ones(3), 2)
    weights = dl.near_zero_init((3, 2, 1), 0.1, generator(0))
    expected = dl.train(loss, weights, optimizers.preset(name, torch.tensor([0.1, 0.05], dtype=torch.float64)), 5).loss
    for rates in ([0.1, 0.05], (0.1, 0.05), np.array([0.1, 0.05])):
        assert torch.equal(dl.train(loss, weights, optimizers.preset(name, rates), 5).loss, expected)
    for rate in (np.float64(0.1), Fraction(1, 10), sympy.Rational(1, 10)):
        torch.testing.assert_close(dl.train(loss, weights, optimizers.preset(name, rate), 5).loss, expected[:, 0])


@pytest.mark.parametrize("call, message", [
    (lambda: dl.GD("0.1"), "lr is '0.1'; expected finite numbers >= 0"),
    (lambda: dl.GD(None), "lr is None; expected finite numbers >= 0"),
    (lambda: dl.GD([0.1, float("nan")]), "lr is .*; expected finite numbers >= 0"),
    (lambda: dl.GD([0.1, [0.2]]), "lr is .*; expected finite numbers >= 0"),
    (lambda: dl.GD(0.1, [0.1, 0.2]), "weight_decay is .*; expected one number"),
    (lambda: dl.HeavyBall(0.1, torch.tensor([0.1, 0.2])), "momentum is .*; expected one number"),
    (lambda: dl.Adam(0.1, beta2=[0.9]), "beta2 is .*; expected one number"),
])
def test_settings_that_are_no_numbers_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
