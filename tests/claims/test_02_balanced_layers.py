"""One test for each claim of chapter 2, on other shapes, seeds and losses than the chapter, each with its control."""

import deeplinear as dl
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from problems import Logistic, any_loss, chains, quick, rational, regression, seeds, worst

from conftest import generator


@quick
@given(dims=chains, seed=seeds)
def test_prop_same_maps(dims, seed):
    narrow = min(dims)
    W = dl.normal(dims[-1], narrow, generator=generator(seed)) @ dl.normal(narrow, dims[0], generator=generator(seed + 1))
    assert worst(dl.end_to_end(dl.balanced_init(dims, generator(seed), W=W)) - W) < 1e-12 * (1 + W.norm())
    product = dl.end_to_end(dl.near_zero_init(dims, 1.0, generator(seed)))
    assert torch.linalg.matrix_rank(product, rtol=1e-10) <= narrow
    plain = dl.normal(dims[-1], dims[0], generator=generator(seed))  # depth one has no hidden layer
    assert (dl.end_to_end(dl.balanced_init((dims[0], dims[-1]), generator(seed), W=plain)) - plain).norm() < 1e-12 * (1 + plain.norm())
    if narrow < min(dims[0], dims[-1]):  # control: a matrix of higher rank is refused
        with pytest.raises(ValueError, match="reach rank"):
            dl.balanced_init(dims, generator(seed), W=torch.eye(dims[-1], dims[0], dtype=torch.float64))


@quick
@given(dims=chains, seed=seeds)
def test_lem_layer_gradients(dims, seed):
    """Against difference quotients of a loss that is no polynomial."""
    loss, layers = any_loss(dims[-1], dims[0], 2), dl.near_zero_init(dims, 0.7, generator(seed))
    G = dl.layer_gradients(layers, loss.gradient(dl.end_to_end(layers)))
    for j, W in enumerate(layers):
        H = dl.normal(*W.shape, generator=generator(seed + j))
        ends = [loss.value(dl.end_to_end([*layers[:j], W + h * H, *layers[j + 1:]])) for h in (1e-5, -1e-5)]
        assert abs((ends[0] - ends[1]) / 2e-5 - (G[j] * H).sum()) < 1e-7 * (1 + G[j].norm() * H.norm())
    if G[0].norm() > 1e-3:  # control: the gradient at another matrix
        other = dl.layer_gradients(layers, loss.gradient(dl.end_to_end(layers) + 1))
        assert worst(*(a - b for a, b in zip(G, other))) > 1e-9


@quick
@given(dims=chains, seed=seeds)
def test_lem_balance(dims, seed):
    rng = np.random.default_rng(seed)
    layers = [rational(rng, b, a) for a, b in zip(dims, dims[1:])]
    G = dl.layer_gradients(layers, rational(rng, dims[-1], dims[0]))
    for j in range(len(layers) - 1):
        assert (layers[j + 1].mT @ G[j + 1] == G[j] @ layers[j].mT).all()


def test_lem_balance_needs_one_gradient():
    rng = np.random.default_rng(0)
    layers = [rational(rng, 3, 2), rational(rng, 2, 3)]
    one, other = (dl.layer_gradients(layers, rational(rng, 2, 2)) for _ in range(2))
    assert (layers[1].mT @ other[1] != one[0] @ layers[0].mT).any()


@pytest.mark.parametrize("dims, decay, loss", [
    ((3, 2, 1), 0.0, Logistic(d=3)), ((3, 4, 2, 1), 0.7, Logistic(d=3)), ((2, 3, 3, 2), 0.2, regression(2, 2, 4, 5)),
    ((4, 1, 1, 1, 1), 0.0, regression(1, 4, 6, 6))])
def test_thm_balance_flow(dims, decay, loss):
    start = dl.near_zero_init(dims, 0.6, generator(9))
    flow = dl.flow.layers(loss, start, [0.4, 1.5], weight_decay=decay)
    for D, D0 in zip(dl.imbalance(flow.weights), dl.imbalance(start)):
        assert worst(D - torch.exp(-2 * decay * flow.times)[:, None, None] * D0) < 1e-11
    assert worst(flow.weights[0][-1] - start[0]) > 1e-3  # something moved
    if decay:  # control: the other convention for weight decay
        assert worst(D - torch.exp(-4 * decay * flow.times)[:, None, None] * D0) > 1e-4


