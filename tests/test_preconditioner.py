import mpmath
import numpy as np
import pytest
import sympy
import torch
from conftest import generator
from hypothesis import given, settings
from hypothesis import strategies as st

import deeplinear as dl
from deeplinear import preconditioner


def reference(W, G, depth):
    """The defining sum in 40 digits, with powers of the Gram matrices from their eigenvalues."""
    with mpmath.workdps(40):
        W, G = mpmath.matrix(W.tolist()), mpmath.matrix(G.tolist())

        def power(S, exponent):
            if exponent == 0:
                return mpmath.eye(S.rows)
            values, vectors = mpmath.eigsy(S)
            kept = [value**exponent if value > 1e-30 * max(values) else 0 for value in values]
            return vectors * mpmath.diag(kept) * vectors.T

        total = mpmath.zeros(W.rows, W.cols)
        for j in range(1, depth + 1):
            total += power(W * W.T, mpmath.mpf(j - 1) / depth) * G * power(W.T * W, mpmath.mpf(depth - j) / depth)
        return torch.tensor(total.tolist(), dtype=torch.float64)


def pair(k, d, seed=0, batch=()):
    return (torch.randn(*batch, k, d, generator=generator(seed + s), dtype=torch.float64) for s in (0, 1))


@settings(max_examples=60)
@given(k=st.integers(1, 5), d=st.integers(1, 5), depth=st.integers(1, 8), seed=st.integers(0, 10**6))
def test_apply_and_matrix_against_the_definition(k, d, depth, seed):
    W, G = pair(k, d, seed)
    expected = reference(W, G, depth)
    size = expected.norm() + 1e-3
    assert (dl.preconditioner.apply(W, G, depth) - expected).norm() / size < 1e-12
    stacked = dl.preconditioner.matrix(W, depth) @ G.mT.flatten()
    assert (stacked - dl.preconditioner.apply(W, G, depth).mT.flatten()).norm() / size < 1e-12
    spectrum = torch.linalg.eigvalsh(dl.preconditioner.matrix(W, depth))
    assert (spectrum - dl.preconditioner.eigenvalues(W, depth).flatten().sort().values).abs().max() / size < 1e-11


def test_accurate_where_gram_matrices_are_not():
    """Condition 1e10: the smallest eigenvalue must be right to many digits."""
    s = torch.tensor([1.0, 1e-5, 1e-10], dtype=torch.float64)
    U, V = (torch.linalg.qr(torch.randn(3, 3, generator=generator(i), dtype=torch.float64)).Q for i in (0, 1))
    G = U[:, 2:] @ V[:, 2:].T
    found = dl.preconditioner.apply(U @ torch.diag(s) @ V.T, G, 2)
    assert abs((found * G).sum() / 2e-10 - 1) < 1e-5


@pytest.mark.parametrize("depth", [1, 2, 3, 6])
def test_repeated_and_zero_singular_values(depth):
    Q = torch.linalg.qr(torch.randn(4, 4, generator=generator(0), dtype=torch.float64)).Q
    W = 2 * Q[:3]  # three equal singular values
    G = torch.randn(3, 4, generator=generator(1), dtype=torch.float64)
    torch.testing.assert_close(dl.preconditioner.apply(W, G, depth), reference(W, G, depth))
    deficient = torch.outer(torch.tensor([1.0, 2, -1]), torch.tensor([3.0, 0, 1, 2])).double()  # exactly of rank 1
    torch.testing.assert_close(dl.preconditioner.apply(deficient, G, depth), reference(deficient, G, depth))
    zero = torch.zeros(3, 4, dtype=torch.float64)
    torch.testing.assert_close(dl.preconditioner.apply(zero, G, depth), G if depth == 1 else zero)
    torch.testing.assert_close(dl.preconditioner.apply(zero[:1], G[:1], depth), G[:1] if depth == 1 else zero[:1])


def test_a_stated_rank_silences_spurious_singular_values():
    W, G = pair(3, 3)
    U, s, Vh = torch.linalg.svd(W)
    exact = (U[:, :1] * s[:1]) @ Vh[:1]
    spoiled = exact + 1e-13 * torch.outer(U[:, 1], Vh[1])
    clean = dl.preconditioner.apply(exact, G, 6)
    assert (dl.preconditioner.apply(spoiled, G, 6, rank=1) - clean).norm() < 1e-11
    assert (dl.preconditioner.apply(spoiled, G, 6) - clean).norm() > 1e-5


def test_batches_are_rows():
    for k, d in ((1, 4), (4, 1), (2, 3), (3, 2)):
        W, G = pair(k, d, batch=(2, 3))
        for depth in (1, 2, 5):
            whole = dl.preconditioner.apply(W, G, depth)
            for i in range(2):
                torch.testing.assert_close(whole[i, 0], dl.preconditioner.apply(W[i, 0], G[i, 0], depth))
            assert dl.preconditioner.matrix(W, depth).shape == (2, 3, k * d, k * d)
            assert dl.preconditioner.eigenvalues(W, depth).shape == (2, 3, k, d)


