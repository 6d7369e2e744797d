"""l4 regression at depth 4 and 8 from near zero and from the identity, beside one layer.

The setting of Arora, Cohen and Hazan 2018, Figure 5 left.
"""

from .tuned import Config, collect, jobs, run_job

__all__ = ["NAME", "SCALES", "SUMMARY", "Config", "collect", "jobs", "run_job"]

NAME = "l4-deeper"
SUMMARY = "l4 regression at depth 4 and 8 from two starts, each tuned up to its edge (paper A, Figure 5 left)"

SCALES = {
    "quick": Config(models=(("gd", 1, "near-zero"), ("gd", 4, "identity"), ("gd", 8, "near-zero")), grid=(-2, -1), steps=100,
                    dataset="diabetes", gaps=(2.0, 0.1), seeds=(0, 1), std=0.1, points=21),
    "full": Config(models=(("gd", 1, "near-zero"), *(("gd", depth, start) for start in ("identity", "near-zero")
                                                     for depth in (4, 8))), grid=(-5, -1), steps=100_000),
}
