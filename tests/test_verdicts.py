"""What the empirical verdicts still owe: every experiment, test and claim that the table names is there."""

import ast
from pathlib import Path

import pytest
import yaml

import deeplinear as dl
from deeplinear.experiments import EXPERIMENTS

ROOT = Path(__file__).parents[1]
ROWS = yaml.safe_load((ROOT / "tests" / "verdicts.yml").read_text(encoding="utf-8"))


def faults(row, claims):
    """What is wrong with a row, in words."""
    found = [] if row.keys() == {"id", "says", "by", "claims", "settled"} else [f"keys {sorted(row)}"]
    recorded = {path.stem for path in (ROOT / "book" / "results").glob("*.json")}
    for name in row["by"]:
        path, _, function = name.partition("::")
        if not function:
            found += [] if name in EXPERIMENTS else [f"no experiment {name}"]
            found += [f"no record {name}"] if row["settled"] and name not in recorded else []
        elif not (ROOT / path).is_file() or function not in {
                item.name for item in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8")))
                if isinstance(item, ast.FunctionDef)}:
            found.append(f"no test {name}")
    found += [f"no claim {claim}" for claim in row["claims"] if claim not in claims]
    return found + (["settled by nothing"] if row["settled"] and not row["by"] else [])


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["id"])
def test_what_a_row_names_is_there(row):
    assert not faults(row, {claim["id"] for claim in dl.ledger.read()})


def test_a_row_that_names_what_is_not_there_is_found():
    row = {"id": "x", "says": "x", "by": ["two-scales", "tests/test_verdicts.py::faults"], "claims": ["emp-adam"], "settled": True}
    assert not faults(row, {"emp-adam"})
    for change, fault in (({"by": ["two-scale"], "settled": False}, "no experiment two-scale"), ({"claims": ["emp-eve"]}, "no claim emp-eve"),
                          ({"by": ["tests/test_verdicts.py::test_none"]}, "no test tests/test_verdicts.py::test_none"),
                          ({"by": []}, "settled by nothing"), ({"more": 1}, "keys")):
        assert any(fault in found for found in faults(row | change, {"emp-adam"})), change
    assert len({row["id"] for row in ROWS}) == len(ROWS)
