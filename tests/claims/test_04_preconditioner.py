"""One test for each claim of chapter 4, on other shapes, seeds and losses than the chapter, each with its control."""

import numpy as np
import torch
from conftest import generator
from hypothesis import given
from hypothesis import strategies as st
from problems import Logistic, depths, quick, seeds, widths, worst

import deeplinear as dl


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
