"""The field: curl, closed integrals by three methods and Green, and what is refused."""

import itertools
import time

import pytest
import sympy as sp
import torch
from conftest import generator
from flint import arb, fmpq

import deeplinear as dl

field = dl.field
w = sp.symbols("w1:4")


def regression(d, p, seed, n=6, k=1):
    return dl.LpLoss(dl.normal(n, d, generator=generator(seed)), dl.normal(n, k, generator=generator(seed + 1)), p)


class Softplus:
    """No polynomial, for what takes any loss."""

    shape = (1, 2)

    def gradient(self, W):
        return torch.sigmoid(W) - torch.tensor([[0.2, 0.9]], dtype=torch.float64)


def antisymmetric_difference(loss, W, depth, h=1e-6):
    """The curl by central differences."""
    J = torch.zeros(W.numel(), W.numel(), dtype=torch.float64)
    for j in range(W.numel()):
        step = torch.zeros_like(W).flatten()
        step[j] = h
        step = step.reshape(W.shape)
        J[:, j] = (field.vector_field(loss, W + step, depth) - field.vector_field(loss, W - step, depth)).flatten()
    return (J - J.T) / (2 * h)


# twenty losses of varied data: p 2, 4, 6, two to five features, four kinds of data, depth 2 to 8
LOSSES = [(d, p, seed) for d, p, seed in itertools.product((2, 3, 5), (2, 4, 6), (0, 1))] + [(10, 4, 2), (4, 6, 3)]


@pytest.mark.parametrize("d, p, seed", LOSSES)
def test_the_three_methods_and_green_agree(d, p, seed):
    loss = regression(d, p, seed)
    for depth in ((2, 3, 5, 8), (4, 6, 7, fmpq(5, 2)))[seed % 2]:
        for directions in (None, (dl.normal(d, generator=generator(7)), dl.normal(d, generator=generator(8)))):
            arguments = (loss, depth, 0.3, 0.9)
            closed = field.line_integral(*arguments, directions=directions)
            by_quadrature = field.line_integral(*arguments, "quadrature", directions)
            certified = field.line_integral(*arguments, "certified", directions, bits=128)
            scale = 1 + abs(closed)
            assert abs(closed - by_quadrature) < 1e-10 * scale
            assert certified.rad() < 1e-25 * scale and abs(float(certified) - closed) < 1e-14 * scale
            assert certified.overlaps(field.green(*arguments, directions))
            if p > 2 or depth != 2:
                assert certified.decided


def test_a_certificate_takes_a_fifth_of_a_second_and_green_less_than_ten():
    data = dl.data.load("diabetes")
    for p in (2, 4, 6):
        loss = dl.LpLoss(data.X, data.y + 0.5, p)
        for run, limit in ((lambda loss=loss: field.line_integral(loss, 3, 0.25, 1, "certified"), 0.2),
                           (lambda loss=loss: field.green(loss, 3, 0.25, 1), 10)):
            times = []
            for _ in range(5):
                start = time.process_time()
                run()
                times.append(time.process_time() - start)
            assert min(times) < limit


def test_a_known_value():
    """Four points, p = 4: the odd part of the loss along the curve, integrated by SymPy."""
    X = dl.checks.rational([[4, 2], [-2, 4], [3, -1], [1, 1]], 4)
    y = dl.checks.rational([6, 3, -2, 12], 6)
    loss = dl.LpLoss(X, y, 4, reduction="sum")
    found = field.line_integral(loss, 3, fmpq(1, 4), 1, "certified", bits=200)
    (x, z), s = sp.symbols("x z", real=True), sp.Symbol("s", positive=True)
    rows = [(1, sp.Rational(1, 2), 1), (-sp.Rational(1, 2), 1, sp.Rational(1, 2)),
            (sp.Rational(3, 4), -sp.Rational(1, 4), -sp.Rational(1, 3)), (sp.Rational(1, 4), sp.Rational(1, 4), 2)]
    L = sum((a * x + b * z - c) ** 4 for a, b, c in rows)
    g = [L.diff(v).subs({x: 0, z: 0}) for v in (x, z)]
    e = [c / sp.sqrt(g[0] ** 2 + g[1] ** 2) for c in g]
    D = sp.expand(L.subs({x: s * e[0], z: s * e[1]}) - L.subs({x: -s * e[0], z: -s * e[1]}))
    exponent = sp.Rational(4, 3)
    value = 2 * sp.integrate(sp.expand(s**exponent * (D.diff(s) - sp.Rational(2, 3) * D / s)), (s, sp.Rational(1, 4), 1))
    assert found.overlaps(arb(str(sp.N(value, 40)))) and found.rad() < 1e-50


