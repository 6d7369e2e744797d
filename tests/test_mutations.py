"""Would the checks notice? A chapter is copied with one fault each, and pytest --nbval must fail on that copy alone."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CHAPTER = json.loads((ROOT / "book" / "04-preconditioner.ipynb").read_text())
KEPT = ("setup", "check-cor-single-output", "fig-ellipses")


def cell(notebook, name):
    return next(c for c in notebook["cells"] if c["id"] == name)


def edit(text, old, new):
    assert old in text, f"{old!r} is gone; choose another place to break"
    return text.replace(old, new, 1)


def untouched(notebook):
    pass


def verdict(notebook, old, new):
    out = cell(notebook, "check-cor-single-output")["outputs"][0]
    out["text"] = re.sub(old, new, "".join(out["text"]), count=1)
    assert re.search(new, out["text"]), f"{old!r} is gone; choose another place to break"


def size_of_a_rounding_error(notebook):
    verdict(notebook, r"worst \S+, below", "worst 9e-14, below")


def count_of_cases(notebook):
    verdict(notebook, "4 depths", "5 depths")


def label_of_a_verdict(notebook):
    verdict(notebook, "holds  cor-single-output", "holds  cor-single-outputs")


def threshold_of_a_verdict(notebook):
    verdict(notebook, "below 1e-13", "below 1e-12")


def digit_of_a_control(notebook):
    verdict(notebook, r"stretch  \d", "stretch  77")


def draw_from_a_global_generator(notebook):
    code = cell(notebook, "setup")
    code["source"] = "".join(code["source"]) + "\nunused = torch.rand(1)"


def stored_curve(notebook, by=3.0):
    data = cell(notebook, "fig-ellipses")["outputs"][0]["data"]
    svg = "".join(data["image/svg+xml"])
    number = re.search(r'(?<=d="M )\d+\.\d+', svg[svg.index("patch_5"):])[0]
    data["image/svg+xml"] = edit(svg, number, str(float(number) + by))


def last_digit_of_a_curve(notebook):
    stored_curve(notebook, by=1e-4)


def sign_in_a_formula(notebook):
    code = cell(notebook, "check-cor-single-output")
    code["source"] = edit("".join(code["source"]), "(g + stretch)", "(g - stretch)")


def threshold_too_tight(notebook):
    code = cell(notebook, "check-cor-single-output")
    code["source"] = edit("".join(code["source"]), "below=1e-13", "below=1e-30")


PASS = untouched, last_digit_of_a_curve, size_of_a_rounding_error
FAIL = (count_of_cases, label_of_a_verdict, threshold_of_a_verdict, digit_of_a_control, stored_curve, sign_in_a_formula,
        threshold_too_tight, draw_from_a_global_generator)


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """The outcome of one nbval run over all copies."""
    folder = tmp_path_factory.mktemp("mutations")
    for fault in PASS + FAIL:
        notebook = json.loads(json.dumps(CHAPTER))
        notebook["cells"] = [c for c in notebook["cells"] if c["id"] in KEPT]
        fault(notebook)
        (folder / f"{fault.__name__}.ipynb").write_text(json.dumps(notebook))
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "--nbval", "-q", "-rA", "-c", str(ROOT / "pyproject.toml"), "--rootdir", ROOT,
         "-p", "conftest", "-p", "no:cacheprovider", str(folder)],
        capture_output=True, text=True, cwd=ROOT)
    return run.stdout


@pytest.mark.parametrize("fault", PASS + FAIL, ids=lambda f: f.__name__)
def test_a_fault_is_noticed(report, fault):
    cells = re.findall(rf"(PASSED|FAILED) \S*{fault.__name__}\.ipynb::Cell (\d)", report)
    assert len(cells) == len(KEPT), report[-3000:]
    failed = [number for verdict, number in cells if verdict == "FAILED"]
    assert bool(failed) == (fault in FAIL), report[-3000:]
