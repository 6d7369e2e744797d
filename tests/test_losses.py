import functools
from fractions import Fraction

import numpy as np
import pytest
import sympy
import torch
from conftest import generator

import deeplinear as dl


class Frame(dict):
    """As much of a data frame as is asked for: names, and a column for each."""

    columns = property(list)


def problem(n=7, d=4, k=2, p=4, seed=0, **options):
    X = torch.randn(n, d, generator=generator(seed), dtype=torch.float64)
    y = torch.randn(n, k, generator=generator(seed + 1), dtype=torch.float64)
    return dl.LpLoss(X, y, p, **options)


@pytest.mark.parametrize("p", [2, 4, 6])
@pytest.mark.parametrize("reduction, scale", [("mean", 1), ("sum", 0.25)])
def test_value_is_the_definition(p, reduction, scale):
    loss = problem(p=p, reduction=reduction, scale=scale)
    W = torch.randn(2, 4, generator=generator(5), dtype=torch.float64)
    by_hand = sum((sum(W[a] * x) - y[a]) ** p for x, y in zip(loss.X, loss.Yt.mT) for a in range(2)) * scale
    assert loss.value(W).shape == ()
    torch.testing.assert_close(loss.value(W), by_hand / (7 if reduction == "mean" else 1))


@pytest.mark.parametrize("p", [2, 4, 6])
@pytest.mark.parametrize("batch", [(), (3,), (2, 3)])
def test_derivatives_against_autograd(p, batch):
    loss = problem(p=p)
    W, V = (torch.randn(*batch, 2, 4, generator=generator(s), dtype=torch.float64) for s in (1, 2))
    value, gradient = loss.value_and_gradient(W)
    assert value.shape == batch
    torch.testing.assert_close(value, loss.value(W))
    torch.testing.assert_close(gradient, torch.func.grad(lambda W: loss.value(W).sum())(W))
    torch.testing.assert_close(loss.gradient(W), gradient)
    along_V = torch.func.grad(lambda W: (loss.gradient(W) * V).sum())(W)  # the Hessian is symmetric
    torch.testing.assert_close(loss.hessian_product(W, V), along_V)


def test_one_output_may_be_a_vector():
    loss = dl.LpLoss([[1, 2], [3, 4]], [1, 2], 2)
    assert loss.shape == (1, 2) and loss.gradient(torch.zeros(1, 2, dtype=torch.float64)).shape == (1, 2)


def test_exact_entries_stay_exact():
    X = np.array([[Fraction(1, 3), Fraction(2)], [Fraction(-1, 2), Fraction(1, 7)]], dtype=object)
    y = np.array([Fraction(1), Fraction(2, 3)], dtype=object)
    W = np.array([[Fraction(1, 5), Fraction(-3)]], dtype=object)
    r = [sum(w * x for w, x in zip(W[0], row)) - t for row, t in zip(X, y)]
    loss = dl.LpLoss(X, y, 4)
    assert loss.value(W) == sum(a**4 for a in r) / 2 and isinstance(loss.value(W), Fraction)
    assert loss.gradient(W)[0, 1] == 4 * sum(a**3 * row[1] for a, row in zip(r, X)) / 2


@pytest.mark.parametrize("scale", [Fraction(1, 3), sympy.Rational(1, 3), np.float64(1 / 3)])
def test_a_scale_may_be_exact(scale):
    W = torch.ones(2, 4, dtype=torch.float64)
    assert torch.equal(problem(scale=scale).value(W), problem(scale=1 / 3).value(W))
    assert torch.equal(problem(scale=scale).gradient(W), problem(scale=1 / 3).gradient(W))


def test_rows_of_a_mean_average_to_the_mean():
    loss = problem(n=6)
    W = torch.randn(2, 4, generator=generator(3), dtype=torch.float64)
    halves = [loss.rows(torch.arange(a, a + 3)).gradient(W) for a in (0, 3)]
    torch.testing.assert_close(sum(halves) / 2, loss.gradient(W))


@pytest.mark.parametrize("p", [2, 4])
def test_minimiser(p, diabetes):
    loss = dl.LpLoss(diabetes.X, diabetes.y, p)
    W = dl.losses.minimiser(loss)
    assert loss.gradient(W).abs().max() < 1e-7
    if p == 2:
        torch.testing.assert_close(W[0], torch.linalg.lstsq(diabetes.X, diabetes.y).solution)


def test_minimiser_of_fewer_rows_than_columns_is_the_minimum_norm_one():
    loss = problem(n=3, d=5, k=2, p=2)
    torch.testing.assert_close(dl.losses.minimiser(loss), (torch.linalg.pinv(loss.X) @ loss.Yt.mT).mT)