def test_the_field_in_symbols_is_the_field_in_numbers():
    L, at, real = w[0] ** 3 - 2 * w[1] * w[2] + w[2], dl.normal(1, 3, generator=generator(4)), sp.symbols("w1:4", real=True)
    L = L.subs(dict(zip(w, real)))
    for depth in (1, sp.Rational(5, 2), 3):
        values = field.expression(L, real, depth).subs(dict(zip(real, at[0].tolist()))).evalf()
        F = field.vector_field(dl.Polynomial(L, real), at, float(depth))[0]
        assert torch.allclose(F, F.new_tensor([float(value) for value in values]), rtol=1e-12)


@pytest.mark.parametrize("p", [2, 4])
def test_the_gradient_varies_by_no_more_than_its_bound(p):
    loss, R = regression(3, p, seed=5), 0.7
    ball = dl.normal(2000, 1, 3, generator=generator(6))
    ball = R * ball / ball.norm(dim=-1, keepdim=True) * torch.linspace(0, 1, 2000).double()[:, None, None]
    moved = (loss.gradient(ball) - loss.gradient(ball[:1] * 0)).norm(dim=-1).max()
    bound = field.gradient_variation(loss, R)
    assert 0.5 * bound * (p == 2) < moved <= bound
    with pytest.raises(ValueError, match="one output"):
        field.gradient_variation(regression(3, p, seed=5, k=2), R)


def test_symbolic_agrees_with_the_three_methods():
    derivation = field.symbolic()
    loss = dl.Polynomial(3 * w[0] - 4 * w[1], w[:2])
    for depth in (1, 2, 3, 8):
        for total in (derivation.total, field.symbolic(depth).total):
            value = total.subs({"N": depth, "r": sp.Rational(1, 2), "R": 1, "kappa": 5})
            value = value.subs({symbol: {"N": depth, "r": 0.5, "R": 1, "kappa": 5}[symbol.name]
                                for symbol in value.free_symbols})
            assert abs(float(value) - field.line_integral(loss, depth, 0.5, 1, "quadrature")) < 1e-10
    assert len(derivation.pieces) == 4


@pytest.mark.parametrize("k, d", [(1, 2), (1, 5), (4, 1), (2, 2), (3, 2), (2, 4), (3, 3)])
@pytest.mark.parametrize("depth", [1, 2, 3, 6])
def test_curl_is_the_derivative_of_the_field(k, d, depth):
    loss = regression(d, 4, 5, k=k)
    W = dl.normal(k, d, generator=generator(3))
    found = field.curl(loss, W, depth)
    assert (found == -found.mT).all()
    assert (found - antisymmetric_difference(loss, W, depth)).abs().max() < 1e-7 * (1 + found.abs().max())
    batch = field.curl(loss, torch.stack([W, 2 * W]), depth)
    assert (batch[0] - found).abs().max() < 1e-12 * (1 + found.abs().max())


