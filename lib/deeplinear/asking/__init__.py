"""Will depth help on this table? Conditions first, then a race of depths 1, 2 and 3, Adam and L-BFGS.

``columns`` (what a column holds), ``doubts`` (numbers that are none), ``reading`` (a table becomes a data set, and says what was
done), ``conditions`` (what chapter 8 asks of a table), ``sizes`` and ``racing`` (every model at its own best rate), ``answer``
(the verdict in words) and ``page`` (HTML): each needs only those named before it. pandas is wanted by :func:`read` alone, and
imported there.
"""

import dataclasses
import time
from collections.abc import Collection, Hashable
from typing import Any

from ..annotations import Report
from . import answer, conditions, racing, reading
from .answer import Answer
from .conditions import Conditions, Prediction
from .page import page
from .racing import Race, Runner
from .reading import read

__all__ = ["Answer", "Conditions", "Prediction", "Race", "Runner", "ask", "page", "read"]

POWERS = (2, 4)


def ask(frame: Any, target: Hashable, power: int = 2, seconds: float = 60.0, report: Report | None = None, *,
        missing: float | str | Collection[float | str] = (), keep: Hashable | Collection[Hashable] = (),
        without: Hashable | Collection[Hashable] = ()) -> Answer:
    """Whether more linear layers make gradient descent faster on the regression of ``target`` on the other columns.

    ``frame``: a data frame of pandas, Polars, or anything with ``.columns`` that gives a column for its name in brackets.
    ``power``: 2 or 4, of the loss, the mean of ``|residual| ** power`` over standardised columns. ``seconds``: of the
    race; its steps are sized by the table to take half of that on two cores, so the same table gives the same answer,
    and where the time ends first the verdict is *not settled*. ``report``: called with the share that is done.

    Columns of text with two values become 0 and 1; other text, dates, constants and columns that count the rows from 0 or
    1 are left out, and said to be. Warned of are values far outside a column, such as -999 for a missing entry (the rule is
    that of :func:`deeplinear.asking.doubts.marks`), other columns that seem to number or name the rows, and copies of the
    target. ``missing``: one or several numbers or texts that mean a missing entry, in every column. ``keep``: columns that
    are data, whatever they look like; they are not warned of, and stay where they count the rows. ``without``: columns to
    leave out.

    Predicts by the three conditions of chapter 8, then races: balanced layers of width 1 near zero, the same five
    starts for all, full batches, every model at its own best rate, by the rules of :mod:`deeplinear.tuning`. What it
    finds holds for these rows, this loss and so many steps. Returns an :class:`Answer`. Raises ``ValueError`` for a
    ``power`` that is neither, a target that is absent, constant or text, an option that names no column, duplicate
    columns, infinite entries, numbers whose squares no float holds, no usable column, too few rows, and columns that say
    nothing of the target.
    """
    if isinstance(power, bool) or power not in POWERS:
        raise ValueError(f"power is {power!r}; expected 2 or 4")
    if not seconds > 0:
        raise ValueError(f"seconds is {seconds!r}; expected a positive number")
    table = reading.clean(frame, target, _several(missing), _several(keep), _several(without))
    found = conditions.measure(table.data.X, table.data.y)
    predicted = conditions.predict(found, power)
    run = racing.race(table.data.X, table.data.y, power, seconds, time.monotonic() + seconds, report)
    return Answer(target=str(target), power=power, rows=len(table.data.X), features=table.data.X.shape[1],
                  names=table.used, dropped=table.dropped, notes=table.notes,
                  warnings=table.warnings, conditions=found, prediction=predicted, race=run,
                  **dataclasses.asdict(answer.judge(run, power)))


def _several(given):
    """One as a tuple of one; a text is one."""
    return tuple(given) if isinstance(given, Collection) and not isinstance(given, str | bytes) else (given,)
