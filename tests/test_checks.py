import pytest
import torch

import deeplinear as dl


def test_verdicts(capsys):
    dl.check("thm-a", 1e-12, below=1e-10)
    dl.check("thm-b", torch.tensor([[True, True]]))
    dl.control("thm-a", 0.5, above=1e-3)
    assert capsys.readouterr().out.splitlines() == [
        "check    thm-a: 1e-10 bounds the error: yes", "check    thm-b: holds exactly: yes",
        "control  thm-a: fails as it must, by more than 1e-03: yes"]


@pytest.mark.parametrize("verdict", [
    lambda: dl.check("x", 1.0, below=0.1), lambda: dl.check("x", float("nan"), below=0.1),
    lambda: dl.check("x", False), lambda: dl.check("x", 1),
    lambda: dl.check("x", [True, False]), lambda: dl.check("x", []), lambda: dl.control("x", 0.0, above=0.1),
    lambda: dl.control("x", float("nan"), above=0.1)])
def test_a_failed_check_is_an_error(verdict, capsys):
    with pytest.raises(dl.checks.CheckFailed, match="x: .*NO, value"):
        verdict()
    assert capsys.readouterr().out == ""


def test_table_is_aligned(capsys):
    dl.table(["name", "gap"], [["a", 0.12345], ["long name", 12.0], ["none", "-"]], ["", ".2f"])
    assert capsys.readouterr().out.splitlines() == [
        "name         gap", "---------  -----", "a           0.12", "long name  12.00", "none           -"]
