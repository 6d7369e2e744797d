"""What the exact side takes: numbers of any form, points as arrays, and a precision that it leaves as it was."""

import threading
from fractions import Fraction

import numpy as np
import pytest
import sympy as sp
import torch
from conftest import generator
from flint import ctx, fmpq

import deeplinear as dl


@pytest.mark.parametrize("of", [int, np.int64, np.int32, np.float32, sp.Integer, sp.Rational, Fraction, fmpq])
def test_numbers_come_in_any_exact_form(of):
    a, b, c = sp.symbols("a b c")
    loss, two = dl.Polynomial(a**2 + b**4 + 2 * c, (a, b, c)), of(2)
    for method in ("closed-form", "quadrature", "certified"):
        found = dl.field.line_integral(loss, two, of(1), of(3), method, directions=([of(1), of(0), of(0)], [0, of(1), of(2)]))
        assert float(found) == float(dl.field.line_integral(loss, 2, 1, 3, method, directions=([1, 0, 0], [0, 1, 2])))
    assert str(dl.field.green(loss, two, of(1), of(3))) == str(dl.field.green(loss, 2, 1, 3))
    assert dl.field.is_gradient(loss, two) == dl.field.is_gradient(loss, 2)
    W = torch.tensor([[1.0, -2, 0.5]], dtype=torch.float64)
    assert torch.equal(dl.field.curl(loss, W, two), dl.field.curl(loss, W, 2))
    matrices = dl.LpLoss(dl.normal(6, 3, generator=generator(0)), dl.normal(6, 2, generator=generator(1)), 2)
    found = dl.field.matrix_line_integral(matrices, two, of(1), of(2), sigma=of(1), angle=of(1))
    assert found == dl.field.matrix_line_integral(matrices, 2, 1, 2, sigma=1, angle=1)


def test_arrays_are_points_and_integers_are_named():
    a, b, c = sp.symbols("a b c")
    loss, W = dl.Polynomial(a**2 + b**2 + c**2, (a, b, c)), torch.tensor([[1.0, -2, 0.5]], dtype=torch.float64)
    potential = dl.field.potential(loss, 3)
    for call in (lambda W: dl.field.curl(loss, W, 3), lambda W: dl.field.vector_field(loss, W, 3),
                 lambda W: dl.field.obstruction(loss, W), potential):
        assert torch.equal(call(W.numpy()), call(W)) and torch.equal(call([[1.0, -2, 0.5]]), call(W))
    for call in (lambda W: dl.field.curl(loss, W, 3), lambda W: dl.field.vector_field(loss, W, 3), potential):
        with pytest.raises(ValueError, match="W is torch.int64.*; expected floating-point numbers"):
            call(torch.tensor([[1, -2, 3]]))
    upright = dl.field.potential(dl.LpLoss(torch.ones(1, 1, dtype=torch.float64), torch.zeros(1, 3), 2), 3)
    torch.testing.assert_close(upright(W.mT), potential(W))  # outputs and inputs change places


def test_the_precision_is_left_as_it_was():
    a, b = sp.symbols("a b")
    loss, before = dl.Polynomial(a**2 + b**4 + a, (a, b)), ctx.prec
    expected = {bits: str(dl.field.line_integral(loss, 3, 1, 2, "certified", bits=bits)) for bits in (64, 90, 200, 300)}
    found = {bits: [] for bits in expected}

    def certify(bits):
        for _ in range(5):
            found[bits].append(str(dl.field.line_integral(loss, 3, 1, 2, "certified", bits=bits)))

    threads = [threading.Thread(target=certify, args=(bits,)) for bits in expected]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ctx.prec == before and found == {bits: 5 * [value] for bits, value in expected.items()}
    with pytest.raises(ValueError, match="expected a finite real number"):
        dl.field.line_integral(dl.LpLoss([[1, 2], [3, 4]], [1, 2], 2), 3, 1, 2, directions=([1, 0], [float("nan"), 1]))
    for bits in (1.5, 1, -64, True):
        with pytest.raises(ValueError, match=f"bits is {bits!r}; expected an integer >= 2"):
            dl.field.green(loss, 3, 1, 2, bits=bits)
    assert ctx.prec == before
