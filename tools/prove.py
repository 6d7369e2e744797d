"""Check the proofs in ``formal`` with Coq and say what each theorem assumes.

    python3 tools/prove.py [--formal FOLDER]      (make prove)

Needs Coq 8.16 with MathComp's algebra; nothing else of the project needs them. Exit status 1 where a proof does not check,
a theorem rests on an axiom, or Coq is there without MathComp; else 0, also where there is no Coq, as one line says.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CLOSED = "Closed under the global context"
MISSING = "no {} here: nothing checked; on Debian 12 'apt-get install coq libcoq-mathcomp-algebra', then 'make prove'"


def main(arguments=None):
    """Check every file, print a line a theorem; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--formal", type=Path, default=ROOT / "formal", help="folder of the proofs (default: formal)")
    options = parser.parse_args(arguments)
    if missing := lacking():
        print(MISSING.format(missing))
        return int(missing != "Coq")
    files = sorted(options.formal.glob("*.v"))
    if not files:
        print(f"error: no proofs in {options.formal}", file=sys.stderr)
        return 1
    return max([check(file) for file in files])


def lacking():
    """What is not installed of Coq and MathComp, None where both are."""
    if shutil.which("coqc") is None:
        return "Coq"
    probe = "From mathcomp Require Import all_ssreflect all_algebra.\n"
    return None if compiled(probe, "probe").returncode == 0 else "MathComp"


def compiled(text, stem):
    """The finished process of ``coqc`` on a text, in a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, f"{stem}.v").write_text(text, encoding="utf-8")
        return subprocess.run(["coqc", "-q", f"{stem}.v"], cwd=folder, capture_output=True, text=True)


def check(file):
    """Compile one file, print a line a theorem with the axioms it rests on; returns the exit status."""
    text = file.read_text(encoding="utf-8")
    names = re.findall(r"^Theorem ([\w']+)", text, re.M)
    done = compiled(text + "".join(f"\nPrint Assumptions {name}." for name in names) + "\n", file.stem)
    if done.returncode:
        print(f"error: {file.name} does not check\n{done.stderr.strip()}", file=sys.stderr)
        return 1
    answers = re.split(rf"^(?={CLOSED}|Axioms:)", done.stdout, flags=re.M)[1:]
    for name, answer in zip(names, answers, strict=True):
        print(f"{file.stem}.{name}: {' '.join(answer.split())}")
    return int(any(answer.strip() != CLOSED for answer in answers))


if __name__ == "__main__":
    sys.exit(main())