@quick
@given(dims=chains, seed=seeds, rate=st.floats(0.001, 2), decay=st.floats(0, 1))
def test_thm_balance_step(dims, seed, rate, decay):
    layers = dl.near_zero_init(dims, 1.0, generator(seed))
    G = dl.layer_gradients(layers, dl.normal(dims[-1], dims[0], generator=generator(seed + 1)))
    after = [W.clone() for W in layers]
    dl.GD(rate, decay).step(after, G, [])
    gaps = []
    for j, (D, D_after) in enumerate(zip(dl.imbalance(layers), dl.imbalance(after))):
        squares = rate**2 * (G[j + 1].mT @ G[j + 1] - G[j] @ G[j].mT)
        size = 1 + worst(D_after, squares)
        assert worst(D_after - (1 - rate * decay) ** 2 * D - squares) < 1e-12 * size
        gaps.append(worst(D_after - (1 - rate * decay) ** 2 * D + squares) / size)
    if rate > 0.1 and worst(*(g for g in G)) > 0.5:  # control: the sign of the squares
        assert max(gaps) > 1e-6


def drift_and_bounds(loss, start, lr, steps):
    """Of a run: the drifts and the first bounds at every hidden layer, the second bound, and the least fall of a step."""
    run = dl.train(loss, start, dl.GD(lr), steps, keep_weights=True)
    G = [g[:-1] for g in dl.layer_gradients(run.history, loss.gradient(run.end_to_end))]
    squares = [torch.linalg.matrix_norm(g, 2).square() for g in G]
    drifts = [torch.linalg.matrix_norm(D[-1] - D[0], 2) for D in dl.imbalance(run.history)]
    first = [lr**2 * torch.maximum(above, below).sum() for below, above in zip(squares, squares[1:])]
    fall = -run.loss.diff() / (lr * sum(g.square().sum((1, 2)) for g in G))
    return drifts, first, 2 * lr * (run.loss[0] - run.loss[-1]), fall.min(), G


@pytest.mark.parametrize("seed", range(6))
def test_cor_drift(seed):
    """One output and two, both bounds at every hidden layer; the second where each step lowers the loss by half enough."""
    k, lr = 1 + seed % 2, 0.001
    loss, start = any_loss(k, 4, seed), dl.near_zero_init((4, 3, 2, k), 0.7, generator(seed))
    drifts, first, second, least, G = drift_and_bounds(loss, start, lr, 200)
    assert all(drift <= bound for drift, bound in zip(drifts, first)) and max(drifts) > 1e-8
    assert least >= 0.5 and max(first) <= second
    assert lr**2 * sum(g.square().sum() for g in G) <= second  # what the proof sums


def test_cor_drift_with_steps_that_vary():
    """Both bounds, sum of eta_t^2 |G|^2 and twice the largest step times the fall; control: by the smallest step it is less."""
    loss, start, draw = any_loss(2, 4, 3), dl.near_zero_init((4, 3, 2, 2), 0.7, generator(3)), generator(4)
    etas = 0.001 * dl.uniform(0.1, 1, 200, generator=draw)
    layers, first, summed = start, torch.zeros(2).double(), 0.0
    for eta in etas:
        G = dl.layer_gradients(layers, loss.gradient(dl.end_to_end(layers)))
        squares, slope = [torch.linalg.matrix_norm(g, 2) ** 2 for g in G], sum(g.square().sum() for g in G)
        first += eta**2 * torch.stack([torch.maximum(*pair) for pair in zip(squares, squares[1:])])
        moved, summed = [W - eta * g for W, g in zip(layers, G)], summed + eta**2 * slope
        assert loss.value(dl.end_to_end(moved)) <= loss.value(dl.end_to_end(layers)) - eta / 2 * slope
        layers = moved
    fall = loss.value(dl.end_to_end(start)) - loss.value(dl.end_to_end(layers))
    drifts = [torch.linalg.matrix_norm(D - D0, 2) for D, D0 in zip(dl.imbalance(layers), dl.imbalance(start))]
    assert all(drift <= bound for drift, bound in zip(drifts, first)) and first.max() <= summed <= 2 * etas.max() * fall
    assert summed > 2 * etas.min() * fall


