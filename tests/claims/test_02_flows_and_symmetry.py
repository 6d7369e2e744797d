"""Of chapter 2: Euler's lemma, existence and limits of the flow, symmetry; other shapes, seeds and losses, each with its control."""

import deeplinear as dl
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from problems import Logistic, any_loss, chains, half_square, quick, regression, seeds, w, worst

from conftest import generator


@pytest.mark.parametrize("seed", range(3))
def test_lem_euler(seed):
    """A field with known constants on the whole plane, steps of any sizes, the worst kick at every step."""
    draw, rate = generator(seed), 1.0
    steps = 0.05 * dl.uniform(0.2, 1, 40, generator=draw)
    angle = torch.cat([torch.zeros(1), steps.cumsum(0)]) * rate  # the solution goes round the unit circle
    path, quarter = torch.stack([angle.cos(), angle.sin()], 1), torch.tensor([[0.0, -1], [1, 0]]).double()
    for epsilon, off in ((0.0, 0.0), (0.3, 0.0), (0.1, 0.2)):
        z = path[0] * (1 + off)
        for i, h in enumerate(steps, start=1):
            kick = epsilon * (z - path[i - 1]) / (1e-9 + (z - path[i - 1]).norm())  # away from the solution
            z = z + h * (rate * quarter @ z + kick)
            grown = torch.exp(angle[i])
            assert (z - path[i]).norm() <= grown * off + (grown - 1) / rate * (epsilon + rate * 0.05 / 2)
    assert (z - path[-1]).norm() > 1.2 * off  # control: the distance at the start alone is no bound


def test_lem_euler_on_layers():
    """From layers that are not balanced, several outputs, with steps that vary: order 1; a kick that stays is seen."""
    loss, start, ends = Logistic(k=2, d=3), dl.near_zero_init((3, 2, 2, 2), 0.8, generator(3)), {0.0: [], 0.05: []}
    exact = [W[0] for W in dl.flow.layers(loss, start, [1.0]).weights]
    for kick, errors in ends.items():
        for count in (40, 160):
            steps = torch.linspace(0.5, 1.5, count).double() / count
            layers = start
            for h in steps:
                G = dl.layer_gradients(layers, loss.gradient(dl.end_to_end(layers)))
                layers = [W - h * (g + kick) for W, g in zip(layers, G)]
            errors.append(worst(*(W - E for W, E in zip(layers, exact))))
    assert abs(dl.slope([40, 160], ends[0.0]) + 1) < 0.1
    assert ends[0.05][1] > 0.02  # control


@pytest.mark.parametrize("dims, loss", [((3, 2, 4, 2), Logistic(k=2, d=3)), ((2, 3, 3), regression(3, 2, 2, 4))])
def test_cor_drift_leading(dims, loss):
    start, rates = dl.near_zero_init(dims, 0.6, generator(7)), [0.02, 0.01, 0.005]
    flow = dl.flow.layers(loss, start, np.linspace(0, 1, 201))
    G = dl.layer_gradients(flow.weights, loss.gradient(flow.end_to_end))
    ends = [dl.imbalance(dl.train(loss, start, dl.GD(h), round(1 / h)).weights) for h in rates]
    for j, D0 in enumerate(dl.imbalance(start)):
        integral = torch.trapezoid(G[j + 1].mT @ G[j + 1] - G[j] @ G[j].mT, dx=0.005, dim=0)
        rest = [(D[j] - D0 - h * integral).norm() for D, h in zip(ends, rates)]
        assert abs(dl.slope(rates, rest) - 2) < 0.2
        assert abs(dl.slope(rates, [(D[j] - D0).norm() for D in ends]) - 1) < 0.2  # control: without the integral


@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_thm_global_existence(decay):
    """A loss without a minimum: the energy balance, and the distance, at times up to 300."""
    loss, start, times = Logistic(k=2, d=3, n=5), dl.near_zero_init((3, 2, 2), 0.7, generator(1)), np.linspace(0, 6, 601)

    def energy(flow):
        return loss.value(flow.end_to_end) + decay / 2 * sum(W.square().sum((1, 2)) for W in flow.weights)

    flow = dl.flow.layers(loss, start, times, weight_decay=decay)
    G = dl.layer_gradients(flow.weights, loss.gradient(flow.end_to_end))
    speed = sum((g + decay * W).square().sum((1, 2)) for g, W in zip(G, flow.weights))
    f = energy(flow)
    assert abs(torch.trapezoid(speed, dx=0.01) / (f[0] - f[-1]) - 1) < 1e-3
    late = dl.flow.layers(loss, start, [30.0, 300.0], weight_decay=decay)
    moved = sum((W - W0).square().sum((1, 2)) for W, W0 in zip(late.weights, start))
    assert (moved <= late.times * f[0]).all()  # the loss is positive
    square = [torch.ones(1, 1).double() for _ in range(3)]  # control: L = -w has no floor, a' = a^2 ends at time 1
    blown = dl.flow.layers(dl.Polynomial(-w[0], w[:1]), square, [0.99]).weights[0]
    assert abs(blown.item() - 100) < 1e-6


