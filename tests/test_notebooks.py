"""The notebooks as files: normal form, complete outputs, house rules, claims with all their parts. No kernel runs."""

import ast
import json
import re
from pathlib import Path

import nbformat
import pytest
import yaml

import deeplinear as dl
import reading
from refresh import normal_form

BOOK = Path(__file__).parents[1] / "book"
PAGES = sorted(BOOK.glob("*.ipynb"))
CHAPTERS = [page for page in PAGES if re.match(r"\d\d-", page.name)]
CLAIMS = yaml.safe_load((BOOK / "claims.yml").read_text())
TESTS = [(path.stem, path.read_text()) for path in (Path(__file__).parent / "claims").glob("test_*.py")]
KEYS = {key for key in re.findall(r"@\w+\{([\w]+),", (BOOK / "references.bib").read_text())}
STATEMENT = re.compile(r":::\{prf:(definition|lemma|proposition|theorem|corollary)\}.*?\n:label: (\S+)(.*?)\n:::", re.S)
CITATION = re.compile(r"\{cite(?::\w+)?\}`([^`]+)`")
FIELDS = {"id", "ledger", "statement", "source", "kind", "chapter", "verdict"}
VERDICTS = {  # and the kinds of claims that each can be given to
    "proved+checked": {"theorem", "extension"}, "certified": {"theorem", "extension"}, "quoted": {"theorem"},
    "corrected": {"correction", "empirical"}, "extended": {"extension", "empirical"}, "reproduced": {"empirical"},
    "reproduced in sign": {"empirical"}, "not reproduced": {"empirical"}, "not settled": {"empirical"}}
FORMAL = "\n".join(path.read_text() for path in sorted((BOOK.parent / "formal").glob("*.v")))

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
each_chapter = pytest.mark.parametrize("page", CHAPTERS, ids=lambda p: p.stem)


def cells(page, kind=None):
    return [cell for cell in json.loads(page.read_text())["cells"] if kind in (None, cell["cell_type"])]


def source(cell):
    return "".join(cell["source"])


def text(page):
    return "\n\n".join(source(cell) for cell in cells(page, "markdown"))


def title(cell):
    """The heading of a section whose first cell this is."""
    found = re.match(r"(?:\(\S+\)=\n)*## (.*)", source(cell))
    return found[1] if found and cell["cell_type"] == "markdown" else None


def without_expert(cells):
    """The cells that the limits on a chapter's length count: all but those of the section For the expert."""
    titles = [title(cell) for cell in cells]
    if "For the expert" not in titles:
        return cells
    first = titles.index("For the expert")
    return cells[:first] + cells[titles.index("Sources and history", first):]


def cited(words):
    """The keys of all citations in a text."""
    return {key.strip() for keys in CITATION.findall(words) for key in keys.split(",")}


def printed(page):
    """What the page prints, without the numbers that measure rounding: no sentence may quote one."""
    text = "\n".join("".join(out.get("text", [])) for cell in cells(page, "code") for out in cell["outputs"])
    return dl.checks.masked(text)


@each_page
def test_normal_form(page):
    """What tools/refresh.py writes; run it after an edit."""
    assert page.read_text() == normal_form(nbformat.read(page, as_version=4))
    ids = [cell["id"] for cell in cells(page)]
    assert len(set(ids)) == len(ids) and all(re.fullmatch(r"[a-z0-9-]+", name) for name in ids)


@each_page
def test_every_cell_was_run(page):
    code = cells(page, "code")
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    for cell in code:
        kinds = {out["output_type"] for out in cell["outputs"]}
        assert kinds <= {"stream", "execute_result"}, f"{cell['id']} has outputs {kinds}"
        assert not any(out.get("name") == "stderr" for out in cell["outputs"]), f"{cell['id']} printed a warning"
        for out in cell["outputs"]:
            assert out.get("data", {}).keys() <= {"text/plain", "image/svg+xml", "text/html"}, cell["id"]


