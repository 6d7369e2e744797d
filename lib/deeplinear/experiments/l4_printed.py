"""At which rates do the printed l4 curves run, and which descent lives at them?

In Arora, Cohen and Hazan 2018, Figure 3 right, no plain run from a start near zero follows the printed curves at a rate
that it survives. Small steps follow the gradient flow, in which only rate times step counts: the flow is integrated once
for each depth and start, and every printed point then implies a rate. At one rate for each depth run heavy ball, whose
stable rates are larger at the same effective rate lr / (1 - momentum), and plain descent that takes over from the flow.
"""

import dataclasses

import numpy as np
import torch

from .. import chain, data, descent, losses, optimizers, stiff

NAME = "l4-printed"
SUMMARY = "l4 regression: flow, heavy ball and plain descent at the rates that the printed curves imply (paper A, Figure 3 right)"


@dataclasses.dataclass(frozen=True)
class Config:
    """``printed``: for each depth the gaps at the steps ``at``, read off the figure. ``rates``: for each depth the
    (effective) rate that is run. ``factors``: times which it is run for a tenth of the steps, to see which starts live.
    ``handover``: for each depth the step at which plain descent takes over from the flow, 0 for no such run, and
    ``until`` when it stops. ``points``: recorded steps, and times of the flow, at most.
    """

    dataset: str = "ethanol"
    power: int = 4
    depths: tuple = (1, 2, 3)
    at: tuple = (10_000, 100_000, 200_000, 400_000, 1_000_000)
    printed: tuple = ((0.32, 0.144, 0.103, 0.071, 0.037), (0.64, 0.178, 0.111, 0.060, 0.017),
                      (1.05, 0.188, 0.105, 0.045, 0.0064))
    rates: tuple = (4.2e-3, 3.55e-4, 1.85e-4)
    factors: tuple = (0.8, 1.25, 2.0)
    momentum: float = 0.9
    handover: tuple = (0, 200_000, 100_000)
    until: int = 400_000
    seeds: tuple = (0, 1, 2, 3, 4)
    std: float = 0.01
    steps: int = 1_000_000
    points: int = 241
    dtype: str = "float64"


SCALES = {
    "quick": Config(dataset="diabetes", depths=(1, 2), at=(40, 100, 400), printed=((0.05, 0.02, 0.009), (0.3, 0.03, 0.009)),
                    rates=(0.03, 0.25), factors=(0.5, 40.0), handover=(0, 1), until=400, seeds=(0, 1), std=0.1, steps=400,
                    points=21),
    "full": Config(),
}


def times(config, depth):
    """The times at which the flow is recorded: 0, then evenly on a logarithmic axis, to 1.5 times the last step's."""
    rate = config.rates[config.depths.index(depth)]
    return np.concatenate([[0.0], np.geomspace(rate, 1.5 * rate * config.steps, config.points - 1)])


def record(config):
    """The recorded steps of a run: logarithmic, and those of the printed points."""
    return sorted({*descent.logarithmic(config.steps, config.points), *config.at})


def jobs(config, device):
    """The longest first: heavy ball of all depths at their rates, of one depth at other rates; plain descent from the
    flow; the flow itself."""
    runs, tenth = len(config.seeds), config.steps // 10
    found = [{"kind": "momentum", "size": runs * len(config.depths) * config.steps}]
    found += [{"kind": "survival", "depth": depth, "size": runs * len(config.factors) * tenth} for depth in config.depths]
    found += [{"kind": "plain", "depth": depth, "size": runs * (config.until - step)}
              for depth, step in zip(config.depths, config.handover) if step]
    return found + [{"kind": "flow", "depth": depth, "size": runs * config.points} for depth in config.depths]


def run_job(config, job, device, checkpoint=None, report=None):
    """``flow``: ``gaps`` and ``limit``, 2 / sharpness, at the times (times, seeds). ``momentum``: for each depth the gaps
    at the recorded steps (records, seeds). ``survival``: the last gaps (factors, seeds) and those at the first printed
    step. ``plain``: ``diverged``, the step at which each run was lost, counted from the start of the flow, or -1."""
    dataset = data.load(config.dataset)
    loss = losses.LpLoss(dataset.X, dataset.y, config.power)
    run = {"flow": _flow, "momentum": _momentum, "survival": _survival, "plain": _plain}[job["kind"]]
    return run(config, job, loss, device, checkpoint, report)