@pytest.mark.parametrize("p", [2, 4, 6])
@pytest.mark.parametrize("units", [[1, 1, 1e-8], [1, 1000, 1], [1e-150, 1, 1e150]])
def test_the_minimiser_does_not_hang_on_the_units_of_a_column(p, units):
    Z, noise = dl.normal(50, 3, generator=generator(0)), dl.normal(50, generator=generator(1))
    X, labels = Z * torch.tensor(units, dtype=torch.float64), Z.sum(1)
    exact = dl.LpLoss(X, labels, p)
    assert exact.value(dl.losses.minimiser(exact)) < 1e-28
    noisy, plain = dl.LpLoss(X, labels + noise, p), dl.LpLoss(Z, labels + noise, p)
    least = plain.value(dl.losses.minimiser(plain))
    torch.testing.assert_close(noisy.value(dl.losses.minimiser(noisy)), least, rtol=1e-12, atol=0)


@pytest.mark.parametrize("p", [2, 4])
def test_the_minimiser_of_a_year_and_its_square(p):
    """Columns of condition 1e9 once each is scaled: normal equations have no digit left."""
    year = torch.arange(1959, 2010, dtype=torch.float64)
    centred = (year - 1984) / 25
    raw, fine = (dl.LpLoss(torch.stack([t**0, t, t**2], 1), torch.sin(5 * centred), p) for t in (year, centred))
    least = fine.value(dl.losses.minimiser(fine))
    torch.testing.assert_close(raw.value(dl.losses.minimiser(raw)), least, rtol=1e-8, atol=0)


@pytest.mark.parametrize("p", [2, 4])
def test_the_minimiser_of_dependent_columns_is_the_shortest(p):
    Z, y = dl.normal(20, 3, generator=generator(0)), dl.normal(20, generator=generator(1))
    W = dl.losses.minimiser(dl.LpLoss(torch.cat([Z, 3 * Z[:, :1]], 1), y, p))
    alone = dl.losses.minimiser(dl.LpLoss(Z, y, p))
    torch.testing.assert_close(W[0, 3] * 3 + W[0, 0], alone[0, 0])
    torch.testing.assert_close(W[0, 3], 3 * W[0, 0])  # in the direction of (1, 3), so the shortest
    nothing = dl.LpLoss(torch.zeros(3, 2, dtype=torch.float64), torch.ones(3), p)
    assert (dl.losses.minimiser(nothing) == 0).all()


def test_a_minimiser_that_rounding_hides_is_an_error():
    a, b = (dl.normal(50, generator=generator(s)) for s in (0, 1))
    loss = dl.LpLoss(torch.stack([a, a + 1e-11 * b], 1), b, 2)  # met by weights of 1e11 that float64 does not add up
    with pytest.raises(RuntimeError, match="rounding hides the minimiser of these data"):
        dl.losses.minimiser(loss)
    with pytest.raises(ValueError, match="expected an LpLoss of floating-point data"):
        dl.losses.minimiser(dl.LpLoss(np.array([[Fraction(1)]], dtype=object), np.array([Fraction(1)], dtype=object), 2))


@pytest.mark.parametrize("arguments, message", [
    (dict(X=torch.ones(3), y=torch.ones(3), p=2), r"X has shape \(3,\); expected \(n, d\)"),
    (dict(X=torch.ones(3, 2), y=torch.ones(4), p=2), r"y has shape \(4,\); expected \(3,\) or \(3, k\)"),
    (dict(X=torch.ones(3, 2), y=torch.ones(3, 0), p=2), r"y has shape \(3, 0\); expected \(3,\) or \(3, k\), k >= 1"),
    (dict(X=1j * torch.ones(3, 2), y=torch.ones(3), p=2), "X is complex64; expected real numbers"),
    (dict(X=np.ones((3, 2)), y=1j * np.ones(3), p=2), "y is complex128; expected real numbers"),
    (dict(X=np.ones((3, 2)), y=np.ones(3, "datetime64[D]"), p=2), r"y is datetime64\[D\]; expected real numbers"),
    (dict(X=np.array([[Fraction(1)], ["a"]], dtype=object), y=[1, 2], p=2), r"X\[1, 0\] is 'a'; expected finite"),
    (dict(X=np.array([[Fraction(1)], [np.nan]], dtype=object), y=[1, 2], p=2), r"X\[1, 0\] is nan; expected finite"),
    (dict(X=np.array([[Fraction(1)], [True]], dtype=object), y=[1, 2], p=2), r"X\[1, 0\] is True; expected finite"),
    (dict(X=np.array([[Fraction(1)], [None]], dtype=object), y=[1, 2], p=2), r"X\[1, 0\] is None; expected finite"),
    (dict(X=np.array([[Fraction(1)]], dtype=object), y=[1.0], p=2), "X is of exact entries and y torch.float64; expected one"),
    (dict(X=Frame(a=np.ones(2), b=np.array(["u", "v"], dtype=object)), y=[1, 2], p=2), "X: column 'b' holds 'u'"),
    (dict(X=Frame(a=np.ones(2), b=np.array(["1", "2"])), y=[1, 2], p=2), "X: column 'b' holds np.str_.*; expected finite"),
    (dict(X=Frame(a=np.ones(2), b=np.array([1, None])), y=[1, 2], p=2), "X: column 'b' holds None; expected finite"),
    (dict(X=Frame(a=np.array([1, np.inf]), b=np.array([np.nan, 1])), y=[1, 2], p=2),
     "X: column 'a' holds inf; column 'b' holds nan; expected finite"),
    (dict(X=torch.ones(3, 2), y=torch.ones(3), p=3), "p is 3; expected an even integer >= 2"),
    (dict(X=torch.ones(3, 2), y=torch.ones(3), p=0), "p is 0; expected an even integer >= 2"),
    (dict(X=torch.ones(3, 2), y=torch.ones(3), p=2.5), "p is 2.5; expected an even integer"),
    (dict(X=torch.ones(3, 2), y=torch.ones(3), p=2, scale=-1), "scale is -1; expected a positive"),
    (dict(X=torch.ones(3, 2), y=torch.ones(3), p=2, reduction="max"), "reduction is 'max'; expected 'mean' or 'sum'"),
    (dict(X=torch.tensor([[1.0, float("nan")]]), y=torch.ones(1), p=2), r"X\[0, 1\] is nan; expected finite"),
    (dict(X=torch.ones(2, 1), y=torch.tensor([1.0, float("inf")]), p=2), r"y\[1\] is inf; expected finite"),
])
def test_bad_data_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        dl.LpLoss(**arguments)


