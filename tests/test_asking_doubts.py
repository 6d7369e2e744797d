"""Columns of numbers that are none: what ``dl.ask`` warns of, leaves out or turns into 0 and 1, and what it lets alone."""

import json
from pathlib import Path

import numpy as np
import pytest

import deeplinear as dl
from deeplinear.asking import columns, doubts, reading
from test_asking_reading import Frame

N = 60
RANDOM = np.random.default_rng(0)
AGE, FLOAT, SKEW = RANDOM.integers(18, 96, N), RANDOM.normal(20, 5, N), RANDOM.gamma(0.5, 1e4, N)
Y = RANDOM.normal(size=N)


def with_mark(entries, *marks):
    """The column with each (value, count) in rows of its own."""
    entries, place = np.array(entries, float), 3
    for value, count in marks:
        entries[place:place + count] = value
        place += count + 1
    return entries


def asked(target="y", *, missing=(), keep=(), without=(), **frame):
    return reading.clean(Frame(frame | ({"y": Y} if target == "y" and "y" not in frame else {})), target, missing, keep, without)


@pytest.mark.parametrize("entries, marks", [
    (FLOAT, [(-999, 4)]), (FLOAT, [(-9999.0, 1)]), (AGE, [(999, 2)]), (AGE, [(-9, 2)]), (AGE, [(-1, 3)]), (AGE, [(-99, 2)]),
    (SKEW, [(-999, 3)]),
    (SKEW, [(9999999, 3)]), (FLOAT, [(-999.9, 3)]), (FLOAT, [(-999, 3), (9999, 2)]), (FLOAT, [(-999, 30)]),
    (RANDOM.integers(1, 6, N), [(99, 2)]),
    (RANDOM.integers(0, 2, N), [(999, 2)]), (RANDOM.integers(1, 6, N), [(97, 1), (98, 4), (99, 5)]), (AGE, [(32767, 1)]),
    (AGE, [(-2147483648, 2)]), (FLOAT, [(1e20, 1)]), (FLOAT, [(-1e30, 1)]), (FLOAT, [(9.96921e36, 2)]), (FLOAT, [(-5000, 3)]),
    (with_mark(FLOAT, (5000, 1)), [(-999, 2)])])
def test_marks_of_missing_entries_are_found_with_their_counts(entries, marks):
    found, (least, most) = doubts.marks(with_mark(entries, *marks))
    assert found == [(float(value), count) for value, count in sorted(marks)]
    assert least >= np.min(entries) and most <= max(np.max(entries), 5000)


@pytest.mark.parametrize("entries", [
    AGE, FLOAT, SKEW, np.where(AGE < 40, 0, SKEW), np.minimum(SKEW, np.quantile(SKEW, 0.8)), np.exp(RANDOM.normal(0, 6, N)),
    RANDOM.standard_cauchy(N).round(), with_mark(AGE, (99, 5)), with_mark(FLOAT, (500, 1)), with_mark(FLOAT, (110, 3)),
    with_mark(SKEW, (10 * SKEW.max(), 2)), np.tile([1.0, 10, 100, 1000, 10000], 12), np.tile([16.0, 32, 64, 128], 15),
    np.tile([0.0, 99], 30), np.tile([-9.0, 9], 30), np.tile([1.0, 2, 3, 9], 15), with_mark(FLOAT, (-9, 3)) - 20, RANDOM.poisson(1, N),
    with_mark(FLOAT, (1e5, 1), (2e5, 1), (3e5, 1)), np.tile([-1.0, 0, 1], 20), np.tile([-1.0, 1], 30),
    RANDOM.integers(-1, 30, N), with_mark(AGE, (-1, 1)), RANDOM.integers(900, 1000, N), 1e-9 * FLOAT, 1e9 * SKEW,
    -np.arange(1.0, 100), np.repeat(np.arange(1, 7), 10), np.full(N, 3.0), np.zeros(0)])
def test_tails_caps_zeros_grids_and_single_outliers_are_no_marks(entries):
    assert doubts.marks(np.asarray(entries, float))[0] == []


def test_no_column_of_many_random_ones_has_a_mark():
    draw = np.random.default_rng(1)
    kinds = [lambda n: draw.normal(0, 1, n).round(1), lambda n: draw.lognormal(0, 3, n).round(2), lambda n: draw.poisson(0.2, n),
             lambda n: draw.geometric(0.05, n), lambda n: draw.pareto(0.7, n).round(1),
             lambda n: draw.integers(0, 10**draw.integers(1, 7), n), lambda n: (1000 * draw.standard_t(1.5, n)).round(),
             lambda n: draw.choice([0, 0, 0, 1, 5, 20, 80], n)]
    for kind in kinds:
        for _ in range(60):
            assert doubts.marks(np.asarray(kind(draw.integers(20, 300)), float))[0] == []


