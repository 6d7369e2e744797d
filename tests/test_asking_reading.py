"""What ``dl.ask`` reads of a table, what it leaves out and says so, and what it refuses by name."""

import codecs
import gzip
import subprocess
import sys

import numpy as np
import pytest

import deeplinear as dl
from deeplinear.asking import reading


class Frame(dict):
    """The least that counts as a data frame."""

    columns = property(list)


DIRTY = """\
,size, town ,sold,floor,price,empty,always,odd
0,50,Oslo,2021-01-02,1,100,,7,1
1,60,Bergen,2021-01-03,?,130,3,7,
2,70,Oslo,2021-01-04,3,,,7,3
"""


def dirty(rows=40):
    more = [f"{i},{50 + 7 * i % 90},Oslo,2021-02-01,{i % 9},{100 + i * i % 77},,7,{i % 5}" for i in range(3, rows)]
    return DIRTY + "\n".join(more) + "\n"


def test_what_is_left_out_and_filled_in_is_said(tmp_path):
    pytest.importorskip("pandas", reason="pandas is not installed")
    (tmp_path / "t.csv").write_text(dirty(), encoding="utf-8-sig")
    found = reading.clean(reading.read(tmp_path / "t.csv"), "price")
    assert found.dropped == {"Unnamed: 0": "numbers of the rows, without a name", "sold": "text of 4 values, such as "
                             "'2021-02-01', '2021-01-02'; if these are dates, the days since the first can be used",
                             "always": "constant, 7", "empty": "97 % of its entries are missing"}
    assert found.notes == ["1 of 40 rows left out: no price in them", "town: Bergen = 0, Oslo = 1",
                           "floor: 1 missing entry filled with the mean ('?' taken as "
                           "missing)", "odd: 1 missing entry filled with the mean"]
    assert found.data.X.shape[0] == 39 and found.used == ("size", "town", "floor", "odd")
    filled = found.data.X[1, 2]
    assert abs(filled) < 1e-12  # the mean, once standardised


@pytest.mark.parametrize("separator, decimal", [(";", ","), ("\t", "."), ("|", "."), (",", ".")])
def test_separators_and_decimal_commas(tmp_path, separator, decimal):
    pytest.importorskip("pandas", reason="pandas is not installed")
    rows = [["a", "b", "y"], *([f"{i + 0.5}".replace(".", decimal), str(i * i), f"{-i / 4}".replace(".", decimal)] for i in range(30))]
    (tmp_path / "t.csv").write_text("\n".join(separator.join(row) for row in rows), encoding="cp1252")
    frame = reading.read(tmp_path / "t.csv")
    assert frame.shape == (30, 3) and frame["a"][3] == 3.5 and reading.clean(frame, "y").dropped == {}


@pytest.mark.parametrize("pack", [lambda text: text.encode("utf-16"), lambda text: gzip.compress(text.encode()),
                                  lambda text: codecs.BOM_UTF16_BE + text.encode("utf-16-be")])
def test_files_in_utf_16_and_packed_ones(tmp_path, pack):
    pytest.importorskip("pandas", reason="pandas is not installed")
    (tmp_path / "t.csv.gz").write_bytes(pack("größe,#b\n1,2\n3,4\n"))
    frame = reading.read(tmp_path / "t.csv.gz")
    assert list(frame.columns) == ["größe", "#b"] and list(frame["größe"]) == [1, 3]


@pytest.mark.parametrize("entry, said", [
    ("1{},5", "text, such as '10,5', '11,5': numbers with ','; expected such as 1234.5, with a decimal point alone"),
    ("$1,2{}.00", "text, such as '$1,20.00', '$1,21.00': numbers with '$' and ','; expected such as"),
    ("5.{}%", "numbers with '%'; expected"), ("({} €)", "numbers with '€'; expected"),
    ("1,2a{}", "text of 10 values, such as '1,2a0', '1,2a1'"),
    ("2020-01-1{}", "text of 10 values, such as '2020-01-10', '2020-01-11'; if these are dates")])
def test_text_that_looks_like_numbers_is_told_why_it_is_none(entry, said):
    found = reading.clean(Frame(a=[entry.format(i % 10) for i in range(30)], b=x, y=y), "y").dropped["a"]
    assert found.startswith(said) or ("numbers" in said and said in found)
    assert ("numbers with" in found) == ("numbers" in said)


def test_another_decimal_sign_in_one_column_is_said(tmp_path):
    pytest.importorskip("pandas", reason="pandas is not installed")
    (tmp_path / "t.csv").write_text("a;b;y\n" + "\n".join(f"{i},5;{i * i % 7}.5;{i}.25" for i in range(30)))
    found = reading.clean(reading.read(tmp_path / "t.csv"), "y")
    assert list(found.dropped) == ["a"] and "numbers with ','; expected such as 1234.5" in found.dropped["a"]


def test_too_many_odd_entries_are_counted_and_the_rule_is_said():
    column = ["?" if i % 8 == 0 else str(i) for i in range(32)]
    found = reading.clean(Frame(a=column, b=np.arange(32.0) ** 2, y=np.arange(32.0)), "y").dropped["a"]
    assert found == "text in 4 of 32 entries, such as '?'; in a column of numbers at most 10 % are taken as missing; missing=? takes it so"
    kept = reading.clean(Frame(a=column, b=np.arange(32.0) ** 2, y=np.arange(32.0)), "y", missing=["?"])
    assert kept.used == ("a", "b") and kept.notes == ["a: 4 missing entries filled with the mean ('?' taken as missing)"]


