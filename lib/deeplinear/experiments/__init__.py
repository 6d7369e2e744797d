"""Recorded experiments: one module each, the same code at quick and full scale.

A module offers ``NAME``, ``SUMMARY`` (one line), a frozen dataclass ``Config``, ``SCALES`` (``"quick"`` and ``"full"``,
which differ in numbers only), and ``run(config, device, progress)`` returning metrics, summary, arrays and the data set.
"""

from . import regression_depth

EXPERIMENTS = {module.NAME: module for module in (regression_depth,)}