@quick
@given(dims=chains, seed=seeds, tilt=st.floats(1, 50))
def test_lem_layer_size(dims, seed, tilt):
    N = len(dims) - 1
    for start in (dl.near_zero_init(dims, 1.0, generator(seed)), dl.balanced_init(dims, generator(seed))):
        layers = [tilt * start[0], start[1] / tilt, *start[2:]]
        size = max(torch.linalg.matrix_norm(W, 2) for W in layers) ** 2
        delta = max(torch.linalg.matrix_norm(D, 2) for D in dl.imbalance(layers))
        product = (2 * torch.linalg.matrix_norm(dl.end_to_end(layers), 2)) ** (2 / N)
        assert size <= max(2 * N**2 * delta, product) * (1 + 1e-9)
    if tilt > 40:  # control: the imbalance is needed
        assert size > product


def test_thm_flow_converges():
    goal = dl.normal(3, 2, generator=generator(5)) + 4 * torch.eye(3, 2).double()
    loss, start = half_square(goal), dl.near_zero_init((2, 4, 3, 3), 0.8, generator(11))
    for decay in (0.0, 0.7):
        flow = dl.flow.layers(loss, start, [25.0, 35.0], weight_decay=decay)
        G = dl.layer_gradients(flow.weights, loss.gradient(flow.end_to_end))
        assert worst(*((g + decay * W)[1] for g, W in zip(G, flow.weights))) < 1e-7
        assert worst(*(W[1] - W[0] for W in flow.weights)) < 1e-7
    runaway = dl.flow.layers(Logistic(k=1, d=2, n=1), dl.near_zero_init((2, 1), 0.5, generator(0)), [10.0, 100.0])
    assert worst(runaway.weights[0][1] - runaway.weights[0][0]) > 0.5  # control: an unbounded flow goes on


@quick
@given(dims=chains, seed=seeds)
def test_prop_symmetry(dims, seed):
    layers, draw = dl.near_zero_init(dims, 1.0, generator(seed)), generator(seed + 1)
    loss = any_loss(dims[-1], dims[0], seed)
    G = dl.layer_gradients(layers, loss.gradient(dl.end_to_end(layers)))
    for j, n in enumerate(dims[1:-1]):
        M = dl.normal(n, n, generator=draw)
        X = [M @ layers[j], -layers[j + 1] @ M]
        along = [(X[0] * G[j]).sum(), (X[1] * G[j + 1]).sum()]
        assert abs(sum(along)) < 1e-10 * (1 + abs(along[0]))
        K = layers[j] @ layers[j].mT - layers[j + 1].mT @ layers[j + 1]  # the layers as their own velocities
        assert abs((X[0] * layers[j]).sum() + (X[1] * layers[j + 1]).sum() - (M * K).sum()) < 1e-10 * (1 + K.norm())
        traced = [W.clone().requires_grad_() for W in layers[j:j + 2]]
        for part, is_gradient in ((M + M.mT, True), (M - M.mT, False)):
            D = dl.imbalance(traced)[0]
            slope = torch.autograd.grad((part * D).sum(), traced)
            gap = worst(slope[0] + 2 * part @ layers[j], slope[1] - 2 * layers[j + 1] @ part)
            assert (gap < 1e-12 * (1 + worst(*X))) if is_gradient else n == 1 or gap > 1e-9  # control: antisymmetric M


@pytest.mark.parametrize("friction", [0.0, 0.9])
def test_prop_symmetry_under_momentum(friction):
    loss, dims, draw = Logistic(k=2, d=3), (3, 3, 2, 2), generator(6)
    start, push = (dl.near_zero_init(dims, 0.7, generator(s)) for s in (8, 9))
    flow, V = dl.flow.heavy_ball(loss, start, push, [0.0, 0.6, 1.2], friction)
    clock = torch.exp(friction * flow.times)
    for j, n in enumerate(dims[1:-1]):
        M = dl.normal(n, n, generator=draw)
        for part, kept in ((M - M.mT, True), (M + M.mT, False)):
            pair = (part @ flow.weights[j] * V[j]).sum((1, 2)) - (flow.weights[j + 1] @ part * V[j + 1]).sum((1, 2))
            change = worst(clock * pair - pair[0])
            assert change < 1e-10 if kept else change > 1e-2
