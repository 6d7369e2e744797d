"""Features of very different size: how the steps grow with their ratio, at every depth.

``L(w) = ((a w_1 - 1)^p + (w_2 - 1)^p) / p`` for a from 8 to 1024: two examples, two features, one of them a times the
other. Each depth runs at every rate of a fine grid from balanced layers of end-to-end norm 0.1/a in several directions;
counted are the steps until the loss is that of both residuals at 0.2, for runs whose loss never rises.
"""

import dataclasses
import hashlib
import math

import numpy as np
import torch

from .. import chain, data, descent, losses, optimizers

NAME = "two-scales"
SUMMARY = "steps of depth 1 to 8 against the ratio of two feature scales, p = 2 and 4"


@dataclasses.dataclass(frozen=True)
class Config:
    """``angles``: directions of the start in degrees, in place of seeds. ``rates``: log10 of first, last, and how many."""

    powers: tuple = (4, 2)
    ratios: tuple = (8, 16, 32, 64, 128, 256, 512, 1024)
    depths: tuple = (1, 2, 3, 4, 6, 8)
    rates: tuple = (-7, 1, 65)
    seeds: tuple = (30, 75, 120, 210, 300)
    steps: int = 20_000
    points: int = 500
    dtype: str = "float64"


SCALES = {
    "quick": Config(powers=(4,), ratios=(2, 4), depths=(1, 2), rates=(-3, 0, 7), seeds=(30, 60), steps=300, points=100),
    "full": Config(),
}


def origin_of_data(config):
    """Nothing is drawn: the problem is its formula."""
    digest = hashlib.sha256(repr((config.powers, config.ratios)).encode()).hexdigest()
    return data.Dataset("two scales", None, None, 0.0, 1.0, "", digest, "a formula")


def rates(config):
    """The grid of learning rates."""
    first, last, count = config.rates
    return torch.logspace(first, last, count, dtype=torch.float64)


def problem(p, ratio):
    """The loss; its minimum is 0."""
    X = data.shake(torch.tensor([[float(ratio), 0.0], [0.0, 1.0]], dtype=torch.float64))
    return losses.LpLoss(X, [1.0, 1.0], p, reduction="sum", scale=1 / p)


def jobs(config, device):
    """One power and one ratio each."""
    size = len(config.depths) * config.rates[2] * len(config.seeds) * config.steps
    return [{"p": p, "ratio": ratio, "size": size} for p in config.powers for ratio in config.ratios]


def run_job(config, job, device, checkpoint=None, report=None):
    """Steps to the goal, shape (depths, rates, angles); infinity where it was not reached or the loss rose on the way."""
    loss = problem(job["p"], job["ratio"])
    goal = 2 * 0.2 ** job["p"] / job["p"]
    groups = []
    for depth in config.depths:
        starts = []
        for angle in config.seeds:
            W = 0.1 / job["ratio"] * torch.tensor([[math.cos(math.radians(angle)), math.sin(math.radians(angle))]]).double()
            starts.append(chain.balanced_init((2,) + (1,) * depth, chain.seeded(0), W=W))
        layers = [torch.stack(layer).to(device) for layer in zip(*starts)]
        groups.append(descent.Group(loss.to(device), layers, optimizers.GD(rates(config).to(device)[:, None])))
    shared = groups[0].loss
    groups = [dataclasses.replace(group, loss=shared) for group in groups]
    runs = descent.sweep(groups, config.steps, descent.logarithmic(config.steps, config.points), checkpoint=checkpoint,
                         report=report and (lambda step: report(step / config.steps)))
    found = []
    for run in runs:
        before = run.loss[:-1] > goal  # the loss must fall from record to record until the goal
        falls = ~((run.loss.diff(dim=0) > 1e-12 * run.loss[:-1]) & before).any(0)
        found.append(torch.where(falls & (run.loss[-1] <= goal), run.steps_to(goal), torch.inf).cpu())
    return {"steps_to_goal": torch.stack(found).numpy()}


def collect(config, jobs, results):
    """Array ``steps`` (powers, ratios, depths, angles), at the best rate for each start; ``exponent`` (powers, depths,
    3): slope of log steps against log ratio over the four largest ratios reached from every start, the median over
    angles, the smallest and the largest; NaN where fewer than three were."""
    found = np.stack([result["steps_to_goal"] for result in results]).reshape(
        len(config.powers), len(config.ratios), len(config.depths), config.rates[2], len(config.seeds))
    steps = found.min(3)
    exponent = np.full((len(config.powers), len(config.depths), 3), np.nan)
    for i in range(len(config.powers)):
        for n in range(len(config.depths)):
            reached = np.flatnonzero(np.isfinite(steps[i, :, n]).all(1))[-4:]
            if len(reached) >= 3:
                slopes = np.polyfit(np.log(np.array(config.ratios)[reached]), np.log(steps[i, reached, n]), 1)[0]
                exponent[i, n] = np.median(slopes), slopes.min(), slopes.max()
    metrics = [{"p": p, "ratio": ratio, "depth": depth, "angle": angle,
                "steps": None if np.isinf(steps[i, j, n, k]) else steps[i, j, n, k].item()}
               for i, p in enumerate(config.powers) for j, ratio in enumerate(config.ratios)
               for n, depth in enumerate(config.depths) for k, angle in enumerate(config.seeds)]
    summary = {f"p {p}": {f"depth {depth}": {"exponent": None if np.isnan(exponent[i, n, 0]) else exponent[i, n, 0].item()}
                          for n, depth in enumerate(config.depths)} for i, p in enumerate(config.powers)}
    return metrics, summary, {"steps": torch.from_numpy(steps), "exponent": torch.from_numpy(exponent)}


def pairs(config, job, result, record):
    """The steps of one power and ratio (1, depths, angles), recorded and in ``result``."""
    where = config.powers.index(job["p"]), config.ratios.index(job["ratio"])
    return {"steps": (record.arrays["steps"][where][None], result["steps_to_goal"].min(1)[None])}
