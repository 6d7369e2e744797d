"""One test for each claim of chapter 13, on other shapes, seeds and losses than the chapter, each with its control."""

import deeplinear as dl
import numpy as np
import pytest
import torch
from flint import fmpz_mat, nmod_mat
from problems import Logistic, worst
from scipy.integrate import quad

from conftest import generator


def exact_rank(rows):
    return fmpz_mat([[int(x) for x in np.ravel(row)] for row in rows]).rank()


def directional(f, v, direction):
    return torch.autograd.functional.jvp(f, v, direction, create_graph=True)[1]


def network_field(dims):
    """Cutting a vector into layers, and the gradient field of <G, product>, for widths ``dims``."""
    shapes = [(b, a) for a, b in zip(dims, dims[1:])]
    sizes = [a * b for a, b in shapes]
    split = lambda v: [part.view(shape) for part, shape in zip(v.split(sizes), shapes)]
    return split, torch.func.grad(lambda v, G: (G * dl.end_to_end(split(v))).sum()), sum(sizes)


def bracket_of(X, Y):
    return lambda v: directional(Y, v, X(v)) - directional(X, v, Y(v))


def directions(rows, columns):
    return np.eye(rows * columns, dtype=int).reshape(-1, rows, columns)


def swaps(m, n):
    """The matrices S_G of the elementary G, and their brackets."""
    S = []
    for i, j in np.ndindex(m, n):
        A = np.zeros((m + n, m + n), dtype=int)
        A[i, m + j] = A[m + j, i] = 1
        S.append(A)
    return S, [A @ B - B @ A for i, A in enumerate(S) for B in S[:i]]


@pytest.mark.parametrize("dims, laws", [((3, 2, 2, 1), 6), ((2, 3, 2), 6), ((1, 2, 1, 3, 2), 10)])
def test_thm_laws_and_brackets(dims, laws):
    """Brackets of two and of three fields keep every imbalance, and with the fields fill the rest of the space."""
    split, field, size = network_field(dims)
    theta = dl.normal(size, generator=generator(3))
    vectors, moved = [], []
    for seed in range(size):
        G = dl.normal(3, dims[-1], dims[0], generator=generator(seed))
        X, Y, Z = (lambda v, A=A: field(v, A) for A in G)
        XY = bracket_of(X, Y)
        vectors += [X(theta), XY(theta), bracket_of(XY, Z)(theta)]
        for j in range(len(dims) - 2):
            moved += [directional(lambda v, j=j: dl.imbalance(split(v))[j], theta, V / V.norm()) for V in vectors[-3:]]
    vectors, moved = [V.detach() for V in vectors], [D.detach() for D in moved]
    assert worst(*moved) < 1e-12
    singular = torch.linalg.svdvals(torch.stack([V / V.norm() for V in vectors]))
    assert (singular > 1e-9).sum() == size - laws
    few = torch.linalg.matrix_rank(torch.stack(vectors[::3]))
    assert few < size - laws  # control: the fields without brackets leave more room
    half = directional(lambda v: split(v)[0] @ split(v)[0].mT, theta, vectors[2] / vectors[2].norm())
    assert worst(half.detach()) > 1e-3  # control: half a balance is not kept


@pytest.mark.parametrize("m, n", [(1, 1), (1, 2), (2, 2), (4, 1), (3, 4)])
def test_thm_so(m, n):
    M, J = m + n, np.diag([1] * m + [-1] * n)
    S, brackets = swaps(m, n)
    for A in S + brackets:
        assert (A.T @ J + J @ A == 0).all()
    assert exact_rank(S + brackets) == M * (M - 1) // 2
    threes = [A @ B - B @ A for A in brackets for B in S]
    assert exact_rank(S + brackets + threes) == M * (M - 1) // 2  # no more comes
    rng = np.random.default_rng(m + n)
    theta, G = rng.integers(-5, 6, (M, 3)), rng.integers(-5, 6, (m, n))
    below, above = dl.layer_gradients([theta[m:].T, theta[:m]], G)
    SG = np.block([[np.zeros((m, m), int), G], [G.T, np.zeros((n, n), int)]])
    assert (SG @ theta == np.vstack([above, below.T])).all()
    if M > 2:
        assert exact_rank(S) < M * (M - 1) // 2  # control: the fields alone
    assert not (S[0].T + S[0] == 0).all()  # control: they are no rotations


