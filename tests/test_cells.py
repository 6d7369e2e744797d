"""What a student reads: short lines of code, one name one thing, nothing that leaks out of a loop into another cell; pictures
and displayed formulas enough for the words."""

import ast
import re

import pytest

import reading
from deeplinear.checks import masked
from test_notebooks import BOOK, CHAPTERS, PAGES, cells, printed, source, text, without_expert

LONGEST = 60
PICTURED = ("01", "02", "03", "04", "05", "07", "10", "12", "15", "16", "17")
FOLDED = {"check", "control"}  # the tags of cells that a reader sees as their verdicts
SCOPES = (ast.FunctionDef, ast.Lambda, ast.ClassDef, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


def own(node):
    """The nodes under one, without what stands in a scope of its own."""
    for child in ast.iter_child_nodes(node):
        yield child
        if not isinstance(child, SCOPES):
            yield from own(child)


def bound(nodes):
    """The names that are given a value."""
    return {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}


def looped(statement):
    """The names that a loop binds: its variables, and what its body assigns."""
    loops = [node for node in (statement, *own(statement)) if isinstance(node, (ast.For, ast.While))]
    return {name for loop in loops for name in bound(own(loop))}


def taken(code):
    """The names that this cell reads before it binds them itself, those in functions and comprehensions included."""
    found, known = set(), set()
    for statement in ast.parse(code).body:
        local = set()
        for node in ast.walk(statement):
            if isinstance(node, SCOPES[3:]):
                local |= bound(ast.walk(node))
            elif isinstance(node, SCOPES[:2]):
                local |= {each.arg for each in ast.walk(node.args) if isinstance(each, ast.arg)}
                local |= bound(ast.walk(node)) if isinstance(node, ast.FunctionDef) else set()
        read = {node.id for node in ast.walk(statement) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
        inside = bound(own(statement)) if isinstance(statement, (ast.For, ast.While, ast.With)) else set()
        found |= read - local - known - inside
        known |= bound(own(statement)) | ({statement.name} if isinstance(statement, ast.FunctionDef) else set())
    return found


def last_bound(codes, marked):
    """``(cell, name, from cell)`` for what a cell reads, where the earlier statement that bound it last is ``marked`` to bind it."""
    last: dict[str, str] = {}
    for name, code in codes:
        yield from ((name, each, last[each]) for each in sorted(taken(code)) if last.get(each))
        for statement in ast.parse(code).body:
            last |= dict.fromkeys(bound([statement, *own(statement)]), "")
            last |= dict.fromkeys(marked(name, statement), name)


def leaks(codes):
    """What one cell reads and the loop of an earlier one bound last."""
    return last_bound(codes, lambda name, statement: looped(statement))


def hidden(codes, folded):
    """What a cell that is shown reads and one of the ``folded`` cells bound last."""
    of_folded = last_bound(codes, lambda name, statement: bound([statement, *own(statement)]) if name in folded else ())
    return (found for found in of_folded if found[0] not in folded)


def long_lines(codes):
    """The cells with a line that is too long, and how many such lines they have."""
    counts = {name: sum(len(line) > LONGEST for line in code.splitlines()) for name, code in codes}
    return {name: count for name, count in counts.items() if count}


def read(page):
    return [(cell["id"], source(cell)) for cell in cells(page, "code")]


each_chapter = pytest.mark.parametrize("page", CHAPTERS, ids=lambda page: page.stem)


@each_chapter
def test_no_cell_reads_what_a_loop_of_another_bound(page):
    assert list(leaks(read(page))) == []


@each_chapter
def test_no_cell_that_is_shown_reads_what_a_folded_one_bound(page):
    folded = {cell["id"] for cell in cells(page, "code") if FOLDED & set(cell["metadata"].get("tags", []))}
    assert list(hidden(read(page), folded)) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_lines_are_short(page):
    assert long_lines(read(page)) == {}


@pytest.mark.parametrize("page", [page for page in CHAPTERS if page.stem[:2] in PICTURED], ids=lambda page: page.stem)
def test_there_are_two_pictures_for_a_thousand_words(page):
    core = without_expert(cells(page))
    words = reading.words("\n\n".join(source(cell) for cell in core if cell["cell_type"] == "markdown"))
    assert 1000 * reading.pictures(core) >= 2 * words, words


def test_the_verdicts_on_the_front_page_are_printed():
    """Its sample lines stand in an output of a chapter, but for the measure of rounding."""
    samples = re.findall(r"`((?:holds|fails)  [^`]*)`", (BOOK / "index.md").read_text(encoding="utf-8"))
    lines = {line for page in CHAPTERS for line in printed(page).splitlines()}
    assert len(samples) == 2 and [sample for sample in samples if masked(sample) not in lines] == []


def test_formulas_are_displayed():
    """At most twelve formulas in lines for a displayed one over the book, and 25 in any chapter."""
    counts = {page.stem: reading.formulas(text(page)) for page in CHAPTERS}
    assert all(inline <= 25 * displayed for inline, displayed in counts.values()), counts
    assert sum(inline for inline, _ in counts.values()) <= 12 * sum(displayed for _, displayed in counts.values())


@pytest.mark.parametrize("codes, found", [
    (["for a in x: pass", "print(a)"], ["a"]), (["for i in x:\n    loss = f(i)", "loss + 1"], ["loss"]),
    (["for a in x: pass", "a = 1\nprint(a)"], []), (["for a in x: pass\na = 2", "print(a)"], []),
    (["for a in x: pass", "b = 1", "print([a for a in y])"], []), (["for a in x: pass", "a = 3", "print(a)"], []),
    (["rows = []\nfor a in x:\n    rows.append(a)", "print(rows)"], []), (["for a in x: pass", "for a in y: print(a)"], []),
    (["for a in x: pass", "g = lambda a: a\ndef f(b):\n    a = b\n    return a"], []),
    (["while x:\n    y = g(x)", "def f():\n    return y"], ["y"])])
def test_a_leak_is_found(codes, found):
    assert [name for _, name, _ in leaks([(str(i), code) for i, code in enumerate(codes)])] == found


@pytest.mark.parametrize("codes, found", [
    ([("b = 1", True), ("print(b)", False)], ["b"]), ([("b = 1", True), ("print(b)", True)], []),
    ([("b = 1", False), ("print(b)", True), ("b + 1", False)], []), ([("b = 1", True), ("b = 2\nprint(b)", False)], []),
    ([("b = 1", False), ("b = 2", True), ("print(b)", False)], ["b"]), ([("b = 1", True), ("f = lambda x: b", False)], ["b"])])
def test_what_is_hidden_is_found(codes, found):
    numbered = [(str(i), code) for i, (code, _) in enumerate(codes)]
    assert [name for _, name, _ in hidden(numbered, {str(i) for i, (_, fold) in enumerate(codes) if fold})] == found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_no_output_shows_what_is_no_number(page):
    """A run that was lost is said in words, as "lost 1 of 5"."""
    assert not re.findall(r"(?m)^.*\bnan\b.*$", printed(page))
