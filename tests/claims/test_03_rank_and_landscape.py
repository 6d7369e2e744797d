"""Of chapter 3: uniqueness and rank, near balance, the landscape of the layers; other shapes and seeds, each with its control."""

import deeplinear as dl
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from problems import Logistic, any_loss, chains, half_square, quick, seeds, worst

from conftest import generator


def cut_operator(W, G, N, mu):
    """The operator with its powers cut below mu, from eigendecompositions."""
    def f(S, a):
        x, V = torch.linalg.eigh(S)
        low = (2 * x / mu - 1).clamp(min=0) * mu**a
        return (V * torch.where(x < mu, low, x.clamp(min=0) ** a)) @ V.mT if a > 0 else torch.eye(len(S)).double()

    return sum(f(W @ W.mT, (j - 1) / N) @ G @ f(W.mT @ W, (N - j) / N) for j in range(1, N + 1))


def near_balanced(layers, moved):
    """Balanced layers with the product of ``moved``, by the construction in the proof, near the balanced ``layers``."""
    N, W = len(layers), dl.end_to_end(moved)
    _, s, Vh = torch.linalg.svd(dl.end_to_end(layers))
    r = int((s > 1e-9).sum())
    sigma, Q = s[:r] ** (1 / N), [Vh[:r].T]
    for V in layers:
        Q.append(V @ Q[-1] / sigma)
    u, t, vh = torch.linalg.svd(W)
    X, m = (u[:, :r] * t[:r]) @ vh[:r], min(min(V.shape) for V in moved)
    Y = X @ Q[0] / sigma**N
    ends = torch.linalg.svd(Y, full_matrices=False)
    Y = ends[0] @ ends[2]  # made orthonormal
    values, vectors = torch.linalg.eigh(Y.T @ X @ X.T @ Y)
    power = lambda a: (vectors * values**a) @ vectors.T
    frames = [X.T @ Y @ power(-1 / 2), *Q[1:-1], Y]
    spare = [vh[r:m].T, *(torch.linalg.svd(F)[0][:, r:m] for F in Q[1:-1]), u[:, r:m]]
    return [b @ power(1 / (2 * N)) @ a.T + (d * t[r:m] ** (1 / N)) @ c.T
            for a, b, c, d in zip(frames, frames[1:], spare, spare[1:])]


@pytest.mark.parametrize("dims, rank", [((4, 3), 2), ((3, 4, 3), 1), ((4, 2, 3), 2), ((3, 5, 3, 4, 3), 2), ((2, 3, 2, 3), 0)])
def test_lem_nearby(dims, rank):
    draw, sizes, far = generator(len(dims)), [4e-3, 2e-3, 1e-3], []
    W = dl.normal(dims[-1], rank, generator=draw) @ dl.normal(rank, dims[0], generator=draw)
    layers = dl.balanced_init(dims, generator(1), W=W / max(W.norm(), 1))
    aside = [dl.normal(*V.shape, generator=draw) for V in layers]
    for h in sizes:
        moved = [V + h * E / E.norm() for V, E in zip(layers, aside)]
        found = near_balanced(layers, moved) if len(dims) > 2 else moved
        assert worst(dl.end_to_end(found) - dl.end_to_end(moved)) < 1e-12 and worst(*dl.imbalance(found), torch.zeros(1)) < 1e-12
        far.append(max((B - V).norm() for B, V in zip(found, layers)))
    assert abs(dl.slope(sizes, far) - 1) < 0.05 and far[0] < 50 * sizes[0]
    if len(dims) > 2 and rank:  # control: beside layers that are not balanced there are none
        top = torch.linalg.matrix_norm(dl.end_to_end(layers), 2) ** (1 / len(layers))  # the norm of each balanced layer
        assert torch.linalg.matrix_norm(2 * layers[0], 2) - top > 0.5 * top


@pytest.mark.parametrize("N, k, d", [(2, 3, 4), (3, 4, 2), (5, 3, 3)])
def test_lem_cut_powers(N, k, d):
    draw, mu = generator(N), 0.3
    U, V = (torch.linalg.qr(dl.normal(n, 2, generator=draw)).Q for n in (k, d))
    G, Z = (dl.normal(k, d, generator=draw) for _ in range(2))
    steep = []
    for small in (0.3, 1e-3, 0.0):
        W = (U * torch.tensor([1.2, small]).double()) @ V.mT
        gap = (dl.preconditioner.apply(W, G, N) - cut_operator(W, G, N, mu)).norm()
        assert gap <= 2 * (N - 1) * 1.2 ** (2 - 4 / N) * small ** (2 / N) * G.norm() + 1e-6 * (small == 0)
    for h in (1e-3, 1e-5, 1e-7):
        moved = [(of(W + h * Z) - of(W)).norm() / (h * Z.norm())
                 for of in (lambda A: cut_operator(A, G, N, mu), lambda A: dl.preconditioner.apply(A, G, N))]
        assert moved[0] < 50 * G.norm()
        steep.append(moved[1])
    if N > 2:  # control: without the cut the quotient has no bound (at depth 2 it has)
        assert steep[2] > 10 * steep[0]


