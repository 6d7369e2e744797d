"""What the survey of the paper's experiments asks: every answer is a test or a record that is there, or says what is missing."""

from pathlib import Path

import pytest
import yaml

import deeplinear as dl

HERE = Path(__file__).parent


def fault(row):
    """What is wrong with a row, or None."""
    answers = row.keys() - {"key", "asks"}
    if len(answers) != 1 or not answers <= {"test", "record", "open"} or not {"key", "asks"} <= row.keys():
        return f"keys {sorted(row)}"
    if "test" in row:
        file, _, name = row["test"].partition("::")
        path = HERE.parent / file
        there = path.is_file() and f"\ndef {name}(" in path.read_text(encoding="utf-8")
        return None if there else f"no test {row['test']}"
    if "record" in row:
        there = (dl.data.book_folder("results") / f"{row['record']}.json").is_file()
        return None if there else f"no record {row['record']}"
    return None if len(row["open"]) > 10 else "nothing is said to be missing"


@pytest.mark.parametrize("name", ["settled_convnet", "settled_regression"])
def test_what_is_settled_names_a_test_or_a_record_and_the_rest_says_what_is_missing(name):
    rows = yaml.safe_load((HERE / f"{name}.yml").read_text(encoding="utf-8"))
    assert [(row["key"], fault(row)) for row in rows if fault(row)] == [] and len({row["key"] for row in rows}) == len(rows)


@pytest.mark.parametrize("answer, said", [
    ({"test": "tests/test_settled.py::test_nothing"}, "no test"), ({"test": "tests/test_none.py::fault"}, "no test"),
    ({"record": "two-scale"}, "no record"), ({"open": ""}, "nothing"), ({}, "keys"), ({"open": "The record", "test": "a"}, "keys")])
def test_an_answer_that_is_none_is_found(answer, said):
    row = {"key": "a", "asks": "b"}
    assert said in fault(row | answer) and fault(row | {"record": "two-scales"}) is None