def test_curl_where_singular_values_meet():
    loss = regression(3, 4, 1, k=3)
    Q = torch.linalg.qr(dl.normal(3, 3, generator=generator(2))).Q
    for values in ((1.0, 1.0, 1.0), (2.0, 2.0, 0.5), (1.0, 1 + 1e-9, 3.0)):
        W = Q @ torch.diag(torch.tensor(values, dtype=torch.float64))
        found = field.curl(loss, W, 3)
        assert (found - antisymmetric_difference(loss, W, 3)).abs().max() < 1e-6 * (1 + found.abs().max())


def test_curl_of_a_single_output_as_a_matrix():
    """The formula for one output and the derivative of matrix powers are one: two columns, the second one idle."""
    loss = regression(3, 4, 4)
    W = dl.normal(1, 3, generator=generator(6))
    general = field.derivatives._derivative(W, loss.gradient(W), torch.eye(3).double()[:, None], loss.hessian_product(
        W.expand(3, 1, 3), torch.eye(3).double()[:, None]), 4)[:, 0].mT
    assert (field.curl(loss, W, 4) - (general - general.mT)).abs().max() < 1e-12


@pytest.mark.parametrize("depth", [2, 3, 5])
@pytest.mark.parametrize("k, d", [(2, 2), (3, 2), (2, 5)])
def test_matrix_integrals_agree(depth, k, d):
    loss = regression(d, 4, 3, k=k)
    arguments = (loss, depth, 0.3, 1.2, 0.4, 0.7)
    closed = field.matrix_line_integral(*arguments)
    certified = field.matrix_line_integral(*arguments, "certified", bits=100)
    assert abs(closed - field.matrix_line_integral(*arguments, "quadrature")) < 1e-9 * (1 + abs(closed))
    assert abs(float(certified) - closed) < 1e-13 * (1 + abs(closed)) and certified.decided


def test_depth_one_is_a_gradient_for_matrices_too():
    loss = regression(3, 4, 3, k=2)
    for method in ("closed-form", "quadrature", "certified"):
        assert abs(float(field.matrix_line_integral(loss, 1, 0.3, 1.2, 0.4, 0.7, method))) < 1e-9


def test_undecided_is_said():
    whitened = dl.Polynomial((w[0] ** 2 + w[1] ** 2) / 2 - w[0], w[:2])
    found = field.line_integral(whitened, 2, 0.5, 1, "certified")
    assert not found.decided and str(found).endswith("(undecided at this precision)") and "zero" not in str(found)
    coarse = field.line_integral(dl.Polynomial(w[0] + 1e-12 * w[0] ** 3, w[:2]), 2, 0.5, 1, "certified", bits=30)
    fine = field.line_integral(dl.Polynomial(w[0] + 1e-12 * w[0] ** 3, w[:2]), 2, 0.5, 1, "certified", bits=90)
    assert not coarse.decided and fine.decided and coarse.overlaps(fine)
    assert isinstance(found, arb) and repr(fine) == str(fine)


def test_quadrature_takes_any_loss():
    loss = Softplus()
    value = field.line_integral(loss, 3, 0.2, 0.8, "quadrature")
    finer = field.line_integral(loss, 3, 0.2, 0.5, "quadrature") + field.line_integral(loss, 3, 0.5, 0.8, "quadrature")
    assert abs(value - finer) < 1e-11 and abs(value) > 1e-3
    assert abs(field.line_integral(loss, 1, 0.2, 0.8, "quadrature")) < 1e-12


LINEAR = dl.Polynomial(w[0] + 2 * w[1], w[:2])
MATRIX = sp.Matrix(2, 2, sp.symbols("m1:5"))


