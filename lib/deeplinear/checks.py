"""Printed verdicts: short, deterministic, and an error where a check fails."""

import numpy as np


class CheckFailed(AssertionError):
    """A check did not hold, or a control that must fail did not."""


def check(label, value, below=None):
    """Print the verdict of the check ``label``: ``value < below``, or, for an exact statement, ``value`` all True.

    Only the label, the threshold and the verdict are printed: the last digits of a residual differ between machines.
    Raises :class:`CheckFailed` with the value where it does not hold (NaN never holds).
    """
    if below is None:
        exact = np.asarray(value)
        _verdict(f"check    {label}: holds exactly", value, exact.dtype == bool and exact.size and exact.all())
    else:
        _verdict(f"check    {label}: {float(below):.0e} bounds the error", float(value), float(value) < below)


def control(label, value, above):
    """Print the verdict of the control of ``label``: without one hypothesis the error must exceed ``above``."""
    _verdict(f"control  {label}: fails as it must, by more than {float(above):.0e}", float(value), float(value) > above)


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
