"""Printed verdicts: one line each, what was measured beside what was asked, and an error where a check fails.

    holds  thm-balance-flow  3e-15, below 1e-13
    fails  thm-balance-flow, with momentum  0.4, not below 0.01, as it must

Counts, by their type, are printed whole. Where the threshold is ``ROUNDING`` or less, what was measured is rounding,
whose size differs between processors: one digit is shown, and comparisons of stored with fresh lines go by
:func:`masked`, which leaves that number out.
"""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from flint import fmpq

from .annotations import Numbers

ROUNDING = 1e-6
MEASURED = r"(?m)^(holds  .*  (?:\d+ \w+, worst )?)[\d.e+-]+(?=, below (?:1e-06|[\d.]+e-(?:0[7-9]|[1-9]\d))$)"


class CheckFailed(AssertionError):
    """A check did not hold, or a control that must fail did not."""


def check(label: str, value: Any, below: float | None = None, cases: str = "cases") -> None:
    """Print the verdict of the check ``label``: every ``|value| < below``, or, without ``below``, ``value`` true.

    ``value``: a number or an array, of residuals if ``below`` is given, of booleans if not; or a list of them, one for
    each case, of which the line names the number and the worst; ``cases`` says what they are. Raises
    :class:`CheckFailed` where it does not hold (NaN never holds), with the worst finite value or how many are not true.
    """
    if below is None:
        truths = [np.asarray(case) for case in _cases(value)]
        holds = bool(truths) and all(truth.dtype == bool and truth.size and truth.all() for truth in truths)
        count = len(truths) if len(truths) > 1 else sum(truth.size for truth in truths)
        what = cases if len(truths) > 1 else "entries"
        if not holds:
            raise CheckFailed(f"DOES NOT HOLD  {label}{_untrue(truths, count, what)}")
        print(f"holds  {label}" + (f"  all {count} {what}" if count > 1 else ""))
    else:
        most = worst(value)
        counted = f"{len(value)} {cases}, worst " if len(_cases(value)) > 1 else ""
        if not most < below:
            raise CheckFailed(f"DOES NOT HOLD  {label}  {counted}{_reached(value)}, not below {float(below):g}")
        number = f"{most:.0e}" if below <= ROUNDING and not _whole(value) else _digits(most, _whole(value))
        print(f"holds  {label}  {counted}{number}, below {float(below):g}")


def control(label: str, value: Any, above: float) -> None:
    """Print the verdict of the control of ``label``: without one hypothesis some ``|value|`` must exceed ``above``.

    Raises :class:`CheckFailed` where none does, or one is NaN."""
    most = worst(value)
    if not most > above:
        raise CheckFailed(f"DOES NOT FAIL  {label}  {_reached(value)}, not above {float(above):g}, as it must")
    print(f"fails  {label}  {_digits(most, _whole(value))}, not below {float(above):g}, as it must")


def worst(value: Any) -> float:
    """The largest absolute value of a number, an array or a list of them; NaN where one is."""
    return float(np.max([np.abs(np.asarray(case, dtype=float)).max() for case in _cases(value)]))


def masked(text: str) -> str:
    """``text`` without the numbers that measure rounding: what two processors print alike."""
    return re.sub(MEASURED, r"\1...", text)


def rational(integers: Any, denominator: int) -> np.ndarray:
    """An array of exact rationals ``integers / denominator`` (python-flint), on which the library's algebra is exact."""
    return np.vectorize(lambda entry: fmpq(int(entry), denominator), otypes=[object])(integers)


def slope(xs: Numbers, ys: Numbers) -> float:
    """The least-squares slope of ``log ys`` against ``log xs``: the exponent of a power law."""
    return float(np.polyfit(np.log(np.asarray(xs, dtype=float)), np.log(np.asarray(ys, dtype=float)), 1)[0])


def table(headers: Sequence[str], rows: Sequence[Sequence[Any]], formats: Sequence[str] | None = None) -> None:
    """Print an aligned table: ``headers`` a list, ``rows`` lists of the same length, ``formats`` one format a column.

    ``None`` is shown as a dash."""
    formats = formats or [""] * len(headers)
    shown = [["-" if entry is None else entry for entry in row] for row in rows]
    cells = [[format(entry, "" if isinstance(entry, str) else form) for entry, form in zip(row, formats)]
             for row in shown]
    widths = [max(len(line[c]) for line in [list(headers), *cells]) for c in range(len(headers))]
    for line in [list(headers), ["-" * w for w in widths], *cells]:
        print("  ".join(entry.ljust(w) if c == 0 else entry.rjust(w)
                        for c, (entry, w) in enumerate(zip(line, widths))).rstrip())


def _reached(value):
    """The largest finite ``|value|`` of a check that failed, and how many values are not finite, if any."""
    values = np.concatenate([np.abs(np.asarray(case, dtype=float)).ravel() for case in _cases(value)])
    finite = values[np.isfinite(values)]
    most = f"{finite.max():.0f}" if len(finite) and _whole(value) else f"{finite.max():.3g}" if len(finite) else "none"
    lost = len(values) - len(finite)
    return f"{most}, {lost} of {len(values)} not finite" if lost else most


def _untrue(truths, count, what):
    """What is wrong with the truths of a check that failed: how many, cases of several or entries of one array, are not."""
    if any(truth.dtype != bool for truth in truths):
        return "  values that are not true or false"
    wrong = sum(not (truth.size and truth.all()) for truth in truths) if len(truths) > 1 else sum((~truth).sum() for truth in truths)
    return "" if count == 1 else f"  {wrong} of {count} {what} do not"


def _whole(value):
    """Whether ``value`` counts: integers or booleans in every case, by their type."""
    return all(np.asarray(case).dtype.kind in "iub" for case in _cases(value))


def _digits(number, whole):
    """All digits of a count; else two, of what is neither rounding nor the end of a run that blows up, which mean nothing."""
    if whole:
        return f"{number:.0f}"
    return f"{number:.2g}" if ROUNDING <= number <= 1 / ROUNDING else "under 1e-06" if number < ROUNDING else "over 1e+06"


def _cases(value):
    """The cases of a list, or the one that a number or an array is."""
    return value if isinstance(value, (list, tuple)) else [value]