@pytest.mark.parametrize("m, n", [(1, 1), (1, 3), (2, 2)])
def test_thm_two_layer_count(m, n):
    M, J, rng = m + n, np.diag([1] * m + [-1] * n), np.random.default_rng(7)
    S, brackets = swaps(m, n)
    for r in range(1, M + 4):
        theta = rng.integers(-50, 51, (M, r))
        assert exact_rank(theta) == min(r, M)
        claim = r * (r + 1) // 2 if r <= M else M * (2 * r - M + 1) // 2
        orbit = exact_rank([A @ theta for A in S + brackets])
        laws = exact_rank([Z.T @ J @ theta + theta.T @ J @ Z for Z in directions(M, r)])
        assert orbit == M * r - claim and laws == claim
        assert dl.conservation.count_laws((n, r, m)).count == claim
        W1, W2 = theta[m:].T, theta[:m]
        assert (theta.T @ J @ theta == W2.T @ W2 - W1 @ W1.T).all()
        if r > M + 1:
            assert r * (r + 1) // 2 > claim  # control: the first line beyond its range
        if 2 <= r <= M:  # control: without full rank the sides do not meet
            theta[:, 1] = theta[:, 0]
            orbit = exact_rank([A @ theta for A in S + brackets])
            assert orbit + exact_rank([Z.T @ J @ theta + theta.T @ J @ Z for Z in directions(M, r)]) < M * r


def test_thm_certificate():
    rng = np.random.default_rng(5)
    for p in (2, 5, 7):
        lost = []
        for _ in range(200):
            A = rng.integers(-20, 21, (3, 4))
            lost.append(exact_rank(A) - nmod_mat(3, 4, [int(x) for x in A.ravel()], p).rank())
        assert min(lost) == 0 and max(lost) > 0  # never too large; control: sometimes too small
    for dims in ((2, 2, 2, 2), (3, 2, 4, 1), (2, 3, 1, 3, 2)):
        found = [dl.conservation.count_laws(dims, seed=seed) for seed in range(4)]
        assert all(laws.certified and laws.fields + laws.balances == laws.parameters for laws in found)
        assert len({laws.count for laws in found}) == 1
        _, field, size = network_field(dims)
        theta = dl.normal(size, generator=generator(1))
        units = torch.eye(dims[-1] * dims[0], dtype=torch.float64).view(-1, dims[-1], dims[0])
        alone = torch.linalg.matrix_rank(torch.stack([field(theta, G) for G in units]))
        assert alone < found[0].fields  # control: without brackets the count stays open


def test_prop_scalar_nets():
    count = dl.conservation.count_laws
    for dims in ((1, 6, 1), (1, 2, 1), (1, 1, 1, 1, 1, 1)):
        found = count(dims)
        assert found.count == found.balances == found.parameters - 1
    for a, b in ((2, 3), (4, 2), (3, 5), (4, 4)):
        found = count((1, a, b, 1))
        assert found.parameters == a + a * b + b and found.count == found.parameters - 1
        assert found.balances == found.parameters - min(a, b) < found.count
        for other in (count((1, a, b, 1), bias=True), count((1, a, b, 2)), count((2, a, b, 1))):  # controls
            assert other.count == other.balances and other.certified
    _, field, size = network_field((1, 2, 3, 1))
    theta, one = dl.normal(size, generator=generator(0)), torch.ones(1, 1, dtype=torch.float64)
    X, Y = (lambda v, g=g: field(v, g * one) for g in (1.0, -2.5))
    assert worst(bracket_of(X, Y)(theta).detach()) < 1e-12
    other = lambda v: field(v, one) * v[0]  # control: a factor that depends on the weights
    assert worst(bracket_of(X, other)(theta).detach()) > 1e-2


def test_prop_scalar_nets_piece():
    """A piece of widths 1, 2, 2, 1 inside: the fields move it by multiples of one vector, and one law more is left."""
    dims = (2, 1, 2, 2, 1, 3)
    split, field, size = network_field(dims)
    theta, piece = dl.normal(size, generator=generator(0)), slice(2, 10)
    fields = torch.stack([field(theta, G) for G in dl.normal(6, 3, 2, generator=generator(1))])
    assert torch.linalg.matrix_rank(fields[:, piece], rtol=1e-10) == 1
    assert torch.linalg.matrix_rank(fields) > 1  # control: not so for the whole
    balances = torch.func.jacrev(lambda v: torch.cat([D.flatten() for D in dl.imbalance(split(v))]))(theta)
    kept = torch.linalg.svd(fields[:1, piece])[2][1:]  # the gradients of the laws of the piece
    laws = torch.zeros(7, size, dtype=torch.float64)
    laws[:, piece] = kept
    found = dl.conservation.count_laws(dims)
    assert torch.linalg.matrix_rank(balances) == found.balances
    assert torch.linalg.matrix_rank(torch.cat([balances, laws])) == found.balances + 1 == found.count


