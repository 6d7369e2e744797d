"""Resolve requirements.txt for every Python and system that a reader may have, without installing anything.

    python tools/resolve.py            each pair against constraints.txt; exit status 1 where one fails
    python tools/resolve.py --write    write constraints.txt again, keeping the versions that still fit

A pair fails where a pin has no wheel for it, or where something is taken that no line pins. Needs uv and a package index.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PYTHONS = ("3.11.0", "3.11.2", "3.12", "3.13", "3.14")
SYSTEMS = {"Linux x86": "x86_64-manylinux_2_28", "Linux ARM": "aarch64-manylinux_2_28",
           "macOS 14 ARM": "aarch64-apple-darwin", "Windows": "x86_64-pc-windows-msvc"}
ON_DEMAND = ("jupyterlab", "jupyterlab-myst", "sphinx-revealjs", "uv")  # what make installs when it is asked for
# A build of torch pins these itself, each build its own: one that a reader chose would contradict those of another.
OF_TORCH = re.compile(r"(nvidia|cuda)-|triton$")
HEADER = """\
# Every package of the environment, JupyterLab with its MyST for make lab and reveal.js for make slides included, for every Python
# from 3.11.0 and for Linux, macOS and Windows; what a CUDA build of torch brings along is pinned by that build.
# Made by make constraints, checked by make resolve. To renew a package, remove its line first.
"""


def direct():
    """The lines of requirements.txt that name packages, and what is installed on demand."""
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith(("#", "-"))] + list(ON_DEMAND)


def packages(text):
    """The lines of a resolve by the package that each pins, without those that torch pins; notes are left out."""
    lines = {re.match(r"[\w.-]+", line)[0]: line for line in text.splitlines() if re.match(r"\w", line)}
    return {name: line for name, line in lines.items() if not OF_TORCH.match(name)}


def resolve(*options):
    """What uv resolves the direct requirements to, from wheels alone; ``RuntimeError`` with its words where it cannot."""
    done = subprocess.run([sys.executable, "-m", "uv", "pip", "compile", "-", "--only-binary", ":all:", "--no-header",
                           "--no-annotate", "--no-emit-index-url", "--quiet", *options], cwd=ROOT, capture_output=True,
                          input="\n".join(direct()), encoding="utf-8",
                          env={**os.environ, "MACOSX_DEPLOYMENT_TARGET": "14.0"})
    if done.returncode:
        raise RuntimeError(done.stderr.strip())
    return packages(done.stdout)


def check(python, system):
    """Why ``constraints.txt`` does not serve this Python on this system, or None."""
    pinned = packages((ROOT / "constraints.txt").read_text(encoding="utf-8"))
    try:
        taken = resolve("--constraint", "constraints.txt", "--python-version", python,
                        "--python-platform", SYSTEMS[system])
    except RuntimeError as error:
        return str(error)
    unpinned = [line for name, line in taken.items() if name not in pinned]
    return f"no line pins {', '.join(unpinned)}" if unpinned else None


def write():
    """Write constraints.txt: one version of each package for all, as close as possible to those that it has."""
    file = ROOT / "constraints.txt"
    resolve("--universal", "--fork-strategy", "fewest", "--python-version", PYTHONS[0], "--output-file", str(file))
    lines = packages(file.read_text(encoding="utf-8")).values()
    file.write_text(HEADER + "".join(f"{line}\n" for line in lines), encoding="utf-8")


def main(arguments):
    if arguments == ["--write"]:
        return write()
    faults = 0
    for python in PYTHONS:
        for system in SYSTEMS:
            fault = check(python, system)
            faults += fault is not None
            print(f"{python:7}{system:14}{fault or 'resolves'}", flush=True)
    sys.exit(faults > 0)


if __name__ == "__main__":
    main(sys.argv[1:])
