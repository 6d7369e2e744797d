"""A table with the dirt that tables have becomes a data set; whatever is left out or filled in is said."""

import codecs
import collections
import csv
import dataclasses
import difflib
import gzip
import io
import zlib
from collections.abc import Collection, Hashable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from .. import data
from . import columns, doubts

SEPARATORS = ",;\t|"
MISSING = 0.5  # share of its entries that may be missing
FEWEST = 20  # rows
SMALLEST, LARGEST = 1e-140, 1e140  # of the sizes that a column may have, so that squares and their sums are finite


@dataclasses.dataclass(frozen=True)
class Table:
    """``data``: a :class:`deeplinear.data.Dataset`; ``used``: the features in order; ``dropped``: the columns left out, with
    the reason; ``notes``: what else was done, and ``warnings``: what may be wrong, a sentence each."""

    data: data.Dataset
    used: tuple[str, ...]
    dropped: dict[str, str]
    notes: list[str]
    warnings: list[str]


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


def clean(frame: Any, target: Hashable, missing: Iterable[float | str] = (), keep: Collection[Hashable] = (),
          without: Collection[Hashable] = ()) -> Table:
    """The :class:`Table` of a data frame: rows without target left out; columns ``without`` which is asked, of text of more
    than two values, of dates, without variation, with most entries missing and of row numbers left out; what is missing in
    the others, or one of the marks ``missing``, filled with the mean. Columns that one has to ``keep`` are not doubted."""
    names = list(getattr(frame, "columns", ()))
    if not names:
        raise ValueError(f"the frame is a {type(frame).__name__} without columns; expected a data frame")
    _refuse_twice(names)
    _refuse_absent(names, target, keep, without)
    marks, said = columns.Marks(missing), _Said({}, [], [], {})
    labels, kept = _labels(frame[target], target, marks, said)
    unfilled = _features(frame, [name for name in names if name != target], kept, marks, keep, without, said)
    _refuse_sizes({**unfilled, target: labels[kept]})
    found = _Columns((name, np.where(np.isnan(entries), np.nanmean(entries), entries)) for name, entries in unfilled.items())
    if not found:
        raise ValueError("no column is left beside the target: " + "; ".join(f"{name}: {why}" for name, why in said.dropped.items()))
    least = max(FEWEST, 2 * len(found))
    if kept.sum() < least:
        raise ValueError(f"{kept.sum()} rows with a target for {len(found)} usable columns; expected at least {least}: with "
                         "fewer nearly every label can be met, whatever it is")
    doubted = {name: entries for name, entries in {target: labels[kept], **unfilled}.items() if name not in keep}
    said.warnings[:0] = doubts.of_marks(doubted)
    said.warnings += doubts.of_copies(unfilled, labels[kept], target)
    said.notes += [*said.notes_of_filled()] + [f"missing={mark}: no column has it" for mark in sorted(marks.unseen)]
    used = tuple(str(name) for name in found)
    found[target] = labels[kept]
    table = data.from_frame(found, target)
    return Table(table, used, said.dropped, said.notes + doubts.twins(table.X, list(used)), said.warnings)


@dataclasses.dataclass
class _Said:
    dropped: dict[str, str]
    notes: list[str]
    warnings: list[str]
    filled: dict[str | None, dict[Hashable, int]]  # by an entry that was taken as missing

    def notes_of_filled(self):
        """What is said of gaps, once for all that were made by the same entry."""
        for odd, counts in self.filled.items():
            (name, count), *more = counts.items()
            who = ", ".join(f"{each} ({number})" for each, number in counts.items()) if more else name
            what = "missing entries" if more else f"{count} missing {'entry' if count == 1 else 'entries'}"
            yield f"{who}: {what} filled with the mean{_such_as(odd)}"


def _labels(column, target, marks, said):
    """The labels of all rows, and which rows have one."""
    read = columns.read(column, marks)
    if read.fault or read.values:
        said_of = read.fault or f"text, such as {', '.join(map(repr, read.values))}"
        raise ValueError(f"target {str(target)!r} is {said_of}; expected numbers" + (", such as 0 and 1" if read.values else ""))
    labels, kept = read.entries, ~np.isnan(read.entries)
    if not kept.all():
        said.notes.append(f"{np.sum(~kept)} of {len(kept)} rows left out: no {target} in them{_such_as(read.odd)}")
    if not kept.any() or np.isinf(labels).any():
        raise ValueError(f"target {str(target)!r} has {np.isinf(labels).sum()} infinite and {kept.sum() - np.isinf(labels).sum()}"
                         " finite entries; expected finite numbers")
    if columns.flat(labels[kept]):
        raise ValueError(f"target {str(target)!r} is {columns.constant(column, read, labels[kept][0])}; expected one that varies")
    return labels, kept


def _features(frame, names, kept, marks, keep, without, said):
    """The features by name, NaN where an entry is missing; what is left out or done is ``said``."""
    found, infinite = {}, []
    for name in names:
        entries, why = (None, "as asked") if name in without else _feature(name, frame[name], kept, marks, name in keep, said)
        if why:
            said.dropped[str(name)] = why
        elif np.isinf(entries).any():
            infinite.append(f"{name} ({np.isinf(entries).sum()})")
        else:
            found[name] = entries
    if infinite:
        raise ValueError(f"infinite entries in {', '.join(infinite)}; expected finite numbers, and empty where one is missing")
    return found


def _feature(name, column, kept, marks, sure, said):
    """The entries of a feature in the rows that are kept, NaN where one is missing, or None and why it is left out."""
    read = columns.read(column, marks)
    if read.fault:
        return None, read.fault + (f"; {read.way}" if read.way else "")
    if not sure and (why := doubts.numbers_rows(name, read.entries)):
        return None, why
    entries = read.entries[kept]
    missing = np.isnan(entries)
    if missing.mean() > MISSING:
        return None, f"{100 * missing.mean():.0f} % of its entries are missing{_such_as(read.odd)}"
    if np.isinf(entries).any():
        return entries, None
    if columns.flat(entries[~missing]):
        return None, columns.constant(np.asarray(column)[kept], read, entries[~missing][0])
    if read.values:
        said.notes.append(f"{name}: {read.values[0]} = 0, {read.values[1]} = 1")
    elif not sure:
        said.warnings += doubts.of_numbers(name, read.entries)
    if missing.any():
        said.filled.setdefault(read.odd, {})[name] = missing.sum()
    return entries, None


def _such_as(odd):
    return f" ({odd[:20]!r} taken as missing)" if odd is not None else ""


def _refuse_sizes(found):
    unusual = [f"{name} ({np.nanmax(np.abs(entries)):.0e})" for name, entries in found.items()
               if np.nanmax(np.abs(entries)) > LARGEST or np.nanmax(entries) - np.nanmin(entries) < SMALLEST]
    if unusual:
        raise ValueError(f"numbers too large or too small in {', '.join(unusual)}; expected sizes, and differences, from "
                         f"{SMALLEST:g} to {LARGEST:g}: use another unit")


def _refuse_absent(names, target, keep, without):
    """Raise for a column that is named and is not there, and for a target to be left out."""
    for role, name in (("target", target), *(("keep", name) for name in keep), *(("without", name) for name in without)):
        if name not in names:
            close = difflib.get_close_matches(str(name), [str(one) for one in names], cutoff=0.5)
            raise ValueError(f"{role} {str(name)!r} is no column; " + (f"did you mean {', '.join(close)}?" if close else
                             f"expected one of {', '.join(str(one) for one in names)}"))
    if target in without:
        raise ValueError(f"without {str(target)!r} there is no target; expected other columns")


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