@pytest.mark.parametrize("name", ["diabetes", "macrodata", "ethanol"])
def test_the_sets_of_the_book_give_no_warning(name):
    try:
        data = dl.data.load(name, download=False)
    except dl.data.DataUnavailable:
        pytest.skip(f"{name} is not here")
    found = asked(**{f"x{i}": column for i, column in enumerate(data.X.T.numpy())}, y=data.y.numpy())
    assert found.warnings == [] and found.notes == [] and found.dropped == {}


@pytest.mark.parametrize("name, target", [("diabetes", "target"), ("macrodata", "realgdp")])
def test_the_files_of_the_book_give_no_warning(name, target):
    pytest.importorskip("pandas", reason="pandas is not installed")
    found = reading.clean(reading.read(dl.data.book_folder("data") / f"{name}.csv"), target)
    assert found.warnings == [] and found.notes == [] and found.dropped == {}


def test_a_mark_is_named_with_its_column_its_rows_and_what_to_do():
    income = with_mark(FLOAT.round(1), (-999, 4))
    found = asked(income=income, age=AGE)
    rest = income[income > -999]
    assert found.warnings == [
        f"income: -999 in 4 of 60 rows, the others from {rest.min():.4g} to {rest.max():.4g}. Taken as numbers; if it means missing, ask "
        "with missing=-999 or empty the cells; if not, keep=income"]
    done = asked(income=income, age=AGE, missing=["-999"])
    assert done.warnings == [] and done.notes == ["income: 4 missing entries filled with the mean ('-999' taken as missing)"]
    assert done.data.X[3, 0].abs() < 1e-12 and asked(income=income, age=AGE, missing=[-999.0]).warnings == []
    assert asked(income=income, age=AGE, keep=["income"]).warnings == []


def test_columns_with_the_same_mark_share_a_warning_and_a_note():
    frame = {"a": with_mark(FLOAT, (-999, 4)), "b": AGE, "c": with_mark(SKEW, (-999, 2))}
    assert asked(**frame).warnings == ["a, c: -999 in 2 to 4 of 60 rows, far from all others there. Taken as numbers; if it means "
                                       "missing, ask with missing=-999 or empty the cells; if not, such as keep=a"]
    assert asked(**frame, missing=[-999]).notes == ["a (4), c (2): missing entries filled with the mean ('-999' taken as missing)"]


def test_marks_in_the_target_are_named_and_their_rows_left_out_when_asked():
    y = with_mark(Y, (999999, 3))
    found = asked(a=FLOAT, y=y)
    assert found.warnings[0].startswith("y: 999999 in 3 of 60 rows")
    done = asked(a=FLOAT, y=y, missing=[999999])
    assert done.warnings == [] and done.notes == ["3 of 60 rows left out: no y in them ('999999' taken as missing)"]
    assert len(done.data.X) == 57


@pytest.mark.parametrize("kind", [np.float32, np.float64, object, str])
@pytest.mark.parametrize("mark", [-999.9, 1099998.9, 9.96921e36, -2147483648])
def test_a_mark_as_it_is_written_is_found_again_in_any_type(kind, mark):
    column = with_mark(FLOAT, (mark, 3)).astype(kind)
    said, = asked(a=column, b=AGE).warnings
    written = said.split("missing=")[1].split(" ")[0]
    assert asked(a=column, b=AGE, missing=[written]).warnings == []


def test_marks_that_are_text_and_marks_that_are_nowhere():
    column = np.array(["yes", "no", "unknown"])[np.arange(N) % 3]
    assert asked(a=column, b=AGE).dropped["a"].startswith("text of 3 values")
    found = asked(a=column, b=AGE, missing=["unknown", -77])
    assert found.notes == ["a: no = 0, yes = 1", "a: 20 missing entries filled with the mean ('unknown' taken as missing)",
                           "missing=-77: no column has it"]


@pytest.mark.parametrize("name, entries, said", [
    ("n", np.arange(N), "numbers of the rows, 0 to 59; keep=n takes it in"), ("Id", np.arange(1.0, N + 1), "numbers of the rows, 1 to 60"),
    ("Unnamed: 0", np.arange(7, N + 7), "numbers of the rows, without a name")])
def test_numbers_of_the_rows_are_left_out_unless_kept(name, entries, said):
    found = asked(**{name: entries}, b=AGE)
    assert found.dropped[name].startswith(said) and found.used == ("b",)
    kept = asked(**{name: entries}, b=AGE, keep=[name])
    assert kept.used == (name, "b") and kept.dropped == {} and kept.warnings == []
    with pytest.raises(ValueError, match=f"no column is left beside the target: {name}: numbers of the rows"):
        asked(**{name: entries})


