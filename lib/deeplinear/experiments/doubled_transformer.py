"""A small GPT, plain and with every linear layer doubled, under four optimisers, each at its own best rate.

The networks of :mod:`deeplinear.transformer` read number words. Plain and doubled ones start as the same function and see
the same pieces of the text. A run needs as many *steps* as it takes until the loss on fixed pieces, looked at every few
steps, stays at or below the goal to the horizon; infinity where it is above at the horizon.
"""

import dataclasses
import hashlib
import math

import torch

from .. import chain, data, deepening, polar, transformer, tuning

NAME = "doubled-transformer"
SUMMARY = "steps of a small GPT, plain and with every linear layer a product of two, under four optimisers"


@dataclasses.dataclass(frozen=True)
class Config:
    """``optimisers``: with the middle of the grid. ``kinds``: plain, or the start of ``deepen``. The grid of a job has three
    rates a factor of ``10**0.3`` apart, tried from the first seed and widened while the best lies at an end, then ten a
    decade about that one, from every seed, widened likewise, each at most ``widenings`` times. ``others``: Adam's rate for
    what Muon does not move. ``goal``: nats a character, on ``judged`` pieces, after every ``every`` steps."""

    optimisers: tuple = (("descent", 0.5), ("momentum", 0.06), ("adam", 0.008), ("muon", 0.04))
    kinds: tuple = ("plain", "balanced", "identity")
    goal: float = 0.8
    horizon: int = 250
    every: int = 5
    judged: int = 32
    width: int = 32
    heads: int = 4
    length: int = 32
    batch: int = 8
    others: float = 3e-3
    widenings: int = 4
    seeds: tuple = (0, 1, 2, 3, 4)
    dtype: str = "float64"


SCALES = {
    "quick": Config(optimisers=(("adam", 0.03), ("muon", 0.03)), kinds=("plain", "balanced"), goal=2.6, horizon=24, every=2,
                    judged=4, width=8, heads=2, length=8, batch=4, widenings=2, seeds=(0, 1)),
    "full": Config(),
}


def origin_of_data(config):
    """The text, which is made from the names of the numbers."""
    text = transformer.text()
    return data.Dataset("number words", None, None, 0.0, 1.0, "", hashlib.sha256(text.encode()).hexdigest(), "the names of 0 to 999")


def started(config, kind, seed):
    """The network from the start that all kinds share; every linear layer a product of two where ``kind`` is not plain."""
    size = len(set(transformer.text()))
    net = transformer.build(size, chain.seeded(seed), getattr(torch, config.dtype), width=config.width, heads=config.heads,
                            blocks=1, length=config.length)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(data.shake(parameter))
    return net if kind == "plain" else deepening.deepen(net, factors=2, start=kind)


class Muon:
    """Muon with Newton-Schulz steps on the matrices of linear layers, Adam at a fixed rate on tables, biases and gains."""

    def __init__(self, net, lr, others):
        tables = {id(net.table.weight), id(net.place)}
        self.lr = lr
        self.matrices = [W for W in net.parameters() if W.ndim == 2 and id(W) not in tables]
        taken = {id(W) for W in self.matrices}
        self.rest = torch.optim.Adam([W for W in net.parameters() if id(W) not in taken], lr=others)
        self.means = [torch.zeros_like(W) for W in self.matrices]

    def zero_grad(self):
        self.rest.zero_grad()
        for W in self.matrices:
            W.grad = None

    @torch.no_grad()
    def step(self):
        self.rest.step()
        for W, V in zip(self.matrices, self.means):
            V.lerp_(W.grad, 0.05)
            W.sub_(self.lr * polar.newton_schulz(W.grad.lerp(V, 0.95)))


def optimizer(config, name, net, rate):
    """The optimiser of this name for the parameters of a network."""
    if name == "muon":
        return Muon(net, rate, config.others)
    if name == "adam":
        return torch.optim.Adam(net.parameters(), lr=rate)
    return torch.optim.SGD(net.parameters(), lr=rate, momentum=0.9 if name == "momentum" else 0.0)


