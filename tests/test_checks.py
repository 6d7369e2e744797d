import pytest
import torch

import deeplinear as dl


def test_verdicts(capsys):
    dl.check("thm-a", 1e-12, below=1e-10)
    dl.check("thm-b", torch.tensor([[True, True]]))
    dl.control("thm-a", 0.5, above=1e-3)
    assert capsys.readouterr().out.splitlines() == [
        "check    thm-a: below 1e-10: yes", "check    thm-b: holds: yes",
        "control  thm-a: above 0.001, as it must be: yes"]


@pytest.mark.parametrize("verdict", [
    lambda: dl.check("x", 1.0, below=0.1), lambda: dl.check("x", float("nan"), below=0.1),
    lambda: dl.check("x", False), lambda: dl.check("x", 1),
    lambda: dl.check("x", [True, False]), lambda: dl.check("x", []), lambda: dl.control("x", 0.0, above=0.1),
    lambda: dl.control("x", float("nan"), above=0.1)])
def test_a_failed_check_is_an_error(verdict, capsys):
    with pytest.raises(dl.checks.CheckFailed, match="x: .*NO, value"):
        verdict()
    assert capsys.readouterr().out == ""


def test_arrays_are_judged_by_their_largest_entry():
    dl.check("x", torch.tensor([0.01, -0.02], dtype=torch.float64), below=0.03)
    with pytest.raises(dl.checks.CheckFailed, match="0.02"):
        dl.check("x", torch.tensor([0.01, -0.02], dtype=torch.float64), below=0.015)
    with pytest.raises(dl.checks.CheckFailed, match="nan"):
        dl.check("x", [0.0, float("nan")], below=1)
    dl.control("x", torch.tensor([[0.0, -0.5]]), above=0.4)


def test_slope_is_the_exponent():
    assert abs(dl.slope([1, 2, 4], [3, 12, 48]) - 2) < 1e-12


def test_table_is_aligned(capsys):
    dl.table(["name", "gap"], [["a", 0.12345], ["long name", 12.0], ["none", "-"]], ["", ".2f"])
    assert capsys.readouterr().out.splitlines() == [
        "name         gap", "---------  -----", "a           0.12", "long name  12.00", "none           -"]
