"""The deep MNIST ConvNet, the penalty on its products, with new matrices of six standard deviations.

The grid is the paper's, whose 0.1 is in ``mnist_penalties``. 0.5, which does not bear the tutorial's rate, has a smaller
one, too.
"""

import dataclasses

from . import mnist_penalties
from .mnist_penalties import QUICK, Case, collect, jobs, pairs, run_job

NAME = "mnist-stds"
SUMMARY = "the deep MNIST ConvNet, new matrices of six standard deviations, 2000 steps (paper A, Figure 5 right)"


@dataclasses.dataclass(frozen=True)
class Config(mnist_penalties.Config):
    """As in ``mnist_penalties``."""

    cases: tuple = (*(Case(f"std {std:g}", "deep", std=std) for std in (0.001, 0.01, 0.5, 0.005, 0.05)),
                    Case("std 0.5, rate 0.001", "deep", std=0.5, lr=0.001))
    steps: int = 2000
    looks: tuple = (0, 500, 1000, 1900)


SCALES = {"quick": Config(**QUICK), "full": Config()}
