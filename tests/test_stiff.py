"""The implicit flow is the explicit one where both can go, and its Hessian that of automatic differentiation."""

import numpy as np
import pytest
import torch

import deeplinear as dl
from deeplinear import stiff


def problem(p=4, k=1):
    X, Y = (dl.normal(12, n, generator=dl.seeded(n)) for n in (4, k))
    return dl.LpLoss(X, Y, p)


@pytest.mark.parametrize("p, dims", [(2, (4, 1)), (4, (4, 1, 1)), (4, (4, 1, 1, 1)), (4, (4, 3, 2)), (6, (4, 2, 5, 3))])
def test_the_hessian_is_that_of_the_loss_of_the_layers(p, dims):
    loss, layers = problem(p, dims[-1]), dl.near_zero_init(dims, 0.7, dl.seeded(1))
    flat, sizes = torch.cat([W.flatten() for W in layers]), [W.numel() for W in layers]

    def value(flat):
        return loss.value(dl.end_to_end([part.reshape(W.shape) for part, W in zip(flat.split(sizes), layers)]))

    expected = torch.autograd.functional.hessian(value, flat)
    found = stiff.hessian(loss, layers)
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11 * expected.abs().max().item())
    assert abs(torch.linalg.eigvalsh(found)[-1] - dl.descent.sharpness(loss, layers)) < 1e-9 * expected.abs().max()


@pytest.mark.parametrize("dims", [(4, 1), (4, 1, 1, 1), (4, 3, 1)])
def test_it_is_the_explicit_flow(dims):
    loss, layers, times = problem(), dl.near_zero_init(dims, 0.5, dl.seeded(3)), [0.0, 0.1, 1.0, 3.0]
    implicit, explicit = (flow(loss, layers, times) for flow in (stiff.layers, dl.flow.layers))
    for found, expected in zip(implicit.weights, explicit.weights):
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)
    assert (implicit.end_to_end[-1] - implicit.end_to_end[0]).norm() > 0.1


def test_a_stiff_flow_that_the_explicit_one_cannot_follow():
    """Features of very different size, p = 2: each entry decays by itself, exactly."""
    scales = torch.tensor([300.0, 1.0, 0.01], dtype=torch.float64)
    loss = dl.LpLoss(torch.diag(scales), torch.zeros(3, dtype=torch.float64), 2, reduction="sum")
    start, times = torch.ones(1, 3, dtype=torch.float64), np.array([0.0, 1.0, 100.0])
    reached = []
    found = stiff.layers(loss, [start], times, report=reached.append).end_to_end[:, 0]
    expected = torch.exp(-2 * scales**2 * torch.from_numpy(times)[:, None])
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)
    assert 0 < len(reached) < 100 and reached == sorted(reached)
    with pytest.raises(TimeoutError):  # 2e8 steps of the largest curvature
        dl.flow.layers(loss, [start], 100 * times, time_limit=0.2)


@pytest.mark.parametrize("times", [[0.0], [1.0, 1.0], [-1.0, 0.0], [0.0, np.nan], [[0.0, 1.0]]])
def test_bad_times_are_named(times):
    with pytest.raises(ValueError, match="times is .*; expected two or more increasing finite numbers >= 0"):
        stiff.layers(problem(), dl.near_zero_init((4, 1), 0.5, dl.seeded(0)), times)
