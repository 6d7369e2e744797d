"""Conservation laws: the exact counts against formulas and against a float rank by automatic differentiation."""

import time

import numpy as np
import pytest
import torch

import deeplinear as dl
from deeplinear import conservation

TABLE = [  # dims, activation, bias, laws
    ((1, 1, 1), "linear", False, 1), ((2, 2, 2), "linear", False, 3), ((2, 3, 2), "linear", False, 6),
    ((2, 2, 2, 2), "linear", False, 6), ((1, 2, 2, 1), "linear", False, 7), ((2, 2, 2), "linear", True, 3),
    ((1, 3, 2), "relu", False, 3), ((2, 3, 2), "relu", False, 3), ((2, 2, 2), "relu", True, 2), ((1, 4, 1), "relu", False, 4),
    ((3, 2, 4), "relu", False, 2), ((1, 2, 2, 1), "linear", True, 6), ((1, 2, 3, 3, 2, 2, 1, 1), "linear", True, 22),
    ((1, 2, 2, 1, 2), "linear", False, 8), ((2, 1, 3, 3, 1, 2), "linear", False, 16)]  # a piece between two single units


@pytest.mark.parametrize("dims, activation, bias, laws", TABLE)
def test_known_counts_are_certified(dims, activation, bias, laws):
    found = conservation.count_laws(dims, activation, bias)
    assert found.count == laws and found.certified
    assert found.parameters == sum(a * b for a, b in zip(dims, dims[1:])) + bias * sum(dims[1:])


@pytest.mark.parametrize("m", [1, 2, 3])
@pytest.mark.parametrize("n", [1, 2, 4])
def test_two_linear_layers_follow_the_formula(m, n):
    """The rank of the entries of a symmetric r by r matrix that depends on m + n rows."""
    for r in range(1, 60 // (m + n) + 1):
        claim = r * (r + 1) // 2 if r <= m + n else (m + n) * (2 * r - m - n + 1) // 2
        started = time.process_time()
        found = conservation.count_laws((n, r, m))
        assert found.count == claim and found.certified
        assert time.process_time() - started < 1


@pytest.mark.parametrize("seed", range(12))
def test_any_network_of_sixty_parameters_is_quick(seed):
    rng = np.random.default_rng(seed)
    while True:
        dims, bias = tuple(int(n) for n in rng.integers(1, 6, size=rng.integers(3, 9))), bool(rng.integers(2))
        if sum(a * b for a, b in zip(dims, dims[1:])) + bias * sum(dims[1:]) <= 60:
            break
    for activation in ("linear", "relu"):
        started = time.process_time()
        found = conservation.count_laws(dims, activation, bias)
        assert time.process_time() - started < 1, (dims, activation, bias)
        assert found.balances <= found.count and found.certified


def float_fields(dims, masks):
    """The gradient field of a random linear loss of a network with fixed masks, as a function of the weights."""
    shapes = list(zip(dims[1:], dims))

    def output(theta):
        W, used = torch.eye(dims[0], dtype=torch.float64), 0
        for (rows, columns), mask in zip(shapes, [*masks, None]):
            W = theta[used:used + rows * columns].reshape(rows, columns) @ W
            W = W if mask is None else mask[:, None] * W
            used += rows * columns
        return W

    return output


@pytest.mark.parametrize("dims, activation", [
    ((2, 2, 2), "linear"), ((2, 3, 2), "linear"), ((2, 2, 3, 2), "linear"), ((1, 2, 2, 1, 2), "linear"),
    ((2, 3, 2), "relu"), ((2, 2, 2, 2), "relu")])
def test_an_independent_rank_in_floating_point_agrees(dims, activation):
    generator = torch.Generator().manual_seed(1)
    normal = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)
    size = sum(a * b for a, b in zip(dims, dims[1:]))
    theta = normal(size).requires_grad_()

    def field():
        masks = [normal(n) if activation == "relu" else torch.ones(n, dtype=torch.float64) for n in dims[1:-1]]
        output, C = float_fields(dims, masks), normal(dims[-1], dims[0])
        return lambda t: torch.autograd.grad((C * output(t)).sum(), t, create_graph=True)[0]

    def along(X, t, direction):
        return torch.autograd.functional.jvp(X, t, direction, create_graph=True)[1]

    def bracket(X, Y):
        return lambda t: along(Y, t, X(t)) - along(X, t, Y(t))

    vectors = []
    for _ in range(size):
        X, Y, Z = field(), field(), field()
        vectors += [X(theta), bracket(X, Y)(theta), bracket(bracket(X, Y), Z)(theta)]
    singular = torch.linalg.svdvals(torch.stack([(v / v.norm()).detach() for v in vectors]))
    rank = int((singular > 1e-9 * singular[0]).sum())
    found = conservation.count_laws(dims, activation)
    assert size - rank == found.count and found.certified


def test_what_it_cannot_count_is_named():
    with pytest.raises(ValueError, match=r"dims is \(2, 0, 2\)"):
        conservation.count_laws((2, 0, 2))
    with pytest.raises(ValueError, match="activation is 'tanh'; expected 'linear' or 'relu'"):
        conservation.count_laws((2, 2, 2), "tanh")


def test_a_rank_modulo_the_prime():
    rng = np.random.default_rng(0)
    for rows, columns, rank in ((5, 7, 3), (6, 6, 6), (4, 4, 0)):
        factors = [rng.integers(0, conservation.PRIME, shape).astype(object) for shape in ((rows, rank), (rank, columns))]
        A = factors[0] @ factors[1] if rank else np.zeros((rows, columns), dtype=object)
        assert conservation._rank((A % conservation.PRIME).astype(np.int64)) == rank


@pytest.mark.parametrize("activation, bias", [("linear", False), ("linear", True), ("relu", True)])
def test_a_network_too_large_to_count_is_refused_with_its_size(activation, bias):
    size = 784 * 512 + 512 * 10 + bias * (512 + 10)
    with pytest.raises(ValueError, match=rf"dims is \(784, 512, 10\), {size} weights: exact ranks would need 24\d\d GiB; "
                                         "expected at most 32768 weights"):
        conservation.count_laws((784, 512, 10), activation, bias)
    assert conservation.count_laws(np.array([3, 2, 2])) == conservation.count_laws((3, 2, 2))


def test_ranks_are_exact_and_never_too_large_modulo_a_prime():
    matrices = np.array([[[1, 2], [3, 4]], [[2, 4], [6, 8]], [[1, 0], [0, 1]]])
    assert conservation.exact_rank(matrices) == 2 and conservation.exact_rank(matrices, modulo=101) == 2
    assert conservation.exact_rank(matrices[0]) == 2 and conservation.exact_rank(matrices[0], modulo=2) == 1
    assert conservation.exact_rank([torch.tensor([1, 1]), torch.tensor([2, 2])]) == 1


def test_missing_laws_are_kept_along_a_flow_and_nowhere_else():
    loss, times = dl.LpLoss([[1.0]], [5.0], p=4), np.linspace(0, 0.1, 4)
    start = dl.near_zero_init((1, 2, 2, 1), 1.0, dl.seeded(5))
    sigma, c, F = conservation.missing_laws(dl.flow.layers(loss, start, times).weights)
    assert sigma.shape == c.shape == (4, 2) and F.shape == (2, 4)
    assert abs(F[0]).max() < 1e-11 and abs(F[1]).max() > 1e-3
    with pytest.raises(ValueError, match="expected"):
        conservation.missing_laws(dl.flow.layers(loss, dl.near_zero_init((1, 2, 3, 1), 1.0, dl.seeded(5)), times).weights)
