import re
from pathlib import Path

import numpy as np
import pytest
import torch

import deeplinear as dl


def test_verdicts(capsys):
    dl.check("thm-a", 1.26e-12, below=1e-10)
    dl.check("thm-a", [torch.tensor([0.0, 3e-15]).double(), -2e-14], below=1e-6, cases="shapes")
    dl.check("thm-a", 0.00714, below=0.01)
    dl.check("thm-a", 3e-12, below=0.01)
    dl.control("thm-a", [1.0, 2e7], above=1)
    dl.check("thm-b", torch.tensor([[True, True]]))
    dl.check("thm-b", [True, torch.tensor([True, True])], cases="nets")
    dl.check("thm-b", True)
    dl.control("thm-a, tilted", 0.512, above=1e-3)
    assert capsys.readouterr().out.splitlines() == [
        "holds  thm-a  1e-12, below 1e-10", "holds  thm-a  2 shapes, worst 2e-14, below 1e-06",
        "holds  thm-a  0.0071, below 0.01", "holds  thm-a  under 1e-06, below 0.01",
        "fails  thm-a  over 1e+06, not below 1, as it must",
        "holds  thm-b  all 2 entries", "holds  thm-b  all 2 nets", "holds  thm-b",
        "fails  thm-a, tilted  0.51, not below 0.001, as it must"]


def test_counts_are_printed_whole(capsys):
    dl.check("a", 0, below=1)
    dl.check("a", torch.tensor([3, -1234567]), below=1e7)
    dl.check("a", [np.int8(0), torch.tensor([False])], below=1e-6, cases="nets")
    dl.check("a", [2, 0.0], below=3)
    dl.control("a", [True, 2_000_000], above=10)
    dl.control("a", 2.0e6, above=10)
    assert capsys.readouterr().out.splitlines() == [
        "holds  a  0, below 1", "holds  a  1234567, below 1e+07", "holds  a  2 nets, worst 0, below 1e-06",
        "holds  a  2 cases, worst 2, below 3", "fails  a  2000000, not below 10, as it must",
        "fails  a  over 1e+06, not below 10, as it must"]


@pytest.mark.parametrize("verdict", [
    lambda: dl.check("x", 1.0, below=0.1), lambda: dl.check("x", float("nan"), below=0.1),
    lambda: dl.check("x", [0.0, float("nan")], below=0.1), lambda: dl.check("x", [torch.zeros(2), torch.ones(3)], below=0.1),
    lambda: dl.check("x", False), lambda: dl.check("x", 1),
    lambda: dl.check("x", [True, False]), lambda: dl.check("x", []), lambda: dl.check("x", [True, torch.tensor([True, False])]),
    lambda: dl.control("x", 0.0, above=0.1), lambda: dl.control("x", float("nan"), above=0.1)])
def test_a_failed_check_is_an_error(verdict, capsys):
    with pytest.raises(dl.checks.CheckFailed, match="^DOES NOT (HOLD|FAIL)  x"):
        verdict()
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("verdict, said", [
    (lambda: dl.check("x", torch.tensor([0.0, -2.5, 1.0]), below=1e-12), "DOES NOT HOLD  x  2.5, not below 1e-12"),
    (lambda: dl.check("x", [torch.zeros(2), torch.ones(3)], below=0.1, cases="nets"),
     "DOES NOT HOLD  x  2 nets, worst 1, not below 0.1"),
    (lambda: dl.check("x", [np.array([0.5, np.nan]), np.inf], below=1),
     "DOES NOT HOLD  x  2 cases, worst 0.5, 2 of 3 not finite, not below 1"),
    (lambda: dl.check("x", float("nan"), below=1), "DOES NOT HOLD  x  none, 1 of 1 not finite, not below 1"),
    (lambda: dl.check("x", 1234567, below=10), "DOES NOT HOLD  x  1234567, not below 10"),
    (lambda: dl.check("x", False), "DOES NOT HOLD  x"),
    (lambda: dl.check("x", 1), "DOES NOT HOLD  x  values that are not true or false"),
    (lambda: dl.check("x", []), "DOES NOT HOLD  x  0 of 0 entries do not"),
    (lambda: dl.check("x", torch.tensor([[True, False], [False, True]])), "DOES NOT HOLD  x  2 of 4 entries do not"),
    (lambda: dl.check("x", [True, torch.tensor([True, False]), False], cases="nets"), "DOES NOT HOLD  x  2 of 3 nets do not"),
    (lambda: dl.control("x", torch.tensor([0.03, -0.02]).double(), above=0.1), "DOES NOT FAIL  x  0.03, not above 0.1, as it must"),
    (lambda: dl.control("x", [0.5, float("nan")], above=0.1), "DOES NOT FAIL  x  0.5, 1 of 2 not finite, not above 0.1, as it must")])
def test_a_failed_check_says_what_is_the_case(verdict, said):
    with pytest.raises(dl.checks.CheckFailed) as error:
        verdict()
    assert str(error.value) == said


def test_arrays_are_judged_by_their_largest_entry():
    dl.check("x", torch.tensor([0.01, -0.02], dtype=torch.float64), below=0.03)
    with pytest.raises(dl.checks.CheckFailed, match="0.02"):
        dl.check("x", torch.tensor([0.01, -0.02], dtype=torch.float64), below=0.015)
    with pytest.raises(dl.checks.CheckFailed, match="1 of 2 not finite"):
        dl.check("x", [0.0, float("nan")], below=1)
    dl.control("x", torch.tensor([[0.0, -0.5]]), above=0.4)


@pytest.mark.parametrize("line, same", [
    ("holds  thm-x  3e-15, below 1e-13", True), ("holds  thm-x  0e+00, below 1e-13", True),
    ("holds  thm-x  3e-15, below 1e-12", False), ("holds  thm-y  3e-15, below 1e-13", False),
    ("holds  thm-x  2 nets, worst 3e-15, below 1e-13", False), ("fails  thm-x  3e-15, not below 1e-13, as it must", False)])
def test_only_the_size_of_a_rounding_error_is_masked(line, same):
    assert (dl.checks.masked(line) == dl.checks.masked("holds  thm-x  1e-15, below 1e-13")) == same
    assert dl.checks.masked("holds  a  0.0071, below 1e-05") == "holds  a  0.0071, below 1e-05"
    assert dl.checks.masked("a\nholds  b, 2 d  7 nets, worst 2e-09, below 1e-06\nc 5e-9") == \
        "a\nholds  b, 2 d  7 nets, worst ..., below 1e-06\nc 5e-9"


def test_nbval_masks_by_the_same_rule():
    rule = (Path(__file__).parents[1] / "tools" / "nbval.cfg").read_text(encoding="utf-8")
    assert re.findall(r"^regex: (.*)$\n^replace: (.*)$", rule, re.M) == [(dl.checks.MEASURED, r"\1...")]


def test_slope_is_the_exponent():
    assert abs(dl.slope([1, 2, 4], [3, 12, 48]) - 2) < 1e-12


def test_table_is_aligned(capsys):
    dl.table(["name", "gap"], [["a", 0.12345], ["long name", 12.0], ["none", "-"], ["lost", None]], ["", ".2f"])
    assert capsys.readouterr().out.splitlines() == [
        "name         gap", "---------  -----", "a           0.12", "long name  12.00", "none           -", "lost           -"]
