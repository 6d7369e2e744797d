"""l4 regression by AdaGrad and AdaDelta, with the constants of two frameworks, to be set beside depth.

The setting of Arora, Cohen and Hazan 2018, Figure 4 left, over the horizon of its Figure 3: gradient descent on one, two
and three layers, from the same starts, is in ``regression-edges``; two layers are the one extra scalar of Cohen's post.
"""

from .tuned import Config, collect, jobs, run_job

__all__ = ["NAME", "SCALES", "SUMMARY", "Config", "collect", "jobs", "run_job"]

NAME = "l4-optimisers"
SUMMARY = "l4 regression by AdaGrad and AdaDelta of two frameworks, each tuned, a million steps (paper A, Figure 4 left)"

SCALES = {
    "quick": Config(models=(("adagrad-pytorch", 1, "near-zero"), ("adadelta-tensorflow1", 1, "near-zero")), grid=(-2, -1),
                    steps=100, dataset="diabetes", widenings=1, gaps=(2.0, 0.1), seeds=(0, 1), std=0.1, points=21),
    "full": Config(models=tuple((f"{method}-{framework}", 1, "near-zero") for method in ("adadelta", "adagrad")
                                for framework in ("tensorflow1", "pytorch")), grid=(-3, -1), steps=1_000_000),
}
