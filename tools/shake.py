"""Which printed digits hang on the last bit, or on a global generator?

    python tools/shake.py [NOTEBOOK ...] [--settings NAME ...]      (default: every notebook of book/, every setting)

Runs pytest --nbval once for each setting: with every input (data, recorded arrays, random draws) multiplied by 1 + 1e-13 n, n
standard normal (1e-7 in single precision), for three seeds; then with the inputs as they are, as this machine computes, and as
older processors and two threads would. Names every cell that prints or draws something else than what is stored, every cell that draws
from a global generator, and every rounding error near its threshold. The exit status is 1 unless no cell moves.
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

import numpy
import watch

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = {
    **{f"shaken, seed {seed}": {"SHAKE_EPS": "1e-13", "SHAKE_SEED": str(seed)} for seed in (0, 1, 2)},
    "as is": {},
    "AVX2": {"ATEN_CPU_CAPABILITY": "avx2", "MKL_CBWR": "AVX2", "OPENBLAS_CORETYPE": "Haswell", "ONEDNN_MAX_CPU_ISA": "AVX2",
             "NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512"},
    "SSE": {"ATEN_CPU_CAPABILITY": "default", "MKL_CBWR": "COMPATIBLE", "OPENBLAS_CORETYPE": "Nehalem", "ONEDNN_MAX_CPU_ISA": "SSE41",
            "NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4 AVX FMA"},
    "two threads": {"NBVAL_THREADS": "2"},
}


def disabled(beginnings):
    """What NumPy calls the processor's features that begin so, of those that it would use here: it warns of any other."""
    known = numpy._core._multiarray_umath
    return " ".join(name for name in known.__cpu_dispatch__ if known.__cpu_features__[name] and name.startswith(tuple(beginnings.split())))


def run(notebooks, setting, folder):
    """The cells that fail under ``setting``, by notebook and number, with what differs; and the errors near their thresholds."""
    watch.profile(folder / "ipython", "shaken")
    log, report = folder / "log", folder / "report.xml"
    log.touch()
    environment = {**os.environ, "SHAKE_EPS": "0", "SHAKE_SEED": "0", "SHAKE_LOG": str(log), "IPYTHONDIR": str(folder / "ipython"),
                   **setting}
    if "NPY_DISABLE_CPU_FEATURES" in setting:
        environment["NPY_DISABLE_CPU_FEATURES"] = disabled(setting["NPY_DISABLE_CPU_FEATURES"])
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n", "2" if len(notebooks) > 1 else "0", "--dist", "loadfile", "--nbval",
         "-c", str(ROOT / "pyproject.toml"), "--rootdir", str(ROOT), "-p", "conftest", "-p", "no:cacheprovider",
         "-o", "junit_family=xunit1", f"--junitxml={report}",
         *map(str, notebooks)],
        cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode not in (0, 1) or not report.exists():
        sys.exit(f"pytest ended with {done.returncode}:\n{done.stdout[-3000:]}{done.stderr[-1000:]}")
    failed = {}
    for case in ElementTree.parse(report).iter("testcase"):
        for problem in (*case.iter("failure"), *case.iter("error")):
            failed[f"{Path(case.get('file')).stem} {case.get('name')}"] = what_differs(problem.text or problem.get("message"))
    return failed, sorted(set(log.read_text(encoding="utf-8").splitlines()))


def what_differs(words):
    """Of nbval's report of a cell, what was stored and printed: the lines of the comparison, or the end of the traceback."""
    plain = re.sub(r"(\x1b|#x1B)\[[\d;]+m", "", words)
    lines = [line.strip() for line in plain.splitlines() if line.strip()]
    compared = [line for line in lines if re.match(r"[-+] |mismatch|dissimilar", line)]
    return [line[:160] for line in (compared if any(line[:2] in ("- ", "+ ") for line in compared) else lines[-4:])]


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
    drawn = sorted(set(own_generators(notebooks)))
    print(*(f"draws past the library: {cell}\n" for cell in drawn), sep="", end="")
    bad = len(drawn)
    for name in options.settings:
        started = time.time()
        with tempfile.TemporaryDirectory() as folder:
            failed, near = run(notebooks, SETTINGS[name], Path(folder))
        global_ = sum(any(watch.WORDS in line for line in words) for words in failed.values())
        print(f"{name}: {len(failed)} cells differ, {global_} draw from a global generator ({time.time() - started:.0f} s)", flush=True)
        for cell, words in sorted(failed.items()):
            print("\n".join([f"  {cell}", *(f"    {line}" for line in words[:8])]))
        print(*(f"  near its threshold: {line}\n" for line in near), sep="", end="")
        bad += len(failed)
    print("a printed digit that moves says nothing: print fewer, a range, or a choice that ties cannot move" if bad else "nothing moves")
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main())
