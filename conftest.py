"""What nbval needs to know here: one thread, a fixed hash seed, and figures compared as pictures, not as bytes."""

import os

from figures import adopt_close
from nbval.plugin import IPyNbCell
from refresh import ENVIRONMENT

os.environ.update(ENVIRONMENT)  # inherited by the kernels
_compare_outputs = IPyNbCell.compare_outputs


def _with_tolerant_figures(self, test, ref, skip_compare=None):
    return _compare_outputs(self, adopt_close(test, ref), ref, skip_compare)


IPyNbCell.compare_outputs = _with_tolerant_figures