def test_large_offsets_and_the_target_in_disguise_are_said():
    found = reading.clean(Frame(a=10**18 + np.arange(30), b=x, c=3 - 7 * np.sin(y), y=np.sin(y)), "y")
    assert found.dropped == {"a": "constant, 1e+18, up to rounding: take that away from it"}
    assert found.warnings == ["c: the target itself, up to scale and shift, so that the answer says little of y; without=c leaves it "
                              "out"]


@pytest.mark.parametrize("content, said", [
    (b"# by me, 2020\na,b,c\n1,2,3\n", "begins with a comment, '# by me, 2020'; expected the header in its first line"),
    (b"# by me\na,b\n1,2\n", "begins with a comment"), (b"\x1f\x8b\x08", "is compressed by gzip and cannot be unpacked"),
    (None, r"no file .*tble.csv; did you mean .*table.csv"), (b"", "is empty; expected a CSV file with a header"),
    (b"PK\x03\x04\0\0", "holds bytes that are no text"), (b"<html>\n<body>", "first line, '<html>', has no comma"),
    (b"a,b,a\n1,2,3\n", "columns named twice: a; expected every name once"), (b"a,b\n1,2\n1,2,3\n", "is not a CSV file: Error tokenizing"),
    (b"a,b\n1,2,3\n1,2,3\n", "rows have more entries than its header has names, 2"), (b'a,b\n"1,2\n', "is not a CSV file")])
def test_files_that_are_no_table(tmp_path, content, said):
    pytest.importorskip("pandas", reason="pandas is not installed")
    (tmp_path / "table.csv").write_bytes(b"a,b\n" if content is None else content)
    with pytest.raises(ValueError, match=said):
        reading.read(tmp_path / ("tble.csv" if content is None else "table.csv"))


x, y = np.arange(30.0) ** 2, np.arange(30.0)


@pytest.mark.parametrize("frame, options, said", [
    (Frame(size=x, price=y), {"target": "prize"}, "target 'prize' is no column; did you mean price?"),
    (Frame(a=x, b=y), {"target": "price"}, "target 'price' is no column; expected one of a, b"),
    (Frame(a=x, y=["u", "v"] * 15), {}, "target 'y' is text, such as 'u', 'v'; expected numbers, such as 0 and 1"),
    (Frame(a=x, y=y.astype("datetime64[D]")), {}, "target 'y' is dates or times; expected numbers"),
    (Frame(a=x, y=np.full(30, 3.0)), {}, "target 'y' is constant, 3; expected one that varies"),
    (Frame(a=x, y=np.full(30, np.nan)), {}, "target 'y' has 0 infinite and 0 finite entries"),
    (Frame(a=x, y=np.where(y == 3, np.inf, y)), {}, "target 'y' has 1 infinite and 29 finite entries; expected finite"),
    (Frame(a=x[:12], y=y[:12]), {}, "12 rows with a target for 1 usable columns; expected at least 20"),
    (Frame({f"x{i}": x + y**3 * i for i in range(20)} | {"y": y}), {}, "30 rows .* for 20 usable columns; expected at least 40"),
    (Frame(a=np.where(y < 2, -np.inf, x), y=y), {}, r"infinite entries in a \(2\); expected finite numbers"),
    (Frame(a=["u"] * 30, b=np.ones(30), y=y), {}, "no column is left beside the target: a: constant, 'u'; b: constant, 1"),
    (Frame(a=1e200 * x, b=x, y=1e200 * y), {}, r"too large or too small in a \(8e\+202\), y \(3e\+201\); expected sizes, .*1e-140"),
    (Frame(a=1e-200 * x, y=y), {}, r"too large or too small in a \(8e-198\); expected sizes"),
    (Frame(a=x, y=y), {"power": 3}, "power is 3; expected 2 or 4"), (Frame(a=x, y=y), {"power": True}, "power is True; expected"),
    (Frame(a=x, y=y), {"seconds": 0}, "seconds is 0; expected a positive number"), ([1, 2], {}, "is a list without columns"),
    (Frame(a=np.tile([1.0, -1, 0], 10), y=np.repeat(np.arange(10.0), 3)), {}, "the columns say nothing of the target")])
def test_a_table_that_cannot_be_asked_is_named(frame, options, said):
    with pytest.raises(ValueError, match=said):
        dl.ask(frame, **{"target": "y", **options})


@pytest.mark.parametrize("scale", [1e-139, 1e137])
def test_the_largest_and_smallest_numbers_can_be_asked(scale):
    found, plain = (reading.clean(Frame(a=s * x, b=s * np.sin(x), y=s * y), "y").data for s in (scale, 1.0))
    assert (found.X - plain.X).abs().max() < 1e-9 and (found.y - plain.y).abs().max() < 1e-9


def test_columns_named_twice_in_a_frame():
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    frame = pandas.DataFrame([[1.0, 2, 3]] * 30, columns=["a", "a", "y"])
    with pytest.raises(ValueError, match="columns named twice: a"):
        dl.ask(frame, "y")
    frame = pandas.DataFrame({"i": pandas.array([1, None, *range(28)], dtype="Int64"), "b": [True, False] * 15, "y": y})
    found = reading.clean(frame, "y")
    assert found.notes == ["i: 1 missing entry filled with the mean"] and found.data.X.shape == (30, 2)


def test_pandas_is_wanted_by_reading_alone(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ValueError, match=r"not installed; pip install 'deeplinear\[ask\]'"):
        reading.read(tmp_path / "t.csv")
    assert reading.clean(Frame(a=x, y=y), "y").data.X.shape == (30, 1)
    seen = subprocess.run([sys.executable, "-c", "import deeplinear, sys; print('pandas' in sys.modules)"], capture_output=True, text=True)
    assert seen.stdout == "False\n", seen.stderr