@each_chapter
def test_cells_are_short(page):
    lengths = []
    for cell in cells(page, "code"):
        lines = [line for line in source(cell).splitlines() if line.strip()]
        lengths.append(len(lines))
        assert max(map(len, lines)) <= 88, f"{cell['id']} has a line of {max(map(len, lines))} characters"
    assert max(lengths) <= 12 and sorted(lengths)[len(lengths) // 2] <= 8
    assert 14 <= sum(cell["cell_type"] == "code" for cell in without_expert(cells(page))) <= 32
    assert sum(source(cell).count("def ") for cell in cells(page, "code")) <= 1
    assert not any(re.search(r"^\s*class ", source(cell), re.M) for cell in cells(page, "code"))


@each_page
def test_cells_keep_the_house_rules(page):
    for cell in cells(page, "code"):
        code = source(cell)
        ast.parse(code)  # no magics, no shell lines
        for bad in (r";\s*$", r"sys\.path", r"urlopen|requests\.|retrieve\(", r"manual_seed|np\.random\.(?!default_rng\()",
                    r"tqdm", r"['\"]/(?:home|root|tmp|work|usr)", r"\b[A-Z]:\\\\", r"torch\.rand"):
            assert not re.search(bad, code, re.M), f"{cell['id']} contains {bad}"


@each_page
def test_figures_have_caption_text_and_size(page):
    for cell in cells(page, "code"):
        pictures = [out["data"]["image/svg+xml"] for out in cell["outputs"] if "image/svg+xml" in out.get("data", {})]
        if pictures:
            figure = cell["metadata"]["mystnb"]
            assert figure["figure"]["name"] == cell["id"] and cell["id"].startswith("fig-")
            assert len(figure["figure"]["caption"]) > 40 and len(figure["image"]["alt"]) > 40
            svg = "".join(pictures[0])
            assert len(pictures) == 1 and len(svg.encode()) <= 100_000
            assert "<image" not in svg and "<dc:date>" not in svg


@each_chapter
def test_frame(page):
    """You will learn, You need, sections, What to remember, Exercises with executed solutions, Sources and history.

    A section For the expert may stand between the last solution and Sources and history."""
    words, titles = text(page), [title(cell) for cell in cells(page) if title(cell)]
    assert titles[-1] == "Sources and history"
    if "## For the expert" in words:
        assert titles[-3:-1] == ["Exercises", "For the expert"], "For the expert begins a cell, after the exercises"
        assert words.rfind("{solution-end}") < words.find("## For the expert")
    marks = ["# ", "You will learn", "**You need**", "## What to remember", "## Exercises", "## Sources and history"]
    places = [words.find(mark) for mark in marks]
    assert -1 not in places and places == sorted(places)
    assert reading.words(words[:places[4]], proofs=True) <= 3200
    assert 1000 <= reading.words(words[:places[4]]) <= 2100
    exercises = re.findall(r":::\{exercise\}.*?\n:label: (\S+)", words)
    assert 4 <= len(exercises) <= 6
    for label in exercises:
        assert words.count(f":::{{solution-start}} {label}\n:class: dropdown") == 1
    order = [cell["id"] for cell in cells(page)]
    solutions = [i for i, name in enumerate(order) if name.startswith("solve-") and not name.endswith("-end")]
    assert len(solutions) == len(exercises)
    for i in solutions:
        assert cells(page)[i]["cell_type"] == "code" and order[i + 1] == order[i] + "-end"


def hold_statements(page, claims, everywhere):
    """Every statement of a page has its row, its proof (if quoted, its citation), its check and its control, and is used."""
    words, verdicts = text(page), printed(page)
    rows = {claim["id"]: claim for claim in claims if claim["chapter"] == page.stem and claim["kind"] != "empirical"}
    stated = set()
    for kind, label, body in STATEMENT.findall(words):
        prefix = {"definition": "def", "lemma": "lem", "proposition": "prop", "theorem": "thm", "corollary": "cor"}[kind]
        assert label.startswith(prefix + "-")
        assert re.search(r"\{prf:ref\}`" + label + "`", everywhere), f"{label} is referenced nowhere"
        if kind == "definition":
            continue
        assert label in rows, f"{label} has no row"
        after = words[words.index(f":label: {label}\n"):].partition(":::{prf:")[0]
        proof = after.partition(":::{dropdown} Proof\nProof of {prf:ref}`" + label + "`.\n")[2].partition("\n:::")[0]
        if rows[label]["verdict"] == "quoted":
            assert not proof, f"{label} is proved, and its verdict says quoted"
            assert rows[label]["source"] in cited(body), f"{label} is quoted and does not cite its source"
        else:
            assert proof, f"no proof between {label} and the next statement"
            assert proof.rstrip().endswith(r"$\blacksquare$")
        stated.add(label)
    assert stated == rows.keys()
    checked = {cell["id"].removeprefix("check-") for cell in cells(page) if cell["id"].startswith("check-")}
    assert stated <= checked, f"statements without a check cell: {stated - checked}"
    for label in stated:
        assert re.search(rf"^holds  {label}\b(?!-)", verdicts, re.M), f"{label} prints no verdict"
        assert re.search(rf"^fails  {label}\b(?!-)", verdicts, re.M), f"{label} has no control"


@each_chapter
def test_every_statement_is_proved_checked_claimed_and_used(page):
    hold_statements(page, CLAIMS, "\n".join(text(p) for p in PAGES) + "".join(p.read_text() for p in BOOK.glob("*.md")))


def is_machine_checked(name, coq):
    """Whether a Coq text states a theorem of that name and ends its proof; comments do not count."""
    while (bare := re.sub(r"\(\*(?:(?!\(\*|\*\)).)*\*\)", " ", coq, flags=re.S)) != coq:
        coq = bare  # comments nest: the innermost go first
    word = "Theorem|Lemma|Corollary|Proposition|Fact|Remark"
    end = re.search(rf"\b(?:{word})\s+{re.escape(name)}(?![\w']).*?\b(Qed|Defined|Admitted|Abort|{word})\b", coq, re.S)
    return end is not None and end[1] in ("Qed", "Defined")


def hold_row(claim, coq=FORMAL):
    """A row has all its parts and no others, its verdict fits its kind, and the page, the tests, the record have it."""
    assert FIELDS <= claim.keys() <= FIELDS | {"record", "scope", "formal"}
    assert claim["kind"] in VERDICTS[claim["verdict"]], f"{claim['kind']} cannot be {claim['verdict']}"
    assert claim["source"] in KEYS or claim["source"] == "here" and claim["verdict"] not in ("quoted", "extended")
    assert claim["ledger"] and all(re.fullmatch(r"[ABCD]\d\d", row) for row in claim["ledger"])
    assert 20 < len(claim["statement"]) <= 200
    if claim["kind"] == "empirical" or "scope" in claim:
        assert 20 < len((claim.get("scope") or "").strip()) <= 200, f"{claim['id']} does not say what it covers"
    if "formal" in claim:
        assert is_machine_checked(claim["formal"], coq), f"no theorem {claim['formal']} with its proof in formal/"
    page = BOOK / f"{claim['chapter']}.ipynb"
    names = {cell["id"] for cell in cells(page)}
    if claim["kind"] == "empirical":
        assert claim["id"].startswith("emp-") and f"check-{claim['id']}" in names
    else:
        assert f":label: {claim['id']}\n" in text(page)
    assert f"\ndef test_{claim['id'].replace('-', '_')}(" in "".join(
        text for name, text in TESTS if name.startswith(f"test_{claim['chapter'][:2]}_"))
    if "record" in claim:
        dl.recorded.load(claim["record"], quiet=True)


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda c: c["id"])
def test_every_claim_row_is_complete(claim):
    hold_row(claim)


