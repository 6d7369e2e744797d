"""One test for each claim of chapter 14, on other shapes, seeds and losses than the chapter, each with its control."""

import deeplinear as dl
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from problems import Logistic, half_square, quick, seeds, worst
from scipy.integrate import solve_ivp
from torch import nn
from torch.nn import functional as F

from conftest import generator


def whitened(dataset):
    X = torch.linalg.qr(dataset.X).Q * len(dataset.X) ** 0.5
    return dl.LpLoss(X, dataset.y, 2, scale=0.5)


@pytest.mark.parametrize("N", [2, 4])
def test_thm_singular_values(N):
    loss, dims = Logistic(k=2, d=4, seed=3), (4,) + (5,) * (N - 1) + (2,)
    for start, bound in ((dl.balanced_init, None), (dl.near_zero_init, 1e-2)):
        layers = start(dims, generator=generator(N), std=0.7)
        W = dl.end_to_end(layers)
        U, s, Vt = torch.linalg.svd(W, full_matrices=False)
        claim = -N * s ** (2 - 2 / N) * (U.T @ loss.gradient(W) @ Vt.T).diagonal()
        h, speeds = 1e-6, []
        for sign in (1, -1):  # along the flow itself, by differences
            moved = [V - sign * h * G for V, G in zip(layers, dl.layer_gradients(layers, loss.gradient(W)))]
            speeds.append(torch.linalg.svdvals(dl.end_to_end(moved)))
        error = worst((speeds[0] - speeds[1]) / (2 * h) - claim) / worst(claim)
        assert error < 1e-6 if bound is None else error > bound


def test_cor_modes():
    # rectangular, with turned frames and one goal twice
    phi, frame = torch.tensor([1.5, 1.5, 0.5], dtype=torch.float64), torch.linalg.qr(dl.normal(5, 5, generator=generator(1))).Q
    left = torch.linalg.qr(dl.normal(3, 3, generator=generator(2))).Q
    V = frame[:, :3]
    Phi, s0, times = left @ phi.diag() @ V.T, torch.tensor([0.1, 0.2, 0.05], dtype=torch.float64), [0.3, 1.0, 4.0]
    layers = dl.balanced_init((5, 4, 3), generator(3), W=left @ s0.diag() @ V.T)
    path = dl.flow.layers(half_square(Phi), layers, times).end_to_end
    s = phi / (1 + (phi / s0 - 1) * torch.exp(-2 * phi * torch.tensor(times, dtype=torch.float64)[:, None]))
    assert worst(path - left @ s.diag_embed() @ V.T) < 1e-9
    tilted = [layers[0] * 2, layers[1] / 2]  # control: the same product off balance
    assert worst(dl.flow.layers(half_square(Phi), tilted, times).end_to_end - path) > 0.01


@pytest.mark.parametrize("N, rho, theta", [(2, 0.7, 0.5), (3, 0.4, 0.9), (4, 0.8, 0.7), (6, 0.6, 0.95)])
def test_thm_incremental(N, rho, theta):
    seen, starts = [], np.array([1e-2, 1e-4, 1e-6]) * (0.2 / 0.5 if N < 5 else 0.1)
    for s0 in starts:
        def speed(_, s):
            return N * s ** (2 - 2 / N) * (np.array([1, rho]) - s)
        reached = lambda t, s: s[0] - theta
        reached.terminal = True
        seen.append(solve_ivp(speed, (0, 1e8), [s0, s0], method="DOP853", rtol=1e-9, atol=1e-16, events=reached).y[1, -1])
    seen = np.array(seen)
    if N == 2:
        assert (seen / (rho - seen) >= theta**rho * starts ** (1 - rho) / rho).all()
        assert seen[-1] / starts[-1] > 3 * seen[0] / starts[0]  # control: no fixed multiple of the start
    else:
        kappa = (N - 2) * rho * theta ** (2 / N) / (2 - 2 * theta)
        bracket = 1 - rho - kappa * starts ** (1 - 2 / N)
        assert bracket[-1] > 0 and (seen <= starts * bracket.clip(1e-9) ** (-N / (N - 2))).all()
        assert seen[-1] > starts[-1] * (1 - rho / 2) ** (-N / (N - 2))  # control: a smaller factor


