"""The deep MNIST ConvNet under the other readings of its penalty: both factors, the old one, the new one, nothing.

The penalty on the product, and the original net, are the first 2000 steps of ``mnist_penalties``.
"""

import dataclasses

from . import mnist_penalties
from .mnist_penalties import QUICK, Case, collect, jobs, pairs, run_job

NAME = "mnist-conventions"
SUMMARY = "the deep MNIST ConvNet under other readings of its penalty, 2000 steps (paper A, Figure 5 right)"


@dataclasses.dataclass(frozen=True)
class Config(mnist_penalties.Config):
    """As in ``mnist_penalties``."""

    cases: tuple = tuple(Case(name, "deep", name) for name in ("both", "old", "none", "new"))
    steps: int = 2000
    looks: tuple = (0, 500, 1000, 1900)


SCALES = {"quick": Config(**QUICK), "full": Config()}
