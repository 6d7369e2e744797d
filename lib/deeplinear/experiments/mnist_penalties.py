"""The MNIST ConvNet with the L2 penalty on the product of two layers: data term, penalty and the total that is printed.

The settings of TensorFlow's tutorial, which Arora, Cohen and Hazan 2018 use for Figure 5 right: rate 0.01 with momentum
0.9, times 0.95 a pass, batches of 64 in the order of the file. The tutorial prints the loss of one batch, penalty
included. Its penalty falls on the product where a product stands in the place of a matrix and the line of the penalty is
left alone. One job is one case and one seed.
"""

import dataclasses
from typing import Any

import torch

from .. import chain, convnet, data
from .mnist_convnet import NETS, VALIDATION

NAME = "mnist-penalties"
SUMMARY = "the MNIST ConvNet for ten passes, the penalty on the product: data, penalty, total (paper A, Figure 5 right)"
EVERY = 20  # steps between two records of the penalty, as convnet.train keeps them


@dataclasses.dataclass(frozen=True)
class Case:
    """``variant``: of :func:`deeplinear.convnet.build`, its new matrices of standard deviation ``std``; ``penalise``: of
    :class:`deeplinear.penalties.Penalty`; ``lr``: the rate of the first pass."""

    name: str
    variant: str
    penalise: str = "product"
    std: float = 0.1
    lr: float = 0.01


@dataclasses.dataclass(frozen=True)
class Config:
    """``looks``: steps from which on ``window`` batches are summarised, from all seeds together. ``data_levels`` and
    ``total_levels``: losses to which steps are counted, in means of 25 batches."""

    dataset: str = "mnist"
    cases: tuple = (Case("deep", "deep"), Case("original", "original"))
    net: str = "tutorial"
    seeds: tuple = (0, 1, 2, 3, 4)
    steps: int = 10 * 55_000 // 64
    batch: int = 64
    momentum: float = 0.9
    decay: float = 0.95
    order: str = "tutorial"
    looks: tuple = (0, 500, 1000, 2000, 4000, 8493)
    window: int = 100
    data_levels: tuple = (1.0, 0.5, 0.2, 0.1, 0.05, 0.03, 0.02, 0.016, 0.014)
    total_levels: tuple = (4.0, 3.0, 2.0, 1.6, 1.0, 0.5, 0.2, 0.1, 0.06)
    dtype: str = "float32"


QUICK: dict[str, Any] = {"dataset": "mnist-5k", "net": "small", "seeds": (0, 1), "steps": 60, "order": "shuffled",
                         "looks": (0, 20, 40), "window": 20}
SCALES = {"quick": Config(**QUICK), "full": Config()}


def jobs(config, device):
    """One case and one seed each, the first seed of all cases first; the size counts images."""
    return [{"case": c, "seed": seed, "size": config.steps * config.batch}
            for seed in config.seeds for c in range(len(config.cases))]


def run_job(config, job, device, checkpoint=None, report=None):
    """``data`` (steps,): the loss of every batch; ``penalty`` (records,), every twentieth step, NaN after a divergence;
    ``validation`` (2,): loss and share of errors of the images held out; ``seconds`` of all steps."""
    dataset, case = data.load(config.dataset), config.cases[job["case"]]
    X, y = dataset.X.to(device), dataset.y.to(device)
    held = slice(None, None, 10) if config.dataset == "mnist-5k" else slice(0, VALIDATION)  # its digits are sorted
    kept = torch.ones(len(y), dtype=torch.bool, device=device)
    kept[held] = False
    net = convnet.build(case.variant, chain.seeded(job["seed"]), case.std, **NETS[config.net]).to(device)
    run = convnet.train(net, X[kept], y[kept], case.lr, config.steps, config.batch, config.momentum, config.decay,
                        penalise=case.penalise, order=config.order, seed=job["seed"], checkpoint=checkpoint,
                        report=report and (lambda step: report(step / config.steps)))
    validation = convnet.evaluate(net, X[held], y[held]) if run.diverged_at < 0 else (torch.nan, torch.nan)
    penalty = torch.full((-(-config.steps // EVERY),), torch.nan)
    penalty[:len(run.penalty)] = run.penalty.float()
    return {"data": run.data.float().numpy(), "penalty": penalty.numpy(), "validation": torch.tensor(validation).numpy(),
            "seconds": run.seconds}


def collect(config, jobs, results):
    """Arrays for each case: ``<name>`` the data term of every batch (steps, seeds) and ``<name> penalty`` (records, seeds).

    Summary of each: for each of ``looks`` the 10, 50 and 90 per cent quantile of the single batches' ``data``, ``penalty``
    and ``total``, a diverged seed counting as infinite (null), so the quantiles are batches, none lies between two; the
    ``failed`` seeds; ``data_steps`` and ``total_steps``, seed by seed, to each level (null: never); ``milliseconds_a_step``."""
    arrays, metrics, summary = {}, [], {}
    for c, case in enumerate(config.cases):
        mine = [(job["seed"], result) for job, result in zip(jobs, results) if job["case"] == c]
        batches, penalty = (torch.stack([torch.as_tensor(result[key]) for _, result in mine], -1)
                            for key in ("data", "penalty"))
        lasting, total = penalty.repeat_interleave(EVERY, 0)[:len(batches)], totals(batches, penalty)
        arrays |= {case.name: batches, f"{case.name} penalty": penalty}
        terms = {"data": batches, "penalty": lasting, "total": total}
        summary[case.name] = {
            "looks": [{name: _quantiles(values[look:look + config.window]) for name, values in terms.items()}
                      for look in config.looks],
            "failed": [seed for (seed, _), run in zip(mine, batches.T) if not run.isfinite().all()],
            "data_steps": _steps_to(batches, config.data_levels), "total_steps": _steps_to(total, config.total_levels),
            "milliseconds_a_step": 1000 * sum(float(r["seconds"]) for _, r in mine) / max(1, int(batches.isfinite().sum()))}
        for s, (seed, result) in enumerate(mine):
            ends = {name: _number(values[-config.window:, s].double().mean()) for name, values in terms.items()}
            loss, errors = map(_number, torch.as_tensor(result["validation"]))
            metrics.append({"case": case.name, "seed": seed, **ends, "validation_loss": loss, "validation_error": errors})
    return metrics, summary, arrays


def totals(batches, penalty):
    """What the tutorial prints, (steps, seeds): the data term of every batch plus the penalty last recorded before it."""
    return batches + penalty.repeat_interleave(EVERY, 0)[:len(batches)]


def pairs(config, job, result, record):
    """Of one case and seed the data term of every batch and the penalty, as in the record and in ``result``."""
    name, seed = config.cases[job["case"]].name, config.seeds.index(job["seed"])
    return {name: (record.arrays[name][:, seed], torch.as_tensor(result["data"])),
            f"{name} penalty": (record.arrays[f"{name} penalty"][:, seed], torch.as_tensor(result["penalty"]))}


def _quantiles(values):
    """The 10, 50 and 90 per cent quantile, null where infinite."""
    values = values.double().flatten().nan_to_num(nan=torch.inf)
    return [_number(q) for q in values.quantile(values.new_tensor([0.1, 0.5, 0.9]), interpolation="higher")]


def _steps_to(values, levels):
    found = [[convnet.steps_to(run, level) for run in values.T] for level in levels]
    return [[None if steps == float("inf") else steps for steps in row] for row in found]


def _number(value):
    return value.item() if torch.isfinite(value) else None
