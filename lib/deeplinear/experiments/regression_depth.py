"""Does an extra layer speed up lp regression? Gradient descent at depth 1, 2 and 3, each at its own best rate.

The setting of Arora, Cohen and Hazan 2018, Figure 3: standardised data, loss the mean of |residual|^p, layers of width 1
drawn with standard deviation 0.01, full batches, the paper's grid of rates. Every model is run at every rate from
several starts.
"""

import dataclasses

import torch

from .. import chain, data, descent, losses, optimizers

NAME = "regression-depth"
SUMMARY = "l2 and l4 regression at depth 1, 2 and 3, each at its own best rate (paper A, Figure 3)"
AT_ONCE = {"cpu": 128, "cuda": 4096}  # configurations a job


@dataclasses.dataclass(frozen=True)
class Config:
    """``rates``: the grid. ``points``: recorded steps, logarithmically spaced, at most."""

    dataset: str = "ethanol"
    powers: tuple = (4, 2)
    depths: tuple = (1, 2, 3)
    rates: tuple = (1e-5, 5e-5, 1e-4, 5e-4, 1e-3, 5e-3, 1e-2, 5e-2, 1e-1, 5e-1)
    seeds: tuple = (0, 1, 2, 3, 4)
    std: float = 0.01
    steps: int = 1_000_000
    points: int = 242
    dtype: str = "float64"


SCALES = {
    "quick": Config(dataset="diabetes", rates=(1e-3, 1e-2, 5e-2, 1e-1), seeds=(0, 1), std=0.1, steps=1000, points=31),
    "full": Config(),
}


