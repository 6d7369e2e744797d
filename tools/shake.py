"""Which printed digits hang on the last bit, or on a global generator?

    python tools/shake.py [NOTEBOOK ...] [--settings NAME ...]      (default: every notebook of book/, every setting)

Runs pytest --nbval once for each setting: with every input (data, recorded arrays, random draws) multiplied by 1 + 1e-13 n, n
standard normal (1e-7 in single precision), for three seeds; then with the inputs as they are, as this machine computes, and as
older processors and two threads would. Names every cell that prints or draws something else than what is stored, every cell that moves
a global generator, and every rounding error near its threshold. The exit status is 1 unless no cell moves.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
AVX512 = "AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL AVX512_SPR"
SETTINGS = {
    **{f"shaken, seed {seed}": {"SHAKE_EPS": "1e-13", "SHAKE_SEED": str(seed)} for seed in (0, 1, 2)},
    "as is": {},
    "AVX2": {"ATEN_CPU_CAPABILITY": "avx2", "MKL_CBWR": "AVX2", "OPENBLAS_CORETYPE": "Haswell", "ONEDNN_MAX_CPU_ISA": "AVX2",
             "NPY_DISABLE_CPU_FEATURES": AVX512},
    "SSE": {"ATEN_CPU_CAPABILITY": "default", "MKL_CBWR": "COMPATIBLE", "OPENBLAS_CORETYPE": "Nehalem", "ONEDNN_MAX_CPU_ISA": "SSE41",
            "NPY_DISABLE_CPU_FEATURES": AVX512 + " AVX2 FMA3"},
    "two threads": {"NBVAL_THREADS": "2"},
}


def run(notebooks, setting, folder):
    """The cells that fail under ``setting``, by notebook and number with nbval's words, and what their kernels logged."""
    startup = folder / "profile_default" / "startup"
    startup.mkdir(parents=True)
    (startup / "shake.py").write_text("import shaken\nshaken.install(get_ipython())\n")
    log, report = folder / "log", folder / "report.xml"
    log.touch()
    environment = {**os.environ, "SHAKE_EPS": "0", "SHAKE_SEED": "0", "SHAKE_LOG": str(log), "IPYTHONDIR": str(folder),
                   "PYTHONPATH": os.pathsep.join([str(ROOT / "tools"), os.environ.get("PYTHONPATH", "")]), **setting}
    environment["PYTHONWARNINGS"] = "ignore::ImportWarning,ignore::RuntimeWarning:numpy"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n", "2", "--dist", "loadfile", "--nbval", "-c", str(ROOT / "pyproject.toml"),
         "--rootdir", str(ROOT), "-p", "conftest", "-p", "no:cacheprovider", f"--junitxml={report}", *map(str, notebooks)],
        cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode not in (0, 1) or not report.exists():
        sys.exit(f"pytest ended with {done.returncode}:\n{done.stdout[-3000:]}{done.stderr[-1000:]}")
    failed = {}
    for case in ElementTree.parse(report).iter("testcase"):
        for problem in (*case.iter("failure"), *case.iter("error")):
            failed[name_of(case)] = what_differs(problem.text or problem.get("message"))
    return failed, [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]


def what_differs(words):
    """Of nbval's report of a cell, what was stored and printed: the lines of the comparison, or the end of the traceback."""
    plain = re.sub(r"(\x1b|#x1B)\[[\d;]+m", "", words)
    lines = [line.strip() for line in plain.splitlines() if line.strip()]
    compared = [line for line in lines if re.match(r"[-+] |mismatch|dissimilar", line)]
    return [line[:160] for line in (compared if any(line[:2] in ("- ", "+ ") for line in compared) else lines[-4:])]


def name_of(case):
    """Notebook and cell number, as nbval counts them."""
    notebook = re.search(r"([\w-]+)(?:\.ipynb|$)", case.get("classname").rpartition("/")[2].removesuffix(".ipynb").rpartition(".")[2])
    return f"{notebook[1]} {case.get('name')}"


def cell_of(source, notebooks):
    """Where the cell of this source stands."""
    for path in notebooks:
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            if "".join(cell["source"]).strip() == source.strip():
                return f"{path.stem} {cell['id']}"
    return source.strip().partition("\n")[0]


def own_generators(notebooks):
    """The cells that draw in another way than the library's, which no shake reaches."""
    for path in notebooks:
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            if cell["cell_type"] == "code" and re.search(r"np\.random|default_rng|import random|torch\.rand", "".join(cell["source"])):
                yield f"{path.stem} {cell['id']}"


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("notebooks", nargs="*", type=Path)
    parser.add_argument("--settings", nargs="*", choices=SETTINGS, default=list(SETTINGS), metavar="NAME",
                        help="; ".join(SETTINGS))
    options = parser.parse_args(arguments)
    notebooks = [path.resolve() for path in options.notebooks] or sorted((ROOT / "book").glob("*.ipynb"))
    bad, drawn = 0, set(own_generators(notebooks))
    for cell in sorted(drawn):
        print(f"draws past the library: {cell}")
    for name in options.settings:
        started = time.time()
        with tempfile.TemporaryDirectory() as folder:
            failed, logged = run(notebooks, SETTINGS[name], Path(folder))
        movers = {f"{cell_of(entry['source'], notebooks)} ({entry['moved']})" for entry in logged if "moved" in entry}
        print(f"{name}: {len(failed)} cells differ, {len(movers)} move a global generator ({time.time() - started:.0f} s)", flush=True)
        for cell, words in sorted(failed.items()):
            print("\n".join([f"  {cell}", *(f"    {line}" for line in words[:8])]))
        for mover in sorted(movers):
            print(f"  moves a global generator: {mover}")
        for near in sorted({entry["near"] for entry in logged if "near" in entry}):
            print(f"  near its threshold: {near}")
        bad += len(failed) + len(movers)
    print("nothing moves" if not bad + len(drawn) else "a printed digit that moves says nothing: print fewer, a range, or a choice that ties cannot move")
    return bool(bad + len(drawn))


if __name__ == "__main__":
    sys.exit(main())
