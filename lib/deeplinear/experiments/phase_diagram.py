"""On which problems does an extra layer help? Speed-up of depth against conditioning and noise floor.

Regression problems drawn at random: the features have variances spaced geometrically from 1 to 1/conditioning, every
feature carries the same share of the signal, and the labels have noise. Each depth runs at every rate of one grid from
balanced layers near zero; counted are the steps until the loss above its minimum has fallen to a thousandth.
"""

import dataclasses
import hashlib

import torch

from .. import chain, data, descent, losses, optimizers

NAME = "phase-diagram"
SUMMARY = "speed-up of depth 2 and 3 over depth 1 against conditioning and noise floor, p = 2, 4, 6"


@dataclasses.dataclass(frozen=True)
class Config:
    """``noise``: standard deviation of the labels' noise, the signal's being 1. ``share``: of the first gap, the goal.

    ``rates``: log10 of first, last, and how many; a coarse grid would put factors of its spacing into the diagram.
    """

    powers: tuple = (2, 4, 6)
    conditioning: tuple = (1, 10, 100, 1000)
    noise: tuple = (0.0, 0.03, 0.1, 0.3, 1.0)
    depths: tuple = (1, 2, 3)
    rates: tuple = (-4.5, 0.5, 51)
    draws: int = 3
    seeds: tuple = (0, 1, 2)
    rows: int = 48
    features: int = 6
    std: float = 0.02
    share: float = 1e-3
    steps: int = 30_000
    points: int = 320
    dtype: str = "float64"


SCALES = {
    "quick": Config(powers=(2, 4), conditioning=(1, 100), noise=(0.0, 0.3), rates=(-2, 0, 3), draws=1,
                    seeds=(0, 1), std=0.1, share=0.1, steps=400, points=60),
    "full": Config(),
}


def rates(config):
    """The grid of learning rates."""
    first, last, count = config.rates
    return torch.logspace(first, last, count, dtype=torch.float64)


def problem(config, conditioning, noise, draw):
    """Features (rows, features) and labels (rows,) of one draw; draws differ in features and noise."""
    generator = chain.seeded(1000 + draw)
    spread = torch.logspace(0, -0.5, config.features, base=float(conditioning), dtype=torch.float64)
    Z = chain.normal(config.rows, config.features, generator=generator)
    Z = torch.linalg.qr(Z - Z.mean(0)).Q * config.rows**0.5  # exactly the variances asked for
    signs = chain.normal(config.features, generator=generator).sign()
    signal = Z @ signs / config.features**0.5
    return data.shake(Z * spread), signal + noise * chain.normal(config.rows, generator=generator)


def origin_of_data(config):
    """The problems are made from seeds; their digest stands for the data's."""
    digest = hashlib.sha256()
    for conditioning in config.conditioning:
        for noise in config.noise:
            for draw in range(config.draws):
                for array in problem(config, conditioning, noise, draw):
                    digest.update(array.float().numpy().round(4).tobytes())
    return data.Dataset("random problems", None, None, 0.0, 1.0, "", digest.hexdigest(), "made from seeds")


def jobs(config, device):
    """One power and one conditioning each."""
    size = config.draws * len(config.noise) * len(config.depths) * config.rates[2] * len(config.seeds) * config.steps
    return [{"p": p, "conditioning": c, "size": size} for p in config.powers for c in config.conditioning]


def run_job(config, job, device, checkpoint=None, report=None):
    """Steps to the goal, shape (noise, draws, depths, rates, seeds).

    Infinity where it was not reached, or was lost again by the last step: a lucky jump is not convergence.
    """
    shape = len(config.noise), config.draws
    groups, levels = [], []
    for noise in config.noise:
        for draw in range(config.draws):
            X, y = problem(config, job["conditioning"], noise, draw)
            loss = losses.LpLoss(X, y, job["p"])
            minimum = loss.value(losses.minimiser(loss)).item()
            levels.append(minimum + config.share * (loss.value(loss.X.new_zeros(loss.shape)).item() - minimum))
            loss = loss.to(device)
            for depth in config.depths:
                dims = (config.features,) + (1,) * depth
                starts = [chain.balanced_init(dims, chain.seeded(seed), std=config.std) for seed in config.seeds]
                layers = [torch.stack(layer).to(loss.X) for layer in zip(*starts)]
                groups.append(descent.Group(loss, layers, optimizers.GD(rates(config).to(device)[:, None])))
    runs = descent.sweep(groups, config.steps, descent.logarithmic(config.steps, config.points), checkpoint=checkpoint,
                         report=report and (lambda step: report(step / config.steps)))
    levels = torch.tensor(levels).repeat_interleave(len(config.depths)).tolist()
    found = torch.stack([torch.where(run.loss[-1] <= level, run.steps_to(level), torch.inf).cpu()
                         for run, level in zip(runs, levels)])
    return {"steps_to_goal": found.reshape(*shape, len(config.depths), config.rates[2], len(config.seeds)).numpy()}


def collect(config, jobs, results):
    """Array ``steps`` (powers, conditioning, noise, depths): steps at the best rate, the median over draws and seeds;
    ``spread``: their ratio of the third to the first quartile; ``speed-up``: steps of depth 1 over those of each depth."""
    shape = len(config.powers), len(config.conditioning)
    found = torch.stack([torch.as_tensor(result["steps_to_goal"]) for result in results])
    runs = found.permute(0, 1, 3, 4, 2, 5).flatten(-2)  # (jobs, noise, depths, rates, draws and seeds)
    middle = runs.median(-1).values
    best = middle.argmin(-1, keepdim=True)
    steps = middle.gather(-1, best)[..., 0]
    at_best = runs.gather(-2, best[..., None].expand(*best.shape, runs.shape[-1]))[..., 0, :]
    quartiles = torch.quantile(at_best, torch.tensor([0.25, 0.75], dtype=at_best.dtype), dim=-1, interpolation="nearest")
    arrays = {"steps": steps.reshape(*shape, *steps.shape[1:]),
              "best_rate": rates(config)[best[..., 0]].reshape(*shape, *steps.shape[1:]),
              "spread": (quartiles[1] / quartiles[0]).reshape(*shape, *steps.shape[1:])}
    arrays["speed-up"] = arrays["steps"][..., :1] / arrays["steps"]
    metrics = [{"p": p, "conditioning": c, "noise": noise, "depth": depth,
                "steps": None if torch.isinf(arrays["steps"][i, j, k, n]) else arrays["steps"][i, j, k, n].item(),
                "best_rate": arrays["best_rate"][i, j, k, n].item()}
               for i, p in enumerate(config.powers) for j, c in enumerate(config.conditioning)
               for k, noise in enumerate(config.noise) for n, depth in enumerate(config.depths)]
    summary = {"runs": found.numel(), "goal": config.share}
    return metrics, summary, arrays


def pairs(config, job, result, record):
    """Everything of one power and conditioning, (1, noise, depths), recorded and in ``result``."""
    where = config.powers.index(job["p"]), config.conditioning.index(job["conditioning"])
    alone = dataclasses.replace(config, powers=(job["p"],), conditioning=(job["conditioning"],))
    return {name: (record.arrays[name][where][None], array[0]) for name, array in collect(alone, [job], [result])[2].items()}