def test_emp_completion():
    g, off = generator(11), {}
    M = dl.normal(10, 1, generator=g) @ dl.normal(1, 10, generator=g)
    mask = (dl.normal(10, 10, generator=g) < 0.2).double()
    for N, lr, start in ((1, 0.3, 1e-3), (2, 0.03, 1e-3), (3, 0.02, 1e-3), (3, 0.02, 1.0)):
        W = [start ** (1 / N) * torch.eye(10, dtype=torch.float64)] * N
        for _ in range(4000):
            W = [V - lr * G for V, G in zip(W, dl.layer_gradients(W, mask * (dl.end_to_end(W) - M)))]
        off[N, start] = (((dl.end_to_end(W) - M) * (1 - mask)).norm() / (M * (1 - mask)).norm()).item()
    assert off[1, 1e-3] > 0.9 and off[2, 1e-3] < 0.15 and off[3, 1e-3] < 0.15
    assert off[3, 1.0] > 0.3  # control: a large start


@pytest.mark.parametrize("shape, N", [((2, 4), 2), ((4, 2), 3), ((3, 3), 4)])
def test_thm_descent_arrives(shape, N):
    k, d = shape
    U, _, Vt = torch.linalg.svd(dl.normal(*shape, generator=generator(N)), full_matrices=False)
    phi = torch.linspace(2.0, 1.2, min(shape), dtype=torch.float64)
    Phi, B2 = U @ phi.diag() @ Vt, 8 ** (2 / N)
    Z = dl.normal(*shape, generator=generator(9))
    layers = dl.balanced_init((d,) + (5,) * (N - 1) + (k,), generator(7), W=Phi + 0.5 * Z / Z.norm())
    layers = [W + 0.005 * dl.normal(*W.shape, generator=generator(j)) for j, W in enumerate(layers)]
    c, lr = 1.2 - (dl.end_to_end(layers) - Phi).norm().item(), B2 / (50 * N**2 * 4)
    assert c > 0.5 and all(torch.linalg.matrix_norm(D, 2) < B2 / (4 * N**2) for D in dl.imbalance(layers))
    run = dl.train(half_square(Phi), layers, dl.GD(lr), 500, keep_weights=True)
    assert (run.loss[1:] <= (1 - lr * c**2 / B2) * run.loss[:-1]).all() and run.loss[-1] < 0.1 * run.loss[0]
    # the parts of the proof: layers below B, smallest singular value above c
    assert all((torch.linalg.matrix_norm(W, 2) ** 2 <= B2).all() for W in run.history)
    assert (torch.linalg.svdvals(dl.end_to_end(run.history))[:, -1] >= c).all()
    still = dl.train(half_square(Phi), [0 * W for W in layers], dl.GD(lr), 5)  # control: balanced, no margin
    assert (still.loss[1:] > (1 - lr * c**2 / B2) * still.loss[:-1]).all()


@pytest.mark.parametrize("N, imbalance", [(2, 400.0), (3, 2000.0)])
def test_thm_descent_arrives_asks_for_balance(N, imbalance):
    one, B2 = torch.ones(1, 1).double(), 4 ** (2 / N)
    layers = [0.9 * one / imbalance**0.5, *[one] * (N - 2), imbalance**0.5 * one]  # the margin is 0.9
    assert abs(dl.end_to_end(layers).item() - 0.9) < 1e-12 and any(worst(D) > B2 / (4 * N**2) for D in dl.imbalance(layers))
    run = dl.train(half_square(one), layers, dl.GD(B2 / (50 * N**2)), 3)
    assert run.loss[1] > run.loss[0]  # the loss rises at the largest step that the theorem allows from balance
    balanced = dl.balanced_init((1,) * (N + 1), generator(0), W=0.9 * one)
    run = dl.train(half_square(one), balanced, dl.GD(B2 / (50 * N**2)), 3)
    assert (run.loss[1:] < run.loss[:-1]).all()


