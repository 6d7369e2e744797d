"""Depth under seven optimisers, each at its own best rate: a loss that is depth's best case, and least squares.

``two scales``: ``((a w_1 - 1)^4 + (w_2 - 1)^4) / 4``, from balanced layers of end-to-end norm 0.1/a in five directions.
``least squares``: ``|(W - W*) S|^2 / 2`` with two outputs and four features whose variances run geometrically from 1 to
1/kappa, each with the same share of the signal, from balanced layers. A run needs as many *steps* as it takes until the
loss stays at or below the goal to the horizon, looked at after every step; infinity where it is above at the horizon.
"""

import dataclasses
import hashlib
import math

import torch

from .. import chain, data, losses, optimizers, polar, tuning

NAME = "optimisers"
SUMMARY = "steps of depth 1 to 4 under seven optimisers: two feature scales at p = 4, least squares"
MAKE = {"gd": optimizers.GD, "heavy-ball": optimizers.HeavyBall, "normalised": polar.Normalised,
        "polar": lambda lr: polar.Muon(lr, momentum=0.0), "muon": polar.Muon, "shampoo": polar.Shampoo,
        "adam": optimizers.Adam.pytorch}


@dataclasses.dataclass(frozen=True)
class Config:
    """``cases``: the problem, its a or kappa, the horizon in steps. ``rates``: for each problem log10 of the first and the last
    rate, ten a decade. ``angles``: directions of the starts of two scales in degrees, one for each of ``seeds``. ``std``: of
    the end-to-end start of least squares. ``share``: its goal, of the loss at W = 0."""

    optimisers: tuple = ("gd", "heavy-ball", "normalised", "polar", "muon", "shampoo", "adam")
    depths: tuple = (1, 2, 3, 4)
    cases: tuple = (("two scales", 4, 1000), ("two scales", 16, 3000), ("two scales", 64, 30_000),
                    ("least squares", 10, 1500), ("least squares", 100, 1500))
    rates: tuple = (("two scales", -4, 1), ("least squares", -3, 2))
    angles: tuple = (30, 75, 120, 210, 300)
    seeds: tuple = (0, 1, 2, 3, 4)
    std: float = 0.1
    share: float = 1e-3
    dtype: str = "float64"


SCALES = {
    "quick": Config(optimisers=("gd", "polar", "shampoo"), depths=(1, 2), cases=(("two scales", 4, 200), ("least squares", 10, 100)),
                    rates=(("two scales", -2, 0), ("least squares", -1, 1)), angles=(30, 75), seeds=(0, 1)),
    "full": Config(),
}


def origin_of_data(config):
    """Both problems are formulas, the second with two times four numbers from a seed."""
    digest = hashlib.sha256(repr([case[:2] for case in config.cases]).encode())
    digest.update(_shares().float().numpy().round(4).tobytes())
    return data.Dataset("two scales and least squares", None, None, 0.0, 1.0, "", digest.hexdigest(), "formulas")


def problem(name, hardness, share=1e-3):
    """The loss, whose minimum is 0, and the goal."""
    if name == "two scales":
        X = torch.tensor([[float(hardness), 0.0], [0.0, 1.0]], dtype=torch.float64)
        return losses.LpLoss(data.shake(X), [1.0, 1.0], 4, reduction="sum", scale=1 / 4), 2 * 0.2**4 / 4
    sizes = hardness ** torch.linspace(0, -0.5, 4, dtype=torch.float64)
    Y = _shares()
    return losses.LpLoss(data.shake(sizes.diag()), Y, 2, reduction="sum", scale=1 / 2), share * Y.square().sum().item() / 2


def starts(config, name, hardness, depth):
    """The layers of all starts, stacked: the j-th of shape (seeds, n_{j+1}, n_j)."""
    found = []
    for angle, seed in zip(config.angles, config.seeds):
        if name == "two scales":
            turn = math.radians(angle)
            W = 0.1 / hardness * torch.tensor([[math.cos(turn), math.sin(turn)]], dtype=torch.float64)
        else:
            W = config.std * chain.normal(2, 4, generator=chain.seeded(seed))
        k, d = W.shape
        found.append(chain.balanced_init((d,) + (k,) * depth, chain.seeded(seed), W=W))
    return [torch.stack(layer) for layer in zip(*found)]


def grid(config, name):
    """The rates of a problem, ten a decade, shape (rates,)."""
    first, last = next(ends for problem, *ends in config.rates if problem == name)
    return torch.logspace(first, last, tuning.A_DECADE * (last - first) + 1, dtype=torch.float64)