def test_cor_drift_needs_descent_and_steps_that_lower_the_loss_enough():
    loss, start = regression(2, 3, 2, 5), dl.near_zero_init((3, 3, 2, 2), 0.7, generator(0))
    kept, broken = (drift_and_bounds(loss, start, lr, 40) for lr in (0.1, 0.2))
    assert kept[3] >= 0.5 and max(kept[1]) <= kept[2]
    assert broken[3] < 0.5 and max(broken[1]) > broken[2]  # the second bound is lost ...
    assert all(drift <= bound for drift, bound in zip(broken[0], broken[1]))  # ... and the first is not
    lr, G = 0.02, dl.layer_gradients(start, loss.gradient(dl.end_to_end(start)))
    other = [W.clone() for W in start]
    dl.Adam(lr).step(other, [*G], dl.Adam(lr).start(other))  # control: Adam's first step
    moved = [torch.linalg.matrix_norm(D - D0, 2) for D, D0 in zip(dl.imbalance(other), dl.imbalance(start))]
    assert any(m > lr**2 * max(torch.linalg.matrix_norm(g, 2) ** 2 for g in G) for m in moved)


@pytest.mark.parametrize("beta", [0.0, 0.5, 0.9])
def test_thm_heavy_ball(beta):
    loss, start, h, T = Logistic(d=3), dl.near_zero_init((3, 2, 2, 1), 0.8, generator(1)), 0.05, 60
    run = dl.train(loss, start, dl.HeavyBall(h, beta), T, keep_weights=True)
    V = [-layer.diff(dim=0) / h for layer in run.history]
    c = 1 + 2 * beta * (1 - beta ** torch.arange(T - 1, -1, -1).double()) / (1 - beta)
    for j, D in enumerate(dl.imbalance(run.history)):
        Q = V[j + 1].mT @ V[j + 1] - V[j] @ V[j].mT
        assert worst(D[-1] - D[0] - h**2 * (c[:, None, None] * Q).sum(0)) < 1e-12
    if beta:  # control: gradient descent's weights
        assert worst(D[-1] - D[0] - h**2 * Q.sum(0)) > 1e-5


@pytest.mark.parametrize("beta", [0.0, 0.5, 0.8])
@pytest.mark.parametrize("k", [1, 2])
def test_cor_heavy_ball(beta, k):
    """Against the integral along the flow, at every hidden layer: a relative error of order eta."""
    loss, start = regression(k, 4, 2, 7, n=20), dl.near_zero_init((4, 3, 2, k), 0.5, generator(5))
    factor, rates = (1 + beta) / (1 - beta), [0.01, 0.005, 0.0025]
    flow = dl.flow.layers(loss, start, np.linspace(0, 3, 601))
    G = dl.layer_gradients(flow.weights, loss.gradient(flow.end_to_end))
    integrals = [torch.trapezoid(b.mT @ b - a @ a.mT, dx=0.005, dim=0) for a, b in zip(G, G[1:])]

    def drifts(optimiser, eta, **batch):
        run = dl.train(loss, start, optimiser, round(3 / eta), round(3 / eta), **batch)
        return [(D - D0) / eta for D, D0 in zip(dl.imbalance(run.weights), dl.imbalance(start))]

    ends = [drifts(dl.HeavyBall((1 - beta) * eta, beta), eta) for eta in rates]
    for j, integral in enumerate(integrals):
        errors = [(end[j] - factor * integral).norm() / (factor * integral).norm() for end in ends]
        assert abs(dl.slope(rates, errors) - 1) < 0.15 and errors[-1] < 0.05
        if beta:  # control: without the factor
            assert (ends[-1][j] - integral).norm() > 0.5 * integral.norm()
    noisy = drifts(dl.HeavyBall((1 - beta) * 0.005, beta), 0.005, batch_size=4, generator=generator(3))
    assert any((D - factor * I).norm() > 0.3 * factor * I.norm() for D, I in zip(noisy, integrals))  # control: minibatches


