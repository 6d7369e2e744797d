"""Which source files settle a result, and their digest: an experiment's module and what it imports from this package.

Only the standard library is needed, so that any Python can tell the digest. It is of the text that is left without
comments, docstrings, blank lines and blanks at line ends: of the text and not of a syntax tree, whose dump differs from
one Python to the next. A function that moves to another module changes it, since the names of the files count.
"""

import ast
import hashlib
import io
import tokenize
from pathlib import Path

PACKAGE = Path(__file__).parent
NAMES_ONLY = "annotations.py"  # what signatures call their types; it computes nothing


def digest(file: str | Path, package: str | Path = PACKAGE) -> str:
    """The SHA-256 of the code of ``file`` and of every module that it imports from ``package``, at whatever depth."""
    package = Path(package).resolve()
    named = {path.relative_to(package).as_posix() if path.is_relative_to(package) else path.name: path
             for path in followed(file, package)}
    total = hashlib.sha256()
    for name, path in sorted(named.items()):
        total.update(f"{name}\0{code(_read(path))}\0".encode())
    return total.hexdigest()


def followed(file: str | Path, package: str | Path = PACKAGE) -> list[Path]:
    """The sorted paths of ``file`` and of the modules of ``package`` that it imports, at whatever depth, in functions too.

    Imports are read, not carried out: a module that only carries results (records, workers, the command line) counts
    where an experiment imports it. The ``__init__.py`` of a package counts where a name is taken from it that is not
    a module, not where a module is only reached through it: that of this package imports everything. ``annotations``,
    the names of types, never counts. Raises ``ValueError`` for an import of the package that leads to no file.
    """
    package, found, waiting = Path(package).resolve(), set(), [Path(file).resolve()]
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            waiting += (each for each in _imported(path, package) if each != package / NAMES_ONLY)
    return sorted(found)


def code(text: str) -> str:
    """Python source without comments, docstrings and other lone strings, blank lines and blanks at line ends."""
    text = text.rstrip() + "\n"
    lines = text.split("\n")[:-1]
    ends, cuts = _ends_and_comments(text)
    cuts += _lone_strings(text, lines)
    for (first, start), (last, end) in sorted(cuts, reverse=True):
        tail = lines[last][end:]
        if first == last:
            lines[first] = lines[first][:start] + tail
            continue
        lines[first:last + 1] = [lines[first][:start], *[""] * (last - first - 1), tail]
        ends.update(range(first, last))
    kept = [line.rstrip() if row in ends else line for row, line in enumerate(lines)]
    return "".join(f"{line}\n" for row, line in enumerate(kept) if line or row not in ends)


def _read(path):
    return path.read_text(encoding="utf-8-sig")  # line ends of every kind become "\n"


def _ends_and_comments(text):
    """The rows, from 0, that end outside of strings, and where the comments are.

    From Python 3.12 on an f-string is many tokens; what is inside it belongs to the string, as it did before.
    """
    ends, comments, depth = set(), [], 0
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        kind, row = tokenize.tok_name[token.type], token.start[0] - 1
        depth += {"FSTRING_START": 1, "FSTRING_END": -1}.get(kind, 0)
        if depth == 0 and kind in ("NL", "NEWLINE"):
            ends.add(row)
        if depth == 0 and kind == "COMMENT":
            comments.append(((row, token.start[1]), (row, token.end[1])))
    return ends, comments


def _lone_strings(text, lines):
    """Where statements that are nothing but a string start and end, docstrings among them."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            ends = (node.lineno - 1, node.col_offset), (node.end_lineno - 1, node.end_col_offset)
            yield tuple((row, len(lines[row].encode()[:column].decode())) for row, column in ends)


def _imported(path, package):
    """The files of ``package`` that the module at ``path`` imports itself."""
    for node in ast.walk(ast.parse(_read(path))):
        if isinstance(node, ast.ImportFrom):
            names = [name.name for name in node.names]
            parts = node.module.split(".") if node.module else []
            if node.level:
                yield from _files(path.parents[node.level - 1], parts, names, path)
            elif parts[0] == package.name:
                yield from _files(package, parts[1:], names, path)
        elif isinstance(node, ast.Import):
            for parts in (name.name.split(".") for name in node.names):
                if parts[0] == package.name:
                    yield from _files(package, parts[1:], [], path)


def _files(folder, parts, names, importer):
    """The files behind ``from <folder>.<parts> import <names>``."""
    place = folder.joinpath(*parts)
    module, package = place.with_name(f"{place.name}.py"), place / "__init__.py"
    if parts and module.is_file() and not package.is_file():
        yield module
        return
    inside = {name for name in names if (place / f"{name}.py").is_file() or (place / name / "__init__.py").is_file()}
    for name in sorted(inside):
        yield from _files(place, [name], [], importer)
    if inside != set(names) or not names:
        if not package.is_file():
            raise ValueError(f"{importer} imports {'.'.join(parts) or '.'}, which is not in {folder}")
        yield package