@pytest.mark.parametrize("depth", [2, 3, 5])
def test_thm_unique_flow(depth):
    """Spare singular values grow at most in proportion; layers of all widths end where the equation does."""
    loss, draw, growth = any_loss(2, 3, depth), generator(depth), []
    U, V = (torch.linalg.qr(dl.normal(n, 2, generator=draw)).Q for n in (2, 3))
    for small in (1e-2, 1e-4, 1e-6):
        W = (U * torch.tensor([0.7, small]).double()) @ V.mT
        end = dl.flow.end_to_end(loss, W, depth, [0.5], rank=2).end_to_end[0]
        growth.append(torch.linalg.svdvals(end)[1] / small)
    assert growth[2] < 1.5 * growth[0] + 10 and min(growth) > 0
    W = 0.7 * torch.outer(U[:, 0], V[:, 0])
    ends = [dl.flow.layers(loss, dl.balanced_init((3,) + (n,) * (depth - 1) + (2,), generator(n), W=W), [0.5]).end_to_end
            for n in (1, 2, 4)]
    ends.append(dl.flow.end_to_end(loss, W, depth, [0.5]).end_to_end)
    assert worst(*(end - ends[0] for end in ends)) < 1e-9
    for t in (0.5, 1.0, 2.0):  # control: at N = 3/2 and L = -w both 0 and (t/2)^3 solve w' = (3/2) w^(2/3)
        h = 1e-6
        assert abs((((t + h) / 2) ** 3 - ((t - h) / 2) ** 3) / (2 * h) - 1.5 * ((t / 2) ** 3) ** (2 / 3)) < 1e-6


@pytest.mark.parametrize("depth", [2, 3, 4, 6])
def test_prop_rule_rank(depth):
    """From rank one in 2 x 2, a loss that is no polynomial, short time: orders of the rule, its leak, and the layers."""
    loss, rates = Logistic(n=8, k=2, d=2, seed=3), [1 / 200, 1 / 1600]
    W = torch.tensor([[0.8], [0.6]]).double() @ torch.tensor([[0.6, -0.8]]).double()
    G, turn = loss.gradient(W), torch.tensor([[0.0, -1], [1, 0]]).double()  # by a right angle
    u, v = W[:, 0] / W[:, 0].norm(), W[0] / W[0].norm()  # up to sign
    assert abs(u @ G @ turn @ v) > 0.01 and abs((turn @ u) @ G @ v) > 0.01  # the hypothesis of part 3
    layers = dl.balanced_init((2,) * (depth + 1), generator(1), W=W)
    exact = dl.flow.layers(loss, layers, [0.5]).end_to_end[0]
    ends = {rule: [dl.end_to_end(dl.train(loss, layers, dl.GD(h), round(0.5 / h), 10**5, rule).weights) for h in rates]
            for rule in ("layers", "end-to-end")}
    orders = {rule: dl.slope(rates, [(end - exact).norm() for end in found]) for rule, found in ends.items()}
    leak = dl.slope(rates, [torch.linalg.svdvals(end)[1] for end in ends["end-to-end"]])
    excess = orders["end-to-end"] - 2 / depth  # at depth 3 the order 1 of a step is still seen
    assert -0.06 < excess < (0.2 if depth == 3 else 0.06) and abs(leak - 1) < 0.1
    assert abs(orders["layers"] - 1) < 0.05  # control: the layers, at the same steps
    assert all(torch.linalg.svdvals(end)[1] < 1e-9 for end in ends["layers"])


@quick
@given(dims=chains, seed=seeds, kick=st.floats(1e-6, 1), small=st.floats(1e-8, 1))
def test_thm_near_balance(dims, seed, kick, small):
    draw, N = generator(seed), len(dims) - 1
    k, d = dims[-1], dims[0]
    spectrum = torch.logspace(0, float(np.log10(small)), min(dims)).double()
    U, V = (torch.linalg.qr(dl.normal(n, min(dims), generator=draw)).Q for n in (k, d))
    even = dl.balanced_init(dims, draw, W=(U * spectrum) @ V.mT)
    layers = [W + kick * dl.normal(*W.shape, generator=draw) for W in even]
    W, G = dl.end_to_end(layers), dl.normal(k, d, generator=draw)
    velocity = dl.chain.product_velocity(layers, dl.layer_gradients(layers, G))
    error = (velocity - dl.preconditioner.apply(W, G, N)).norm() / G.norm()
    delta = max(torch.linalg.matrix_norm(D, 2) for D in dl.imbalance(layers))
    size = torch.linalg.matrix_norm(W, 2) ** (2 / N) + N * delta
    C = 2 if N == 2 else N**2 * (N**2 + 1) * (N - 1) * (k + d) / 4
    assert error <= C * delta * size ** (N - 2) + 1e-5 * (min(dims) < min(k, d))  # rounding of zeros, amplified
    if kick > 0.3:  # control: no error at all is what balance gives
        assert error > 1e-9