def balanced_start_table(loss, steps):
    d, rates = loss.shape[1], torch.logspace(-2.5, -0.5, 5).double()
    gains, found = (0.8, 1.6), {"gauss": [], "balanced": []}
    dims, least = (d,) + (6,) * 7 + (1,), loss.value(dl.losses.minimiser(loss))
    for g in gains:
        kinds = {"gauss": [], "balanced": []}
        for seed in range(3):
            kinds["gauss"].append([g * W / W.shape[1] ** 0.5 for W in dl.near_zero_init(dims, 1.0, generator(50 + seed))])
            row = dl.normal(1, d, generator=generator(seed))
            kinds["balanced"].append(dl.balanced_init(dims, generator(seed), W=g * row / row.norm()))
        for kind, starts in kinds.items():
            layers = [torch.stack(layer)[None] for layer in zip(*starts)]
            run = dl.train(loss, layers, dl.GD(rates[:, None]), steps, record_every=10)
            found[kind].append(run.steps_to(least + 1e-5).median(-1).values.min().item())
    return found


def test_emp_balanced_start(diabetes):
    found = balanced_start_table(whitened(diabetes), 600)
    assert max(found["balanced"]) < 200 and found["gauss"][0] < 200
    assert found["gauss"][1] > 500  # control: eight Gaussian layers of gain 1.6


def test_emp_balanced_start_on_the_papers_data(ethanol):
    found = balanced_start_table(whitened(ethanol), 600)
    assert max(found["balanced"]) < 200 and found["gauss"][1] > 500


@quick
@given(chi=st.floats(-3, 3), seed=seeds, d=st.integers(1, 4))
def test_prop_imbalance(chi, seed, d):
    w, G = (dl.normal(1, d, generator=generator(seed + j)) for j in (0, 1))
    size = w.square().sum()
    root = (chi**2 + 4 * size).sqrt()
    a = ((chi + root) / 2).sqrt().reshape(1, 1)
    v = w / a
    assert abs((a.square() - v.square().sum()).item() - chi) < 1e-9 * (1 + float(root / a.min()) ** 2)
    velocity = dl.chain.product_velocity([v, a], [-g for g in dl.layer_gradients([v, a], G)])
    M = a.square() * torch.eye(d) + v.T @ v
    assert worst(velocity + G @ M) < 1e-12 * (1 + worst(M) * worst(G))
    values = torch.linalg.eigvalsh(M)
    assert abs(values[-1] / root - 1) < 1e-9 and (d == 1 or abs(values[0] / a.item() ** 2 - 1) < 1e-6)
    balanced = dl.preconditioner.apply(w, G, 2)
    assert abs(chi) < 0.5 or d == 1 and size > 100 or worst(velocity + balanced) > 1e-6 * worst(G)


@pytest.mark.parametrize("chi", [0.5, 3.0, 40.0])
def test_prop_imbalance_rate(chi):
    X = dl.normal(12, 3, generator=generator(4))
    loss = dl.LpLoss(X, dl.normal(12, generator=generator(5)), 2)
    mu, w = 2 * torch.linalg.eigvalsh(X.T @ X / 12)[0], dl.normal(1, 3, generator=generator(6))  # |grad|^2 >= 2 mu gap
    a = ((chi + (chi**2 + 4 * w.square().sum()).sqrt()) / 2).sqrt().reshape(1, 1)
    times, least = np.linspace(0.05, 3, 30) / (1 + chi), loss.value(dl.losses.minimiser(loss))
    path = dl.flow.layers(loss, [w / a, a], times.tolist())
    shares = (loss.value(path.end_to_end) - least) / (loss.value(w) - least) * torch.exp(2 * mu * chi * torch.from_numpy(times))
    assert (shares < 1).all() and (shares.diff() < 0).all()
    assert (shares * torch.exp(20 * mu * chi * torch.from_numpy(times)) > 1).any()  # control: eleven times the rate
    for k in (0, 29):  # the law of a^2 along the flow, and no other
        size = path.end_to_end[k].square().sum()
        square = path.weights[1][k].item() ** 2
        assert abs(square - (chi + (chi**2 + 4 * size).sqrt()) / 2) < 1e-8 * square and abs(square - size.sqrt()) > 1e-2


