"""Does an extra layer speed up lp regression, each depth tuned up to its stability edge?

The setting of Arora, Cohen and Hazan 2018, Figure 3: standardised data, loss the mean of |residual|^p, layers of width 1
drawn with standard deviation 0.01, full batches, a million iterations. Two layers of width 1 are a linear model with one
extra scalar.
"""

from .tuned import Config, collect, jobs, run_job

__all__ = ["NAME", "SCALES", "SUMMARY", "Config", "collect", "jobs", "run_job"]

NAME = "regression-edges"
SUMMARY = "l2 and l4 regression at depth 1, 2 and 3, each tuned up to its stability edge (paper A, Figure 3)"

SCALES = {
    "quick": Config(models=(("gd", 1, "near-zero"), ("gd", 2, "near-zero")), grid=(-2, -1), steps=100, dataset="diabetes",
                    powers=(4, 2), gaps=(2.0, 0.1), seeds=(0, 1), std=0.1, points=21),
    "full": Config(models=tuple(("gd", depth, "near-zero") for depth in (1, 2, 3)), grid=(-5, -1), steps=1_000_000,
                   powers=(4, 2)),
}
