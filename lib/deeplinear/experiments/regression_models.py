"""l4 regression: depth against AdaGrad, AdaDelta and Adam, Adam on top of depth, and deeper nets from two starts.

The settings of Arora, Cohen and Hazan 2018, Figure 4 and Figure 5 left: standardised data, loss the mean of
|residual|^4, layers of width 1, full batches; only the learning rate is tuned, each model on the same grid. The starts:
``near-zero``, Gaussian layers, and ``identity``, the same plus 1 on the diagonal of every layer.
"""

import dataclasses

import torch

from .. import chain, data, descent, losses, optimizers
from .regression_depth import curves_and_ends

NAME = "regression-models"
SUMMARY = "l4 regression: optimisers, depth up to 8, two starts, each at its own best rate (paper A, Figures 4 and 5)"
AT_ONCE = {"cpu": 128, "cuda": 8192}  # configurations a job
ADAPTIVE = ("adagrad-tensorflow1", "adagrad-pytorch", "adadelta-tensorflow1", "adadelta-pytorch", "adam-tensorflow1")


@dataclasses.dataclass(frozen=True)
class Config:
    """``models``: (optimiser preset, depth, start). ``gaps``: the iterations to these are tabulated."""

    dataset: str = "ethanol"
    power: int = 4
    models: tuple = (
        *(("gd", depth, "near-zero") for depth in (1, 2, 3, 4, 8)), *(("gd", depth, "identity") for depth in (2, 3, 4, 8)),
        *((preset, 1, "near-zero") for preset in ADAPTIVE), ("adam-tensorflow1", 2, "near-zero"),
        ("adam-tensorflow1", 3, "near-zero"))
    rates: tuple = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0, 3.0, 10.0)
    gaps: tuple = (2.0, 1.0, 0.5, 0.3, 0.2, 0.1)
    seeds: tuple = (0, 1, 2, 3, 4)
    std: float = 0.01
    steps: int = 100_000
    points: int = 200
    dtype: str = "float64"


SCALES = {
    "quick": Config(dataset="diabetes", rates=(1e-3, 1e-2, 1e-1), seeds=(0, 1), std=0.1, steps=300, points=21,
                    models=(("gd", 1, "near-zero"), ("gd", 4, "identity"), ("adam-tensorflow1", 2, "near-zero"))),
    "full": Config(),
}


def label(model):
    """The name of a model in the record: ``gd depth 4 identity``."""
    preset, depth, start = model
    return f"{preset} depth {depth}" + (f" {start}" if start != "near-zero" else "")


def jobs(config, device):
    """Every ``parts``-th configuration of every model, so that stable and unstable rates are spread evenly."""
    runs = len(config.models) * len(config.seeds) * len(config.rates)
    parts = -(-runs // AT_ONCE[device])
    return [{"part": part, "parts": parts, "size": runs * config.steps // parts} for part in range(parts)]


def run_job(config, job, device, checkpoint=None, report=None):
    """Losses (records, runs) and divergence steps (runs,) of the job's configurations, for each model."""
    dataset = data.load(config.dataset)
    loss = losses.LpLoss(dataset.X, dataset.y, config.power).to(device, getattr(torch, config.dtype))
    mine = slice(job["part"], None, job["parts"])
    seeds = torch.arange(len(config.seeds)).repeat(len(config.rates))[mine]
    rates = loss.X.new_tensor(config.rates).repeat_interleave(len(config.seeds))[mine]
    groups = []
    for preset, depth, start in config.models:
        dims = (dataset.X.shape[1],) + (1,) * depth
        starts = [chain.near_zero_init(dims, config.std, chain.seeded(seed)) for seed in config.seeds]
        if start == "identity":
            starts = [[W + one for W, one in zip(layers, chain.identity_init(dims))] for layers in starts]
        layers = [torch.stack(layer)[seeds].to(loss.X) for layer in zip(*starts)]
        groups.append(descent.Group(loss, layers, optimizers.preset(preset, rates)))
    record = descent.logarithmic(config.steps, config.points)
    runs = descent.sweep(groups, config.steps, record, checkpoint=checkpoint,
                         report=report and (lambda step: report(step / config.steps)))
    arrays = {}
    for model, run in zip(config.models, runs):
        arrays |= {label(model): run.padded_loss(len(record)).numpy(),
                   f"{label(model)} diverged": run.diverged_at.cpu().numpy()}
    return arrays


def collect(config, jobs, results):
    """Arrays: ``steps``; for each model its name, the gaps at its best rate (records, seeds), no records if there is
    none; ``<name> grid``, the median gap at the end for each rate, NaN where a seed diverged. The best rate is the one
    with the smallest median gap at the end among those at which no seed diverged. Summary: that rate, that gap, and the
    median iterations to each of ``gaps``, null where the median never gets there.
    """
    dataset = data.load(config.dataset)
    loss = losses.LpLoss(dataset.X, dataset.y, config.power)
    minimum = loss.value(losses.minimiser(loss)).item()
    steps = torch.tensor(descent.logarithmic(config.steps, config.points))
    arrays, metrics, summary = {"steps": steps}, [], {"minimum": minimum}
    shape = len(config.rates), len(config.seeds)
    for name in map(label, config.models):
        gaps = torch.empty(len(steps), shape[0] * shape[1], dtype=torch.float64)
        diverged = torch.empty(shape[0] * shape[1], dtype=torch.long)
        for job, result in zip(jobs, results):
            gaps[:, job["part"]::job["parts"]] = torch.as_tensor(result[name], dtype=torch.float64) - minimum
            diverged[job["part"]::job["parts"]] = torch.as_tensor(result[f"{name} diverged"])
        gaps, diverged = gaps.reshape(-1, *shape), diverged.reshape(shape)
        stable = (diverged < 0).all(1)
        final = torch.where(stable, gaps[-1].median(1).values, torch.inf)
        arrays[f"{name} grid"] = torch.where(stable, final, torch.nan)
        best = int(final.argmin())
        arrays[name] = gaps[:, best] if stable.any() else gaps.new_empty(0, shape[1])
        reached = [_median_steps(steps, gaps[:, best], gap) if stable.any() else None for gap in config.gaps]
        summary[name] = {"best_rate": config.rates[best] if stable.any() else None,
                         "median_gap": final[best].item() if stable.any() else None,
                         "steps_to_gap": reached}
        metrics += [{"model": name, "rate": rate, "seed": seed,
                     "gap": gaps[-1, r, s].item() if diverged[r, s] < 0 else None,
                     "diverged_at": int(diverged[r, s]) if diverged[r, s] >= 0 else None}
                    for r, rate in enumerate(config.rates) for s, seed in enumerate(config.seeds)]
    return metrics, summary, arrays


def _median_steps(steps, gaps, level):
    """The median over seeds of the first recorded step at which the gap is at most ``level``; None if infinite."""
    runs = descent.Trajectory(steps, gaps, weights=[], diverged_at=None)
    first = runs.steps_to(level).median().item()
    return None if first == float("inf") else first


def pairs(config, job, result, record):
    """As in ``regression_depth``, for every model."""
    dataset, found = data.load(config.dataset), {}
    loss = losses.LpLoss(dataset.X, dataset.y, config.power)
    minimum = loss.value(losses.minimiser(loss)).item()
    for name in map(label, config.models):
        gaps = torch.as_tensor(result[name]) - minimum
        rows = [row for row in record.metrics if row["model"] == name]
        found |= curves_and_ends(name, config, job, gaps, result[f"{name} diverged"], rows, record.arrays,
                                 record.summary[name]["best_rate"])
    return found
