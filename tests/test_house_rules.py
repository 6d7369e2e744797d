"""The rules of test_notebooks.py on made-up chapters and rows: each accepts what it should, and refuses what it should."""

import json

import pytest

import test_notebooks as house

THEOREM = ":::{prf:theorem} Sums\n:label: thm-sums\n\nLet $a = b$. Then $2a = 2b$.\n:::\n"
CITING = THEOREM.replace("Then", "Then, {cite:p}`arora2018,du2018`,")
PROOF = ":::{dropdown} Proof\nProof of {prf:ref}`thm-sums`.\nAdd. $\\blacksquare$\n:::\n"
VERDICTS = "holds  thm-sums  0, below 1e-13\nfails  thm-sums  1, not below 1e-13, as it must\n"
ROW = {"id": "thm-sums", "source": "du2018", "kind": "theorem", "chapter": "01-made-up", "verdict": "proved+checked"}
SOURCES = ("sources", "## Sources and history\n\nOld.")


def chapter(folder, *cells):
    """A notebook of cells (id, text) and (id, code, what it prints), in ``folder``."""
    written = [{"id": name, "cell_type": "code" if out else "markdown", "source": [text], "metadata": {},
                **({"outputs": [{"text": out}], "execution_count": 1} if out else {})} for name, text, *out in cells]
    page = folder / "01-made-up.ipynb"
    page.write_text(json.dumps({"cells": written}))
    return page


def code(name, count, lines=3):
    """Short code cells."""
    return [(f"{name}-{i}", "\n".join(lines * ["1 + 1"]), "2") for i in range(count)]


def frame(expert=(), words=1200, before_exercises=(), exercise_end=""):
    """The cells of a chapter that has every part of the frame and so many words."""
    exercises = []
    for i in range(4):
        asked = f":::{{exercise}} Add\n:label: ex-{i}\n\nAdd.\n:::\n\n:::{{solution-start}} ex-{i}\n:class: dropdown\n:::"
        exercises += [(f"ex-{i}", asked), (f"solve-{i}", "1 + 1", "2"),
                      (f"solve-{i}-end", ":::{solution-end}\n:::" + exercise_end * (i == 3))]
    begin = "# Sums\n\nYou will learn\n\n**You need** nothing.\n\n" + "word " * words
    return [("title", begin), ("remember", "## What to remember"), *before_exercises, ("exercises", "## Exercises"),
            *exercises, *expert, SOURCES]


EXPERT = ("expert", "(sec-expert)=\n## For the expert\n\n" + "word " * 4000)


def test_the_section_for_the_expert_is_cut_from_its_heading_to_the_sources(tmp_path):
    page = chapter(tmp_path, *code("a", 14), EXPERT, *code("b", 30), ("more", "### Further"), SOURCES)
    left = house.without_expert(house.cells(page))
    assert [cell["id"] for cell in left] == [f"a-{i}" for i in range(14)] + ["sources"]
    unlike = ("said", "See *For the expert*."), ("a-comment", "## For the expert\n1", "1")
    page = chapter(tmp_path, *code("a", 14), *unlike, SOURCES)
    assert len(house.without_expert(house.cells(page))) == 17


def test_cells_for_the_expert_do_not_count_but_must_be_short(tmp_path):
    house.test_cells_are_short(chapter(tmp_path, *code("a", 14), EXPERT, *code("b", 30), SOURCES))
    for cells in ([*code("a", 14), ("other", "## For everybody"), *code("b", 30), SOURCES], [EXPERT, *code("a", 14), SOURCES],
                  [*code("a", 14), EXPERT, *code("b", 1, lines=13), SOURCES],
                  [*code("a", 14), EXPERT, *code("b", 15, lines=9), SOURCES]):
        with pytest.raises(AssertionError):
            house.test_cells_are_short(chapter(tmp_path, *cells))


