"""The machine-checked proofs: Coq accepts each and no axiom, refuses false ones, and where it is absent one line says so."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import prove
import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "formal").glob("*.v"))
LACKING = prove.lacking()
needs_coq = pytest.mark.skipif(LACKING is not None, reason=prove.MISSING.format(LACKING))
FALSE = {  # a statement with one sign, one factor or one hypothesis changed
    "the other sign of G": ("Balance", "gradient W G j *m (W j)^T.\nProof.", "- gradient W G j *m (W j)^T.\nProof."),
    "no layer above": ("Balance", "Theorem balance W N (G : 'M[R]_(n N, n 0)) j : (j.+1 < N)%N ->",
                       "Theorem balance W N (G : 'M[R]_(n N, n 0)) j : (j < N)%N ->"),
    "decay counted once": ("Balance", "(1 - eta * lam) ^+ 2 *: imbalance W j + eta", "(1 - eta * lam) *: imbalance W j + eta"),
    "the other sign": ("Balance", "imbalance W j + eta ^+ 2 *:", "imbalance W j - eta ^+ 2 *:"),
    "plain imbalance at unequal rates": ("Balance", "  r j *: map_mx rate ((W j.+1)", "  r j.+1 *: map_mx rate ((W j.+1)"),
    "weights without the factor": ("Balance", "Definition weight m := 1 + 2%:R * beta", "Definition weight m := 1 + beta"),
    "a push at the start": ("Balance", "V 0%N i = 0.", "V 0%N i = V 0%N i."),
    "the symmetric half": ("Balance", "rate (e *: (K j - (K j)^T)) = 0", "rate (e *: (K j + (K j)^T)) = 0"),
    "the start forgotten": ("Expansion", " + (P t.+1 - P t) *m W1 0%N.\nProof.", ".\nProof."),
    "the bias not multiplied": ("Folding", "(A *m b + a + c) x p.", "(a + c) x p.")}


@needs_coq
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_theorem_is_closed_under_the_global_context(file, capsys):
    assert prove.check(file) == 0
    names = re.findall(r"^Theorem ([\w']+)", file.read_text(encoding="utf-8"), re.M)
    assert capsys.readouterr().out.splitlines() == [f"{file.stem}.{name}: {prove.CLOSED}" for name in names]
    assert names


@needs_coq
@pytest.mark.parametrize("change", FALSE)
def test_a_false_statement_is_refused(change, tmp_path, capsys):
    stem, true, false = FALSE[change]
    text = (ROOT / "formal" / f"{stem}.v").read_text(encoding="utf-8")
    assert text.count(true) == 1
    (tmp_path / f"{stem}.v").write_text(text.replace(true, false), encoding="utf-8")
    assert prove.check(tmp_path / f"{stem}.v") == 1
    error = capsys.readouterr().err
    assert error.startswith(f"error: {stem}.v does not check\n")
    line = text.replace(true, false).splitlines()[int(re.search(r"line (\d+), characters", error)[1]) - 1]
    assert not re.match("Theorem|Definition|Hypothesis", line) and "has type" not in error, error  # it is a proof that fails


@needs_coq
def test_an_axiom_is_named_and_refused(tmp_path, capsys):
    (tmp_path / "Sums.v").write_text("Axiom easy : 1 = 2.\nTheorem sums : 2 = 1.\nProof. exact (eq_sym easy). Qed.\n"
                                     "Theorem same : 1 = 1.\nProof. reflexivity. Qed.\n")
    assert prove.main(["--formal", str(tmp_path)]) == 1
    assert capsys.readouterr().out == f"Sums.sums: Axioms: easy : 1 = 2\nSums.same: {prove.CLOSED}\n"


@needs_coq
def test_a_folder_without_proofs_is_refused(tmp_path, capsys):
    assert prove.main(["--formal", str(tmp_path)]) == 1
    assert capsys.readouterr().err == f"error: no proofs in {tmp_path}\n"


@pytest.mark.skipif(os.name != "posix" or shutil.which("make") is None, reason="the Makefile is for POSIX systems with make")
def test_without_coq_one_line_says_how_to_get_it(tmp_path):
    (tmp_path / "find").symlink_to(shutil.which("find"))
    done = subprocess.run([shutil.which("make"), "--no-print-directory", "prove", f"PYTHON={sys.executable}"], cwd=ROOT,
                          capture_output=True, text=True, env={"PATH": str(tmp_path)})
    assert done.returncode == 0 and not done.stderr
    assert done.stdout == prove.MISSING.format("Coq") + "\n"


def test_coq_without_mathcomp_is_an_error(monkeypatch, capsys):
    monkeypatch.setattr(prove.shutil, "which", lambda name: name)
    monkeypatch.setattr(prove, "compiled", lambda text, stem: subprocess.CompletedProcess([], 1))
    assert prove.main([]) == 1 and capsys.readouterr().out == prove.MISSING.format("MathComp") + "\n"


def test_proofs_are_short():
    assert {file.stem for file in FILES} >= {"Balance", "Folding", "Expansion"}
    assert all(len(file.read_text(encoding="utf-8").splitlines()) <= 300 for file in FILES)
