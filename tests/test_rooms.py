"""No file of code is above 300 lines, no function above 60: what is read is read in one go."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = [path for folder in ("lib", "tests", "tools", "benchmarks", "book/_ext") for path in sorted((ROOT / folder).rglob("*.py"))]


def long_parts(text, file=300, function=60):
    """What is too long in a file of Python: ``(name, lines)``; a function counts from its first decorator."""
    lines = len(text.splitlines())
    found = [("the file", lines)] if lines > file else []
    for item in ast.walk(ast.parse(text)):
        if isinstance(item, (ast.FunctionDef, ast.AsyncFunctionDef)):
            length = item.end_lineno + 1 - min(part.lineno for part in (item, *item.decorator_list))
            if length > function:
                found.append((item.name, length))
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_files_and_functions_are_short(path):
    assert not long_parts(path.read_text(encoding="utf-8"))


def test_long_ones_are_found():
    """At the limit and one above it, a decorator and a method among the lines."""
    text = "class A:\n    @staticmethod\n    def b():\n" + "        pass\n" * 4
    assert long_parts(text, 7, 6) == [] and long_parts(text, 6, 5) == [("the file", 7), ("b", 6)]
    assert len(FILES) > 60
