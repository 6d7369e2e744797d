"""One test for each claim of chapter 4, on other shapes, seeds and losses than the chapter, each with its control."""

import deeplinear as dl
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from problems import Logistic, depths, half_square, quick, seeds, widths, worst

from conftest import generator


@quick
@given(k=widths, d=widths, depth=depths, seed=seeds)
def test_thm_kronecker(k, d, depth, seed):
    W, G = (dl.normal(k, d, generator=generator(seed + i)) for i in (0, 1))
    P = dl.preconditioner.matrix(W, depth)
    assert worst(P @ G.mT.flatten() - dl.preconditioner.apply(W, G, depth).mT.flatten()) < 1e-12 * (1 + P.norm())
    assert worst(P - P.mT) < 1e-13 * (1 + P.norm()) and torch.linalg.eigvalsh(P).min() > -1e-12 * (1 + P.norm())
    if min(k, d) > 1 and depth > 1:  # control: rows stacked
        assert worst(P @ G.flatten() - dl.preconditioner.apply(W, G, depth).flatten()) > 1e-9


@quick
@given(k=widths, d=widths, depth=depths, seed=seeds)
def test_thm_eigen(k, d, depth, seed):
    W = dl.normal(k, d, generator=generator(seed))
    U, s, Vh = torch.linalg.svd(W)
    found = dl.preconditioner.eigenvalues(W, depth)
    for a in range(k):
        for b in range(d):
            x, y = ((s[i] if i < len(s) else torch.zeros(()).double()) for i in (a, b))
            value = found[a, b]
            Z = torch.outer(U[:, a], Vh[b])
            assert worst(dl.preconditioner.apply(W, Z, depth) - value * Z) < 1e-12 * (1 + value)
            if depth > 1 and abs(x - y) > 0.05:
                closed = (x**2 - y**2) / (x ** (2 / depth) - y ** (2 / depth))
                assert abs(closed - value) < 1e-10 * (1 + value)
            elif depth > 1 and a == b:
                assert abs(depth * x ** (2 - 2 / depth) - value) < 1e-12 * (1 + value)
    if depth > 1:  # control: another depth
        assert worst(found - dl.preconditioner.eigenvalues(W, depth + 1)) > 1e-6


@quick
@given(k=widths, d=widths, depth=st.integers(2, 6), rank=st.integers(1, 4), seed=seeds)
def test_cor_definite(k, d, depth, rank, seed):
    rank = min(rank, k, d)
    left, right = (torch.linalg.qr(dl.normal(n, rank, generator=generator(seed))).Q for n in (k, d))
    s = torch.linspace(2, 0.5, rank, dtype=torch.float64)
    W = (left * s) @ right.mT

    def power(S, exponent):  # nobody tells it the rank: eigenvalues at rounding level are zero
        values, vectors = torch.linalg.eigh(S)
        return (vectors * (values * (values > 1e-12)) ** exponent) @ vectors.mT

    P = sum(torch.kron(power(W.mT @ W, 1 - j / depth), power(W @ W.mT, (j - 1) / depth)) for j in range(1, depth + 1))
    values = torch.linalg.eigvalsh(P)
    assert (values > 1e-6).sum() == rank * (k + d - rank)
    assert worst(P - dl.preconditioner.matrix(W, depth)) < 1e-9 and worst(P - P.mT) < 1e-12 and values[0] > -1e-12
    if rank == min(k, d):
        factor = 1 if k == d else depth
        assert abs(values[-1] / values[0] / (factor * (s[0] / s[-1]) ** (2 - 2 / depth)) - 1) < 1e-8
    else:
        assert values[0].abs() < 1e-10  # control: not definite below full rank


@quick
@given(d=st.integers(2, 6), depth=st.integers(1, 8), seed=seeds)
def test_cor_single_output(d, depth, seed):
    w, g = (dl.normal(1, d, generator=generator(seed + i)) for i in (0, 1))
    r = w.norm()
    stretched = g + (depth - 1) * (w * g).sum() / r**2 * w
    assert worst(dl.preconditioner.apply(w, g, depth) - r ** (2 - 2 / depth) * stretched) < 1e-12 * (1 + r**2)
    assert worst(dl.preconditioner.apply(w.mT, g.mT, depth) - r ** (2 - 2 / depth) * stretched.mT) < 1e-12 * (1 + r**2)
    if depth > 1:  # control: N instead of N - 1
        wrong = r ** (2 - 2 / depth) * (stretched + (w * g).sum() / r**2 * w)
        assert worst(dl.preconditioner.apply(w, g, depth) - wrong) > 1e-9


