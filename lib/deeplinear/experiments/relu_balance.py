"""Three-layer ReLU nets by gradient descent from a balanced and an unbalanced small start: the squares of the layers.

The sizes and starts of Du, Hu and Lee 2018, Figure 2. Neither its data nor its step are given: inputs and labels here are
standard normal, the loss is half the mean square, and three steps are tried.
"""

import dataclasses
import hashlib

import torch
from torch import nn

from .. import chain, data, descent

NAME = "relu-balance"
SUMMARY = "squared norms of the layers of a ReLU net from balanced and unbalanced starts (paper B, Figure 2)"


@dataclasses.dataclass(frozen=True)
class Config:
    """``stds``: of the entries of each layer, by start."""

    widths: tuple = (1000, 100, 100, 10)
    rows: int = 1000
    stds: tuple = (("balanced", (1e-3, 1e-5**0.5, 1e-2)), ("unbalanced", (1e-2, 1e-2, 1e-2)))
    rates: tuple = (0.04, 0.02, 0.01)
    steps: int = 10_000
    points: int = 100
    seeds: tuple = (0,)
    dtype: str = "float64"


SCALES = {
    "quick": Config(widths=(50, 10, 10, 3), rows=40, stds=(("balanced", (0.014, 0.032, 0.058)), ("unbalanced", (0.1,) * 3)),
                    rates=(0.04, 0.02), steps=300, points=20),
    "full": Config(),
}


def origin_of_data(config):
    """The problems are made from seeds; their digest stands for the data's."""
    digest = hashlib.sha256()
    for seed in config.seeds:
        for array in problem(config, seed):
            digest.update(array.float().numpy().round(4).tobytes())
    return data.Dataset("standard normal", None, None, 0.0, 1.0, "", digest.hexdigest(), "made from seeds")


def problem(config, seed):
    """Inputs (rows, widths[0]) and labels (rows, widths[-1])."""
    generator = chain.seeded(seed)
    X, Y = (chain.normal(config.rows, width, generator=generator) for width in (config.widths[0], config.widths[-1]))
    return data.shake(X), Y


def jobs(config, device):
    """One start, one rate and one seed each."""
    return [{"start": start, "rate": rate, "seed": seed, "size": config.steps}
            for start, _ in config.stds for rate in config.rates for seed in config.seeds]


def run_job(config, job, device, checkpoint=None, report=None):
    """``at`` (points,): the steps looked at; ``squares`` (points, layers): the squared norms; ``loss`` (points,)."""
    X, Y = (array.to(device) for array in problem(config, job["seed"]))
    stds, generator = dict(config.stds)[job["start"]], chain.seeded(job["seed"] + 1000)
    layers = [nn.Linear(a, b, bias=False, dtype=torch.float64, device=device) for a, b in zip(config.widths, config.widths[1:])]
    with torch.no_grad():
        for layer, std in zip(layers, stds):
            layer.weight.copy_(std * chain.normal(*layer.weight.shape, generator=generator))
    net = nn.Sequential(*[part for layer in layers for part in (layer, nn.ReLU())][:-1])
    at, rows = descent.logarithmic(config.steps, config.points), []
    for step in range(config.steps + 1):
        loss = (net(X) - Y).square().sum() / (2 * len(X))
        if step in at:
            rows.append((torch.stack([layer.weight.detach().square().sum() for layer in layers]), loss.detach()))
            if report:
                report(step / config.steps)
        gradients = torch.autograd.grad(loss, list(net.parameters()))
        with torch.no_grad():
            for W, G in zip(net.parameters(), gradients):
                W.sub_(job["rate"] * G)
    squares, losses = map(torch.stack, zip(*rows))
    return {"at": torch.tensor(at).numpy(), "squares": squares.cpu().numpy(), "loss": losses.cpu().numpy()}


def collect(config, jobs, results):
    """Arrays for each run, named like ``"balanced 0.02"``: ``<name>`` (points, layers, seeds), the squared norms;
    ``at`` (points,), the steps. Summary: at the end the squares, the differences and the ratios of neighbours, the
    differences at the start, the loss; medians over seeds."""
    arrays, metrics, summary = {"at": torch.as_tensor(results[0]["at"])}, [], {}
    for start, _ in config.stds:
        for rate in config.rates:
            mine = [(job["seed"], result) for job, result in zip(jobs, results) if (job["start"], job["rate"]) == (start, rate)]
            squares = torch.stack([torch.as_tensor(result["squares"]) for _, result in mine], -1)
            middle = squares.median(-1).values
            loss = [float(result["loss"][-1]) for _, result in mine]
            name = f"{start} {rate:g}"
            arrays[name] = squares
            summary[name] = {"squares": middle[-1].tolist(), "differences": (-middle[-1].diff()).tolist(),
                             "differences_at_start": (-middle[0].diff()).tolist(),
                             "ratios": (middle[-1, :-1] / middle[-1, 1:]).tolist(), "loss": sorted(loss)[len(loss) // 2]}
            metrics += [{"start": start, "rate": rate, "seed": seed, "loss": end} for (seed, _), end in zip(mine, loss)]
    return metrics, summary, arrays


def pairs(config, job, result, record):
    """The squares of one run, recorded and in ``result``, and the steps looked at."""
    name = f"{job['start']} {job['rate']:g}"
    return {"at": (record.arrays["at"], result["at"]),
            name: (record.arrays[name][..., config.seeds.index(job["seed"])], result["squares"])}
