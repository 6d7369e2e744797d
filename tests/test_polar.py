"""The polar factor and the optimisers made of it, against their definitions and against PyTorch's Muon."""

import pytest
import torch
from conftest import generator

import deeplinear as dl
from deeplinear import polar


def draw(*shape, seed=0):
    return dl.normal(*shape, generator=generator(seed))


@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (5, 1), (3, 3), (2, 5), (6, 3)])
def test_the_factor_is_the_nearest_isometry_and_attains_the_nuclear_norm(shape):
    G = draw(*shape)
    P = polar.factor(G)
    gram = P @ P.mT if shape[0] <= shape[1] else P.mT @ P
    assert (gram - torch.eye(min(shape))).abs().max() < 1e-13
    nuclear = torch.linalg.matrix_norm(G, "nuc")
    assert abs((P * G).sum() / nuclear - 1) < 1e-13
    X = draw(*shape, seed=1)
    assert (X * G).sum() / torch.linalg.matrix_norm(X, 2) < nuclear * (1 + 1e-12)
    assert (polar.factor(-3 * G) + P).abs().max() < 1e-13  # no size, but a sign


def test_the_factor_of_a_matrix_without_full_rank_is_compact():
    low = draw(4, 2) @ draw(2, 5, seed=1)
    P = polar.factor(low)
    assert torch.linalg.matrix_rank(P) == 2 and (polar.factor(low, rank=2) - P).abs().max() < 1e-13
    assert (polar.factor(low, rank=3) - P).abs().max() > 0.1  # control: a singular value that is rounding, made 1
    for zero in (torch.zeros(3, 2), torch.zeros(1, 4), torch.zeros(2, 1, 3)):
        assert (polar.factor(zero.double()) == 0).all()


def test_one_matrix_that_is_not_finite_leaves_the_others_alone():
    many = draw(3, 2, 4)
    many[1, 0, 0] = torch.inf
    found = polar.factor(many)
    assert found[1].isnan().all() and (found[0] - polar.factor(many[0])).abs().max() == 0
    gram = many @ many.mT
    root = polar.inverse_root(gram)
    assert root[1].isnan().all() and root[2].isfinite().all()


@pytest.mark.parametrize("given, said", [
    (lambda: polar.factor(torch.ones(3)), r"G has shape \(3,\)"), (lambda: polar.factor(torch.eye(2), rank=-1), "rank is -1"),
    (lambda: polar.Muon(0.1, momentum=1.0), "momentum is 1.0"), (lambda: polar.Shampoo(-1.0), "lr is -1.0"),
    (lambda: polar.Normalised("fast"), "lr is 'fast'")])
def test_errors_name_the_value(given, said):
    with pytest.raises(ValueError, match=said):
        given()


@pytest.mark.parametrize("power", [-0.25, -0.5])
def test_the_inverse_root_is_one(power):
    A = draw(4, 6)
    A = A @ A.mT
    root = polar.inverse_root(A, power)
    assert (torch.linalg.matrix_power(root, round(-1 / power)) @ A - torch.eye(4)).abs().max() < 1e-10
    low = draw(4, 2)
    root = polar.inverse_root(low @ low.mT, -0.5)
    assert torch.linalg.matrix_rank(root, rtol=1e-8) == 2
    assert (root @ low @ low.mT @ root - low @ torch.linalg.pinv(low)).abs().max() < 1e-10


def test_shampoo_is_its_definition():
    """Three steps, with eigenvalue decompositions written out, from eps I."""
    W, gradients, eps = draw(3, 2), [draw(3, 2, seed=seed) for seed in (1, 2, 3)], 0.3
    L, R, expected = eps * torch.eye(3).double(), eps * torch.eye(2).double(), W.clone()
    for G in gradients:
        L, R = L + G @ G.mT, R + G.mT @ G
        (left, P), (right, Q) = torch.linalg.eigh(L), torch.linalg.eigh(R)
        expected = expected - 0.1 * (P @ (left**-0.25).diag() @ P.mT) @ G @ (Q @ (right**-0.25).diag() @ Q.mT)
    layers, optimizer = [W.clone()], polar.Shampoo(0.1, eps=eps)
    state = optimizer.start(layers)
    for G in gradients:
        optimizer.step(layers, [G], state)
    assert (layers[0] - expected).abs().max() < 1e-13