@quick
@given(a=st.floats(0.1, 5), share=st.floats(1e-3, 0.99), depth=st.integers(2, 12))
def test_prop_directions(a, share, depth):
    def speeds(x, y, N):
        spectrum = dl.preconditioner.eigenvalues(torch.diag(torch.tensor([x, y], dtype=torch.float64)), N)
        return spectrum[0, 1].item(), spectrum[1, 1].item()

    b, own = share * a, depth * a ** (2 - 2 / depth)
    shared, other = (speed / own for speed in speeds(a, b, depth))
    assert abs(shared - sum(share ** (2 * i / depth) for i in range(depth)) / depth) < 1e-10
    assert abs(other - share ** (2 - 2 / depth)) < 1e-10
    assert 1 / depth <= shared <= 1 + 1e-12
    assert min(speeds(1.01 * a, b, depth)[0], speeds(a, 1.01 * b, depth)[0]) > speeds(a, b, depth)[0]  # in both
    deeper = [speed / ((depth + 1) * a ** (2 - 2 / (depth + 1))) for speed in speeds(a, b, depth + 1)]
    assert deeper[0] < shared and deeper[1] < other
    logarithmic_mean = (a**2 - b**2) / np.log(a**2 / b**2)
    assert abs(speeds(a, b, 4000)[0] / 4000 / logarithmic_mean - 1) < 0.01
    assert abs(speeds(a, 0.0, depth)[0] / own - 1 / depth) < 1e-12 and speeds(a, 0.0, depth)[1] == 0
    assert speeds(a, b, 1) == (1, 1)  # control: depth 1 has no preference


def test_cor_memoryless():
    loss = Logistic(k=2, d=3)
    whole = dl.flow.layers(loss, dl.balanced_init((3, 2, 2), generator(0)), [0.5, 1.2]).end_to_end
    fresh = dl.balanced_init((3, 6, 2), generator(1), W=whole[0])
    assert worst(dl.flow.layers(loss, fresh, [0.7]).end_to_end[0] - whole[1]) < 1e-9
    tilted = [2 * fresh[0], fresh[1] / 2]  # control: the same matrix, layers that are not balanced
    assert worst(dl.flow.layers(loss, tilted, [0.7]).end_to_end[0] - whole[1]) > 1e-3


@pytest.mark.parametrize("dims, decay", [((3, 4, 3), 0.0), ((4, 3, 5, 2), 0.2), ((2, 3, 3, 3, 4), 0.1)])
def test_thm_singular_flow(dims, decay):
    """Values, left and right vectors, against the layers' velocity, by differences, with a kernel on either side."""
    k, d, N = dims[-1], dims[0], len(dims) - 1
    loss, layers = Logistic(k=k, d=d, seed=2), dl.balanced_init(dims, generator(N))
    W = dl.end_to_end(layers)
    G = loss.gradient(W)
    moves = [-decay * L - g for L, g in zip(layers, dl.layer_gradients(layers, G))]
    Z, h, full = dl.chain.product_velocity(layers, moves), 1e-5, max(k, d)
    U, s, Vh = torch.linalg.svd(W)
    B = torch.zeros(full, full).double()
    B[:k, :d] = U.mT @ G @ Vh.mT
    r = len(s)
    ends = [torch.linalg.svd(W + x * Z) for x in (h, -h)]
    claim = -N * decay * s - N * s ** (2 - 2 / N) * B.diagonal()[:r]
    assert worst((ends[0].S - ends[1].S) / (2 * h) - claim) < 1e-6
    s = torch.cat([s, torch.zeros(full - r)])
    p = s ** (2 / N)
    for frame, turned, A in ((U, [e.U for e in ends], B), (Vh.mT, [e.Vh.mT for e in ends], B.mT)):
        signed = [F[:, :r] * (F * frame).sum(0).sign()[:r] for F in turned]
        turn = frame.mT @ (signed[0] - signed[1]) / (2 * h)
        for a in range(r):
            for b in range(len(frame)):
                if a != b:
                    rate = -(s[a] * A[b, a] + s[b] * A[a, b]) / (p[a] - p[b])
                    assert abs(turn[b, a] - rate) < 1e-5 * (1 + abs(rate))
    loose = dl.near_zero_init(dims, 0.7, generator(N))  # control: layers that are not balanced
    W = dl.end_to_end(loose)
    U, s, Vh = torch.linalg.svd(W, full_matrices=False)
    g = dl.layer_gradients(loose, loss.gradient(W))
    speed = (U.mT @ dl.chain.product_velocity(loose, [-x for x in g]) @ Vh.mT).diagonal()
    assert worst(speed + N * s ** (2 - 2 / N) * (U.mT @ loss.gradient(W) @ Vh.mT).diagonal()) > 1e-3