def test_emp_optimisers():
    """On a logistic loss: exponents of the drift, and the factor of heavy ball."""
    loss, start, steps = Logistic(n=20, d=4), dl.near_zero_init((4, 3, 1), 0.5, generator(2)), [0.04, 0.02, 0.01]

    def drift(optimiser, h):
        run = dl.train(loss, start, optimiser, round(6 / h), round(6 / h))
        return (dl.imbalance(run.weights)[0] - dl.imbalance(start)[0]).norm().item()

    descent, ball, adam = ([drift(make(h), h) for h in steps]
                           for make in (dl.GD, lambda h: dl.HeavyBall(h / 5, 0.8), dl.Adam))
    assert abs(dl.slope(steps, descent) - 1) < 0.1 and abs(dl.slope(steps, ball) - 1) < 0.1
    assert abs(ball[-1] / descent[-1] / (1.8 / 0.2) - 1) < 0.1
    assert abs(adam[-1] / adam[-2] - 1) < 0.1 and adam[-1] > 0.1


@pytest.mark.parametrize("friction", [0.0, 1.3])
def test_thm_momentum(friction):
    loss, dims = Logistic(d=4), (4, 3, 2, 1)
    start, push = (dl.near_zero_init(dims, 0.7, generator(s)) for s in (3, 4))
    times = np.linspace(0, 1.5, 301)
    flow, speeds = dl.flow.heavy_ball(loss, start, push, times, friction)
    for j, D in enumerate(dl.imbalance(flow.weights)):
        K = speeds[j] @ flow.weights[j].mT - flow.weights[j + 1].mT @ speeds[j + 1]
        kept = torch.exp(friction * flow.times)[:, None, None] * (K - K.mT)
        assert worst(kept - kept[0]) < 1e-10
        assert worst(-(K + K.mT)[1:-1] - (D[2:] - D[:-2]) / 0.01) < 1e-3  # D' = -(K + K^T), by differences
        second = (D[2:] - 2 * D[1:-1] + D[:-2]) / 0.005**2 + friction * (D[2:] - D[:-2]) / 0.01
        kinetic = speeds[j + 1].mT @ speeds[j + 1] - speeds[j] @ speeds[j].mT
        assert worst(second - 2 * kinetic[1:-1]) < 1e-3
    assert worst(D[-1] - D[0]) > 1e-2  # control: D itself is not kept


@quick
@given(dims=st.lists(st.integers(1, 6), min_size=3, max_size=6), seed=seeds)
def test_prop_starts(dims, seed):
    holds = [min(dims[j - 1], dims[j]) == min(dims[j], dims[j + 1]) for j in range(1, len(dims) - 1)]
    found = [bool((D == 0).all()) for D in dl.imbalance(dl.identity_init(dims))]
    assert found == holds
    small, large = (dl.near_zero_init(dims, std, generator(seed)) for std in (1e-6, 1.0))
    assert abs(dl.chain.relative_imbalance(small) - dl.chain.relative_imbalance(large)) < 1e-12


def test_prop_starts_mean_square():
    a, b, c, std = 2, 4, 5, 0.3
    D = dl.imbalance(dl.near_zero_init((a, b, c), std, generator(0), batch=(200_000,)))[0]
    assert worst(D.mean(0) - std**2 * (c - a) * torch.eye(b)) < 0.005
    predicted = std**4 * b * ((b + 1) * (c + a) + (c - a) ** 2)
    assert abs(D.square().sum((1, 2)).mean() / predicted - 1) < 0.01


@pytest.mark.parametrize("dims, least, most", [
    ((30, 30, 30), 0.5, 1), ((30, 6, 2), 0.5, 1), ((4, 60, 4), 0.5, 1), ((800, 1, 800), 0, 0.1), ((900, 4, 900), 0, 0.2)])
def test_prop_starts_relative_to_the_layers(dims, least, most):
    """Of order one, except where a hidden layer is much narrower than both its neighbours, which are equally wide."""
    ratios = [dl.chain.relative_imbalance(dl.near_zero_init(dims, 0.1, generator(seed))) for seed in range(9)]
    assert least <= torch.stack(ratios).median() <= most
