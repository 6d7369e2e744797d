"""Regression with every model at its own tuned rate: what the experiments of this kind share.

A job is one model on one loss, from the search for its rates to its curves. It runs the paper's grid, {1, 5} a decade,
and a fine one: for gradient descent ten rates a decade from a tenth of its stability edge to twice it, the edge found by
bisection; for adaptive methods ten a decade around the best rate of the paper's grid, both widened while the best rate
lies at an end. Rules and words are those of :mod:`deeplinear.tuning`.
"""

import dataclasses
import math

import numpy as np
import torch

from .. import chain, data, descent, losses, optimizers, tuning

GRIDS = ("paper", "fine")


@dataclasses.dataclass(frozen=True)
class Config:
    """``models``: (optimiser preset, depth, start), the starts ``near-zero``, Gaussian layers, or ``identity``, the same
    plus 1 on the diagonal of every layer. ``grid``: the first and the last power of ten of the paper's grid. ``bracket``:
    where the edge is looked for. ``widenings``: of a grid, at most. ``gaps``: the steps to these are tabulated."""

    models: tuple
    grid: tuple
    steps: int
    dataset: str = "ethanol"
    powers: tuple = (4,)
    bracket: tuple = (1e-6, 10.0)
    widenings: int = 3
    gaps: tuple = (2.0, 1.0, 0.5, 0.3, 0.2, 0.1, 0.05, 0.02)
    seeds: tuple = (0, 1, 2, 3, 4)
    std: float = 0.01
    points: int = 201
    dtype: str = "float64"


def label(power, model):
    """The name of a model in the record: ``l4 gd depth 4 identity``."""
    preset, depth, start = model
    return f"l{power} {preset} depth {depth}" + (f" {start}" if start != "near-zero" else "")


def jobs(config, device):
    """One loss and one model each; the size is that of the two grids before they are widened."""
    rates = len(tuning.paper_grid(*config.grid))
    return [{"p": p, "model": list(model), "size": (rates + (14 if _has_edge(model) else 7)) * len(config.seeds) * config.steps}
            for p in config.powers for model in config.models]


