"""What nbval needs to know here: one thread, a fixed hash seed, figures compared as pictures, no size of a rounding error
compared at all, and no cell that draws from a global generator."""

import os
import tempfile
from pathlib import Path

from figures import adopt_close
import watch
from nbval.plugin import IPyNbCell
from refresh import ENVIRONMENT

os.environ.update(ENVIRONMENT)  # inherited by the kernels
_folder = tempfile.TemporaryDirectory()
_compare_outputs = IPyNbCell.compare_outputs


def _with_tolerant_figures(self, test, ref, skip_compare=None):
    return _compare_outputs(self, adopt_close(test, ref), ref, skip_compare)




def pytest_configure(config):
    if config.option.nbval_sanitize_with is None:  # by its place, so that nbval can be run from any folder
        config.option.nbval_sanitize_with = str(Path(__file__).parent / "tools" / "nbval.cfg")
    if config.option.nbval and "SHAKE_LOG" not in os.environ:  # there tools/shake.py starts the kernels
        watch.profile(Path(_folder.name) / "ipython", "watch")
        os.environ["IPYTHONDIR"] = str(Path(_folder.name) / "ipython")


IPyNbCell.compare_outputs = _with_tolerant_figures
