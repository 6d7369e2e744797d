r"""Polynomial losses as exact polynomials: their restriction to a few directions, in rationals or in balls.

A float is the rational number it stands for. Everything a certificate needs to know of a loss passes through
:func:`restrict`: a loss on a plane is a polynomial in two variables, however many examples and features it has.
"""

import contextlib
import itertools
import math
import numbers
import threading
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any

import sympy as sp
import torch
from flint import ctx, fmpq

from .annotations import Number, Shaped
from .losses import LpLoss, Polynomial

Terms = dict[tuple[int, ...], Any]  # a polynomial: exponents to coefficient


def restrict(loss: LpLoss | Polynomial, axes: Sequence[Sequence[Any]]) -> Terms:
    """The loss on the span of ``axes`` as a polynomial in the coordinates: ``{exponents: coefficient}``.

    ``axes``: lists of kd numbers, ``arb`` or ``fmpq``; the coefficients are of their type.
    """
    zero = axes[0][0] * 0
    if isinstance(loss, Polynomial):
        total: Terms = {}
        for exponents, coefficient in loss.terms.items():
            product = {(0,) * len(axes): zero + fmpq(*coefficient.as_integer_ratio())}
            for i, exponent in enumerate(exponents):
                for _ in range(exponent):
                    product = _times_linear(product, [axis[i] for axis in axes])
            for key, value in product.items():
                total[key] = total.get(key, zero) + value
        return {key: total.get(key, zero) for key in _exponents(len(axes), loss.degree)}
    X, Y, d = _numbers(loss.X), _numbers(loss.Yt), loss.shape[1]
    total = {key: zero for key in _exponents(len(axes), loss.p)}
    axes = [[(j, a) for j, a in enumerate(axis) if not a == 0] for axis in axes]
    for example, labels in zip(X, zip(*Y)):
        row = [zero + x for x in example]
        for output, y in enumerate(labels):
            bases = [sum((row[j % d] * a for j, a in axis if j // d == output), start=zero) for axis in axes]
            powers = [_powers(base, loss.p) for base in (*bases, zero - y)]
            for key in total:
                term = powers[-1][loss.p - sum(key)]
                for power, exponent in zip(powers, key):
                    term = term * power[exponent]
                total[key] = total[key] + term
    count = math.factorial(loss.p)
    return {key: value * (_factor(loss) * (count // math.prod(math.factorial(e) for e in (*key, loss.p - sum(key)))))
            for key, value in total.items()}


def part(loss: LpLoss | Polynomial, degree: int, v: Sequence[int]) -> fmpq:
    """The homogeneous part of this degree at the integer vector ``v``, an exact rational."""
    return restrict(loss, [[fmpq(x) for x in v]])[(degree,)]


def gradient_at_zero(loss: Shaped) -> list[fmpq]:
    """``grad L(0)``, kd exact rationals."""
    size = loss.shape[0] * loss.shape[1]
    if isinstance(loss, Polynomial):
        units = [tuple(int(i == j) for j in range(size)) for i in range(size)]
        return [fmpq(*loss.terms.get(unit, Fraction(0)).as_integer_ratio()) for unit in units]
    if isinstance(loss, LpLoss):
        columns, p = list(zip(*_numbers(loss.X))), loss.p
        slopes = [[p * _factor(loss) * (-y) ** (p - 1) for y in output] for output in _numbers(loss.Yt)]
        return [inner(output, column) for output in slopes for column in columns]
    zero = torch.zeros(loss.shape, dtype=torch.float64)  # any loss with a gradient: as exact as its float64 value
    return [number(x, "grad L(0)") for x in loss.gradient(zero).flatten().tolist()]


def degree(loss: LpLoss | Polynomial) -> int:
    """The degree of the loss as a polynomial."""
    return loss.p if isinstance(loss, LpLoss) else loss.degree


def to_sympy(loss: LpLoss | Polynomial, w: Sequence[sp.Symbol]) -> sp.Expr:
    """The loss as a SymPy expression in the symbols ``w``, one for each entry row by row, with rational coefficients."""
    if isinstance(loss, Polynomial):
        return sum(sp.Rational(c) * sp.prod(x**e for x, e in zip(w, exponents)) for exponents, c in loss.terms.items())
    k, d = loss.shape
    X, Y = _numbers(loss.X), _numbers(loss.Yt)
    rows = ((sum(rational(x) * s for x, s in zip(row, w[a * d:(a + 1) * d])) - rational(Y[a][i]))**loss.p
            for i, row in enumerate(X) for a in range(k))
    return rational(_factor(loss)) * sum(rows)


def number(x: Number, name: str) -> fmpq:
    """``x`` as an ``fmpq``; raises ``ValueError`` that calls it ``name`` unless it is a finite float or a rational."""
    if isinstance(x, fmpq):
        return x
    if isinstance(x, torch.Tensor) and x.ndim == 0:
        x = x.item()
    if isinstance(x, numbers.Rational):  # of Python, NumPy or SymPy, and not every one gives its integer ratio
        return fmpq(int(x.numerator), int(x.denominator))
    if isinstance(x, numbers.Real) and math.isfinite(x):
        return fmpq(*x.as_integer_ratio())  # type: ignore[attr-defined]  # every Real that occurs has it
    raise ValueError(f"{name} is {x!r}; expected a finite real number, float or rational")


def rational(x: fmpq) -> sp.Rational:
    """An ``fmpq`` as a SymPy rational."""
    return sp.Rational(int(x.p), int(x.q))


def inner(u: Sequence[fmpq], v: Sequence[fmpq]) -> fmpq:
    """The inner product of two lists of rationals."""
    return sum((a * b for a, b in zip(u, v)), start=fmpq(0))


def differentiate(P: Terms, i: int) -> Terms:
    """The derivative of a polynomial ``{exponents: coefficient}`` by its variable i."""
    return {(*key[:i], key[i] - 1, *key[i + 1:]): key[i] * value for key, value in P.items() if key[i]}


def at(P: Terms, *point: Any) -> Any:
    """The value of a polynomial ``{exponents: coefficient}`` at a point, of numbers of any type."""
    if not P:
        return point[0] * 0
    highest = max(max(key) for key in P)
    powers = [_powers(x, highest) for x in point]
    total = point[0] * 0
    for key, coefficient in P.items():
        term = coefficient
        for power, exponent in zip(powers, key):
            term = power[exponent] * term if exponent else term
        total = total + term
    return total


@contextlib.contextmanager
def precision(bits: int) -> Iterator[None]:
    """Reckon in balls of this many bits, and leave the precision as it was: flint has one for all threads of a process."""
    if isinstance(bits, bool) or not isinstance(bits, numbers.Integral) or bits < 2:
        raise ValueError(f"bits is {bits!r}; expected an integer >= 2")
    with _ONE_AT_A_TIME, ctx.workprec(int(bits)):
        yield


_ONE_AT_A_TIME = threading.RLock()


def _factor(loss):
    return number(loss.scale, "scale") / (len(loss.X) if loss.reduction == "mean" else 1)


def _numbers(array):
    return [[number(x, "an entry") for x in row] for row in array.tolist()]


def _exponents(count, degree):
    return [key for key in itertools.product(range(degree + 1), repeat=count) if sum(key) <= degree]


def _powers(x, highest):
    powers = [x * 0 + 1]
    for _ in range(highest):
        powers.append(powers[-1] * x)
    return powers


def _times_linear(polynomial, slopes):
    product = {}
    for key, value in polynomial.items():
        for i, slope in enumerate(slopes):
            raised = (*key[:i], key[i] + 1, *key[i + 1:])
            product[raised] = product.get(raised, 0) + value * slope
    return product
