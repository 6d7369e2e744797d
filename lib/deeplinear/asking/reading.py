"""A table with the dirt that tables have becomes a data set; whatever is left out or filled in is said."""

import codecs
import collections
import csv
import dataclasses
import difflib
import gzip
import io
import re
import zlib
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import numpy as np

from .. import data

SEPARATORS = ",;\t|"
NUMERIC = 0.9  # share of its entries that must read as numbers in a column of numbers
MISSING = 0.5  # share of its entries that may be missing
FEWEST = 20  # rows
ALIKE = 1e-9  # of a correlation from one: then a feature is the target itself
SIGNS = ",%$€£¥'"
LIKE_NUMBERS = re.compile(r"\s*[-+(]?\s*[$€£¥]?\s*[-+]?\d[\d.,' ]*(e[-+]?\d+)?\s*[%$€£¥]?\s*\)?\s*", re.IGNORECASE)
SMALLEST, LARGEST = 1e-140, 1e140  # of the sizes that a column may have, so that squares and their sums are finite


@dataclasses.dataclass(frozen=True)
class Table:
    """``data``: a :class:`deeplinear.data.Dataset`; ``dropped``: the columns left out, with the reason; ``notes``: what
    else was done, a sentence each."""

    data: data.Dataset
    dropped: dict[str, str]
    notes: list[str]


class _Columns(dict):
    @property
    def columns(self):
        return list(self)


def read(path: str | Path) -> Any:
    """The CSV file at ``path`` as a data frame of pandas, a header and one row an example.

    Separated by commas, semicolons, tabs or bars, whichever the header has most of; with semicolons a decimal comma is
    understood, where more columns are numbers then. In UTF-8 or UTF-16, packed by gzip or not. Raises ``ValueError`` that
    names what is wrong: no pandas, no such file, no text, a comment before the header, no columns, a name twice, rows of
    unlike length.
    """
    try:
        import pandas
    except ModuleNotFoundError as error:
        raise ValueError("a table is read with pandas, which is not installed; pip install 'deeplinear[ask]'") from error
    path = Path(path)
    text = _text(path)
    lines = text.splitlines()
    if not text.strip():
        raise ValueError(f"{path} is empty; expected a CSV file with a header")
    separator = max(SEPARATORS, key=lines[0].count)
    if lines[0].startswith("#") and (len(lines) < 2 or lines[0].count(separator) != lines[1].count(separator)):
        raise ValueError(f"{path} begins with a comment, {lines[0][:40]!r}; expected the header in its first line")
    if separator not in lines[0]:
        raise ValueError(f"{path} is not a CSV file: its first line, {lines[0][:40]!r}, has no comma, semicolon, tab or bar")
    names = [name.strip() for name in next(csv.reader(lines[:1], delimiter=separator))]
    _refuse_twice([name for name in names if name])

    def parsed(decimal):
        try:
            return pandas.read_csv(io.StringIO(text), sep=separator, decimal=decimal, skipinitialspace=True, low_memory=False)
        except (pandas.errors.ParserError, pandas.errors.EmptyDataError, ValueError) as error:
            raise ValueError(f"{path} is not a CSV file: {str(error).strip()}") from error

    frames = [parsed("."), *([parsed(",")] if separator == ";" else [])]
    frame = max(frames, key=lambda one: len(one.select_dtypes("number").columns))
    if not isinstance(frame.index, pandas.RangeIndex):
        raise ValueError(f"{path} is not a CSV file: its rows have more entries than its header has names, {len(names)}")
    return frame.rename(columns=lambda name: str(name).strip())


def clean(frame: Any, target: Hashable) -> Table:
    """The :class:`Table` of a data frame: rows without target left out; columns of text, of dates, without variation,
    with most entries missing and of row numbers left out; what is missing in the others filled with the mean."""
    names = list(getattr(frame, "columns", ()))
    if not names:
        raise ValueError(f"the frame is a {type(frame).__name__} without columns; expected a data frame")
    _refuse_twice(names)
    if target not in names:
        close = difflib.get_close_matches(str(target), [str(name) for name in names], cutoff=0.5)
        raise ValueError(f"target {str(target)!r} is no column; " + (f"did you mean {', '.join(close)}?" if close else
                         f"expected one of {', '.join(str(name) for name in names)}"))
    labels, odd, fault = _numbers(frame[target])
    if fault:
        raise ValueError(f"target {str(target)!r} is {fault}; expected numbers")
    kept, notes = ~np.isnan(labels), []
    if not kept.all():
        notes.append(f"{np.sum(~kept)} of {len(kept)} rows left out: no {target} in them{_such_as(odd)}")
    if not kept.any() or np.isinf(labels).any():
        raise ValueError(f"target {str(target)!r} has {np.isinf(labels).sum()} infinite and {kept.sum() - np.isinf(labels).sum()}"
                         " finite entries; expected finite numbers")
    if _flat(labels[kept]):
        raise ValueError(f"target {str(target)!r} is {_constant(frame[target], labels[kept][0])}; expected one that varies")
    found, dropped, infinite = _Columns(), {}, []
    for name in names:
        if name != target:
            entries, why = _feature(name, frame[name], kept, notes)
            if why:
                dropped[str(name)] = why
            elif np.isinf(entries).any():
                infinite.append(f"{name} ({np.isinf(entries).sum()})")
            else:
                found[name] = entries
    if infinite:
        raise ValueError(f"infinite entries in {', '.join(infinite)}; expected finite numbers, and empty where one is missing")
    found[target] = labels[kept]
    unusual = [f"{name} ({np.abs(entries).max():.0e})" for name, entries in found.items()
               if np.abs(entries).max() > LARGEST or np.ptp(entries) < SMALLEST]
    if unusual:
        raise ValueError(f"numbers too large or too small in {', '.join(unusual)}; expected sizes, and differences, from "
                         f"{SMALLEST:g} to {LARGEST:g}: use another unit")
    del found[target]
    if not found:
        raise ValueError("no column is left beside the target: " + "; ".join(f"{name}: {why}" for name, why in dropped.items()))
    least = max(FEWEST, 2 * len(found))
    if kept.sum() < least:
        raise ValueError(f"{kept.sum()} rows with a target for {len(found)} usable columns; expected at least {least}: with "
                         "fewer nearly every label can be met, whatever it is")
    found[target] = labels[kept]
    table = data.from_frame(found, target)
    alike = (table.X.mT @ table.y / len(table.y)).abs() > 1 - ALIKE
    notes += [f"{name}: kept, and it is the target up to scale and shift" for name, same in zip(found, alike) if same]
    return Table(table, dropped, notes)