@pytest.mark.parametrize("call, message", [
    (lambda: field.line_integral(LINEAR, 3, 1, 0.5), "r is 1, R is 1/2; expected 0 < r < R"),
    (lambda: field.line_integral(LINEAR, 3, 1, 1), "r is 1, R is 1"),
    (lambda: field.line_integral(LINEAR, 3, 0, 1), "r is 0"),
    (lambda: field.green(LINEAR, 3, -1, 1), "r is -1"),
    (lambda: field.line_integral(LINEAR, 3, float("nan"), 1), "r is nan"),
    (lambda: field.line_integral(LINEAR, 0, 0.5, 1), "depth is 0; expected a number > 0"),
    (lambda: field.line_integral(LINEAR, -0.5, 0.5, 1), "depth is -0.5; expected a number > 0"),
    (lambda: field.vector_field(LINEAR, torch.zeros(1, 2).double(), 0.5), "W is 0 and depth is 0.5; expected W != 0"),
    (lambda: field.is_gradient(dl.Polynomial(MATRIX[0], MATRIX), 0.5), "depth is 0.5; expected an integer >= 1"),
    (lambda: field.is_gradient(LINEAR, True), "depth is True"),
    (lambda: field.curl(LINEAR, torch.ones(1, 2).double(), -2), "depth is -2"),
    (lambda: field.curl(LINEAR, torch.zeros(1, 2).double(), 3), "rank deficient"),
    (lambda: field.line_integral(dl.Polynomial(w[0] ** 2, w[:2]), 3, 0.5, 1), r"grad L\(0\) is 0"),
    (lambda: field.line_integral(dl.Polynomial(w[0], w[:1]), 3, 0.5, 1), "d is 1"),
    (lambda: field.line_integral(dl.Polynomial(MATRIX[0], MATRIX), 3, 0.5, 1), "matrix_line_integral"),
    (lambda: field.matrix_line_integral(LINEAR, 3, 0.5, 1), "at least 2 outputs"),
    (lambda: field.matrix_line_integral(dl.Polynomial(MATRIX[0], MATRIX), 2.5, 0.5, 1), "expected an integer"),
    (lambda: field.matrix_line_integral(dl.Polynomial(MATRIX[0], MATRIX), 2, 0.5, 1, sigma=0), "sigma is 0"),
    (lambda: field.line_integral(LINEAR, 3, 0.5, 1, "simpson"), "method is 'simpson'"),
    (lambda: field.line_integral(Softplus(), 3, 0.5, 1, "certified"), "expected LpLoss or Polynomial"),
    (lambda: field.line_integral(LINEAR, 3, 0.5, 1, directions=([1, 0], [2, 0])), "two different directions"),
    (lambda: field.line_integral(LINEAR, 3, 0.5, 1, directions=([1, 0], [0, 0])), "two non-zero vectors of 2"),
    (lambda: field.line_integral(LINEAR, 3, 0.5, 1, directions=([1, 0, 0], [0, 1, 0])), "vectors of 2 numbers"),
    (lambda: dl.LpLoss([[1.0]], [1.0], 3), "p is 3; expected an even integer"),
    (lambda: field.potential(LINEAR, 3), "F has no potential: the part of degree 1 is not 0"),
    (lambda: dl.Polynomial(sp.sqrt(w[0]), w[:2]), "expected a polynomial"),
    (lambda: dl.Polynomial(w[2] * w[0], w[:2]), "expected a polynomial"),
], ids=range(27))
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_polynomial_is_a_loss():
    matrix = sp.Matrix(2, 3, sp.symbols("m1:7"))
    loss = dl.Polynomial(matrix[0] ** 3 * matrix[5] - 0.5 * matrix[1] * matrix[2] + 2, matrix)
    W, V = (dl.normal(4, 2, 3, generator=generator(seed)) for seed in (0, 1))
    W.requires_grad_()
    value, gradient = loss.value_and_gradient(W)
    assert value.shape == (4,) and gradient.shape == (4, 2, 3)
    automatic, = torch.autograd.grad(value.sum(), W, create_graph=True)
    assert (automatic - gradient).abs().max() < 1e-13
    second, = torch.autograd.grad((gradient * V).sum(), W)
    assert (second - loss.hessian_product(W.detach(), V)).abs().max() < 1e-12
    with pytest.raises(ValueError, match=r"W has shape \(2, 2\)"):
        loss.value(torch.ones(2, 2).double())