def test_thm_near_balance_two_layers_nearly_sharp():
    """One layer zero: the velocity is delta times the gradient, and the end-to-end equation stands still."""
    layers = [torch.zeros(2, 3).double(), torch.linalg.qr(dl.normal(2, 2, generator=generator(0))).Q * 1.7]
    G = dl.normal(2, 3, generator=generator(1))
    velocity = dl.chain.product_velocity(layers, dl.layer_gradients(layers, G))
    assert worst(velocity - 1.7**2 * G) < 1e-12 and worst(dl.imbalance(layers)[0] - 1.7**2 * torch.eye(2).double()) < 1e-12


@pytest.mark.parametrize("k, d, hidden", [(2, 3, (2,)), (3, 2, (4, 2)), (2, 2, (3, 2))])
def test_thm_landscape(k, d, hidden):
    target = dl.normal(k, d, generator=generator(4)) + 4 * torch.eye(k, d).double()
    loss = half_square(target)
    for seed in range(2):
        end = dl.flow.layers(loss, dl.near_zero_init((d, *hidden, k), 0.9, generator(seed)), [60.0]).end_to_end[0]
        assert loss.gradient(end).norm() < 1e-6
    thin = dl.near_zero_init((d, 1, k), 0.9, generator(0))  # control: a bottleneck ends at another minimum of its loss
    assert loss.gradient(dl.flow.layers(loss, thin, [30.0]).end_to_end[0]).norm() > 0.1


def lowest_curvature(loss, layers):
    """The least eigenvalue of the Hessian of the network's loss."""
    sizes = [W.numel() for W in layers]

    def f(x):
        return loss.value(dl.end_to_end([part.reshape(W.shape) for part, W in zip(x.split(sizes), layers)]))

    return torch.linalg.eigvalsh(torch.autograd.functional.hessian(f, torch.cat([W.flatten() for W in layers])))[0].item()


@pytest.mark.parametrize("depth", [2, 3, 4])
def test_prop_saddles(depth):
    U, V = (torch.linalg.qr(dl.normal(n, 3, generator=generator(n))).Q for n in (3, 4))
    sizes = torch.tensor([4.0, 2.5, 1.0]).double()
    loss = half_square((U * sizes) @ V.mT)
    for kept, lowest in ((1, 2.5), (2, 1.0), (0, 4.0)):  # the best matrix of each rank, and the largest value left out
        W = (U[:, :kept] * sizes[:kept]) @ V[:, :kept].mT
        layers = dl.balanced_init((4,) + (3,) * depth, generator(depth), W=W)
        G = loss.gradient(W)
        norms = sum(g.square().sum() for g in dl.layer_gradients(layers, G))
        assert norms < 1e-9 < G.norm()
        found = lowest_curvature(loss, layers)
        assert found <= -lowest + 1e-7 if depth == 2 else abs(found) < 1e-6
        q = [torch.linalg.svd(L).U[:, -1] for L in layers[:-1]]  # a spare unit at each hidden layer
        left, _, right = torch.linalg.svd(G)
        ends = [right[0], *q, -left[:, 0]]
        for eps in (0.1, 0.2):
            moved = [L + eps * torch.outer(a, b) for L, b, a in zip(layers, ends, ends[1:])]
            drop = loss.value(dl.end_to_end(moved)) - loss.value(W)
            assert abs(drop - (eps ** (2 * depth) / 2 - eps**depth * lowest)) < 1e-9
    other = (U[:, 1:2] * sizes[1]) @ V[:, 1:2].mT  # control: critical, but not the best of rank one
    layers = dl.balanced_init((4,) + (3,) * depth, generator(5), W=other)
    assert lowest_curvature(loss, layers) < -0.1
    loose = dl.near_zero_init((4,) + (3,) * depth, 0.7, generator(6))  # and part 1 needs balance
    W = dl.end_to_end(loose)
    G = loss.gradient(W)
    norms = sum(g.square().sum() for g in dl.layer_gradients(loose, G))
    assert abs(norms / (G * dl.preconditioner.apply(W, G, depth)).sum() - 1) > 1e-2