def jobs(config, device):
    """One power each, and every ``parts``-th run, so that stable and unstable rates are spread evenly."""
    runs = len(config.seeds) * len(config.rates)
    parts = -(-runs * len(config.depths) // AT_ONCE[device])
    return [{"p": p, "part": part, "parts": parts, "size": runs * len(config.depths) * config.steps // parts}
            for p in config.powers for part in range(parts)]


def run_job(config, job, device, checkpoint=None, report=None):
    """Losses (records, runs) and divergence steps (runs,) of the job's configurations, for each depth."""
    dataset = data.load(config.dataset)
    loss = losses.LpLoss(dataset.X, dataset.y, job["p"]).to(device, getattr(torch, config.dtype))
    mine = slice(job["part"], None, job["parts"])
    seeds = torch.arange(len(config.seeds)).repeat(len(config.rates))[mine]
    rates = loss.X.new_tensor(config.rates).repeat_interleave(len(config.seeds))[mine]
    groups = []
    for depth in config.depths:
        dims = (dataset.X.shape[1],) + (1,) * depth
        starts = [chain.near_zero_init(dims, config.std, chain.seeded(seed)) for seed in config.seeds]
        layers = [torch.stack(layer)[seeds].to(loss.X) for layer in zip(*starts)]
        groups.append(descent.Group(loss, layers, optimizers.GD(rates)))
    record = descent.logarithmic(config.steps, config.points)
    runs = descent.sweep(groups, config.steps, record, checkpoint=checkpoint,
                         report=report and (lambda step: report(step / config.steps)))
    arrays = {}
    for depth, run in zip(config.depths, runs):
        arrays |= {f"depth {depth} loss": run.padded_loss(len(record)), f"depth {depth} diverged": run.diverged_at.cpu()}
    return {name: array.numpy() for name, array in arrays.items()}


def collect(config, jobs, results):
    """Metrics of every run; per power the minimum and, per depth, the rate with the smallest median gap at the end.

    Only rates at which no seed diverged are considered. Arrays: ``steps``; ``l4 depth 2``, the gaps of all seeds at the
    best rate (records, seeds), no records if there is no such rate; ``l4 depth 2 grid``, the median gap at every rate
    (records, rates), NaN once a seed has diverged.
    """
    dataset = data.load(config.dataset)
    shape = len(config.rates), len(config.seeds)
    metrics, summary = [], {}
    arrays = {"steps": torch.tensor(descent.logarithmic(config.steps, config.points))}
    for p in config.powers:
        loss = losses.LpLoss(dataset.X, dataset.y, p)
        minimum = loss.value(losses.minimiser(loss)).item()
        at_zero = loss.value(loss.X.new_zeros(loss.shape)).item()
        summary[f"l{p}"] = {"minimum": minimum, "gap_at_zero": at_zero - minimum}
        parts = [(job["part"], result) for job, result in zip(jobs, results) if job["p"] == p]
        for depth in config.depths:
            values = torch.empty(len(arrays["steps"]), shape[0] * shape[1], dtype=torch.float64)
            diverged = torch.empty(shape[0] * shape[1], dtype=torch.long)
            for part, result in parts:
                values[:, part::len(parts)] = torch.as_tensor(result[f"depth {depth} loss"], dtype=torch.float64)
                diverged[part::len(parts)] = torch.as_tensor(result[f"depth {depth} diverged"])
            gaps, diverged = values.reshape(-1, *shape) - minimum, diverged.reshape(shape)
            arrays[f"l{p} depth {depth} grid"] = gaps.median(2).values
            stable = (diverged < 0).all(1)
            final = torch.where(stable, gaps[-1].median(1).values, torch.inf)
            best = int(final.argmin())
            found = {"best_rate": config.rates[best], "median_gap": final[best].item()} if stable.any() else {
                "best_rate": None, "median_gap": None, "note": "at every rate of the grid a seed diverged"}
            summary[f"l{p}"][f"depth {depth}"] = found
            arrays[f"l{p} depth {depth}"] = gaps[:, best] if stable.any() else gaps.new_empty(0, len(config.seeds))
            metrics += [{"p": p, "depth": depth, "rate": rate, "seed": seed,
                         "gap": gaps[-1, r, s].item() if diverged[r, s] < 0 else None,
                         "diverged_at": int(diverged[r, s]) if diverged[r, s] >= 0 else None}
                        for r, rate in enumerate(config.rates) for s, seed in enumerate(config.seeds)]
    return metrics, summary, arrays


def pairs(config, job, result, record):
    """Of the job's runs the curves at the best rate (records, runs) and the last gaps (1, runs), as in the record and in
    ``result``."""
    dataset, p, found = data.load(config.dataset), job["p"], {}
    loss = losses.LpLoss(dataset.X, dataset.y, p)
    minimum = loss.value(losses.minimiser(loss)).item()
    for depth in config.depths:
        gaps = torch.as_tensor(result[f"depth {depth} loss"]) - minimum
        rows = [row for row in record.metrics if (row["p"], row["depth"]) == (p, depth)]
        found |= curves_and_ends(f"l{p} depth {depth}", config, job, gaps, result[f"depth {depth} diverged"], rows,
                                 record.arrays, record.summary[f"l{p}"][f"depth {depth}"]["best_rate"])
    return found


def curves_and_ends(name, config, job, gaps, diverged, rows, arrays, best):
    """Pairs of one model: ``gaps`` (records, runs), of every ``parts``-th rate and seed, beside the rows of the record's
    metrics and beside its curves at the rate ``best``, if there is one."""
    mine = slice(job["part"], None, job["parts"])
    last = torch.where(torch.as_tensor(diverged) < 0, gaps[-1], torch.nan)
    stored = torch.tensor([torch.nan if row["gap"] is None else row["gap"] for row in rows[mine]], dtype=torch.float64)
    found = {f"{name} last": (stored[None], last[None])}
    if best is not None:
        runs = [(i, config.seeds.index(row["seed"])) for i, row in enumerate(rows[mine]) if row["rate"] == best]
        here, there = (list(column) for column in zip(*runs)) if runs else ([], [])
        found[name] = arrays[name][:, there], gaps[:, here]
    return found
