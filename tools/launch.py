"""The chapters as they are launched elsewhere: each with a first cell that installs the library, of the version that wrote them.

    python tools/launch.py FOLDER https://github.com/OWNER/NAME v1.0.0

The publish workflow puts FOLDER on the branch ``launch``, which the pages link to; the notebooks of the book stay as they are.
Colab knows Markdown and no directive, so the copies have plain text in their place: numbered as in the book, proofs folded.
"""

import re
import sys
from pathlib import Path

import nbformat
from pybtex.database import parse_file

BOOK = Path(__file__).parents[1] / "book"
KINDS = "definition|lemma|proposition|theorem|corollary"
STATED = re.compile(rf":::\{{(?:prf:)?({KINDS}|exercise)\}} ?(.*)\n:label: (\S+)\n")
NUMBERED = re.compile(r"\$\$\s*\((eq-[a-z0-9-]+)\)")
ROLE = re.compile(r"\{(?:prf:ref|eq|ref|numref|cite(?::[pt])?)\}`([^`]+)`")


def sources(notebook):
    return [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]


def names(chapters):
    """What the book calls each label, as in ``Theorem 3.1`` or ``(3.2)``; ``chapters`` are pairs of a file's stem and its notebook."""
    found = {}
    for stem, notebook in chapters:
        if not re.match(r"\d\d-", stem):
            continue
        chapter, text = int(stem[:2]), "\n\n".join(sources(notebook))
        stated = STATED.findall(text)
        for group in ([each for each in stated if each[0] != "exercise"], [each for each in stated if each[0] == "exercise"]):
            found |= {label: f"{kind.capitalize()} {chapter}.{i}" for i, (kind, _, label) in enumerate(group, 1)}
        found |= {label: f"({chapter}.{i})" for i, label in enumerate(NUMBERED.findall(text), 1)}
        figures = [cell.id for cell in notebook.cells if cell.id.startswith("fig-")]
        found |= {label: f"Figure {chapter}.{i}" for i, label in enumerate(figures, 1)}
        found |= {label: title for label, title in re.findall(r"\((\S+)\)=\n#+ (.*)", text)}
    return found


def works(file):
    """The authors and the year of each entry of a bibliography, under its key."""
    found = {}
    for key, entry in parse_file(str(file)).entries.items():
        last = [" ".join(person.prelast_names + person.last_names).strip("{}") for person in entry.persons.get("author", [])] or [key]
        who = last[0] if len(last) == 1 else f"{last[0]} and {last[1]}" if len(last) == 2 else f"{last[0]} et al."
        found[key] = who, entry.fields.get("year", "")
    return found


def plain(text, named, cited):
    """A cell's Markdown without directives and roles."""
    def role(found):
        inside = re.fullmatch(r"(.*?) ?<([^>]+)>", found[1])
        if "{cite" not in found[0]:
            return inside[1] if inside else named.get(found[1], found[1])
        each = [cited.get(key.strip(), (key.strip(), "")) for key in found[1].split(",")]
        if ":p}" in found[0]:
            return "(" + "; ".join(f"{who}, {year}" for who, year in each) + ")"
        return "; ".join(f"{who} ({year})" for who, year in each)

    def stated(found):
        title = f" ({found[2].strip()})" if found[2].strip() else ""
        return f"**{named.get(found[3], found[1].capitalize())}{title}.**\n"

    text = re.sub(r"(?m)^\(\S+\)=\n", "", text)
    text = NUMBERED.sub(lambda found: rf"\tag{{{named.get(found[1], found[1]).strip('()')}}}$$", text)
    text = re.sub(r":::\{dropdown\} (.*)\n(?::\w+:.*\n)*((?s:.*?))\n:::(?=\n|$)",
                  r"<details><summary>\1</summary>\n\n\2\n\n</details>", text)
    text = re.sub(r":::\{solution-start\} (\S+)\n(?::\w+:.*\n)*", lambda found: f"*Solution of {named.get(found[1], found[1])}.*\n", text)
    text = re.sub(r":::\{solution-end\}\n:::", "", text)
    text = STATED.sub(stated, text)
    text = re.sub(r":::\{\w+\} (.*)\n(?::\w+:.*\n)*", r"**\1**\n\n", text)
    text = re.sub(r"(?m)^:::$\n?", "", text)
    return ROLE.sub(role, text)


def launch(notebook, repository, version, named=None, cited=None):
    """The notebook with the cell that installs before its others, and with plain text."""
    install = nbformat.v4.new_code_cell(f'%pip install -q "deeplinear @ git+{repository}@{version}"', id="install")
    copy = nbformat.from_dict(notebook)
    for cell in copy.cells:
        if cell.cell_type == "markdown":
            cell.source = plain(cell.source, named or {}, cited or {})
    copy.cells = [install, *copy.cells]
    return copy


def main(folder, repository, version):
    if not re.fullmatch(r"https://[\w./-]+", repository) or not re.fullmatch(r"[\w.-]+", version):
        sys.exit(f"expected the address of a repository and a version, got {repository} {version}")
    target = Path(folder) / "book"
    target.mkdir(parents=True, exist_ok=True)
    notebooks = {path: nbformat.read(path, as_version=4) for path in sorted(BOOK.glob("*.ipynb"))}
    named, cited = names([(path.stem, notebook) for path, notebook in notebooks.items()]), works(BOOK / "references.bib")
    for path, notebook in notebooks.items():
        nbformat.write(launch(notebook, repository, version, named, cited), target / path.name)


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit("usage: python tools/launch.py FOLDER REPOSITORY VERSION")
    main(*sys.argv[1:])