@pytest.mark.parametrize("n, lam", [(2, -0.4), (3, 1.3), (4, 0.0)])
def test_thm_relaxed_balance(n, lam):
    W, eye, loss = dl.normal(n, n, generator=generator(n)), torch.eye(n, dtype=torch.float64), Logistic(k=n, d=n, seed=n)

    def square_root(M):
        values, frame = torch.linalg.eigh(M)
        return frame @ values.sqrt().diag() @ frame.T

    turn = torch.linalg.qr(dl.normal(n, n, generator=generator(30))).Q
    end = square_root(lam / 2 * eye + square_root(W @ W.T + lam**2 / 4 * eye)) @ turn
    for U, relaxed in ((end, True), (end @ torch.linspace(1, 1.5, n).double().diag(), False)):
        V = torch.linalg.solve(U, W)
        D = U.T @ U - V @ V.T
        assert (worst(D - lam * eye) < 1e-12) == relaxed
        path = dl.flow.layers(loss, [V, U], [0.2, 1.5])
        for k in range(2):
            product, G = path.end_to_end[k], loss.gradient(path.end_to_end[k])
            P = lam / 2 * eye + square_root(product @ product.T + lam**2 / 4 * eye)
            Q = -lam / 2 * eye + square_root(product.T @ product + lam**2 / 4 * eye)
            Vt, Ut = (weights[k] for weights in path.weights)
            velocity = -(Ut @ Ut.T @ G + G @ Vt.T @ Vt)
            error = worst(velocity + P @ G + G @ Q) / worst(velocity)
            assert error < 1e-8 if relaxed else error > 1e-3
        # part 2: layers with the same product and the same D, found by moving along a tangent and back onto D
        A = torch.eye(n * n, dtype=torch.float64).reshape(n * n, n, n)
        S, T = U.T @ U, V @ V.T
        image = (A.mT @ S + S @ A + A @ T + T @ A.mT).reshape(n * n, n * n)
        left, values, _ = torch.linalg.svd(image)
        rank = n * (n + 1) // 2
        assert (values[:rank] > 1e-6).all() and (values[rank:] < 1e-10).all()
        tangents = torch.einsum("ak,aij->kij", left[:, rank:], A)
        assert (worst(tangents + tangents.mT) < 1e-10) == relaxed


@quick
@given(N=st.integers(2, 5), seed=seeds, lr=st.floats(0.01, 1))
def test_prop_rebalance(N, seed, lr):
    loss = Logistic(k=1, d=1, seed=seed)
    layers = [dl.normal(1, 1, generator=generator(seed + j)) for j in range(N)]
    old, new = dl.descent.iterate(loss, layers, lr, 1)
    e = loss.gradient(dl.end_to_end(old))
    for j in range(N - 1):
        others = [W for i, W in enumerate(old) if i not in (j, j + 1)]
        pi = dl.end_to_end(others) if others else torch.ones(1, 1)
        claim = (1 - (lr * e * pi) ** 2) * dl.imbalance(old)[j]
        assert worst(dl.imbalance(new)[j] - claim) < 1e-12 * (1 + worst(*old) ** 2) * (1 + worst(lr * e * pi) ** 2)
    wide = dl.balanced_init((2, 1, 1), generator(5))  # control: a second input
    moved = dl.descent.iterate(Logistic(k=1, d=2), wide, 0.1, 1)[1]
    assert worst(dl.imbalance(moved)[0]) > 1e-5


@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_prop_fold(kernel):
    K, A, C = nn.Conv2d(4, 7, kernel, padding="same"), nn.Conv2d(7, 4, 1), nn.Conv2d(4, 4, 1)
    for j, module in enumerate((K, A, C)):
        for i, W in enumerate(module.double().parameters()):
            W.data = dl.normal(*W.shape, generator=generator(10 * j + i))
    x, middle = dl.normal(2, 4, 6, 5, generator=generator(40)), kernel // 2
    a = A.weight[:, :, 0, 0]
    folded = torch.einsum("oh,hiyx->oiyx", a, K.weight)
    folded[:, :, middle, middle] += C.weight[:, :, 0, 0] + torch.eye(4)
    bias = a @ K.bias + A.bias + C.bias
    found = F.conv2d(x, folded, bias, padding=middle)
    assert worst((found - A(K(x)) - C(x) - x).detach()) < 1e-12
    assert worst((found - A(F.relu(K(x))) - C(x) - x).detach()) > 1e-2  # control: a ReLU between
