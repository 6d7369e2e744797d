"""The MNIST ConvNet for one pass at five rates, the penalty on the product: which rate is best for data and for total."""

import dataclasses

from . import mnist_penalties
from .mnist_penalties import QUICK, Case, collect, jobs, pairs, run_job

NAME = "mnist-one-pass"
SUMMARY = "the MNIST ConvNet for one pass at five rates, the penalty on the product (paper A, Figure 5 right)"


@dataclasses.dataclass(frozen=True)
class Config(mnist_penalties.Config):
    """As in ``mnist_penalties``."""

    cases: tuple = tuple(Case(f"{variant} {lr:g}", variant, lr=lr) for lr in (0.01, 0.02, 0.04, 0.005, 0.08)
                         for variant in ("deep", "original"))
    steps: int = 55_000 // 64
    looks: tuple = (0, 400, 759)


SCALES = {"quick": Config(**QUICK), "full": Config()}
