"""Does an extra layer speed up lp regression? Gradient descent at depth 1 and 2, each at its own best rate.

The setting of Arora, Cohen and Hazan 2018, Figure 3: standardised data, loss the mean of |residual|^p, layers of width 1
drawn with standard deviation 0.01, full batches. Every model is run on a whole grid of rates, from several starts.
"""

import dataclasses

import torch

from .. import chain, data, descent, losses

NAME = "regression-depth"
SUMMARY = "l2 and l4 regression at depth 1 and 2, each at its own best rate (paper A, Figure 3)"


@dataclasses.dataclass(frozen=True)
class Config:
    """``rates``: decimal exponents of the grid. ``points``: recorded steps, logarithmically spaced, at most."""

    dataset: str = "ethanol"
    powers: tuple = (2, 4)
    depths: tuple = (1, 2)
    rate_exponents: tuple = tuple(x / 4 for x in range(-16, -4))
    seeds: tuple = (0, 1, 2)
    std: float = 0.01
    steps: int = 100_000
    record_every: int = 100
    dtype: str = "float64"


SCALES = {
    "quick": Config(dataset="diabetes", rate_exponents=tuple(x / 4 for x in range(-8, 0)), seeds=(0, 1), std=0.1,
                    steps=1000, record_every=10),
    "full": Config(),
}


def run(config, device="cpu", progress=iter):
    """Train every depth, rate and seed for each power.

    Returns ``(metrics, summary, arrays, dataset)``. ``metrics``: one dict per power, depth and rate with the median gap
    over the seeds at the end (null if a run diverged). ``summary``: per power the minimum, and per depth the best rate,
    the one with the smallest median gap at the end among the rates at which no seed diverged. ``arrays``: ``steps`` and, per
    power and depth, the gaps of all seeds at the best rate, ``(records, seeds)``.
    """
    dataset = data.load(config.dataset)
    rates = torch.tensor([10**x for x in config.rate_exponents], dtype=torch.float64)
    metrics, summary, arrays = [], {}, {}
    for p, depth in progress([(p, depth) for p in config.powers for depth in config.depths]):
        loss = losses.LpLoss(dataset.X, dataset.y, p)
        minimum = loss.value(losses.minimiser(loss)).item()
        dims = (dataset.X.shape[1],) + (1,) * depth
        starts = [chain.near_zero_init(dims, config.std, torch.Generator().manual_seed(seed)) for seed in config.seeds]
        stacked = [torch.stack(layers)[:, None] for layers in zip(*starts)]
        trained = descent.train(loss.to(device), [W.to(device) for W in stacked],
                                descent.GD(rates.to(device)), config.steps, config.record_every)
        gaps = trained.loss.cpu() - minimum  # (records, seeds, rates)
        final = gaps[-1].median(0).values
        final = torch.where((trained.diverged_at.cpu() >= 0).any(0), torch.inf, final)
        best = int(final.argmin())
        summary.setdefault(f"l{p}", {"minimum": minimum})[f"depth {depth}"] = {
            "best_rate": rates[best].item(), "median_gap": final[best].item()}
        arrays[f"l{p} depth {depth}"] = gaps[:, :, best]
        arrays["steps"] = trained.steps
        metrics += [{"p": p, "depth": depth, "rate": rate.item(), "median_gap": gap.item() if gap < torch.inf else None,
                     "diverged": int(count)}
                    for rate, gap, count in zip(rates, final, (trained.diverged_at.cpu() >= 0).sum(0))]
    return metrics, summary, arrays, dataset
