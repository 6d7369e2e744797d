"""Do trained layers follow the end-to-end rule on real data? The setting of Arora, Cohen and Hazan 2018, Figure 2.

Networks of depth 2 and 3, hidden width 1 and 100, trained from near-zero layers at one rate a loss that is not tuned;
beside each, one matrix moved by the end-to-end rule from the product of the same layers.
"""

import dataclasses

import torch

from .. import chain, data, descent, losses, optimizers

NAME = "layers-and-rule"
SUMMARY = "layers against the end-to-end rule, depth 2 and 3, hidden width 1 and 100 (paper A, Figure 2)"


@dataclasses.dataclass(frozen=True)
class Config:
    """``rates``: the learning rate for each power. ``points``: recorded steps, logarithmically spaced, at most."""

    dataset: str = "ethanol"
    powers: tuple = (4, 2)
    depths: tuple = (2, 3)
    widths: tuple = (1, 100)
    rates: tuple = (1e-4, 1e-3)
    seeds: tuple = (0, 1, 2, 3, 4)
    std: float = 0.01
    steps: int = 200_000
    points: int = 201
    dtype: str = "float64"


SCALES = {
    "quick": Config(dataset="diabetes", widths=(1, 3), rates=(0.05, 0.05), seeds=(0, 1), std=0.1, steps=400, points=21),
    "full": Config(),
}


def jobs(config, device):
    """One power and one depth each."""
    runs = 2 * len(config.widths) * len(config.seeds)
    return [{"p": p, "depth": depth, "size": runs * config.steps} for p in config.powers for depth in config.depths]


def run_job(config, job, device, checkpoint=None, report=None):
    """Losses (records, seeds) of layers and rule, for each width."""
    dataset = data.load(config.dataset)
    loss = losses.LpLoss(dataset.X, dataset.y, job["p"]).to(device, getattr(torch, config.dtype))
    rate = config.rates[config.powers.index(job["p"])]
    groups, names = [], []
    for width in config.widths:
        dims = (dataset.X.shape[1],) + (width,) * (job["depth"] - 1) + (1,)
        starts = [chain.near_zero_init(dims, config.std, chain.seeded(seed)) for seed in config.seeds]
        layers = [torch.stack(layer).to(loss.X) for layer in zip(*starts)]
        for rule in ("layers", "end-to-end"):
            groups.append(descent.Group(loss, layers, optimizers.GD(rate), rule))
            names.append(f"depth {job['depth']} width {width} {rule}")
    record = descent.logarithmic(config.steps, config.points)
    runs = descent.sweep(groups, config.steps, record, checkpoint=checkpoint,
                         report=report and (lambda step: report(step / config.steps)))
    arrays = {}
    for name, run in zip(names, runs):
        arrays |= {name: run.padded_loss(len(record)).numpy(), f"{name} diverged": run.diverged_at.cpu().numpy()}
    return arrays


def collect(config, jobs, results):
    """Metrics of every pair of runs; arrays ``steps`` and, as ``l4 depth 2 width 1 layers``, the gaps (records, seeds).

    ``worst``: the largest |layers - rule| / rule of the gaps over the recorded steps. ``worst_late``: the same from a
    tenth of the steps on. Null where a run of the pair diverged or the rule has met the minimum. ``summary``: their
    medians over the seeds.
    """
    dataset = data.load(config.dataset)
    arrays = {"steps": torch.tensor(descent.logarithmic(config.steps, config.points))}
    late = arrays["steps"] >= config.steps / 10
    metrics, summary = [], {}
    for job, result in zip(jobs, results):
        p = job["p"]
        loss = losses.LpLoss(dataset.X, dataset.y, p)
        minimum = loss.value(losses.minimiser(loss)).item()
        summary.setdefault(f"l{p}", {"minimum": minimum})
        for name in [name for name in result if name.endswith(" layers")]:
            pair = name.removesuffix(" layers")
            layers, rule = (torch.as_tensor(result[f"{pair} {kind}"], dtype=torch.float64) - minimum
                            for kind in ("layers", "end-to-end"))
            arrays |= {f"l{p} {pair} layers": layers, f"l{p} {pair} end-to-end": rule}
            apart = (layers - rule).abs() / rule
            found = {"gap_layers": layers[-1], "gap_rule": rule[-1], "worst": apart.amax(0), "worst_late": apart[late].amax(0)}
            stands = [(rule[:, s] > 0).all() and all(result[f"{pair} {kind} diverged"][s] < 0
                                                     for kind in ("layers", "end-to-end")) for s in range(rule.shape[1])]
            mine = [{"p": p, "run": pair, "seed": seed,
                     **{key: values[s].item() if stands[s] else None for key, values in found.items()}}
                    for s, seed in enumerate(config.seeds)]
            metrics += mine
            stable = [row for row in mine if row["worst"] is not None]
            middle = {key: float(torch.tensor([row[key] for row in stable]).double().median()) if stable else None
                      for key in ("worst", "worst_late", "gap_layers", "gap_rule")}
            summary[f"l{p}"][pair] = {**middle, "diverged": len(mine) - len(stable)}
    return metrics, summary, arrays