def _feature(name, column, kept, notes):
    """The entries of a feature, or None and why it is left out."""
    entries, odd, fault = _numbers(column)
    if fault:
        return None, fault
    if str(name).startswith("Unnamed: ") and (np.diff(entries) == 1).all():
        return None, "numbers of the rows, without a name"
    entries = entries[kept]
    missing = np.isnan(entries)
    if missing.mean() > MISSING:
        return None, f"{100 * missing.mean():.0f} % of its entries are missing{_such_as(odd)}"
    if np.isinf(entries).any():
        return entries, None
    if _flat(entries[~missing]):
        return None, _constant(column, entries[~missing][0])
    if missing.any():
        notes.append(f"{name}: {missing.sum()} missing {'entry' if missing.sum() == 1 else 'entries'} filled with the "
                     f"mean{_such_as(odd)}")
        entries = np.where(missing, entries[~missing].mean(), entries)
    return entries, None


def _numbers(column):
    """Entries as float64, NaN where one is missing; an entry that reads as no number, if any; what the column holds
    where that is no numbers."""
    entries = np.asarray(column)
    if entries.dtype.kind in "biuf":
        return entries.astype(float), None, None
    if entries.dtype.kind in "mM":
        return None, None, "dates or times"
    found, odd = np.full(len(entries), np.nan), collections.Counter()
    for row, entry in enumerate(entries):
        if not _is_missing(entry):
            try:
                found[row] = float(entry)
            except (TypeError, ValueError):
                odd[str(entry)] += 1
    read, wrong = np.sum(~np.isnan(found)), sum(odd.values())
    if wrong and read < NUMERIC * (read + wrong):
        return None, None, _text_in(odd, read, wrong)
    return found, next(iter(odd), None), None


def _text_in(odd, read, wrong):
    """What is said of a column with too much text: examples, how much of it, and what keeps it from being numbers."""
    examples = ", ".join(repr(entry[:20]) for entry, _ in odd.most_common(2))
    signs = sorted({sign for entry in odd for sign in SIGNS if sign in entry})
    if signs and all(LIKE_NUMBERS.fullmatch(entry) for entry in odd):
        return (f"text, such as {examples}: numbers with {' and '.join(map(repr, signs))}; expected such as 1234.5, with a decimal "
                "point alone")
    if read:
        return (f"text in {wrong} of {read + wrong} entries, such as {examples}; in a column of numbers at most "
                f"{100 * (1 - NUMERIC):.0f} % are taken as missing")
    return f"text, such as {examples}"


def _is_missing(entry):
    """None, NaN, and what pandas has in their place, which compares to nothing."""
    return entry is None or type(entry).__name__ in ("NAType", "NaTType") or (isinstance(entry, str) and not entry.strip()) or (
        isinstance(entry, float) and entry != entry)


def _such_as(odd):
    return f" ({odd[:20]!r} taken as missing)" if odd is not None else ""


def _flat(entries):
    """Whether the entries are constant up to rounding, as :func:`deeplinear.data.from_frame` asks."""
    return np.ptp(entries) <= len(entries) * np.finfo(float).eps * np.abs(entries).max()


def _constant(column, entry):
    """What is said of a column that is constant up to rounding, of which this is an entry."""
    varies = len({str(one) for one in column if not _is_missing(one)}) > 1
    return f"constant, {entry:g}" + (", up to rounding: take that away from it" if varies else "")


def _refuse_twice(names):
    twice = [str(name) for name, count in collections.Counter(names).items() if count > 1]
    if twice:
        raise ValueError(f"columns named twice: {', '.join(twice)}; expected every name once")


def _text(path):
    """The text of a file, packed by gzip or not, in UTF-8, in UTF-16 where it begins so, or, where it is none, in the encoding
    of Western spreadsheets."""
    if not path.is_file():
        close = difflib.get_close_matches(path.name, [one.name for one in path.parent.glob("*.*")], n=1)
        raise ValueError(f"no file {path}" + (f"; did you mean {path.with_name(close[0])}?" if close else ""))
    content = path.read_bytes()
    if content.startswith(b"\x1f\x8b"):
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(f"{path} is compressed by gzip and cannot be unpacked: {error}") from error
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return content.decode("utf-16", errors="replace")
    if b"\0" in content[:4096]:
        raise ValueError(f"{path} is not a CSV file: it holds bytes that are no text (a spreadsheet is exported as CSV first)")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("cp1252", errors="replace")