def test_words_for_the_expert_do_not_count_after_the_exercises_and_nowhere_else(tmp_path):
    house.test_frame(chapter(tmp_path, *frame()))
    house.test_frame(chapter(tmp_path, *frame(expert=[EXPERT])))
    further = [EXPERT, ("further", "## Further\n\nMore.")]
    for cells in (frame(before_exercises=[EXPERT]), frame(expert=further), frame(words=5000), frame(expert=[EXPERT], words=900),
                  frame(expert=[EXPERT, EXPERT]), frame(exercise_end="\n\n## For the expert\n\nMore."),
                  frame()[:4] + [EXPERT] + frame()[4:], [*frame(), EXPERT], [*frame(), further[1]]):
        with pytest.raises(AssertionError):
            house.test_frame(chapter(tmp_path, *cells))


def statement(folder, *stated, expert=True, check=("check-thm-sums", "1", VERDICTS), row=None, used="{prf:ref}`thm-sums`"):
    """Hold a chapter that states one theorem, for the expert or before the exercises, to the rule of statements."""
    cells = [("sums", "".join(stated)), check]
    page = chapter(folder, *(frame(expert=[EXPERT, *cells]) if expert else frame(before_exercises=cells)))
    house.hold_statements(page, [ROW | (row or {})], used)


@pytest.mark.parametrize("expert", [False, True])
def test_statements_keep_proof_check_and_control_wherever_they_stand(tmp_path, expert):
    statement(tmp_path, THEOREM, PROOF, expert=expert)
    for stated, changes, words in (
            ((THEOREM,), {}, "no proof"), ((CITING,), {}, "no proof"),
            ((THEOREM, PROOF.replace("$\\blacksquare$", "")), {}, "blacksquare"),
            ((THEOREM, PROOF), {"check": ("look", "1", VERDICTS)}, "without a check cell"),
            ((THEOREM, PROOF), {"check": ("check-thm-sums", "1", VERDICTS.splitlines()[0])}, "no control"),
            ((THEOREM, PROOF), {"check": ("check-thm-sums", "1", VERDICTS.splitlines()[1])}, "no verdict"),
            ((THEOREM, PROOF), {"used": ""}, "referenced nowhere"),
            ((THEOREM, PROOF), {"row": {"id": "thm-other"}}, "no row"), ((), {}, "thm-sums")):
        with pytest.raises(AssertionError, match=words):
            statement(tmp_path, *stated, expert=expert, **changes)


@pytest.mark.parametrize("expert", [False, True])
def test_only_a_quoted_statement_stands_without_proof_and_it_cites_its_source(tmp_path, expert):
    quoted = {"verdict": "quoted"}
    statement(tmp_path, CITING, expert=expert, row=quoted)
    for stated, changes, words in (
            ((THEOREM,), {"row": quoted}, "does not cite"), ((CITING, PROOF), {"row": quoted}, "is proved"),
            ((CITING,), {"row": quoted | {"source": "bah2022"}}, "does not cite"),
            ((CITING,), {"row": {"verdict": "extended"}}, "no proof"),
            ((CITING,), {"row": quoted, "check": ("look", "1", VERDICTS)}, "without a check cell"),
            ((CITING,), {"row": quoted, "check": ("check-thm-sums", "1", VERDICTS.splitlines()[0])}, "no control")):
        with pytest.raises(AssertionError, match=words):
            statement(tmp_path, *stated, expert=expert, **changes)


def claim(name):
    return next(claim for claim in house.CLAIMS if claim["id"] == name)


@pytest.mark.parametrize("name, changes", [
    ("emp-figure-3", {"verdict": "not settled"}), ("emp-figure-3", {"verdict": "extended"}),
    ("emp-figure-3", {"scope": "s" * 200, "statement": "s" * 200, "ledger": ["A31", "D01"]}),
    ("thm-mirror", {"verdict": "extended"}), ("thm-mirror", {"kind": "theorem", "verdict": "quoted"}),
    ("thm-mirror", {"scope": "one output, from any start"}), ("thm-mirror", {"formal": "sums"})])
def test_rows_that_are_complete(name, changes):
    house.hold_row(claim(name) | changes, coq="Theorem sums : 2 = 2. Proof. done. Qed.")