def _starts(config, loss, depth):
    """For each seed the layers of a start near zero."""
    dims = (loss.shape[1],) + (1,) * depth
    return [chain.near_zero_init(dims, config.std, chain.seeded(seed)) for seed in config.seeds]


def _minimum(loss):
    return loss.value(losses.minimiser(loss)).item()


def _flow(config, job, loss, device, checkpoint, report):
    at, gaps, limits = times(config, job["depth"]), [], []
    for i, layers in enumerate(_starts(config, loss, job["depth"])):
        look = report and (lambda t, i=i: report((i + t / at[-1]) / len(config.seeds)))
        run = stiff.layers(loss, layers, at, report=look)
        gaps.append(loss.value(run.end_to_end) - _minimum(loss))
        limits.append([2 / torch.linalg.eigvalsh(stiff.hessian(loss, list(one)))[-1].item() for one in zip(*run.weights)])
    return {"gaps": torch.stack(gaps, 1).numpy(), "limit": np.array(limits).T}


def _sweep(config, groups, device, steps, record, checkpoint, report):
    loss = groups[0].loss.to(device, getattr(torch, config.dtype))
    groups = [dataclasses.replace(group, loss=loss, weights=[W.to(loss.X) for W in group.weights]) for group in groups]
    return descent.sweep(groups, steps, record, checkpoint=checkpoint, report=report and (lambda step: report(step / steps)))


def _momentum(config, job, loss, device, checkpoint, report):
    groups = [descent.Group(loss, [torch.stack(W) for W in zip(*_starts(config, loss, depth))],
                            optimizers.HeavyBall(rate * (1 - config.momentum), config.momentum))
              for depth, rate in zip(config.depths, config.rates)]
    steps = record(config)
    runs = _sweep(config, groups, device, config.steps, steps, checkpoint, report)
    return {f"depth {depth}": (run.padded_loss(len(steps)) - _minimum(loss)).numpy()
            for depth, run in zip(config.depths, runs)}


def _survival(config, job, loss, device, checkpoint, report):
    rate, tenth = config.rates[config.depths.index(job["depth"])], config.steps // 10
    rates = rate * (1 - config.momentum) * torch.tensor(config.factors, dtype=torch.float64)[:, None]
    layers = [torch.stack(W) for W in zip(*_starts(config, loss, job["depth"]))]
    group = descent.Group(loss, layers, optimizers.HeavyBall(rates.to(device), config.momentum))
    run, = _sweep(config, [group], device, tenth, sorted({config.at[0], tenth}), checkpoint, report)
    gaps = run.padded_loss(1 + (tenth != config.at[0])) - _minimum(loss)
    return {"first": gaps[0].numpy(), "last": gaps[-1].numpy()}


def _plain(config, job, loss, device, checkpoint, report):
    place = config.depths.index(job["depth"])
    rate, step = config.rates[place], config.handover[place]
    ends = [stiff.layers(loss, layers, [0.0, rate * step]).weights for layers in _starts(config, loss, job["depth"])]
    group = descent.Group(loss, [torch.stack([W[-1] for W in layer]) for layer in zip(*ends)], optimizers.GD(rate))
    more = config.until - step
    run, = _sweep(config, [group], device, more, [more], checkpoint, report)
    return {"diverged": torch.where(run.diverged_at < 0, -1, step + run.diverged_at).cpu().numpy()}


