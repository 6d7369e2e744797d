"""The decision whether the field is a gradient, its potential, and what no learning rate cures."""

import pytest
import sympy as sp
import torch
from conftest import generator
from flint import fmpq
from hypothesis import given, settings
from hypothesis import strategies as st

import deeplinear as dl

field = dl.field
w = sp.symbols("w1:4")
quick = settings(max_examples=40)
MATRIX = sp.Matrix(2, 2, sp.symbols("m1:5"))


def random_polynomial(rng, d, degree):
    """Sometimes radial, sometimes linear plus radial, sometimes neither."""
    r2 = sum(x**2 for x in w[:d])
    radial = sum(sp.Rational(rng.randint(-4, 4), 3) * r2**i for i in range(1, degree // 2 + 1))
    kind = rng.randint(0, 3)
    linear = sum(rng.randint(-3, 3) * x for x in w[:d]) if kind >= 1 else 0
    extra = sp.Rational(rng.randint(1, 5), 7) * w[0] ** rng.randint(1, degree) * w[-4 + d] if kind >= 2 else 0
    return dl.Polynomial(radial + linear + extra, w[:d])


@quick
@given(rng=st.randoms(use_true_random=False), d=st.integers(2, 3), degree=st.integers(2, 5), depth=st.integers(1, 5))
def test_the_decision_agrees_with_the_curl(rng, d, degree, depth):
    loss = random_polynomial(rng, d, degree)
    decision = field.is_gradient(loss, depth)
    points = dl.normal(20, 1, d, generator=generator(rng.randint(0, 999)))
    largest = field.curl(loss, points, depth).abs().max()
    assert decision.gradient == bool(largest < 1e-10), decision.reason
    if decision.gradient:  # its potential has the field as its gradient
        h = 1e-6
        Phi = field.potential(loss, depth)
        for j in range(d):
            step = torch.zeros(1, d, dtype=torch.float64)
            step[0, j] = h
            slope = (Phi(points + step) - Phi(points - step)) / (2 * h)
            F = field.vector_field(loss, points, depth)[:, 0, j]
            assert (slope - F).abs().max() < 1e-6 * (1 + F.abs().max())


def test_the_decision_at_the_edges():
    one, plane = dl.Polynomial(w[0] ** 3 - 2 * w[0], w[:1]), w[:2]
    for depth in (1, 2, 3, 7):
        assert field.is_gradient(one, depth).gradient
        x = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None, None]
        Phi = field.potential(one, depth)
        slope = (Phi(x + 1e-6) - Phi(x - 1e-6)) / 2e-6
        assert (slope - field.vector_field(one, x, depth)[:, 0, 0]).abs().max() < 1e-5  # |w| w at 0
    assert field.is_gradient(dl.Polynomial(sp.Integer(3), plane), 5).gradient
    assert field.is_gradient(dl.Polynomial(w[0] + w[1], plane), fmpq(3, 2)).gradient is False
    assert field.is_gradient(dl.LpLoss([[3.0, 1.0], [-1.0, 3.0]], [1.0, 2.0], 2), 2).gradient  # X^T X = 10 I
    assert not field.is_gradient(dl.LpLoss([[3.0, 1.0], [-1.0, 2.0]], [1.0, 2.0], 2), 2).gradient
    data = dl.data.load("diabetes")
    assert field.is_gradient(dl.LpLoss(data.X, data.y, 4), 2).gradient is False
    matrix = sp.Matrix(2, 2, sp.symbols("m1:5"))
    assert field.is_gradient(dl.Polynomial(matrix[0, 1], matrix), 2).gradient is False
    assert field.is_gradient(dl.Polynomial(matrix[0, 1], matrix), 1).gradient is True
    with pytest.raises(ValueError, match=r"no potential: the part of degree 2 is not a multiple of tr \(W W\^T\)"):
        field.potential(dl.Polynomial(matrix[0, 1] ** 2, matrix), 2)
    column = dl.Polynomial(w[0] - w[1], sp.Matrix(w[:2]))
    assert field.is_gradient(column, 2).gradient and not field.is_gradient(column, 3).gradient
    assert abs(field.line_integral(column, 3, 0.5, 1, "quadrature") - field.line_integral(column, 3, 0.5, 1)) < 1e-12


def difference(Phi, at, h=1e-6):
    """The gradient of a function by central differences, shape (n, k, d)."""
    steps = h * torch.eye(at[0].numel(), dtype=torch.float64).reshape(-1, *at.shape[1:])
    return torch.stack([(Phi(at + step) - Phi(at - step)) / (2 * h) for step in steps], -1).reshape(at.shape)


@pytest.mark.parametrize("depth, free", [(fmpq(1, 2), 4), (fmpq(2, 3), 3), (fmpq(2, 5), 5), (0.3, None), (fmpq(1, 7), 14)])
def test_a_depth_below_one(depth, free):
    """Closed form, quadrature, balls and Green agree; the part of degree 2/N is free, no other; r^0 becomes a logarithm."""
    square, at = sum(x**2 for x in w), dl.normal(20, 1, 3, generator=generator(0))
    for degree in (1, 3, 4, 5):
        loss = dl.Polynomial(square + 3 * square**2 + w[0] ** degree - w[1] * w[0] ** (degree - 1), w)
        decision, turn = field.is_gradient(loss, depth), field.curl(loss, at, depth).abs().max()
        assert decision.gradient == (degree == free) == bool(turn < 1e-11)
        curve = (loss, depth, 0.5, 1)
        directions = ([1, 2, 0], [0, 1, 1])
        closed, ball = field.line_integral(*curve, directions=directions), field.line_integral(*curve, "certified", directions)
        assert abs(field.line_integral(*curve, "quadrature", directions) - closed) < 1e-12 * (1 + abs(closed))
        assert abs(float(ball) - closed) < 1e-13 * (1 + abs(closed)) and ball.overlaps(field.green(*curve, directions))
        assert ball.decided != decision.gradient
    for loss in (dl.Polynomial(square + square**2 + (w[0] ** free if free in (3, 4, 5) else 0), w),
                 dl.Polynomial(w[0] ** 3 - 2 * w[0] + w[0] ** 2, w[:1])):
        x = at[..., :loss.shape[1]]
        F = field.vector_field(loss, x, depth)
        assert ((difference(field.potential(loss, depth), x) - F).abs() < 1e-5 * (1 + F.abs())).all()


@pytest.mark.parametrize("k, d", [(2, 2), (2, 3), (3, 2)])
@pytest.mark.parametrize("depth", [2, 3, 5])
def test_the_decision_for_matrices_agrees_with_the_curl(k, d, depth):
    matrix = sp.Matrix(k, d, sp.symbols(f"m1:{k * d + 1}"))
    square, at = matrix * matrix.T, dl.normal(6, k, d, generator=generator(k + d))
    minor = matrix[0, 0] * matrix[1, 1] - matrix[0, 1] * matrix[1, 0]
    for expression, gradient in ((square.trace() - 2 * (square**2).trace(), True), (square.trace() ** 2, False),
                                 (minor, False), (square.trace() + matrix[0, 1] ** 3, False), (sp.Integer(3), True)):
        loss = dl.Polynomial(sp.expand(expression), matrix)
        decision, turn = field.is_gradient(loss, depth), field.curl(loss, at, depth).abs().amax((1, 2))
        assert decision.gradient == gradient, decision.reason
        assert (turn < 1e-10).all() if gradient else (turn > 1e-3).any()
        if gradient:
            F = field.vector_field(loss, at, depth)
            assert (difference(decision.potential, at) - F).abs().max() < 1e-5 * (1 + F.abs().max())


def test_the_obstruction_and_what_it_refuses():
    loss = dl.Polynomial(w[0] ** 2 + 2 * w[1] ** 2 + 3 * w[2] ** 2 - 2 * sum(w), w)
    at = torch.tensor([[[1.0, 2.0, 5.0]]], dtype=torch.float64)
    g, Hw, r = torch.tensor([0.0, 6.0, 28.0]), torch.tensor([2.0, 8.0, 30.0]), 30**0.5
    volume = torch.linalg.det(torch.stack([at[0, 0], g.double(), Hw.double()])) / r**2
    assert abs(field.obstruction(loss, at)[0] - volume.abs()) < 1e-12
    with pytest.raises(ValueError, match="expected one output"):
        field.obstruction(dl.Polynomial(MATRIX[0], MATRIX), torch.ones(2, 2).double())
    with pytest.raises(ValueError, match="W is 0"):
        field.obstruction(loss, 0 * at)