def test_emp_complete():
    """Five layers, widths 1 and 2, and some wider ones."""
    nets = [tuple(1 + (code >> j & 1) for j in range(6)) for code in range(64)]
    wrong, exceptions = 0, 0
    for dims in nets + [(4, 1, 3, 1, 4), (5, 4, 5), (1, 4, 3, 4), (1, 4, 3, 1, 4), (3, 1, 2, 4, 1)]:
        found, ones = dl.conservation.count_laws(dims), [i for i, n in enumerate(dims) if n == 1]
        piece = any(high - low > 2 for low, high in zip(ones, ones[1:]))
        wrong, exceptions = wrong + (piece == (found.certified and found.count == found.balances)), exceptions + piece
    assert wrong == 0
    assert exceptions > 5  # control: the balances are not always complete


@pytest.mark.parametrize("n, seed", [(2, 4), (2, 9), (3, 6), (4, 3)])
def test_prop_missing_laws(n, seed):
    loss = dl.LpLoss([[1.0]], [5.0], p=2)
    draw = dl.seeded(seed)
    start = [dl.normal(*shape, generator=draw) for shape in ((n, 1), (n, n), (1, n))]
    W = dl.flow.layers(loss, start, [0.0, 0.05, 0.2]).weights
    U, sigma, Vh = torch.linalg.svd(W[1])
    c = ((W[2] @ U).mT * (Vh @ W[0]))[..., 0].numpy()
    assert (np.sign(c) == np.sign(c[0])).all()
    D1, D2 = dl.imbalance(start)
    roots = torch.cat([torch.linalg.eigvalsh(D1), torch.linalg.eigvalsh(-D2)]).numpy()
    u = sigma.numpy() ** 2
    for t in range(3):
        for i in range(n):
            gaps = np.prod(np.delete(u[t, i] - u[t], i))
            assert abs(np.prod(u[t, i] - roots) / (c[t, i] * gaps) ** 2 - 1) < 1e-6
    sign = np.sign(c[0]) * (-1.0) ** np.arange(n)
    f = lambda s, k: s ** (2 * k) / np.sqrt(np.prod(s**2 - roots))
    F = [[sum(sign[i] * quad(f, sigma[0, i], sigma[t, i], k)[0] for i in range(n)) for t in range(3)] for k in range(n)]
    assert worst(F[:-1]) < 1e-10
    assert worst(F[-1]) > 1e-2  # control: one power too many
    split, _, size = network_field((1, n, n, 1))
    theta = torch.cat([layer.flatten() for layer in start])
    balances = torch.func.jacrev(lambda v: torch.cat([D.flatten() for D in dl.imbalance(split(v))]))(theta)
    _, values, right = torch.linalg.svd(balances)
    assert (values > 1e-9).sum() == n * (n + 1) == size - n
    sigmas = torch.func.jacrev(lambda v: torch.linalg.svdvals(split(v)[1]))(theta)
    kernel = right[n * (n + 1):]
    assert torch.linalg.svdvals(sigmas @ kernel.mT)[-1] > 1e-3  # the singular values move freely on it
    density = torch.tensor([[sign[i] * f(sigma[0, i].item(), k) for i in range(n)] for k in range(n - 1)])
    assert torch.linalg.matrix_rank(torch.cat([balances, density @ sigmas])) == size - 1


@pytest.mark.parametrize("d, k, r, bias", [(2, 1, 4, False), (4, 3, 6, False), (2, 1, 5, True), (2, 2, 5, True), (3, 2, 4, True)])
def test_prop_relu_laws(d, k, r, bias):
    """The rank of the gradients, which for single units needs no brackets; d counts the constant input."""
    A, C, b, x = (dl.normal(*shape, generator=generator(d + r)) for shape in ((r, d), (k, r), (k,), (600, d)))
    if bias:
        x = torch.cat([20 * x[:, :-1], torch.ones(600, 1, dtype=torch.float64)], 1)

    def rank(A):
        net = lambda A, C, b, x: C @ torch.relu(A @ x) + bias * b
        parts = torch.func.vmap(torch.func.jacrev(net, (0, 1, 2)), (None, None, None, 0))(A, C, b, x)
        rows = torch.cat([part.flatten(2).flatten(0, 1) for part in parts[:2 + bias]], 1)
        return rows.shape[1] - torch.linalg.matrix_rank(rows, rtol=1e-10).item()

    assert rank(A) == r
    assert (d, k, r, bias) != (2, 2, 5, True) or r * (d + k) + k - rank(A) == 17  # of 22 weights
    assert rank(torch.cat([A[:1], 2 * A[:1], A[2:]])) > r  # control: two in-vectors that are multiples