def steps_to_stay(loss, layers, optimizer, goal, horizon, report=None):
    """After how many steps the loss is at most ``goal`` and stays so to the horizon, shape (...); infinity where it is not.

    ``layers``: list with any leading axes, which the optimiser's rates broadcast to; not changed. The loss is looked at
    after every step.
    """
    layers = [W.clone() for W in layers]
    state, last = optimizer.start(layers), torch.full(layers[0].shape[:-2], -1)
    for step in range(horizon + 1):
        value, G = loss.value_and_gradient(chain.end_to_end(layers))
        above = ~(value <= goal)
        last[above] = step
        if step < horizon:
            optimizer.step(layers, chain.layer_gradients(layers, G), state)
        if report and step % 100 == 0:
            report(step / horizon)
    return torch.where(above, torch.inf, (last + 1).double())


def jobs(config, device):
    """One case, one optimiser and one depth each."""
    return [{"problem": name, "hardness": hardness, "horizon": horizon, "optimiser": optimiser, "depth": depth,
             "size": len(grid(config, name)) * len(config.seeds) * horizon}
            for name, hardness, horizon in config.cases for optimiser in config.optimisers for depth in config.depths]


@torch.no_grad()
def run_job(config, job, device, checkpoint=None, report=None):
    """``steps`` (rates, seeds)."""
    loss, goal = problem(job["problem"], job["hardness"], config.share)
    rates = grid(config, job["problem"]).to(device)
    layers = [W.to(device).expand(len(rates), *W.shape).clone()
              for W in starts(config, job["problem"], job["hardness"], job["depth"])]
    optimizer = MAKE[job["optimiser"]](rates[:, None].expand(layers[0].shape[:2]))
    return {"steps": steps_to_stay(loss.to(device), layers, optimizer, goal, job["horizon"], report).cpu().numpy()}


def collect(config, jobs, results):
    """Arrays for each case, named like ``two scales 16``: ``<name>`` (optimisers, depths, rates, seeds), and ``<name> best``
    (optimisers, depths, seeds) of the five starts at the rate with the smallest median; ``<problem> rates``. Summary by case
    and optimiser, a list over depths each: ``median``, its ``rate``, ``interior``, ``strict`` (the median at the best rate
    at which every start arrives)."""
    arrays = {f"{name} rates": grid(config, name) for name, *_ in config.rates}
    summary, metrics = {}, []
    for name, hardness, _ in config.cases:
        mine = [torch.as_tensor(result["steps"]) for job, result in zip(jobs, results)
                if (job["problem"], job["hardness"]) == (name, hardness)]
        steps = torch.stack(mine).reshape(len(config.optimisers), len(config.depths), *mine[0].shape)
        rates, case = arrays[f"{name} rates"], f"{name} {hardness}"
        best, summary[case] = steps[:, :, 0].clone(), {}
        for j, optimiser in enumerate(config.optimisers):
            found = [_chosen(rates, runs) for runs in steps[j]]
            summary[case][optimiser] = {key: [each[key] for each in found] for key in found[0]}
            for n, (depth, each) in enumerate(zip(config.depths, found)):
                at = tuning.choose(tuning.median(steps[j, n])).index
                best[j, n] = torch.inf if at is None else steps[j, n, at]
                metrics.append({"case": case, "optimiser": optimiser, "depth": depth, "rate": each["rate"],
                                "steps": [None if math.isinf(count) else count for count in best[j, n].tolist()]})
        arrays |= {case: steps, f"{case} best": best}
    return metrics, summary, arrays


def pairs(config, job, result, record):
    """The steps of one job (1, rates, seeds), recorded and in ``result``."""
    where = config.optimisers.index(job["optimiser"]), config.depths.index(job["depth"])
    return {"steps": (record.arrays[f"{job['problem']} {job['hardness']}"][where][None], result["steps"][None])}


def _chosen(rates, runs):
    """What the summary says of one model; ``runs``: its steps (rates, seeds)."""
    scores, strict = tuning.median(runs), tuning.strict(runs)
    best, safe = tuning.choose(scores), tuning.choose(strict)
    some = best.index is not None
    return {"median": scores[best.index].item() if some else None, "rate": rates[best.index].item() if some else None,
            "interior": best.interior, "strict": None if safe.index is None else strict[safe.index].item()}


def _shares():
    """The labels, shape (4, 2): row i has norm 1, so that each feature carries the same share of the signal."""
    Y = chain.normal(4, 2, generator=chain.seeded(7))
    return Y / torch.linalg.vector_norm(Y, dim=1, keepdim=True)