def run_job(config, job, device, checkpoint=None, report=None):
    """``edge`` (NaN for adaptive methods); for each grid its ``rates`` (rates,), and the losses (records, rates, seeds)."""
    runner = _Runner(config, job, device, checkpoint, report)
    first, last = config.grid
    rates = tuning.paper_grid(first, last)
    paper = runner.run(rates, "paper")
    if _has_edge(job["model"]):
        edge = tuning.edge(runner.survives, *config.bracket)
        fine = tuning.fine_grid(edge)
        return {"edge": np.array(edge), **_named("paper", rates, paper),
                **_named("fine", fine, runner.run(fine, "fine"))}
    best = runner.choice(paper)
    for part in range(config.widenings):
        if best.interior or best.index is None:
            break
        first, last = (first, last + 1) if best.index else (first - 1, last)
        wider = tuning.paper_grid(first, last)
        more = wider[~torch.isin(wider, rates)]
        rates, paper = _together(rates, paper, more, runner.run(more, f"paper-{part}"))
        best = runner.choice(paper)
    fine = tuning.around((rates[len(rates) // 2] if best.index is None else rates[best.index]).item())
    found = runner.run(fine, "fine")
    for part in range(config.widenings):
        more = tuning.widened(fine, runner.choice(found))
        if not len(more):
            break
        fine, found = _together(fine, found, more, runner.run(more, f"fine-{part}"))
    return {"edge": np.array(np.nan), **_named("paper", rates, paper), **_named("fine", fine, found)}


class _Runner:
    """Runs one model at many rates from all starts, each run with a checkpoint of its own."""

    def __init__(self, config, job, device, checkpoint, report):
        dataset = data.load(config.dataset)
        loss = losses.LpLoss(dataset.X, dataset.y, job["p"])
        self.config, self.job, self.checkpoint, self.report = config, job, checkpoint, report
        self.minimum = _minimum(loss)
        self.loss = loss.to(device, getattr(torch, config.dtype))
        self.preset, depth, start = job["model"]
        dims = (dataset.X.shape[1],) + (1,) * depth
        starts = [chain.near_zero_init(dims, config.std, chain.seeded(seed)) for seed in config.seeds]
        if start == "identity":
            starts = [[W + one for W, one in zip(layers, chain.identity_init(dims))] for layers in starts]
        self.layers = [torch.stack(layer).to(self.loss.X) for layer in zip(*starts)]
        self.record, self.done, self.probes = descent.logarithmic(config.steps, config.points), 0, 0

    def run(self, rates, part):
        """The losses at the recorded steps, (records, rates, seeds)."""
        return self._sweep(rates, self.config.steps, self.record, part).padded_loss(len(self.record))

    def survives(self, rate):
        """Whether the median start lives at this rate for a tenth of the steps."""
        tenth, self.probes = max(1, self.config.steps // 10), self.probes + 1
        run = self._sweep(torch.tensor([rate], dtype=torch.float64), tenth, [tenth], f"edge-{self.probes}")
        return tuning.lives(run.padded_loss(1)[0, 0])

    def choice(self, found):
        gaps = tuning.median(found - self.minimum)
        return tuning.choose(gaps[-1], gaps)

    def _sweep(self, rates, steps, record, part):
        size, before = len(rates) * len(self.config.seeds), self.done

        def tell(step):
            self.report(min((before + size * step) / self.job["size"], 0.99))

        group = descent.Group(self.loss, self.layers, optimizers.preset(self.preset, rates.to(self.loss.X)[:, None]))
        run, = descent.sweep([group], steps, record, checkpoint=self.checkpoint and self.checkpoint.part(part),
                             report=self.report and tell)
        self.done += size * steps
        return run


def collect(config, jobs, results):
    """For each model and grid the arrays ``<name> <grid> rates``, ``ends``, the last gaps (rates, seeds), ``median``, the
    median gaps (records, rates), the curves ``<name> <grid>`` (records, seeds) at the best rate by the median and ``...
    strict`` at the best one at which no start fails, no records where there is none; and ``steps``. Summary: for each
    model its edge and for each grid both choices; for each loss and grid, ``comparisons`` of every two models."""
    dataset = data.load(config.dataset)
    steps = descent.logarithmic(config.steps, config.points)
    arrays, metrics, summary, last = {"steps": torch.tensor(steps)}, [], {"comparisons": []}, {}
    for job, result in zip(jobs, results):
        name, minimum = label(job["p"], job["model"]), _minimum(losses.LpLoss(dataset.X, dataset.y, job["p"]))
        summary[name] = {"minimum": minimum, "edge": _or_none(result["edge"])}
        for grid in GRIDS:
            rates = torch.as_tensor(result[f"{grid} rates"])
            gaps = torch.as_tensor(result[f"{grid} loss"]).double() - minimum
            found, curves, strict = _chosen(config, steps, rates, gaps)
            summary[name][grid] = found
            arrays |= {f"{name} {grid} rates": rates, f"{name} {grid} ends": gaps[-1], f"{name} {grid}": curves,
                       f"{name} {grid} median": tuning.median(gaps), f"{name} {grid} strict": strict}
            metrics += [{"model": name, "grid": grid, "rate": rate, "seed": seed, "gap": _or_none(gaps[-1, r, s])}
                        for r, rate in enumerate(rates.tolist()) for s, seed in enumerate(config.seeds)]
            if len(curves):
                last.setdefault((job["p"], grid), {})[name] = curves[-1]
    for (_, grid), ends in last.items():
        names = list(ends)
        summary["comparisons"] += [{"grid": grid, "first": a, "second": b, **_compared(ends[a], ends[b])}
                                   for i, a in enumerate(names) for b in names[i + 1:]]
    return metrics, summary, arrays


def _chosen(config, steps, rates, gaps):
    """What the summary says of one grid, and the curves at its two choices."""
    scores = tuning.median(gaps)
    found = {"failures": tuning.failures(gaps[-1]).tolist()}
    curves = []
    for kind, ends in (("", scores[-1]), ("strict_", tuning.strict(gaps[-1]))):
        best = tuning.choose(ends, scores)
        there = gaps[:, best.index] if best.index is not None else gaps.new_empty(0, gaps.shape[2])
        curves.append(there)
        found |= {f"{kind}rate": None if best.index is None else rates[best.index].item(), f"{kind}interior": best.interior,
                  f"{kind}gap": None if best.index is None else ends[best.index].item()}
    median = tuning.median(curves[0])
    records = [tuning.first_below(median, gap).item() if len(median) else torch.inf for gap in config.gaps]
    found["steps_to_gap"] = [steps[int(record)] if record < len(steps) else None for record in records]
    return found, *curves


def _compared(first, second):
    found = tuning.compare(first, second)
    return {"ratios": [_or_none(ratio) for ratio in found.ratios], "ahead": found.ahead, "behind": found.behind,
            **{name: _or_none(getattr(found, name)) for name in ("mean", "low", "high")}}


def _named(grid, rates, loss):
    return {f"{grid} rates": rates.numpy(), f"{grid} loss": loss.numpy()}


def _together(rates, found, more, new):
    """Two grids with their runs as one, in the order of the rates."""
    rates, order = torch.cat([rates, more]).sort()
    return rates, torch.cat([found, new], 1)[:, order]


def _has_edge(model):
    return model[0] == "gd"


def _minimum(loss):
    return loss.value(losses.minimiser(loss)).item()


def _or_none(value):
    return float(value) if math.isfinite(float(value)) else None
