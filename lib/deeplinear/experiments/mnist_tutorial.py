"""The MNIST ConvNet at the tutorial's own settings and full length, original and deep: ten passes, nothing tuned."""

import dataclasses

from . import mnist_convnet
from .mnist_convnet import MODELS, collect, jobs, pairs, run_job

NAME = "mnist-tutorial"
SUMMARY = "the MNIST ConvNet for ten passes at the tutorial's settings, original and deep (paper A, Figure 5 right)"


@dataclasses.dataclass(frozen=True)
class Config(mnist_convnet.Config):
    """As in ``mnist_convnet``; the tutorial's rate 0.01 with momentum 0.9 has the effective rate 0.1."""

    models: tuple = tuple(dataclasses.replace(model, rates=(0.1,)) for model in MODELS[:2])
    levels: tuple = (1.0, 0.5, 0.2, 0.1, 0.05, 0.03)
    seeds: tuple = (0,)
    steps: int = 8593
    window: int = 100


SCALES = {
    "quick": Config(dataset="mnist-5k", models=MODELS[-3:-1], seeds=(0, 1), steps=120, order="shuffled"),
    "full": Config(),
}
