"""The table of claims: what a row of the ledger shows."""

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


def test_a_record_shows_when_one_of_its_jobs_was_run_again():
    shown = dict(zip((row[0].split('"')[1] for row in dl.ledger.records().rows), (row[-1] for row in dl.ledger.records().rows)))
    assert set(shown) == {f"run-{path.stem}" for path in dl.data.book_folder("results").glob("*.json")}
    for name, cell in shown.items():
        found = dl.recorded.load(name.removeprefix("run-"), quiet=True).provenance.get("verified")
        assert (found["commit"][:7] in cell and ("bit for bit" in cell) == (found["distance"] == 0)) if found else cell == ""
