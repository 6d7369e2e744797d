"""What nbval needs to know here: one thread, a fixed hash seed, figures compared as pictures, and no size of a rounding error
compared at all."""

import os
from pathlib import Path

from figures import adopt_close
from nbval.plugin import IPyNbCell
from refresh import ENVIRONMENT

os.environ.update(ENVIRONMENT)  # inherited by the kernels
_compare_outputs = IPyNbCell.compare_outputs


def _with_tolerant_figures(self, test, ref, skip_compare=None):
    return _compare_outputs(self, adopt_close(test, ref), ref, skip_compare)




def pytest_configure(config):
    if config.option.nbval_sanitize_with is None:  # by its place, so that nbval can be run from any folder
        config.option.nbval_sanitize_with = str(Path(__file__).parent / "tools" / "nbval.cfg")


IPyNbCell.compare_outputs = _with_tolerant_figures
