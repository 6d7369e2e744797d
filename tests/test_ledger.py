"""The back pages: what a row shows of a claim, of a record, of the targets of the benchmark."""

import json
import re
from pathlib import Path

import pytest

import deeplinear as dl

ROW = {"id": "emp-sums", "ledger": ["A01", "D01"], "statement": "Sums < products", "source": "here", "kind": "empirical",
       "chapter": "09-sums", "verdict": "not settled"}


@pytest.fixture
def shown(monkeypatch):
    """The cells of the one row that the table makes of a claim."""
    def table(**more):
        monkeypatch.setattr(dl.ledger, "read", lambda: [ROW | more])
        return dict(zip(dl.ledger.claims().headers, dl.ledger.claims().rows[0], strict=True))
    return table


def test_a_claim_shows_its_scope_under_its_statement(shown):
    assert shown()["statement, scope"] == "Sums &lt; products"
    assert shown(scope="a < 9, 5 seeds")["statement, scope"] == "Sums &lt; products<small>a &lt; 9, 5 seeds</small>"
    assert shown()["verdict"] == "<b>not settled</b>" and shown()["ledger"] == "A01, D01"


def test_a_claim_shows_its_machine_checked_theorem_beside_check_and_test(shown):
    plain, formal = shown()["checked by"], shown(formal="sums'")["checked by"]
    assert plain.count("href") == 2 and "#check-emp-sums" in plain and "tests.html#test-emp-sums" in plain
    assert formal == plain + ', <a href="formal.html#formal-sums&#x27;">machine-checked</a> <code>sums&#x27;</code>'


def test_every_scope_is_on_the_page():
    shown = dl.ledger.claims()._repr_html_()
    assert shown.count("<small>") == sum("scope" in claim for claim in dl.ledger.read()) >= 32


def test_the_page_explains_the_verdicts_that_are_given_and_no_others():
    page = json.loads((Path(__file__).parents[1] / "book" / "claims.ipynb").read_text(encoding="utf-8"))
    words = "".join(next(cell["source"] for cell in page["cells"] if cell["id"] == "title"))
    explained = {name for terms in re.findall(r"^(.+)\n: ", words, re.M) for name in terms.split(", ")}
    assert explained == {claim["verdict"] for claim in dl.ledger.read()}


def test_a_record_shows_when_one_of_its_jobs_was_run_again():
    shown = dict(zip((row[0].split('"')[1] for row in dl.ledger.records().rows), (row[-1] for row in dl.ledger.records().rows)))
    assert set(shown) == {f"run-{path.stem}" for path in dl.data.book_folder("results").glob("*.json")}
    for name, cell in shown.items():
        found = dl.recorded.load(name.removeprefix("run-"), quiet=True).provenance.get("verified")
        assert (found["commit"][:7] in cell and ("bit for bit" in cell) == (found["distance"] == 0)) if found else cell == ""


def target(name, verdict="met", least=2, found=3.0, allowed=4.0):
    return {"target": name, "least": least, "found": found, "roofline_allows": allowed, "verdict": verdict}


def test_targets_that_differ_in_their_depth_share_a_row():
    case = "p = 4, float64, 128 runs"
    rows = dl.ledger.targets([
        target(f"{case}, depth 1: engine / autograd chain", found=2.3456, allowed=4.0),
        target(f"{case}, depth 8: engine / autograd chain", found=2.1, allowed=3.5),
        target(f"{case}, depth 9: engine / autograd chain", least=2.5, found=2, allowed=2, verdict="out of reach"),
        target(f"{case}, depth 1: engine / roofline", found=3.001, allowed=None),
        target("p = 2, float32, one run, depth 1: engine / roofline", found=1, verdict="missed"),
        target("p = 2, float32, one run, depth 2: engine / roofline", found=3)])
    assert rows == [["p=4, f64", "chain", "1,8", "2", "2.1-2.35", "3.5-4", "met"],
                    ["p=4, f64", "chain", "9", "2.5", "2", "2", "out of reach"],
                    ["p=4, f64", "roofline", "1", "2", "3", "", "met"],
                    ["p=2, f32, one run", "roofline", "1,2", "2", "1-3", "4", "1 of 2 met"]]
    assert dl.ledger.targets([]) == []


def test_a_target_that_is_no_ratio_is_refused():
    with pytest.raises(ValueError, match="'p = 4, depth 1: engine, million config-steps/s'; expected '<case>, depth"):
        dl.ledger.targets([target("p = 4, depth 1: engine, million config-steps/s")])
