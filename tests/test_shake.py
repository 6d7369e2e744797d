"""Does tools/shake.py find a digit that hangs on the last bit, a draw from a global generator, and nothing else?"""

import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from refresh import execute, normal_form

ROOT = Path(__file__).parents[1]
CELLS = {
    "setup": "import torch\n\nimport deeplinear as dl\n\ndata = dl.data.load('diabetes')\ndraws = dl.normal(9, generator=dl.seeded(0))",
    "sturdy": "print(f'{draws.sum():.6f}', f'{data.X[0, 0]:.6f}')\ndl.check('rounding', draws.sum() - draws.flip(0).sum(), below=1e-13)",
    "data": "print(data.X[0, 0].item())",
    "draw": "print(draws.exp().sum().item())",
    "uniform": "print(dl.uniform(0, 1, 5, generator=dl.seeded(0)).prod().item())",
    "record": "print(dl.recorded.load('relu-balance', quiet=True).arrays['balanced 0.01'].sum().item())",
    "start": "with dl.forked(0):\n    print(torch.nn.Linear(30, 20).weight.sum().item())",
    "pixels": "print((dl.data.load('mnist-5k').X[:9] == -0.5).sum().item(), 'black')",
    "near": "dl.check('near', 5e-14, below=1e-13)",
    "global": "print(torch.rand(2).sum().item() < 9)",
}
FRAGILE = ("data", "draw", "uniform", "record", "start")


def shake(path, setting):
    done = subprocess.run([sys.executable, str(ROOT / "tools" / "shake.py"), str(path), "--settings", setting],
                          capture_output=True, text=True, cwd=ROOT)
    assert done.stderr == "", done.stderr
    return done.returncode, done.stdout


def written(folder, names):
    """A notebook of these cells, run once."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELLS[name], id=name) for name in names])
    path = folder / "scratch.ipynb"
    path.write_text(normal_form(execute(notebook, folder)), encoding="utf-8")
    return path


def test_what_hangs_on_the_last_bit_is_found(tmp_path):
    names = ["setup", *(name for name in CELLS if name not in ("setup", "global"))]
    status, said = shake(written(tmp_path, names), "shaken, seed 0")
    assert sorted(re.findall(r"^  scratch Cell (\d+)$", said, re.M)) == [str(names.index(name)) for name in FRAGILE]
    assert status == 1 and f"shaken, seed 0: {len(FRAGILE)} cells differ, 0 draw from a global generator" in said
    assert "near its threshold: near: 5e-14, below 1e-13" in said and "near its threshold: rounding" not in said


@pytest.mark.parametrize("setting", ["as is", "AVX2", "SSE", "two threads"])
def test_nothing_moves_in_a_sturdy_notebook(tmp_path, setting):
    status, said = shake(written(tmp_path, ["setup", "sturdy"]), setting)
    assert status == 0 and said.endswith("nothing moves\n") and "0 cells differ" in said


def test_a_draw_from_a_global_generator_is_found(tmp_path):
    status, said = shake(written(tmp_path, ["setup", "sturdy", "global"]), "as is")
    assert status == 1 and "1 cells differ, 1 draw from a global generator" in said
    assert "scratch Cell 2" in said and "global generator of torch" in said and "draws past the library: scratch global" in said
