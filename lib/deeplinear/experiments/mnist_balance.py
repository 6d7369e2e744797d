"""The balance of every channel and unit of the MNIST ConvNet over training, by SGD and with momentum.

The tutorial's net, dropout included, without penalty and decay of the rate: what gradient flow would keep exactly. All
runs last equally long in time, rate times steps, so that what finite steps change can be compared.
"""

import dataclasses

import torch
from torch.nn import functional as F

from .. import chain, convnet, data, descent, networks
from .mnist_convnet import NETS, VALIDATION

NAME = "mnist-balance"
SUMMARY = "balance of every channel of the MNIST ConvNet over training, by SGD and with momentum (paper B, Theorem 2.3)"


@dataclasses.dataclass(frozen=True)
class Config:
    """``rates``: effective ones, lr / (1 - momentum). ``time``: rate times steps of every run."""

    dataset: str = "mnist"
    net: str = "tutorial"
    rates: tuple = (0.1, 0.05, 0.025)
    momenta: tuple = (0.0, 0.9)
    time: float = 429.6
    points: int = 30
    seeds: tuple = (0,)
    batch: int = 64
    window: int = 100
    dtype: str = "float32"


SCALES = {
    "quick": Config(dataset="mnist-5k", net="small", rates=(0.1, 0.05), time=6.0),
    "full": Config(),
}


def steps_of(config, rate):
    return round(config.time / rate)


def jobs(config, device):
    """One rate, one momentum and one seed each."""
    return [{"rate": rate, "momentum": momentum, "seed": seed, "size": steps_of(config, rate) * config.batch}
            for rate in config.rates for momentum in config.momenta for seed in config.seeds]


def run_job(config, job, device, checkpoint=None, report=None):
    """``at`` (points,): the steps looked at; ``start``: the laws' values at the start, a layer's units behind the other's
    (units,); ``drift`` (points, units): their changes since; ``defect`` (points, units): how far they are from
    the sum of lr^2 (squares of the gradients that leave, less those that enter), which is plain SGD's; ``moved``
    (points, units): the change of the squares that enter alone; ``data`` (steps,): the loss of every batch."""
    dataset = data.load(config.dataset)
    first = VALIDATION if config.dataset == "mnist" else 0
    X, y = dataset.X[first:].to(device), dataset.y[first:].to(device)
    net = convnet.build("original", chain.seeded(job["seed"]), **NETS[config.net]).to(device)
    laws = networks.laws(net, X[:2])
    steps, lr = steps_of(config, job["rate"]), job["rate"] * (1 - job["momentum"])
    optimiser = torch.optim.SGD(net.parameters(), lr=lr, momentum=job["momentum"])
    at = descent.logarithmic(steps, config.points)
    start, entering = _values(laws), _entering(laws)
    total = torch.zeros_like(start)
    rows = [(total, total, total)]
    losses = torch.full((steps,), torch.nan, dtype=torch.float64)
    batches = convnet.batches(len(X), config.batch, "shuffled", job["seed"], X.device)
    net.train()
    with chain.forked(job["seed"], X.device):
        for step in range(steps):
            batch = next(batches)
            loss = F.cross_entropy(net(X[batch]), y[batch])
            optimiser.zero_grad()
            loss.backward()
            total = total + lr**2 * torch.cat([law.change().double() for law in laws])
            optimiser.step()
            losses[step] = loss.detach()
            if step + 1 in at:
                rows.append((_values(laws) - start, total, _entering(laws) - entering))
            if report and step % 20 == 19:
                report((step + 1) / steps)
    drift, identity, moved = (torch.stack(column).cpu() for column in zip(*rows))
    return {"at": torch.tensor(at).numpy(), "start": start.cpu().numpy(), "drift": drift.float().numpy(),
            "defect": (drift - identity).float().numpy(), "moved": moved.float().numpy(), "data": losses.float().numpy()}


def collect(config, jobs, results):
    """Arrays for each run, named like ``"SGD 0.1"`` or ``"momentum 0.1"``: ``<name> at`` (points,), ``<name> drift`` and
    ``<name> moved`` (points, units); ``start`` (units,), the same for all. Summary: for every run, layer by layer, the
    largest change of a law (``drift``) and of the squares that enter a unit (``moved``), how much the drift differs
    from SGD's identity (``defect``), and the mean loss of the last ``window`` batches."""
    net = convnet.build("original", chain.seeded(0), **NETS[config.net])
    units = [law.count for law in networks.laws(net, torch.zeros(2, net.side**2))]
    arrays, metrics, summary = {"start": torch.as_tensor(results[0]["start"])}, [], {"units": units}
    for job, result in zip(jobs, results):
        name = f"{'momentum' if job['momentum'] else 'SGD'} {job['rate']:g}"
        drift, defect, moved = (torch.as_tensor(result[key]) for key in ("drift", "defect", "moved"))
        arrays |= {f"{name} at": torch.as_tensor(result["at"]), f"{name} drift": drift, f"{name} moved": moved}
        loss = torch.as_tensor(result["data"])[-config.window:].double().mean().item()
        largest = lambda values: [part.abs().max().item() for part in values[-1].split(units)]
        summary[name] = {"drift": largest(drift), "moved": largest(moved), "defect": largest(defect), "loss": loss}
        metrics.append({"rate": job["rate"], "momentum": job["momentum"], "seed": job["seed"], "loss": loss,
                        "drift": drift[-1].abs().max().item()})
    return metrics, summary, arrays


def pairs(config, job, result, record):
    """Of one run what the record holds of its start and its first ten steps: the changes of the laws, and of the squares
    that enter. Later, changes of a float32 run of minibatches hang on rounding, as a shake shows, and tell nothing."""
    name, early = f"{'momentum' if job['momentum'] else 'SGD'} {job['rate']:g}", torch.as_tensor(result["at"]) <= 10
    found = {f"{name} {key}": (record.arrays[f"{name} {key}"][early], torch.as_tensor(result[key])[early])
             for key in ("drift", "moved")}
    return found | {"start": (record.arrays["start"][None], torch.as_tensor(result["start"])[None])}


def _values(laws):
    return torch.cat([law.value().double() for law in laws])


def _entering(laws):
    """The squares that enter each unit, biases included."""
    found = []
    for law in laws:
        parameters = dict(law.net.named_parameters())
        found.append(sum(term.rows(parameters[term.name].detach()).double().square().sum(-1)
                         for term in law.terms if term.coefficient < 0))
    return torch.cat(found)