def test_normalised_descent_has_one_norm_for_all_layers():
    G = [draw(2, 3), draw(1, 2, seed=1)]
    layers, optimizer = [torch.zeros_like(g) for g in G], polar.Normalised(0.5)
    optimizer.step(layers, G, optimizer.start(layers))
    together = torch.cat([W.flatten() for W in layers])
    assert abs(together.norm() - 0.5) < 1e-15 and (together + 0.5 * torch.cat([g.flatten() for g in G]) /
                                                   sum(g.square().sum() for g in G) ** 0.5).abs().max() < 1e-15
    optimizer.step(layers, [torch.zeros_like(g) for g in G], [])
    assert torch.equal(together, torch.cat([W.flatten() for W in layers]))


@pytest.mark.parametrize("momentum, nesterov", [(0.0, True), (0.9, True), (0.9, False)])
def test_muon_is_torchs_up_to_the_newton_schulz_iteration(momentum, nesterov, monkeypatch):
    """With its coefficients in place of the exact factor, PyTorch's Muon in bfloat16: two hundredths of the largest entry."""
    W, gradients = draw(4, 6), [draw(4, 6, seed=seed) for seed in range(1, 6)]
    theirs = torch.nn.Parameter(W.clone())
    torchs = torch.optim.Muon([theirs], lr=0.1, momentum=momentum, nesterov=nesterov, weight_decay=0.0)
    monkeypatch.setattr(polar, "factor", polar.newton_schulz)
    ours, optimizer = [W.clone()], polar.Muon(0.1, momentum, nesterov)
    state = optimizer.start(ours)
    for G in gradients:
        theirs.grad = G.clone()
        torchs.step()
        optimizer.step(ours, [G], state)
    moved = (ours[0] - W).abs().max()
    assert (ours[0] - theirs).abs().max() < 2e-2 * moved
    monkeypatch.undo()
    exact, state = [W.clone()], optimizer.start(ours)
    for G in gradients:
        optimizer.step(exact, [G], state)
    assert (exact[0] - theirs).abs().max() > 2e-2 * moved  # control: the iteration is not the factor


def test_newton_schulz_brings_singular_values_near_one():
    s = torch.tensor([1.0, 0.3, 0.1, 0.02], dtype=torch.float64)
    left, right = torch.linalg.qr(draw(6, 4)).Q, torch.linalg.qr(draw(4, 4, seed=1)).Q
    for G in ((left * s) @ right.mT, ((left * s) @ right.mT).mT):
        found = torch.linalg.svdvals(polar.newton_schulz(G))
        assert 0.67 < found.min() and found.max() < 1.14 and (found - 1).abs().max() > 0.05
    third = polar.newton_schulz(left * s, 30, (1.5, -0.5, 0.0))  # the classical iteration converges
    assert (third - polar.factor(left * s)).abs().max() < 1e-12


@pytest.mark.parametrize("make", [polar.Normalised, polar.Muon, polar.Shampoo])
def test_one_rate_for_each_configuration_and_a_run_by_the_trainer(make):
    loss = dl.LpLoss(draw(8, 3), draw(8, 2, seed=1), 2)
    rates = torch.tensor([0.1, 0.01], dtype=torch.float64)
    start = dl.balanced_init((3, 2, 2), dl.seeded(0), std=0.5)
    both = dl.train(loss, start, make(rates), 20)
    for i, rate in enumerate(rates.tolist()):
        alone = dl.train(loss, start, make(rate), 20)
        torch.testing.assert_close(both.loss[:, i], alone.loss, rtol=1e-12, atol=0)
    assert (both.loss[-1] < both.loss[0]).all()