def test_thm_singular_flow_through_a_crossing():
    """The analytic branches cross, the ordered values have a kink: two modes of a diagonal problem, at depth 3."""
    loss = half_square(torch.diag(torch.tensor([1.0, 3.0]).double()))
    start, times = torch.diag(torch.tensor([0.6, 0.4]).double()), np.linspace(0, 0.5, 51)
    flow = dl.flow.layers(loss, dl.balanced_init((2, 3, 4, 2), generator(0), W=start), times)
    branches = flow.end_to_end.diagonal(dim1=1, dim2=2)
    assert branches[0, 0] > branches[0, 1] and branches[-1, 0] < branches[-1, 1]
    speed = -3 * branches ** (4 / 3) * (branches - torch.tensor([1.0, 3.0]))
    steps = torch.cumulative_trapezoid(speed, dx=0.01, dim=0)
    assert worst(branches[1:] - branches[0] - steps) < 1e-3
    bend = [values.diff(dim=0).diff(dim=0).abs().max() for values in (branches, torch.linalg.svdvals(flow.end_to_end))]
    assert bend[1] > 5 * bend[0]  # control: the ordered values


def mixings(layers, antisymmetric):
    """How the layers move when units of a hidden layer are mixed, one row for each way."""
    rows = []
    for j, below in enumerate(layers[:-1]):
        n = len(below)
        for a in range(n):
            for b in range(a + 1 if antisymmetric else 0, n):
                B = torch.zeros(n, n).double()
                B[a, b] = 1.0
                B = B - B.mT if antisymmetric else B
                moves = [0 * L for L in layers]
                moves[j], moves[j + 1] = B @ below, -layers[j + 1] @ B
                rows.append(torch.cat([move.flatten() for move in moves]))
    return torch.stack(rows)


@pytest.mark.parametrize("dims, r", [((3, 2, 4), 2), ((4, 4, 3, 4), 3), ((5, 2, 3, 2, 3), 1), ((2, 2, 2), 2)])
def test_thm_fibre(dims, r):
    draw = generator(r)
    W = dl.normal(dims[-1], r, generator=draw) @ dl.normal(r, dims[0], generator=draw)
    layers = dl.balanced_init(dims, draw, W=W)
    claim = sum(n * r - r * (r + 1) // 2 for n in dims[1:-1])
    assert torch.linalg.matrix_rank(mixings(layers, True)) == claim
    assert torch.linalg.matrix_rank(mixings(layers, False)) > claim  # control: mixings that are no rotations
    other = dl.balanced_init(dims, draw, W=W)  # one orbit: rotations of the hidden units take the one to the other
    for j in range(1, len(layers)):
        one, two = dl.end_to_end(layers[:j]), dl.end_to_end(other[:j])
        rotation = two @ torch.linalg.pinv(one, rtol=1e-9)
        assert worst(rotation @ one - two, one.mT @ one - two.mT @ two) < 1e-9
        assert worst(torch.linalg.svdvals(rotation)[:r] - 1) < 1e-9


@pytest.mark.parametrize("dims, r", [((3, 4, 2), 2), ((2, 3, 2, 3), 1), ((3, 3, 3, 3), 3)])
def test_thm_fibre_submersion(dims, r):
    """The shortest layer velocity over a tangent direction has the length of depth, and keeps the balance."""
    draw, N = generator(3), len(dims) - 1
    W = dl.normal(dims[-1], r, generator=draw) @ dl.normal(r, dims[0], generator=draw)
    layers = dl.balanced_init(dims, draw, W=W)
    sizes = [L.numel() for L in layers]

    def split(x):
        return [part.reshape(L.shape) for part, L in zip(x.split(sizes), layers)]

    J = torch.autograd.functional.jacobian(lambda x: dl.end_to_end(split(x)).flatten(), torch.cat([L.flatten() for L in layers]))
    Z = J @ dl.normal(J.shape[1], generator=draw)
    lift = torch.linalg.pinv(J, rtol=1e-9) @ Z
    lengths = [(Z.reshape(W.shape) * dl.preconditioner.solve(W, Z.reshape(W.shape), depth, rank=r)).sum()
               for depth in (N, N + 1)]
    assert abs(lift @ lift / lengths[0] - 1) < 1e-8
    assert abs(lift @ lift / lengths[1] - 1) > 1e-3  # control: another depth
    V = split(lift)
    for j in range(N - 1):
        change = V[j + 1].mT @ layers[j + 1] - V[j] @ layers[j].mT
        assert worst(change + change.mT) < 1e-8


@pytest.mark.parametrize("r, N", [(2, 2), (2, 5), (3, 3)])
def test_thm_fibre_volume(r, N):
    layers = dl.balanced_init((r,) * (N + 1), generator(r + N))
    rows = mixings(layers, True)
    spectrum = dl.preconditioner.eigenvalues(dl.end_to_end(layers), N)
    claim = torch.stack([spectrum[a, b] for a in range(r) for b in range(a)]).prod()
    assert abs(torch.linalg.det(rows @ rows.mT) / 2 ** len(rows) / claim - 1) < 1e-9
    assert abs(claim / spectrum.diagonal().prod() - 1) > 1e-3  # control: other eigenvalues
