"""Columns of numbers that are none: marks of missing entries, numbers of the rows, copies.

Whoever asks is warned by name; left out are only columns that count the rows from 0 or 1.
"""

import math
import re
from collections.abc import Hashable, Mapping

import numpy as np
import torch

NINES = re.compile(r"9{2,10}|9{3,}\.9+")  # and -9 and -1, by what else is there
LIMITS = (-(2.0**15), 2.0**15 - 1, 2.0**16 - 1, -(2.0**31), 2.0**31 - 1, 2.0**32 - 1, -(2.0**63), 2.0**63 - 1)  # of whole numbers
FILLS = (*LIMITS, 1e20, 1e30, 9.96921e36, 3.402823e38)  # the last two: netCDF's, and the largest float of 32 bits
SURE = 999  # in size: a known mark that is as large is told from one entry, a smaller one from two
OFTEN, FAR, DISTINCT = 3, 10, 5  # entries, ranges of the others, and values that the others have, for a mark that is not known
OUTER = 3  # marks at either end at most
LIKE_AN_ID = re.compile(r"(?:.*[\W_])?id|.*[a-z]I[Dd]|ID")
ALIKE = 1e-6  # of a correlation from one: then columns are the same up to scale, shift and the rounding of a file
BLOCK = 500  # features whose correlations are looked at together


def marks(entries: np.ndarray) -> tuple[list[tuple[float, int]], tuple[float, float]]:
    """The values of a column that seem to mean missing, each with its count, and the least and largest of the others.

    ``entries`` (rows,) without NaN. At most three values at either end of the column are such marks. They lie beyond all
    others, which have at least two values, and each either

    - is known: of nines (99, -999, 9999, -999.9 and so on), or a limit or fill value of a number format; and as far from the
      others as the range that these have, or negative where they are not (then -9 too, and -1 where they are 1 or more). One
      below 999 in size occurs twice or more;
    - or is ten such ranges from the others, which have five or more values, and it or one on its side occurs three times.

    The range is that of all the others, not between quartiles: long tails, zeros, caps and single outliers are left alone.
    So are marks in the range of the data, such as 0 or 99 for an age.
    """
    values, counts = (each.tolist() for each in np.unique(entries, return_counts=True))
    best = (0, 0)
    for low in range(min(OUTER, len(values)) + 1):
        for high in range(min(OUTER, len(values) - low) + 1):
            if low + high > sum(best) and len(values) - low - high >= 2 and _all_mark(values, counts, low, high):
                best = low, high
    low, end = best[0], len(values) - best[1]
    outer = [*range(low), *range(end, len(values))]
    return [(values[place], counts[place]) for place in outer], (values[low], values[end - 1]) if values else (0.0, 0.0)


def _all_mark(values, counts, low, high):
    """Whether the ``low`` least and the ``high`` largest values are all marks beside the others."""
    end = len(values) - high
    least, most = values[low], values[end - 1]
    for places in (range(low), range(end, len(values))):
        often = max((counts[place] for place in places), default=0) >= OFTEN
        for place in places:
            value, away = values[place], max(least - values[place], values[place] - most)
            known = _known(value, least) and (away >= most - least or value < 0 <= least) and (
                abs(value) >= SURE or counts[place] >= 2)
            if not known and not (often and end - low >= DISTINCT and away >= FAR * (most - least)):
                return False
    return True


def _known(value, least):
    return NINES.fullmatch(written(abs(value))) or value == -9 and least >= 0 or value == -1 and least >= 1 or any(
        math.isclose(value, fill, rel_tol=1e-6) for fill in (*FILLS, *(-fill for fill in FILLS[-4:])))


def written(value: float) -> str:
    """A number as a table has it, in as many digits as tell it."""
    if value == round(value) and abs(value) < 1e15:
        return f"{value:.0f}"
    return next(text for text in (f"{value:.7g}", f"{value:.15g}", repr(float(value))) if float(text) == value)


