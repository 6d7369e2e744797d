"""How to run plain l4 regression at the rate the printed curve asks for: what was tried, on a grid of rates.

In Arora, Cohen and Hazan 2018, Figure 3 right, the curve of depth 1 falls as if the rate were about 0.005 on the
standardised ethanol data, several times the largest rate that survives the first step from a start near zero. Each try
changes one thing. Two reasons need no run: the scale of the labels and the normalisation of the loss only rename the
rate (:prf:ref:`prop-rescaling`).
"""

import dataclasses

import torch

from .. import chain, data, descent, losses, optimizers

NAME = "l4-tries"
SUMMARY = "l4 regression at depth 1: starts, momentum, clipping, warm-up and a capped rate (paper A, Figure 3 right)"


@dataclasses.dataclass(frozen=True)
class Clipped(optimizers.GD):
    """Gradient descent; a gradient longer than ``longest`` is cut to that length."""

    longest: float = 1.0

    def step(self, parameters, gradients, state):
        shares = [(self.longest / G.norm(dim=(-2, -1), keepdim=True)).clamp(max=1) for G in gradients]
        super().step(parameters, [G * share for G, share in zip(gradients, shares)], state)


@dataclasses.dataclass(frozen=True)
class WarmUp(optimizers.GD):
    """Gradient descent whose rate rises in proportion to the step, up to ``lr`` at step ``over``."""

    over: float = 1000.0

    def start(self, parameters):
        return [parameters[0].new_zeros(len(parameters[0]), 1, 1)]

    def step(self, parameters, gradients, state):
        share = (state[0].add_(1) / self.over).clamp(max=1)
        super().step(parameters, [G * share for G in gradients], state)


TRIES = {  # start, optimiser
    "near zero": ("near-zero", optimizers.GD),
    "zero": ("zero", optimizers.GD),
    "least squares": ("least-squares", optimizers.GD),
    "heavy ball": ("near-zero", optimizers.HeavyBall),
    "Nesterov": ("near-zero", optimizers.Nesterov),
    "clipped at 10": ("near-zero", lambda lr: Clipped(lr, longest=10.0)),
    "clipped at 1": ("near-zero", lambda lr: Clipped(lr, longest=1.0)),
    "warm-up 1000": ("near-zero", lambda lr: WarmUp(lr, over=1e3)),
    "warm-up 10000": ("near-zero", lambda lr: WarmUp(lr, over=1e4)),
    "capped": ("near-zero", None),
}


@dataclasses.dataclass(frozen=True)
class Config:
    """``rates``: the grid, lowest and highest power of ten and how many. ``cap``: the share of 2 / sharpness that the try
    ``capped`` keeps to, with the sharpness measured every ``measure`` steps. ``compare``: the step of the printed value."""

    dataset: str = "ethanol"
    tries: tuple = tuple(TRIES)
    rates: tuple = (-3.6, -1.8, 10)
    seeds: tuple = (0, 1, 2, 3, 4)
    std: float = 0.01
    cap: float = 0.95
    measure: int = 100
    compare: int = 10_000
    steps: int = 30_000
    points: int = 121
    dtype: str = "float64"


SCALES = {
    "quick": Config(dataset="diabetes", tries=("near zero", "heavy ball", "clipped at 1", "warm-up 1000", "capped"),
                    rates=(-3.0, 0.0, 4), seeds=(0, 1), compare=40, steps=400, points=21),
    "full": Config(),
}


def rates(config):
    """The grid, shape (count,)."""
    return torch.logspace(*config.rates, dtype=torch.float64)


def jobs(config, device):
    """One try each."""
    size = config.rates[2] * len(config.seeds) * config.steps
    return [{"try": name, "size": size} for name in config.tries]


def run_job(config, job, device, checkpoint=None, report=None):
    """``gaps`` (records, rates, seeds) to the optimum, NaN from a divergence on."""
    dataset = data.load(config.dataset)
    loss = losses.LpLoss(dataset.X, dataset.y, 4)
    minimum = loss.value(losses.minimiser(loss)).item()
    start, optimizer = TRIES[job["try"]]
    if start == "least-squares":
        layers = losses.minimiser(losses.LpLoss(dataset.X, dataset.y, 2)).expand(len(config.seeds), 1, -1)
    else:
        std = config.std if start == "near-zero" else 0.0
        layers = torch.cat([chain.near_zero_init((dataset.X.shape[1], 1), std, chain.seeded(seed))[0][None]
                            for seed in config.seeds])
    loss, layers = loss.to(device, getattr(torch, config.dtype)), layers.to(device, getattr(torch, config.dtype))
    record = descent.logarithmic(config.steps, config.points)
    if optimizer is None:
        found = torch.stack([_capped(loss, W, rates(config), config, record, report) for W in layers], 2)
    else:
        group = descent.Group(loss, [layers], optimizer(rates(config).to(layers)[:, None]))
        run = descent.sweep([group], config.steps, record, checkpoint=checkpoint,
                            report=report and (lambda step: report(step / config.steps)))[0]
        found = run.padded_loss(len(record))
    return {"gaps": (found - minimum).numpy()}


def _capped(loss, W, ceilings, config, record, report):
    """Losses (records, ceilings) of gradient descent at the rate min(ceiling, cap * 2 / sharpness)."""
    W = W.expand(len(ceilings), *W.shape).clone()
    basis = torch.eye(W.shape[-1], dtype=W.dtype, device=W.device)[:, None, :]
    found = []
    for step in range(config.steps + 1):
        if step in record:
            found.append(loss.value(W).cpu())
        if step % config.measure == 0:
            sharpness = torch.stack([torch.linalg.eigvalsh(loss.hessian_product(w, basis)[:, 0])[-1] for w in W])
            lr = torch.minimum(ceilings.to(W), config.cap * 2 / sharpness)[:, None, None]
            if report:
                report(step / config.steps)
        W = W - lr * loss.gradient(W)
    return torch.stack(found)


def collect(config, jobs, results):
    """Arrays: ``steps``; for each try its gaps (records, rates, seeds). Summary, for each try: the largest rate at which
    every seed lives to the end, the largest at which one does, and at the best rate the median gaps at the end of the run
    and at the recorded step nearest to ``compare``."""
    steps = descent.logarithmic(config.steps, config.points)
    early = min(range(len(steps)), key=lambda i: abs(steps[i] - config.compare))
    arrays, metrics, summary = {"steps": torch.tensor(steps)}, [], {"compared_at": steps[early]}
    for job, result in zip(jobs, results):
        gaps = torch.as_tensor(result["gaps"])
        alive = gaps[-1].isfinite()
        final = torch.where(alive.all(1), gaps[-1].median(1).values, torch.inf)
        best = int(final.argmin())
        largest = [rates(config)[who].max().item() if who.any() else None for who in (alive.all(1), alive.any(1))]
        summary[job["try"]] = {"largest_rate_all": largest[0], "largest_rate_any": largest[1]}
        if alive.all(1).any():
            summary[job["try"]] |= {"best_rate": rates(config)[best].item(), "median_gap": final[best].item(),
                                    "gap_compared": gaps[early, best].median().item()}
        arrays[job["try"]] = gaps
        metrics += [{"try": job["try"], "rate": rate, "seed": seed, "gap": gaps[-1, r, s].item() if alive[r, s] else None}
                    for r, rate in enumerate(rates(config).tolist()) for s, seed in enumerate(config.seeds)]
    return metrics, summary, arrays