@pytest.mark.parametrize("claim", [claim for claim in CLAIMS if "scope" in claim], ids=lambda c: c["id"])
def test_numbers_in_a_scope_are_those_of_the_run(claim):
    """A decimal or a number from 100 on in a scope stands in the chapter, its outputs or the claim's record."""
    page = BOOK / f"{claim['chapter']}.ipynb"
    known = printed(page) + "".join(source(cell) for cell in cells(page))
    if "record" in claim:
        known += json.dumps(dl.recorded.load(claim["record"], quiet=True).config)
    known = re.sub(r"(?<=\d)(?:,|\{,\}|_|\\,)(?=\d{3})", "", known)
    for number in re.findall(r"(?<![\d.])(?:\d+\.\d+|\d{3,}|\d+e-?\d+)(?![\d.]\d)", claim["scope"]):
        assert re.search(rf"(?<![\d.]){re.escape(number)}(?!\d)", known), number


def hold_ledger(claims):
    """Every number of the survey is settled by some claim, and those of what came later are counted without a gap."""
    settled = {row for claim in claims for row in claim["ledger"]}
    later = {row for row in settled if row[0] == "D"}
    assert later == {f"D{row:02}" for row in range(1, len(later) + 1)}
    assert settled - later == {f"{part}{row:02}" for part, rows in (("A", 41), ("B", 14), ("C", 9)) for row in range(1, rows + 1)}