def test_bad_input_is_named():
    W, G = pair(2, 3)
    with pytest.raises(ValueError, match=r"G has shape \(3, 2\); expected \(2, 3\) like W"):
        dl.preconditioner.apply(W, G.T, 2)
    for depth in (0, -1, 1.5, True):
        with pytest.raises(ValueError, match="depth is .*; expected an integer >= 1"):
            dl.preconditioner.eigenvalues(W, depth)
    with pytest.raises(ValueError, match=r"W has shape \(3,\)"):
        dl.preconditioner.matrix(W[0], 2)


def test_solve_undoes_apply_on_the_image():
    for k, d, rank in ((2, 4, 2), (4, 2, 2), (3, 3, 1), (1, 5, 1)):
        left, right = dl.normal(k, rank, generator=generator(1)), dl.normal(rank, d, generator=generator(2))
        W, G = left @ right, dl.normal(k, d, generator=generator(3))
        Z = dl.preconditioner.apply(W, G, 3, rank)
        again = dl.preconditioner.apply(W, dl.preconditioner.solve(W, Z, 3, rank), 3, rank)
        assert (again - Z).abs().max() < 1e-11 * Z.abs().max()
    with pytest.raises(ValueError, match="expected .* like W"):
        dl.preconditioner.solve(W, W[:, :2], 3)


@pytest.mark.parametrize("k, d", [(1, 4), (2, 3), (3, 2)])
def test_a_matrix_that_is_not_finite_gives_nan_and_leaves_the_others_alone(k, d):
    W, G = pair(k, d, batch=(3,))
    alone = dl.preconditioner.apply(W[:1], G[:1], 3)
    W[1, 0, 0], W[2, 0, 0] = torch.nan, torch.inf
    found = dl.preconditioner.apply(W, G, 3)
    assert torch.equal(found[:1], alone) and found[1:].isnan().all()
    assert dl.preconditioner.eigenvalues(W, 3)[1].isnan().any()


@pytest.mark.parametrize("call", [preconditioner.apply, preconditioner.solve])
@pytest.mark.parametrize("rank", [1.5, -1, True, "full"])
def test_a_rank_that_is_no_count_is_named(call, rank):
    W = torch.eye(2, dtype=torch.float64)
    for arguments in ((call, W, W), (preconditioner.matrix, W), (preconditioner.eigenvalues, W)):
        with pytest.raises(ValueError, match=f"rank is {rank!r}; expected an integer >= 0"):
            arguments[0](*arguments[1:], 3, rank)


@pytest.mark.parametrize("shape", [(1, 3), (3, 1), (2, 3)])
def test_rank_nought_is_the_zero_matrix(shape):
    W, G = (torch.randn(shape, generator=generator(s), dtype=torch.float64) for s in (0, 1))
    assert (preconditioner.apply(W, G, 3, rank=0) == 0).all() and (preconditioner.eigenvalues(W, 3, rank=0) == 0).all()
    torch.testing.assert_close(preconditioner.apply(W, G, 1, rank=0), G)


def test_arrays_and_exact_integers_are_taken():
    W, G = (torch.randn(2, 3, generator=generator(s), dtype=torch.float64) for s in (0, 1))
    for depth in (np.int64(3), sympy.Integer(3)):
        assert torch.equal(preconditioner.apply(W.numpy(), G.numpy(), depth), preconditioner.apply(W, G, 3))
        assert torch.equal(preconditioner.matrix(W.numpy(), depth), preconditioner.matrix(W, 3))
        assert torch.equal(preconditioner.eigenvalues(W.numpy(), depth), preconditioner.eigenvalues(W, 3))


@pytest.mark.parametrize("W", [torch.eye(2), torch.zeros(2, 2), torch.zeros(1, 3), torch.diag(torch.tensor([2.0, 1, 1])),
                               torch.tensor([[1.0, 0, 0], [0, 0, 0]])])
def test_a_derivative_that_the_svd_does_not_give_is_refused(W):
    W = W.double().requires_grad_()
    G = torch.randn(W.shape, generator=generator(0), dtype=torch.float64, requires_grad=True)
    for call in (lambda: preconditioner.apply(W, G, 3), lambda: preconditioner.solve(W, G, 3),
                 lambda: preconditioner.matrix(W, 3)):
        with pytest.raises(ValueError, match="W has singular values .*; expected distinct ones above 0 for a derivative"):
            call()
    (along,) = torch.autograd.grad(preconditioner.apply(W.detach(), G, 3).sum(), G)
    ones = torch.ones_like(along)
    torch.testing.assert_close(along, preconditioner.apply(W.detach(), ones, 3))  # the operator is symmetric
    with torch.no_grad():
        assert torch.isfinite(preconditioner.apply(W, G, 3)).all()


@pytest.mark.parametrize("shape", [(2, 2), (2, 3), (3, 2), (1, 3)])
def test_a_derivative_that_it_gives_is_right(shape):
    W, G = (torch.randn(shape, generator=generator(s), dtype=torch.float64, requires_grad=True) for s in (0, 1))
    assert torch.autograd.gradcheck(lambda W, G: preconditioner.apply(W, G, 3), (W, G))
