"""What a column of a table holds: numbers, two values of text, or neither, and then what could be done."""

import collections
import dataclasses
import re
from collections.abc import Iterable
from typing import Any

import numpy as np

NUMERIC = 0.9  # share of its entries that must read as numbers in a column of numbers
FEW = 20  # values that are worth a column of 0 and 1 each
SIGNS = ",%$€£¥'"
LIKE_NUMBERS = re.compile(r"\s*[-+(]?\s*[$€£¥]?\s*[-+]?\d[\d.,' ]*(e[-+]?\d+)?\s*[%$€£¥]?\s*\)?\s*", re.IGNORECASE)
LIKE_DATES = re.compile(r"\s*(\d{4}[-/.]\d\d?[-/.]\d\d?|\d\d?[-/.]\d\d?[-/.]\d{2,4})([T ].*)?\s*")


@dataclasses.dataclass(frozen=True)
class Column:
    """``entries``: float64, NaN where one is missing, or None; ``fault``: what the column holds then, and ``way``: how it
    could be used. ``odd``: an entry that was taken as missing, or None; ``values``: the two of text that are 0 and 1."""

    entries: np.ndarray
    odd: str | None = None
    values: tuple[str, ...] = ()
    fault: str | None = None
    way: str = ""


class Marks:
    """The entries, numbers or text, that are to mean missing; ``unseen``: those that no column had so far."""

    def __init__(self, marks: Iterable[float | str]):
        self.texts = {str(mark).strip() for mark in marks}
        self.numbers = {number: text for text in self.texts if (number := _number(text)) is not None}
        self.unseen = set(self.texts)

    def among(self, entries):
        """Which of these numbers are marks, and one of them; compared in the type of the column, so that 0.1 is found there."""
        found, seen = np.zeros(entries.shape, bool), None
        for number, text in self.numbers.items():
            here = entries == number
            if here.any():
                self.unseen.discard(text)
                found, seen = found | here, text
        return found, seen

    def has(self, entry):
        """Whether an entry of text is a mark; one that reads as a number is for :meth:`among`."""
        here = isinstance(entry, str) and entry.strip() in self.texts
        if here:
            self.unseen.discard(entry.strip())
        return here


def read(column: Any, marks: Marks) -> Column:
    """The :class:`Column`: numbers where at least nine tenths of its entries read so, what else is there taken as missing; 0
    and 1, in the order of the alphabet, where all of them are text of two values, large and small letters alike."""
    entries = np.asarray(column)
    if entries.dtype.kind in "mM":
        return Column(entries, fault="dates or times", way="the days since the first can be used")
    if entries.dtype.kind in "biuf":
        missing, odd = marks.among(entries)
        return Column(np.where(missing, np.nan, entries.astype(float)), odd)
    found, texts, marked = np.full(len(entries), np.nan), {}, None
    for row, entry in enumerate(entries):
        if is_missing(entry):
            continue
        number = _number(entry)
        if number is not None:
            found[row] = number
        elif marks.has(entry):
            marked = entry
        else:
            texts[row] = str(entry).strip()
    missing, seen = marks.among(found)
    found[missing] = np.nan
    read, odd = np.sum(~np.isnan(found)), collections.Counter(texts.values())
    if not texts or read >= NUMERIC * (read + len(texts)):
        return Column(found, next(iter(odd), marked if seen is None else seen))
    names: dict[str, str] = {}
    for text, _ in odd.most_common():
        names.setdefault(text.casefold(), text)
    if read or len(names) != 2:
        return Column(found, fault=_text_in(odd, read, len(texts), len(entries)), way=_way(odd, read, len(entries)))
    order = sorted(names)
    for row, text in texts.items():
        found[row] = order.index(text.casefold())
    return Column(found, marked, tuple(names[key] for key in order))


def is_missing(entry):
    """None, NaN, and what pandas has in their place, which compares to nothing."""
    return entry is None or type(entry).__name__ in ("NAType", "NaTType") or (isinstance(entry, str) and not entry.strip()) or (
        isinstance(entry, float) and entry != entry)


@np.errstate(over="ignore")
def flat(entries):
    """Whether the entries are constant up to rounding, as :func:`deeplinear.data.from_frame` asks."""
    return np.ptp(entries) <= len(entries) * np.finfo(float).eps * np.abs(entries).max()


def constant(column, read, entry):
    """What is said of a column, ``read`` as ``entry`` alone up to rounding: the value, or that it varies too little."""
    if read.values:
        return f"constant, {read.values[int(entry)]!r}"
    varies = len({str(one) for one in np.asarray(column) if not is_missing(one)}) > 1
    return f"constant, {entry:g}" + (", up to rounding: take that away from it" if varies and not read.odd else "")


def _number(entry):
    try:
        return float(entry)
    except (TypeError, ValueError):
        return None


def _text_in(odd, read, wrong, rows):
    """What is said of a column with too much text: examples, how much of it, and what keeps it from being numbers."""
    examples = ", ".join(repr(entry[:20]) for entry, _ in odd.most_common(2))
    if signs := _signs(odd):
        return (f"text, such as {examples}: numbers with {' and '.join(map(repr, signs))}; expected such as 1234.5, with a decimal "
                "point alone")
    if read:
        return (f"text in {wrong} of {read + wrong} entries, such as {examples}; in a column of numbers at most "
                f"{100 * (1 - NUMERIC):.0f} % are taken as missing")
    if len(odd) == 1:
        return f"constant, {examples}" if wrong == rows else f"text, {examples} or nothing"
    return f"text of {len(odd)} values, such as {examples}"


def _way(odd, read, rows):
    """How a column of text could be used, where there is a way."""
    if _signs(odd):
        return ""
    if read:
        return f"missing={next(iter(odd))} takes it so" if len(odd) == 1 else ""
    if len(odd) == 1:
        return "" if odd.total() == rows else "it can be used with 1 for the one and 0 for the other"
    if all(LIKE_DATES.fullmatch(entry) for entry in odd):
        return "if these are dates, the days since the first can be used"
    return "a column of 0 and 1 for each value but one can be used" if len(odd) <= FEW else "numbers in their place can be used"


def _signs(odd):
    """The signs that keep text from being numbers, where they alone do."""
    signs = sorted({sign for entry in odd for sign in SIGNS if sign in entry})
    return signs if signs and all(LIKE_NUMBERS.fullmatch(entry) for entry in odd) else []