def test_prop_relu_laws_one_input():
    """One input, no bias: rank of fields and their brackets, for two positive and two negative units."""
    p, q, k = 2, 2, 2
    signs = torch.tensor([1.0] * p + [-1.0] * q, dtype=torch.float64)
    a, C = dl.normal(p + q, generator=generator(1)).abs() * signs, dl.normal(k, p + q, generator=generator(2))
    theta, vectors = torch.cat([a, C.flatten()]), []

    def field(x, g):
        output = lambda v: v[p + q:].view(k, p + q) @ torch.relu(v[:p + q] * x)
        return torch.func.grad(lambda v: (g * output(v)).sum())

    for seed in range(6):
        x = (-1.0) ** seed * (1 + seed)
        X, Y, Z = (field(x, g) for g in dl.normal(3, k, generator=generator(seed)))
        vectors += [V(theta).detach() for V in (X, bracket_of(X, Y), bracket_of(bracket_of(X, Y), Z))]
    singular = torch.linalg.svdvals(torch.stack([V / V.norm() for V in vectors]))
    laws = p * (p + 1) // 2 + q * (q + 1) // 2
    assert (singular > 1e-9).sum() == len(theta) - laws
    assert laws > p + q  # control: more than one a unit


@pytest.mark.parametrize("m, n", [(1, 1), (2, 1), (1, 3)])
def test_prop_momentum_laws(m, n):
    M, rng = m + n, np.random.default_rng(3)
    omega = np.kron([[0, 1], [-1, 0]], np.eye(M, dtype=int))
    for r in range(1, 2 * M + 4):
        psi = rng.integers(-50, 51, (2 * M, r))
        assert exact_rank(psi) == min(r, 2 * M)
        theta, speed = psi[:M], psi[M:]
        W1, W2, V1, V2 = theta[m:].T, theta[:m], speed[m:].T, speed[:m]
        K = V1 @ W1.T - W2.T @ V2
        assert (K - K.T == -psi.T @ omega @ psi).all()
        kept = exact_rank([Z.T @ omega @ psi + psi.T @ omega @ Z for Z in directions(2 * M, r)])
        flow = r * (r + 1) // 2 if r <= M else M * (2 * r - M + 1) // 2
        assert kept == (r * (r - 1) // 2 if r <= 2 * M else 2 * M * r - M * (2 * M + 1))
        if r <= M:
            assert kept == flow - r
        if r > 2 * M:
            assert kept > flow
        if r > 2 * M + 1:
            assert kept < r * (r - 1) // 2  # control: the first line beyond its range


def test_emp_momentum_drift():
    """On a logistic loss: at fixed friction the drift has a limit, at fixed momentum it falls with the step."""
    loss, start, steps = Logistic(n=20, d=4), dl.near_zero_init((4, 3, 1), 0.8, generator(5)), [0.04, 0.02, 0.01]
    still = [torch.zeros_like(W) for W in start]
    drift = lambda W: (dl.imbalance(W)[0] - dl.imbalance(start)[0]).norm().item()
    run = lambda rule, step: drift(dl.train(loss, start, rule, round(6 / step), round(6 / step)).weights)
    flow, _ = dl.flow.heavy_ball(loss, start, still, [6.0], 0.5)
    limit = drift([W[0] for W in flow.weights])
    friction = [run(dl.HeavyBall(step**2, 1 - 0.5 * step), step) for step in steps]
    momentum = [run(dl.HeavyBall(0.2 * step, 0.8), step) for step in steps]
    assert abs(friction[-1] / limit - 1) < 0.05 and limit > 0.05
    assert abs(dl.slope(steps, np.abs(np.array(friction) - limit)) - 1) < 0.25
    assert abs(dl.slope(steps, momentum) - 1) < 0.1
    assert momentum[-1] < 0.5 * limit  # control: the two limits differ
