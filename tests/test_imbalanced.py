"""Elasticities, kernels and closed forms off balance: known values, shapes, limits, errors."""

import numpy as np
import pytest
import torch

import deeplinear as dl
from conftest import generator
from deeplinear.imbalanced import closed_form, descended, drift, drift_bounds, elasticity, evened, flowed, kernel_cosine, shortfall, speeds

WIDTHS = [(3, 2), (4, 3, 2), (2, 4, 1, 3)]


@pytest.mark.parametrize("dims", WIDTHS)
def test_evened_layers_keep_the_product_and_move_as_the_rule_says(dims):
    rough, G = dl.near_zero_init(dims, 1.0, generator(1)), dl.normal(dims[-1], dims[0], generator=generator(2))
    even = evened(rough, generator(3))
    assert [W.shape for W in even] == [W.shape for W in rough]
    assert torch.allclose(dl.end_to_end(even), dl.end_to_end(rough), atol=1e-12)
    moved, said = speeds(even, G)
    assert moved.shape == G.shape and torch.allclose(moved, said, atol=1e-11)
    moved, same = speeds(rough, G)
    assert torch.allclose(same, said, atol=1e-11) and (len(dims) == 2) == torch.allclose(moved, said)


def test_speeds_of_a_batch_and_by_hand():
    one = torch.ones(2, 1, 1, dtype=torch.float64)
    moved, said = speeds([4 * one, 2 * one, one], one)
    assert torch.equal(moved, (4 + 16 + 64) * one) and torch.allclose(said, 48 * one)


@pytest.mark.parametrize("dims", WIDTHS)
def test_a_drift_of_descent_is_within_its_bounds(dims):
    loss = dl.LpLoss(dl.normal(20, dims[0], generator=generator(4)), dl.normal(20, dims[-1], generator=generator(5)), 2)
    start = dl.near_zero_init(dims, 0.7, generator(6))
    run = dl.train(loss, start, dl.GD(0.05), 30, keep_weights=True)
    gradients = dl.layer_gradients([W[:-1] for W in run.history], loss.gradient(run.end_to_end[:-1]))
    found, bounds = drift(start, run.weights), drift_bounds(gradients, 0.05)
    assert [D.shape for D in found] == [(n, n) for n in dims[1:-1]] and bounds.shape == (len(dims) - 2,)
    assert all(0 < torch.linalg.matrix_norm(D, 2) <= bound for D, bound in zip(found, bounds))


def test_a_drift_is_between_two_starts_of_one_shape():
    with pytest.raises(ValueError):
        drift(dl.identity_init((2, 2, 2)), dl.identity_init((2, 2)))


def test_descent_and_rule_go_where_the_flow_goes():
    loss = dl.LpLoss([[1.0]], [1.0], p=2, scale=0.5)
    even = [torch.full((1, 1), 0.5, dtype=torch.float64)] * 2
    end = flowed(loss, even, 1.0)
    w = 1 / (1 + 3 * np.exp(-2.0))  # w' = 2 w (1 - w) from 1/4
    assert end.shape == (1, 1) and end.item() == pytest.approx(w, abs=1e-10)
    for rule in ("layers", "end-to-end"):
        errors = [(descended(loss, even, 1 / steps, steps, rule) - end).abs().item() for steps in (100, 200)]
        assert 1.9 < errors[0] / errors[1] < 2.1
        assert descended(loss, even, 0.1, 0, rule) == 0.25


def test_elasticity_of_powers_and_of_tanh():
    z = torch.tensor([[0.5, -1.5], [2.0, 3.0]], dtype=torch.float64)
    for p in (1, 2, 5):
        assert torch.allclose(elasticity(lambda z, p=p: 7 * z**p, z), torch.full((2, 2), float(p), dtype=torch.float64))
        assert torch.allclose(shortfall(lambda z, p=p: 7 * z**p, z), 7 * (1 - p) * z**p)
    assert torch.allclose(elasticity(torch.tanh, z), 2 * z / torch.sinh(2 * z))
    assert elasticity(torch.tanh, [1.0, 2.0]).shape == (2,) and elasticity(torch.tanh, 1.0).shape == ()


def test_a_shortfall_is_finite_where_the_activation_is_zero():
    assert shortfall(torch.cos, np.pi / 2) == pytest.approx(np.pi / 2)
    assert shortfall(torch.tanh, 0.0) == 0 and not torch.isfinite(elasticity(torch.tanh, 0.0))


@pytest.mark.parametrize("chi", [-1e9, -3.0, 0.0, 3.0, 1e9])
def test_kernel_cosine_is_that_of_the_kernels(chi):
    w = dl.normal(6, 1, 3, generator=generator(0))
    found = kernel_cosine(chi, w[:1], w)
    c = [(chi + (chi**2 + 4 * row.square().sum()).sqrt()) / 2 for row in w]
    if abs(chi) < 1e6:  # beyond, the plain formulas cancel
        M = [ci * torch.eye(3, dtype=torch.float64) + row.mT @ row / ci for ci, row in zip(c, w)]
        assert torch.allclose(found, torch.stack([(M[0] * m).sum() / M[0].norm() / m.norm() for m in M]), atol=1e-13)
    assert found.shape == (6,) and found[0] == pytest.approx(1) and (found <= 1 + 1e-12).all()
    assert torch.allclose(found, kernel_cosine(chi, w, w[:1]))


@pytest.mark.parametrize("start, end", [([1.0, 2.0], [2.0, 1.0]), ([[1.0], [2.0]], [[1.0], [3.0]]), ([[0.0, 0.0]], [[1.0, 0.0]])])
def test_kernel_cosine_says_what_it_wants(start, end):
    with pytest.raises(ValueError, match="without a row of zeros"):
        kernel_cosine(1.0, start, end)


def test_closed_form_starts_at_the_start_and_ends_at_the_goal():
    Phi = torch.tensor([[2.0, 0.3], [0.1, 1.5]], dtype=torch.float64)
    W = dl.balanced_init((2, 3, 2), generator(1), W=0.5 * torch.eye(2, dtype=torch.float64))
    path = closed_form(Phi, W, [0.0, 12.0])
    assert torch.allclose(path[0], dl.end_to_end(W)) and torch.allclose(path[1], Phi, atol=1e-6)
    assert path.shape == (2, 2, 2)


def test_closed_form_of_single_weights_is_the_logistic_curve():
    t, s0 = np.array([0.0, 0.5, 2.0]), 0.1
    one = torch.ones(1, 1, dtype=torch.float64)
    path = closed_form(2 * one, [s0**0.5 * one, s0**0.5 * one], t)[:, 0, 0].numpy()
    assert path == pytest.approx(2 / (1 + (2 / s0 - 1) * np.exp(-4 * t)))


def test_closed_form_refuses_what_it_cannot_solve():
    g = generator(2)
    Phi, W = dl.normal(3, 4, generator=g), [dl.normal(2, 4, generator=g), dl.normal(3, 2, generator=g)]
    with pytest.raises(ValueError, match="off a multiple of the identity by"):
        closed_form(Phi, W, [1.0])
    for layers in ([W[0][:, :3], W[1]], [W[0], W[1][:2]], [W[0][:1], W[1]]):
        with pytest.raises(ValueError, match=r"expected \(h, 4\) and \(3, h\) for Phi of shape \(3, 4\)"):
            closed_form(Phi, layers, [1.0])
    assert closed_form(Phi, W, [1.0], require_multiple=False).shape == (1, 3, 4)