def test_every_row_of_the_survey_is_settled():
    hold_ledger(CLAIMS)


def test_claim_rows_are_unique():
    ids = [claim["id"] for claim in CLAIMS]
    assert len(set(ids)) == len(ids)


@each_chapter
def test_citations_and_names_exist(page):
    assert cited(text(page)) <= KEYS
    for cell in cells(page, "code"):
        for path in re.findall(r"\bdl((?:\.\w+)+)", source(cell)):
            target = dl
            for name in path[1:].split("."):
                target = getattr(target, name, None)
                assert target is not None, f"{cell['id']} uses dl{path}, which does not exist"
                if not hasattr(target, "__dict__") or isinstance(target, type):
                    break


@each_chapter
def test_numbers_in_the_prose_were_printed(page):
    """A decimal or long number in a sentence, outside formulas and code, must stand in some output of the page."""
    words = re.sub(r"(?:Theorem|Claim|Figure|Part) [\d.]+|```.*?```|\$\$.*?\$\$|\$.*?\$|`[^`]*`|\{[^}]*\}`[^`]*`|\(\w[\w-]*\)",
                   " ", text(page), flags=re.S)
    outputs = printed(page) + "".join(source(cell) for cell in cells(page, "code"))
    for number in re.findall(r"(?<![\w.-])\d+\.\d+(?:e-?\d+)?|(?<![\w.,-])\d{1,3}(?:,\d{3})+", words):
        assert re.search(rf"(?<![\d.]){re.escape(number.replace(',', ''))}(?!\d)", outputs.replace(",", "")), number


def test_one_sentence_a_line():
    for page in CHAPTERS:
        for line in text(page).splitlines():
            if re.match(r"[A-Z]", line) and "$$" not in line:
                bare = re.sub(r"\$.*?\$|\{[^}]*\}`[^`]*`", "x", line)
                assert len(bare) < 420, f"{page.stem}: {line[:60]}..."


def test_numbers_outside_the_chapters():
    """What the README and the changelog say of the records, and every decimal there, is what the records say."""
    readme, running, changelog = ((BOOK / name).read_text(encoding="utf-8") for name in ("../README.md", "running.md", "changelog.md"))
    records = {path.stem: dl.recorded.load(path.stem, quiet=True) for path in (BOOK / "results").glob("*.json")}
    hours = sum(record.provenance["wall_seconds"] for record in records.values()) / 3600
    assert f"({hours:.1f} hours on two cores" in running
    phase = records["phase-diagram"]
    runs = len(phase.metrics) * phase.config["draws"] * len(phase.config["seeds"]) * phase.config["rates"][2]
    assert 80_000 <= runs < 85_000
    assert "eighty thousand runs" in changelog and "sixteen models" in changelog
    assert len([name for name in records["regression-models"].summary if "depth" in name]) == 16
    pages = [(BOOK / f"{name}.md").read_text(encoding="utf-8") for name in ("index", "map", "teaching", "notation")]
    for page in (readme, running, changelog, *pages):
        words = re.sub(r"`[^`]*`|\$.*?\$|Python 3\.\d+|CC BY(?:-SA)? \d\.0|\d\.\d MB|## \d\.\d\.\d|\{[^}]*\}`[^`]*`", " ", page)
        assert set(re.findall(r"\d+\.\d+", words)) <= {f"{hours:.1f}"}