@pytest.mark.parametrize("name, changes", [
    ("emp-figure-3", {"scope": ""}), ("emp-figure-3", {"scope": 30 * " "}), ("emp-figure-3", {"scope": None}),
    ("emp-figure-3", {"scope": "Ethanol"}), ("emp-figure-3", {"scope": "s" * 201}), ("thm-mirror", {"scope": ""}),
    ("emp-figure-3", {"statement": "s" * 201}), ("emp-figure-3", {"ledger": ["E01"]}), ("emp-figure-3", {"ledger": []}),
    ("emp-figure-3", {"verdict": "quoted"}), ("emp-figure-3", {"verdict": "proved+checked"}),
    ("emp-first-look", {"verdict": "extended", "source": "here"}), ("emp-figure-3", {"record": "no-such-run"}),
    ("thm-mirror", {"verdict": "not settled"}), ("thm-mirror", {"verdict": "extended", "source": "here"}),
    ("thm-mirror", {"kind": "theorem", "verdict": "quoted", "source": "here"}), ("thm-mirror", {"source": "nobody1999"}),
    ("thm-mirror", {"verdict": "quoted"}), ("thm-mirror", {"verdict": "settled"}), ("thm-mirror", {"formal": "sum"}),
    ("thm-mirror", {"formal": ""}), ("thm-mirror", {"horizon": "1e5"}), ("thm-mirror", {"id": "thm-nowhere"})])
def test_rows_that_are_not(name, changes):
    with pytest.raises((AssertionError, KeyError, house.dl.recorded.RecordError)):
        house.hold_row(claim(name) | changes, coq="Theorem sums : 2 = 2. Proof. done. Qed.")


def test_an_empirical_row_without_scope_is_refused():
    row = {key: value for key, value in claim("emp-figure-3").items() if key != "scope"}
    with pytest.raises(AssertionError, match="does not say what it covers"):
        house.hold_row(row)


@pytest.mark.parametrize("said, wrong", [("1000000", "2000000"), ("0.01", "0.011"), ("1000000", "100000")])
def test_a_number_that_the_run_does_not_have_is_found_in_a_scope(said, wrong):
    row = claim("emp-figure-3")
    assert said in row["scope"]
    house.test_numbers_in_a_scope_are_those_of_the_run(row)
    with pytest.raises(AssertionError):
        house.test_numbers_in_a_scope_are_those_of_the_run(row | {"scope": row["scope"].replace(said, wrong)})


def test_the_ledger_counts_later_work_without_a_gap():
    survey = [{"ledger": [f"{part}{row:02}"]} for part, rows in (("A", 41), ("B", 14), ("C", 9)) for row in range(1, rows + 1)]
    house.hold_ledger(survey)
    house.hold_ledger([*survey, {"ledger": ["D02", "A01"]}, {"ledger": ["D01"]}, {"ledger": ["D01"]}])
    with pytest.raises(AssertionError):
        house.hold_ledger(survey[1:])
    for more in (["D02"], ["D01", "D03"], ["D00"], ["C10"]):
        with pytest.raises(AssertionError):
            house.hold_ledger([*survey, {"ledger": more}])


@pytest.mark.parametrize("coq, found", [
    ("Theorem sums : 2 = 2. Proof. done. Qed.", True), ("Lemma sums (n : nat) :\n  n = n.\nProof.\nby [].\nDefined.", True),
    ("Lemma sums' : 2 = 2. Proof. done. Qed.", False), ("Lemma two_sums : 2 = 2. Proof. done. Qed.", False),
    ("Definition sums := 2.", False), ("Theorem sums : 2 = 2. Admitted.", False), ("Axiom sums : 2 = 2.", False),
    ("Theorem sums : 2 = 2. Admitted. Lemma b : 1 = 1. Proof. done. Qed.", False),
    ("Theorem sums : 2 = 2.\nLemma b : 1 = 1. Proof. done. Qed.", False), ("", False),
    ("Theorem sums : 2 = 2.\nFact b : 1 = 1. Proof. done. Qed.", False),
    ("(* (* Theorem *) Theorem sums : 2 = 2. Proof. done. Qed. *)", False),
    ("Theorem sums (* Admitted. *) : 2 = 2. Proof. done. Qed.", True)])
def test_a_machine_checked_theorem_is_stated_and_its_proof_ends(coq, found):
    assert house.is_machine_checked("sums", coq) is found