def test_a_matrix_of_the_wrong_shape_is_named():
    with pytest.raises(ValueError, match=r"W has shape \(4,\); expected \(..., 2, 4\)"):
        problem().value(torch.ones(4, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"V has shape \(2, 3\)"):
        problem().hessian_product(torch.ones(2, 4, dtype=torch.float64), torch.ones(2, 3, dtype=torch.float64))


def test_another_dtype_is_named():
    with pytest.raises(ValueError, match=r"W is torch.float32, the data are torch.float64; loss.to\(torch.float32\)"):
        problem().value(torch.ones(2, 4))
    assert problem().to(torch.float32).value(torch.ones(2, 4)).dtype == torch.float32


def test_a_data_frame_is_its_numbers():
    frame = Frame(a=np.array([1, 2.5, 3], dtype=object), b=np.array([True, False, True]), c=np.array([4, 5, 7]))
    plain = [[1, 1, 4], [2.5, 0, 5], [3, 1, 7]]
    assert torch.equal(dl.LpLoss(frame, [1, 2, 3], 2).X, dl.LpLoss(plain, [1, 2, 3], 2).X)
    assert dl.LpLoss(frame, Frame(y=np.ones(3)), 2).shape == (1, 3)


def test_columns_of_pandas():
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    frame = pandas.DataFrame({"a": [1.0, 2, 4], "n": pandas.array([1, None, 3], dtype="Int64"), "t": ["u", "v", "w"],
                              "i": pandas.array([1, 2, 3], dtype="Int64"), "b": [True, False, True]})
    assert dl.LpLoss(frame[["a", "i", "b"]], frame["i"], 2).X.tolist() == [[1, 1, 1], [2, 2, 0], [4, 3, 1]]
    with pytest.raises(ValueError, match="X: column 'n' holds nan; column 't' holds 'u'; expected finite numbers"):
        dl.LpLoss(frame[["a", "n", "t"]], frame["a"], 2)
    for name in ("n", "t"):
        with pytest.raises(ValueError, match="the data: column 'y' holds .*; expected finite numbers"):
            dl.LpLoss(frame[["a"]], frame[name], 2)


def test_arrays_are_weights_and_integers_are_named():
    a, b = sympy.symbols("a b")
    W = torch.tensor([[1.5, -2]], dtype=torch.float64)
    for loss in (dl.LpLoss([[1, 2], [3, 4]], [1, 2], 4), dl.Polynomial(a**2 * b / 2 - b, (a, b))):
        assert torch.equal(loss.value(W.numpy()), loss.value(W)) and torch.equal(loss.value([[1.5, -2]]), loss.value(W))
        assert torch.equal(loss.gradient(W.numpy()), loss.gradient(W))
        assert torch.equal(loss.hessian_product(W.numpy(), W.numpy()), loss.hessian_product(W, W))
        for call in (loss.value, loss.gradient, loss.value_and_gradient, functools.partial(loss.hessian_product, W)):
            with pytest.raises(ValueError, match="is torch.int64"):  # powers of integers would cut the coefficients
                call(torch.tensor([[3, 1]]))
