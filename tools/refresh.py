"""Run notebooks top to bottom in fresh kernels and write their outputs in normal form.

    python tools/refresh.py [NOTEBOOK ...]      (default: every notebook of book/, and the cover)

The only way outputs change. Normal form keeps diffs small and outputs comparable: short stable cell ids, counts 1..n,
no timing or widget metadata, streams merged, keys sorted, formulas without the book's own commands, which no other place
that shows a notebook knows. Run twice, it changes nothing the second time.
"""

import json
import os
import re
import sys
from pathlib import Path

import nbformat
import yaml
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from deeplinear import checks, plots

BOOK = Path(__file__).resolve().parents[1] / "book"
sys.path.insert(0, str(BOOK / "_ext"))
import maths  # noqa: E402

MACROS = maths.commands(yaml.safe_load((BOOK.parent / "_config.yml").read_text(encoding="utf-8"))["sphinx"]["config"]["maths_macros"])
THREADS = os.environ.get("NBVAL_THREADS", "1")  # tools/shake.py tries two
ENVIRONMENT = {"OMP_NUM_THREADS": THREADS, "MKL_NUM_THREADS": THREADS, "OPENBLAS_NUM_THREADS": THREADS, "PYTHONHASHSEED": "0"}
METADATA = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"}}


def execute(notebook, folder):
    """Run all cells of ``notebook`` (changed in place) in a fresh kernel started in ``folder``."""
    client = NotebookClient(notebook, timeout=120, kernel_name="python3", record_timing=False,
                            resources={"metadata": {"path": str(folder)}})
    client.execute(env={**os.environ, **ENVIRONMENT})
    return notebook


def normal_form(notebook):
    """The text of ``notebook`` in normal form."""
    cells, count = [], 0
    for cell in notebook.cells:
        source = maths.expand(cell.source, MACROS) if cell.cell_type == "markdown" else cell.source
        kept = {"cell_type": cell.cell_type, "id": cell.id, "source": source.rstrip().splitlines(keepends=True),
                "metadata": {key: cell.metadata[key] for key in ("tags", "mystnb") if cell.metadata.get(key)}}
        if cell.cell_type == "code":
            count += 1
            kept |= {"execution_count": count, "outputs": [_output(out, count) for out in _merged(cell.outputs)]}
        cells.append(kept)
    content = {"cells": cells, "metadata": METADATA, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def _merged(outputs):
    merged = []
    for output in outputs:
        if output.output_type == "stream" and merged and merged[-1].get("name") == output.name:
            merged[-1]["text"] += output.text
        else:
            merged.append(nbformat.from_dict(output))
    return merged


def _output(output, count):
    kept = dict(output)
    if "execution_count" in kept:
        kept["execution_count"] = count
    if "metadata" in kept:
        kept["metadata"] = {}
    if "text" in kept:
        kept["text"] = kept["text"].splitlines(keepends=True)
    if "data" in kept:
        kept["data"] = {mime: value.splitlines(keepends=True) if isinstance(value, str) else value
                        for mime, value in kept["data"].items()}
    return kept


def keep_rounding(notebook, stored):
    """Put the stored lines of ``stored`` in place of those that differ in nothing but the size of a rounding error."""
    before = {cell.id: cell for cell in stored.cells}
    for cell in notebook.cells:
        known = {}
        for output in before[cell.id].get("outputs", []) if cell.id in before else []:
            for line in output.get("text", "").splitlines():
                known.setdefault(checks.masked(line), []).append(line)
        for output in cell.get("outputs", []):
            if output.output_type == "stream":
                lines = [known[checks.masked(line)].pop(0) if known.get(checks.masked(line)) else line
                         for line in output.text.splitlines()]
                output.text = "\n".join(lines) + "\n" * output.text.endswith("\n")
    return notebook


def mark_verdicts(notebook):
    """Tag a cell that prints a verdict: "check", or "control" where all its verdicts must fail."""
    for cell in notebook.cells:
        printed = "".join(output.get("text", "") for output in cell.get("outputs", []))
        tags = [tag for tag in cell.metadata.get("tags", []) if tag not in ("check", "control")]
        if found := re.findall(r"(?m)^(holds|fails)  ", printed):
            tags.append("check" if "holds" in found else "control")
        cell.metadata["tags"] = tags
    return notebook


def main(paths):
    if not paths:
        (BOOK / "_static" / "cover.svg").write_text(plots.cover().svg(), encoding="utf-8")
    for path in map(Path, paths or sorted(BOOK.glob("*.ipynb"))):
        before = path.read_text(encoding="utf-8")
        try:
            fresh = execute(nbformat.reads(before, as_version=4), path.parent)
            after = normal_form(mark_verdicts(keep_rounding(fresh, nbformat.reads(before, as_version=4))))
        except CellExecutionError as error:
            sys.exit(f"{path.name}: not refreshed\n{error}")
        if after != before:
            temporary = path.with_suffix(".part")
            temporary.write_text(after, encoding="utf-8")
            temporary.replace(path)
        print(f"{path.name}: {'unchanged' if after == before else 'refreshed'}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
