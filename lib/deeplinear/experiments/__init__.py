"""Recorded experiments: one module each, the same code at quick and full scale.

A module offers ``NAME``, ``SUMMARY`` (one line), a frozen dataclass ``Config``, ``SCALES`` (``"quick"`` and ``"full"``,
which differ in numbers only) and three functions: ``jobs(config, device)``, a list of dicts, each with its ``"size"`` in
config-steps; ``run_job(config, job, device, checkpoint, report)``, a dict of arrays; ``collect(config, jobs, results)``,
the metrics, the summary and the arrays of the record. A module whose data are made from seeds also offers
``origin_of_data(config)``, a data set with a name and a digest; one whose arrays mix what several jobs found also offers
``pairs(config, job, result, record)``, for :mod:`deeplinear.verification`: what the record holds of one job and what its
result says. What it imports from this package settles its result
(:mod:`deeplinear.sources`).
"""

from .. import data
from . import (doubled_transformer, l4_adam, l4_deeper, l4_optimisers, l4_printed, l4_tries, layers_and_rule,
               mnist_balance, mnist_conventions, mnist_convnet, mnist_one_pass, mnist_penalties, mnist_stds, mnist_tutorial,
               optimisers, phase_diagram, pretrained, regression_depth, regression_edges, regression_models, relu_balance,
               train_and_fold, two_scales)

EXPERIMENTS = {module.NAME: module for module in (
    layers_and_rule, regression_depth, regression_edges, l4_tries, l4_printed, regression_models, l4_optimisers, l4_adam,
    l4_deeper, phase_diagram, two_scales, mnist_convnet, mnist_tutorial, mnist_penalties, mnist_conventions,
    mnist_one_pass, mnist_stds, mnist_balance, relu_balance, optimisers, pretrained, train_and_fold,
    doubled_transformer)}


def data_of(module, config, download=True):
    """The :class:`deeplinear.data.Dataset` of an experiment, or one that stands for it."""
    return module.origin_of_data(config) if hasattr(module, "origin_of_data") else data.load(config.dataset, download)
