"""l4 regression by Adam on one, two and three layers.

The setting of Arora, Cohen and Hazan 2018, Figure 4 right.
"""

from .tuned import Config, collect, jobs, run_job

__all__ = ["NAME", "SCALES", "SUMMARY", "Config", "collect", "jobs", "run_job"]

NAME = "l4-adam"
SUMMARY = "l4 regression by Adam on depth 1, 2 and 3, each tuned (paper A, Figure 4 right)"

SCALES = {
    "quick": Config(models=(("adam-tensorflow1", 1, "near-zero"), ("adam-tensorflow1", 2, "near-zero")), grid=(-2, -1),
                    steps=100, dataset="diabetes", widenings=1, gaps=(2.0, 0.1), seeds=(0, 1), std=0.1, points=21),
    "full": Config(models=tuple(("adam-tensorflow1", depth, "near-zero") for depth in (1, 2, 3)), grid=(-4, -2),
                   steps=100_000),
}
