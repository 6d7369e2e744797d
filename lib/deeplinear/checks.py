"""Printed verdicts: short, deterministic, and an error where a check fails."""

import numpy as np
from flint import fmpq


class CheckFailed(AssertionError):
    """A check did not hold, or a control that must fail did not."""


def check(label, value, below=None):
    """Print the verdict of the check ``label``: every ``|value| < below``, or, without ``below``, ``value`` true.

    ``value``: a number or an array, of residuals if ``below`` is given, of booleans if not. Only the label, the
    threshold and the verdict are printed: the last digits of a residual differ between machines. Raises
    :class:`CheckFailed` with the worst value where it does not hold (NaN never holds).
    """
    if below is None:
        exact = np.asarray(value)
        _verdict(f"check    {label}: holds", value, exact.dtype == bool and exact.size and exact.all())
    else:
        _verdict(f"check    {label}: below {float(below):g}", _largest(value), _largest(value) < below)


def control(label, value, above):
    """Print the verdict of the control of ``label``: without one hypothesis some ``|value|`` must exceed ``above``."""
    _verdict(f"control  {label}: above {float(above):g}, as it must be", _largest(value), _largest(value) > above)


def rational(integers, denominator):
    """An array of exact rationals ``integers / denominator`` (python-flint), on which the library's algebra is exact."""
    return np.vectorize(lambda entry: fmpq(int(entry), denominator), otypes=[object])(integers)


def slope(xs, ys):
    """The least-squares slope of ``log ys`` against ``log xs``: the exponent of a power law."""
    return float(np.polyfit(np.log(np.asarray(xs, dtype=float)), np.log(np.asarray(ys, dtype=float)), 1)[0])


def table(headers, rows, formats=None):
    """Print an aligned table: ``headers`` a list, ``rows`` lists of the same length, ``formats`` one format a column."""
    formats = formats or [""] * len(headers)
    cells = [[format(entry, "" if isinstance(entry, str) else form) for entry, form in zip(row, formats)]
             for row in rows]
    widths = [max(len(line[c]) for line in [list(headers), *cells]) for c in range(len(headers))]
    for line in [list(headers), ["-" * w for w in widths], *cells]:
        print("  ".join(entry.ljust(w) if c == 0 else entry.rjust(w)
                        for c, (entry, w) in enumerate(zip(line, widths))).rstrip())


def _verdict(sentence, value, holds):
    if not holds:
        raise CheckFailed(f"{sentence}: NO, value {value!r}")
    print(f"{sentence}: yes")


def _largest(value):
    return float(np.abs(np.asarray(value, dtype=float)).max())
