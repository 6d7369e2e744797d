"""No cell draws from a global generator: one that does is told so in its own output, and nbval sees it."""

import random
from pathlib import Path

import numpy as np
import torch

WORDS = "draws from the global generator of"


def profile(folder, module):
    """Make ``folder`` an IPython directory whose kernels start with ``install`` of this module of tools/."""
    startup = Path(folder) / "profile_default" / "startup"
    startup.mkdir(parents=True)
    (startup / "install.py").write_text(
        f"import sys\nsys.path.insert(0, {str(Path(__file__).parent)!r})\nimport {module}\n{module}.install(get_ipython())\n"
        f"sys.path.pop(0)\ndel sys, {module}\n", encoding="utf-8")


def install(shell):
    """Compare the states of the global generators before and after each cell of ``shell``."""
    before = {}

    def look(info):
        before.clear()
        before.update(_states())

    def tell(result):
        for name, state in _states().items():
            if state != before.get(name, state):
                print(f"this cell {WORDS} {name}; draw from dl.seeded(...), or within dl.forked(...)")

    shell.events.register("pre_run_cell", look)
    shell.events.register("post_run_cell", tell)


def _states():
    return {"random": repr(random.getstate()), "numpy": repr(np.random.get_state()[1:3]),  # noqa: NPY002
            "torch": torch.get_rng_state().numpy().tobytes()}