def of_marks(columns: Mapping[Hashable, np.ndarray]) -> list[str]:
    """The warnings of columns that hold :func:`marks`, one for all with the same; entries (rows,), NaN where one is missing."""
    alike: dict[tuple[float, ...], list[tuple]] = {}
    for name, entries in columns.items():
        found, ends = marks(entries[np.isfinite(entries)])
        if found:
            alike.setdefault(tuple(value for value, _ in found), []).append((name, found, ends, len(entries)))
    warnings = []
    for values, there in alike.items():
        (name, found, (least, most), rows), names = there[0], ", ".join(str(each[0]) for each in there)
        counts = [[each[1][place][1] for each in there] for place in range(len(values))]
        said = " and ".join(f"{written(value)} in {_from_to(count)} of {rows} rows" for value, count in zip(values, counts))
        others = f"the others from {least:.4g} to {most:.4g}" if len(there) == 1 else "far from all others there"
        way = " ".join(f"missing={written(value)}" for value in values)
        warnings.append(f"{names}: {said}, {others}. Taken as numbers; if {'it means' if len(values) == 1 else 'they mean'} missing, "
                        f"ask with {way} or empty the cells; if not, {'' if len(there) == 1 else 'such as '}keep={name}")
    return warnings


def _from_to(counts):
    return f"{min(counts)}" + (f" to {max(counts)}" if max(counts) > min(counts) else "")


def numbers_rows(name: Hashable, entries: np.ndarray) -> str | None:
    """Why a column is left out that counts the rows from 0 or 1 in their order, or, without a name, from anywhere."""
    if len(entries) < 3 or not np.array_equal(entries, entries[0] + np.arange(len(entries))):
        return None
    if str(name).startswith("Unnamed: "):
        return "numbers of the rows, without a name"
    if entries[0] in (0, 1):
        return f"numbers of the rows, {entries[0]:.0f} to {entries[-1]:.0f}; keep={name} takes it in"
    return None


@np.errstate(over="ignore")
def of_numbers(name: Hashable, entries: np.ndarray) -> list[str]:
    """The warning of a column of whole numbers that seem to be names, not sizes: in equal steps from row to row, each of a
    range once, or called id. ``entries`` (rows,), NaN where one is missing."""
    there = entries[~np.isnan(entries)]
    if len(there) < 3 or not np.isfinite(there).all() or (there != np.rint(there)).any():
        return []
    steps, ends = np.diff(entries), f"{written(there.min())} to {written(there.max())}"
    if (steps == steps[0]).all() and steps[0]:
        said = f"{'rises' if steps[0] > 0 else 'falls'} by {written(abs(steps[0]))} from each row to the next, {ends}"
    elif np.ptp(there) == len(there) - 1 and len(np.unique(there)) == len(there):
        said = f"has each whole number from {ends} once"
    elif LIKE_AN_ID.fullmatch(str(name)):
        said = "is called an id"
    else:
        return []
    return [f"{name}: {said}. Taken as a feature; if it only numbers or names the rows, without={name}; if not, keep={name}"]


def of_copies(features: Mapping[Hashable, np.ndarray], labels: np.ndarray, target: Hashable) -> list[str]:
    """The warnings of features that are the target, up to scale, shift and rounding, in the rows where they are not missing.
    ``features`` (rows,) each, NaN where an entry is missing, in the same order as ``labels``."""
    found = []
    for name, entries in features.items():
        there = ~np.isnan(entries)
        pair = [each[there] - each[there].mean() for each in (entries, labels)]
        if all(each.any() for each in pair):
            one, other = (each / np.linalg.norm(each / np.abs(each).max()) / np.abs(each).max() for each in pair)
            if abs(one @ other) > 1 - ALIKE:
                found.append(f"{name}: the target itself, up to scale and shift, so that the answer says little of {target}; "
                             f"without={name} leaves it out")
    return found


def twins(X: torch.Tensor, names: list[str]) -> list[str]:
    """What is said of features that are the same up to scale, shift and rounding; ``X`` (rows, features) standardised."""
    first: dict[int, list[int]] = {}
    seen = set()
    for begin in range(0, len(names), BLOCK):
        alike = (X[:, begin:begin + BLOCK].mT @ X / len(X)).abs() > 1 - ALIKE
        for place, row in enumerate(alike, begin):
            more = [other for other in row.nonzero()[:, 0].tolist() if other > place and other not in seen]
            if place not in seen and more:
                first[place] = more
                seen.update(more)
    return [f"{', '.join(names[other] for other in others)}: kept, the same as {names[place]} up to scale and shift"
            for place, others in first.items()]