def curve(config, job, rate, seed, device="cpu"):
    """The losses on the fixed pieces after 0, ``every``, ... steps, up to the horizon; NaN from where a run is lost."""
    tokens = transformer.encode(transformer.text())
    judged = transformer.windows(tokens, config.length + 1, config.judged, chain.seeded(99)).to(device)
    net = started(config, job["kind"], seed).to(device)
    rule, draw = optimizer(config, job["optimiser"], net, rate), chain.seeded(1000 + seed)
    found = torch.full((config.horizon // config.every + 1,), torch.nan, dtype=torch.float64)
    for k in range(len(found)):
        with torch.no_grad():
            found[k] = transformer.loss(net, judged)
        if not found[k].isfinite():
            break
        for _ in range(config.every if k + 1 < len(found) else 0):
            pieces = transformer.windows(tokens, config.length + 1, config.batch, draw).to(device)
            rule.zero_grad()
            transformer.loss(net, pieces).backward()
            rule.step()
    return found


def steps_to_stay(config, losses):
    """After how many steps the losses (points, ...) are at most the goal and stay so; infinity where they are not."""
    above = ~(losses <= config.goal)
    points = torch.arange(1, len(losses) + 1, dtype=torch.float64).reshape(-1, *[1] * (losses.ndim - 1))
    last = (above * points).amax(0)
    return torch.where(above[-1], torch.inf, config.every * last)


def chosen(config, losses):
    """The best rate, a :class:`deeplinear.tuning.Choice`, of ``losses`` (points, rates, seeds): of those at which every start
    arrives the one of the smallest median; where there is none, by the losses at the horizon."""
    return best_of(steps_to_stay(config, losses), losses[-1])


def best_of(steps, ends):
    """The same from the steps and the losses at the horizon, both (rates, seeds)."""
    strict = tuning.strict(steps)
    return tuning.choose(strict if strict.isfinite().any() else tuning.strict(ends))


def jobs(config, device):
    """One optimiser and kind each; the size is that of a grid that is not widened."""
    runs = 3 + 5 * len(config.seeds)
    return [{"optimiser": optimiser, "rate": rate, "kind": kind, "size": runs * config.horizon}
            for optimiser, rate in config.optimisers for kind in config.kinds]


def run_job(config, job, device, checkpoint=None, report=None):
    """``rates`` (rates,) of the fine grid, ``steps`` and ``ends`` (rates, seeds), the loss at the horizon; ``curve``
    (points, seeds) at the best of the rates; ``rough`` (rates tried first, 2): each with its steps."""
    runs, count = {}, [0]

    def run(power, seed):
        if (power, seed) not in runs:
            runs[power, seed] = curve(config, job, job["rate"] * 10 ** (power / tuning.A_DECADE), seed, device)
            count[0] += config.horizon
            if report:
                report(min(count[0] / job["size"], 0.99))
        return runs[power, seed]

    def curves(powers, seeds):
        return torch.stack([torch.stack([run(power, seed) for seed in seeds], 1) for power in powers], 1)

    def searched(powers, seeds, by):
        for _ in range(config.widenings):
            best = chosen(config, curves(powers, seeds))
            if best.interior:
                break
            powers = powers + [powers[-1] + by] if best.index else [powers[0] - by] + powers
        return powers

    rough = searched([-3, 0, 3], config.seeds[:1], 3)
    first = curves(rough, config.seeds[:1])
    middle = rough[chosen(config, first).index or 0]
    powers = searched(list(range(middle - 2, middle + 3)), config.seeds, 1)
    losses = curves(powers, config.seeds)
    rates = lambda powers: job["rate"] * 10 ** (torch.tensor(powers, dtype=torch.float64) / tuning.A_DECADE)
    found = {"rates": rates(powers), "steps": steps_to_stay(config, losses), "ends": losses[-1],
             "curve": losses[:, chosen(config, losses).index or 0],
             "rough": torch.stack([rates(rough), steps_to_stay(config, first)[:, 0]], 1)}
    return {name: value.numpy() for name, value in found.items()}


def label(job):
    """The name of a job in the record: ``adam balanced``."""
    return f"{job['optimiser']} {job['kind']}"


def collect(config, jobs, results):
    """For every job, named as by :func:`label`, the arrays of :func:`run_job`. Summary: for every job ``steps``, the median
    at the best rate at which every start arrives, that ``rate``, whether it lies inside the grid (``interior``) and the median
    loss at the horizon there, ``end``; and for a doubled network ``ratio``, its steps over the plain one's, start by start at
    these rates: mean and 95 % interval, and ``end_ratio``, the same of the losses at the horizon."""
    arrays, metrics, summary, runs = {}, [], {}, {}
    for job, result in zip(jobs, results):
        name, found = label(job), {key: torch.as_tensor(result[key]) for key in ("rates", "steps", "ends", "curve", "rough")}
        arrays |= {f"{name} {key}": value for key, value in found.items()}
        best = best_of(found["steps"], found["ends"])
        at = best.index or 0
        runs[name] = steps, ends = found["steps"][at], found["ends"][at]
        summary[name] = {"rate": found["rates"][at].item(), "interior": best.interior, "steps": _or_none(tuning.strict(steps)),
                         "end": _or_none(tuning.median(ends))}
        metrics += [{"run": name, "seed": seed, "steps": _or_none(one), "end": _or_none(end)}
                    for seed, one, end in zip(config.seeds, steps, ends)]
    for job in jobs:
        name, plain = label(job), runs.get(label({**job, "kind": "plain"}))
        if job["kind"] != "plain" and plain is not None:
            for key, deep, one in zip(("ratio", "end_ratio"), runs[name], plain):
                pair = tuning.compare(deep, one)
                summary[name][key] = [_or_none(value) for value in (pair.mean, pair.low, pair.high)]
    return metrics, summary, arrays


def _or_none(value):
    """The number, or None where a run was lost or did not arrive."""
    return float(value) if math.isfinite(value) else None