def implied(times, gaps, at, printed):
    """The rate at which each printed point lies on a curve of the flow: the time at which the curve has come down to the
    gap, over the step.

    ``times`` (T,), ``gaps`` (T, seeds), ``at`` and ``printed`` (points,). Returns shape (points, seeds), NaN where the
    curve does not come down that far. Between two times the logarithms are interpolated.
    """
    found = np.full((len(at), gaps.shape[1]), np.nan)
    for i, (step, gap) in enumerate(zip(at, printed)):
        for s, curve in enumerate(gaps.T):
            below = np.flatnonzero(curve <= gap)
            if len(below) and below[0] > 1:
                two = slice(below[0] - 1, below[0] + 1)
                logs = np.interp(-np.log(gap), -np.log(curve[two]), np.log(times[two]))
                found[i, s] = np.exp(logs) / step
    return found


def crossing(times, limit, rate, first):
    """The step from ``first`` on at which each curve of ``limit`` (T, seeds) falls below ``rate``; NaN where none does.

    Between two times the logarithms are interpolated.
    """
    found = np.full(limit.shape[1], np.nan)
    for s, curve in enumerate(limit.T):
        below = np.flatnonzero((times >= rate * first) & (curve < rate))
        if len(below):
            i = below[0]
            found[s] = times[i] / rate
            if i > 1 and curve[i - 1] >= rate:
                logs = np.interp(-np.log(rate), -np.log(curve[i - 1:i + 1]), np.log(times[i - 1:i + 1]))
                found[s] = np.exp(logs) / rate
    return found


def collect(config, jobs, results):
    """Arrays: ``flow depth N times``, ``gaps``, ``limit`` and ``implied`` (points, seeds); ``heavy ball depth N`` (records,
    seeds), with ``steps``; ``heavy ball depth N first`` and ``last`` (factors, seeds); ``plain depth N``, the steps of
    divergence. Summary, for each depth: the median implied rates, the median gaps of heavy ball at the printed steps and
    their ratios to the printed ones, how many starts live at each factor, and where plain descent is lost beside the step
    at which the flow's limit falls below the rate."""
    arrays, metrics, summary = {}, [], {f"depth {depth}": {} for depth in config.depths}
    for job, result in zip(jobs, results):
        if job["kind"] == "momentum":
            arrays["steps"] = torch.tensor(record(config))
            for depth, printed in zip(config.depths, config.printed):
                gaps = arrays[f"heavy ball depth {depth}"] = torch.as_tensor(result[f"depth {depth}"])
                there = gaps[[record(config).index(step) for step in config.at]]
                middle = _median(there)
                summary[f"depth {depth}"] |= {"heavy_ball": middle, "heavy_ball_over_printed": [
                    None if gap is None else gap / point for gap, point in zip(middle, printed)]}
                metrics += [{"depth": depth, "seed": seed, "step": step, "gap": _or_none(there[i, s])}
                            for i, step in enumerate(config.at) for s, seed in enumerate(config.seeds)]
            continue
        depth, place = job["depth"], config.depths.index(job["depth"])
        if job["kind"] == "flow":
            at = times(config, depth)
            found = {"times": at, "gaps": result["gaps"], "limit": result["limit"],
                     "implied": implied(at, result["gaps"], config.at, config.printed[place])}
            arrays |= {f"flow depth {depth} {name}": torch.as_tensor(array) for name, array in found.items()}
            cross = crossing(at, result["limit"], config.rates[place], config.handover[place])
            summary[f"depth {depth}"] |= {"implied": _median(torch.as_tensor(found["implied"])),
                                          "limit_crossed_at": [_or_none(step) for step in cross]}
        elif job["kind"] == "survival":
            arrays |= {f"heavy ball depth {depth} {name}": torch.as_tensor(result[name]) for name in ("first", "last")}
            summary[f"depth {depth}"]["alive"] = np.isfinite(result["last"]).sum(1).tolist()
        else:
            arrays[f"plain depth {depth}"] = torch.as_tensor(result["diverged"])
            summary[f"depth {depth}"]["plain_diverged_at"] = result["diverged"].tolist()
    return metrics, summary, arrays


def _median(rows):
    """For each row the median over the seeds, a failed one counted as infinite; None where that is."""
    return [_or_none(value) for value in torch.where(rows.isfinite(), rows, torch.inf).median(1).values]


def _or_none(value):
    return float(value) if np.isfinite(float(value)) else None
