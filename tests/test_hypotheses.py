"""Each sentence that sums a statement up names the hypotheses that bite: the rows of tests/claims/hypotheses.yml."""

from pathlib import Path

import pytest
import yaml

from test_notebooks import BOOK, CHAPTERS, CLAIMS, cells, source

ROWS = yaml.safe_load((Path(__file__).parent / "claims" / "hypotheses.yml").read_text())
STATEMENTS = {claim["id"]: claim for claim in CLAIMS}
SUMMARIES = {page.stem: source(next(cell for cell in cells(page) if cell["id"] == "remember")) for page in CHAPTERS}
SUMMARIES |= {name: (BOOK / f"{name}.md").read_text(encoding="utf-8") for name in ("index", "map", "teaching")}


def line_of(row):
    """The line that a row of the table is about."""
    if row["in"] == "claims":
        return STATEMENTS[row["of"]]["statement"]
    found = [line for line in SUMMARIES[row["in"]].splitlines() if row["says"] in line]
    assert len(found) == 1, f"{len(found)} lines of {row['in']} say {row['says']!r}"
    return found[0]


def hold(row):
    """The statement exists, the sentence is there, and it has all the words."""
    assert row.keys() == {"in", "of", "under"} | ({"says"} if row["in"] != "claims" else set())
    assert row["of"] in STATEMENTS, f"no statement {row['of']}"
    assert row["under"] and all(row["under"])
    missing = [word for word in row["under"] if word not in line_of(row)]
    assert not missing, f"{row['in']}: {line_of(row)!r} sums up {row['of']} and does not say {missing}"


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row['in']}-{row['of']}")
def test_a_summary_names_the_hypotheses(row):
    hold(row)


@pytest.mark.parametrize("place", sorted({row["in"] for row in ROWS} & {page.stem for page in CHAPTERS}))
def test_a_chapter_that_is_begun_is_complete(place):
    said = {line_of(row) for row in ROWS if row["in"] == place}
    points = [line for line in SUMMARIES[place].splitlines() if line.startswith("- ")]
    assert [point for point in points if point not in said] == []
    listed = {row["of"] for row in ROWS if row["in"] == "claims"}
    theorems = {claim["id"] for claim in CLAIMS if claim["chapter"] == place and claim["kind"] != "empirical"}
    assert theorems - listed == set()


def test_a_summary_that_drops_a_hypothesis_is_found(monkeypatch):
    row = {"in": "made-up", "says": "error of order", "of": "prop-orders", "under": ["balanced", "full rank"]}
    for line, holds in (("From balanced layers at full rank, error of order 1.", True), ("At full rank, error of order 1.", False),
                        ("From balanced layers, error of order 1.", False), ("From balanced layers at full rank.", False)):
        monkeypatch.setitem(SUMMARIES, "made-up", f"What to remember\n\n{line}\n")
        if holds:
            hold(row)
        else:
            with pytest.raises(AssertionError):
                hold(row)
    monkeypatch.setitem(SUMMARIES, "made-up", "balanced, full rank: error of order 1\n" * 2)
    for wrong in (row, row | {"of": "prop-none"}, row | {"under": []}, row | {"in": "claims"}):
        with pytest.raises(AssertionError):
            hold(wrong)