@pytest.mark.parametrize("name, entries, said", [
    ("year", np.arange(1960, 1960 + N), "rises by 1 from each row to the next, 1960 to 2019"),
    ("k", -5 * np.arange(N), "falls by 5 from each row to the next, -295 to 0"),
    ("k", 5001 + np.random.default_rng(2).permutation(N), "has each whole number from 5001 to 5060 once"),
    ("patient_id", RANDOM.integers(0, 9000, N), "is called an id"), ("customerID", AGE, "is called an id"), ("id", AGE, "is called an id")])
def test_other_numbers_that_seem_to_be_names_are_kept_with_a_warning(name, entries, said):
    found = asked(**{name: entries}, b=FLOAT)
    assert found.warnings == [f"{name}: {said}. Taken as a feature; if it only numbers or names the rows, without={name}; if not, "
                              f"keep={name}"]
    assert found.used == (name, "b") and asked(**{name: entries}, b=FLOAT, keep=[name]).warnings == []
    gone = asked(**{name: entries}, b=FLOAT, without=[name])
    assert gone.warnings == [] and gone.dropped == {name: "as asked"} and gone.used == ("b",)


@pytest.mark.parametrize("name, entries", [
    ("t", np.arange(N) / 10), ("k", np.arange(N) ** 2), ("k", np.repeat(np.arange(N // 2), 2)), ("k", AGE), ("k", np.arange(N) % 12),
    ("paid", AGE), ("humidity", AGE), ("valid", np.arange(N) % 2), ("id", FLOAT)])
def test_sizes_are_not_taken_for_numbers_of_rows(name, entries):
    found = asked(**{name: entries}, b=SKEW)
    assert found.warnings == [] and found.used == (name, "b")


@pytest.mark.parametrize("entries, said", [
    (["yes", "no", "yes"], "no = 0, yes = 1"), (["M", "F", "F"], "F = 0, M = 1"), (["Yes", "no ", "YES"], "no = 0, Yes = 1"),
    (["on", None, "off"], "off = 0, on = 1")])
def test_text_of_two_values_is_0_and_1(entries, said):
    column = np.array(entries * 20, object)
    found = asked(a=column, b=AGE)
    assert found.notes[0] == f"a: {said}" and found.used == ("a", "b") and found.warnings == []
    high = np.array([str(entry).strip().casefold() == said.split(", ")[1].split(" ")[0].casefold() for entry in column])
    assert (found.data.X[high, 0] > 0).all() and (found.data.X[~high, 0] <= 1e-12).all()


@pytest.mark.parametrize("entries, said", [
    (["u", "v", "w"] * 20, "text of 3 values, such as 'u', 'v'; a column of 0 and 1 for each value but one can be used"),
    ([f"P{i}" for i in range(N)], "text of 60 values, such as 'P0', 'P1'; numbers in their place can be used"),
    (["x", None] * 30, "text, 'x' or nothing; it can be used with 1 for the one and 0 for the other"), (["x"] * N, "constant, 'x'"),
    (np.arange("2020-01-01", "2020-03-01", dtype="datetime64[D]"), "dates or times; the days since the first can be used"),
    (["u", 3.0] * 30, "text in 30 of 60 entries, such as 'u'; in a column of numbers at most 10 % are taken as missing; missing=u takes")])
def test_other_text_is_left_out_with_a_way_on(entries, said):
    assert asked(a=entries, b=AGE).dropped["a"].startswith(said)


def test_text_and_numbers_that_vary_only_in_rows_without_target_are_constant():
    y = np.where(np.arange(N) < 5, np.nan, Y)
    first = np.arange(N) < 5
    found = asked(a=np.where(first, "no", "yes"), b=np.where(first, 1, 7), c=AGE, y=y)
    assert found.dropped == {"a": "constant, 'yes'", "b": "constant, 7"}


def test_copies_of_the_target_and_of_each_other_are_named():
    rounded, gaps = np.round(1.1 * Y, 3), np.where(np.arange(N) % 9, 5 - Y, np.nan)
    found = asked(usd=rounded, gaps=gaps, near=Y + 0.01 * FLOAT, a=FLOAT, b=AGE, inch=FLOAT / 2.54, neg=-FLOAT)
    assert [warning.split(":")[0] for warning in found.warnings] == ["usd", "gaps"]
    assert found.warnings[0] == ("usd: the target itself, up to scale and shift, so that the answer says little of y; without=usd "
                                 "leaves it out")
    assert found.notes[-1] == "inch, neg: kept, the same as a up to scale and shift"


@pytest.mark.parametrize("options, said", [
    ({"keep": "bb"}, "keep 'bb' is no column; did you mean b"), ({"without": ["z"]}, "without 'z' is no column; expected one of a, b, y"),
    ({"without": "y"}, "without 'y' there is no target"), ({"without": ["a", "b"]}, "no column is left .*: a: as asked; b: as asked")])
def test_options_that_name_no_column(options, said):
    with pytest.raises(ValueError, match=said):
        dl.ask(Frame(a=FLOAT, b=AGE, y=Y), "y", **options)


def test_an_option_takes_one_or_several():
    frame = Frame(a=with_mark(FLOAT, (-999, 4)), n=np.arange(N), why=AGE, y=Y + AGE)
    one = dl.ask(frame, "y", seconds=1e-9, missing=-999, keep="n", without="why")
    assert str(one) == str(dl.ask(frame, "y", seconds=1e-9, missing=["-999"], keep=("n",), without={"why"}))
    assert one.names == ("a", "n") and one.warnings == [] and one.features == 2


def test_features_and_warnings_are_printed_and_in_the_page():
    frame = Frame({"<id>": np.arange(N), "smoker": ["yes", "no"] * 30, "const": np.ones(N), "const2": np.ones(N), "a": FLOAT,
                   "b": 2 * FLOAT, "income": with_mark(SKEW.round(), (-999, 3)), "y": Y + FLOAT})
    found = dl.ask(frame, "y", 4, seconds=1e-9)
    lines = str(found).splitlines()
    assert lines[:6] == ["table       60 rows, 4 features, target y, power 4; columns standardised", "features    smoker, a, b, income",
                         "left out    <id>: numbers of the rows, 0 to 59; keep=<id> takes it in", "            const, const2: constant, 1",
                         "done        smoker: no = 0, yes = 1", "            b: kept, the same as a up to scale and shift"]
    assert "in 3 directions of the 4 features" in str(found)
    last = next(i for i, line in enumerate(lines) if line.startswith("warning     income: -999 in 3 of 60 rows"))
    assert last > next(i for i, line in enumerate(lines) if line.startswith("verdict  ")) and max(map(len, lines)) <= 100
    page = dl.asking.page(found, "t.csv")
    assert "<p>Warning: income: -999" in page and page.index("Warning") < page.index("<figure>") and "<id>" not in page
    many = dl.ask(Frame({f"x{i}": RANDOM.normal(size=N) for i in range(28)} | {"y": Y}), "y", seconds=1e-9)
    assert "x17 and 10 more" in " ".join(str(many).split()) and len(many.names) == 28


def test_a_column_is_read_as_its_entries_say():
    read = columns.read(np.array(["1", " 2.5", "", "inf"] + ["3"] * 16, object), columns.Marks(["3"]))
    assert read.odd == "3" and read.entries[:2].tolist() == [1, 2.5] and np.isnan(read.entries[2]) and np.isnan(read.entries[4:]).all()
    assert np.isinf(read.entries[3])


def flats():
    """The table made up for the page."""
    draw, n = np.random.default_rng(1), 400
    size, age = draw.normal(70, 20, n).round(1), draw.integers(0, 80, n)
    rooms, balcony = (size / 25).round().astype(int), draw.choice(["no", "yes"], n)
    centre, town = draw.gamma(4, 2, n).round(1), draw.choice(["Bergen", "Moss", "Oslo"], n)
    price = (3 * size - age + 20 * (balcony == "yes") - 4 * centre + draw.normal(0, 50, n)).round()
    centre[::40], size[5::50] = -999, np.nan
    return Frame(nr=np.arange(1, n + 1), size=size, rooms=rooms, age=age, balcony=balcony, centre=centre, town=town, price=price)


def test_the_page_shows_what_is_said_of_its_table():
    """All but the race and its verdict, whose time this test has not."""
    notebook = json.loads((Path(__file__).parents[1] / "book" / "networks.ipynb").read_text(encoding="utf-8"))
    page = "".join(next(cell for cell in notebook["cells"] if cell["id"] == "table")["source"])
    first, then = (str(dl.ask(flats(), "price", 4, seconds=1e-9, missing=missing)) for missing in ((), -999))
    above, _, warned = first.partition("warning ")
    assert f"```text\n{above.partition('conditioning')[0]}..." in page and f"warning {warned}\n```" in page
    assert first[first.index("prediction"):first.index("race ")].strip() in page
    said = " ".join(then.split())
    assert said[said.index("centre: "):said.index("taken as missing") + 17] in page
