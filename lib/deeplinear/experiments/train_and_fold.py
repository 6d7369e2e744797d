"""Train with every weight a product, fold afterwards: what do five small networks gain from it?

The architectures are those of the page *Use it on your own network*, on digits: LeNet, a residual block and a vision
transformer name them, a language model predicts the next grey level of 49, a U-Net takes noise away. Plain and deepened
networks start as the same function and see the same batches, each at the best rate of its own grid. Batch normalisation is
judged by the statistics of all rows learnt from: its running ones lag behind the weights after so few steps.
"""

import dataclasses
import math

import torch
from torch import nn
from torch.nn import functional as F

from .. import chain, data, deepening, descent, folding, tuning

NAME = "train-and-fold"
SUMMARY = "five networks trained plain and with every weight a product of two, then folded, each at its own tuned rate"


@dataclasses.dataclass(frozen=True)
class Config:
    """``optimisers``: with the middle of the grid, which goes by factors of 2 and is widened, at most ``widenings``
    times, until ``margin`` rates stand on each side of its best, which has the least median over the seeds ``tuned``.
    ``seeds``: those that are compared."""

    dataset: str = "mnist-5k"
    nets: tuple = ("LeNet", "residual", "ViT", "GPT", "U-Net")
    optimisers: tuple = (("momentum", 0.02), ("Adam", 0.004))
    kinds: tuple = ("plain", "balanced")
    widenings: int = 8
    margin: int = 2
    steps: int = 100
    points: int = 40
    rows: tuple = (1000, 500)
    batch: int = 32
    tuned: tuple = (101, 102, 103, 104, 105)
    seeds: tuple = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10)
    dtype: str = "float64"


SCALES = {
    "quick": Config(optimisers=(("Adam", 0.004),), widenings=3, margin=1, steps=20, points=4, rows=(128, 64), batch=16,
                    tuned=(0,), seeds=(1, 2, 3)),
    "full": Config(),
}


class LeNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.c1, self.c2 = nn.Conv2d(1, 6, 5, padding=2), nn.Conv2d(6, 16, 5)
        self.f1, self.f2, self.f3 = nn.Linear(400, 120), nn.Linear(120, 84), nn.Linear(84, 10)

    def forward(self, x):
        for conv in (self.c1, self.c2):
            x = F.max_pool2d(F.relu(conv(x)), 2)
        return self.f3(F.relu(self.f2(F.relu(self.f1(x.view(x.size(0), -1))))))


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.head = nn.Conv2d(1, 4, 3, padding=1), nn.Linear(4, 10)
        self.a, self.b = nn.Conv2d(4, 6, 3, padding=1), nn.Conv2d(6, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)

    def forward(self, x):
        x = self.stem(F.avg_pool2d(x, 2))
        x = x + self.b(F.relu(self.norm(self.a(x))))
        return self.head(x.mean((2, 3)))


class ViT(nn.Module):
    def __init__(self, width=8):
        super().__init__()
        self.patch, self.place = nn.Conv2d(1, width, 7, 7), nn.Parameter(torch.zeros(16, width))
        self.n1, self.n2, self.n3 = (nn.LayerNorm(width) for _ in range(3))
        self.attend = nn.MultiheadAttention(width, 2, batch_first=True)
        self.up, self.down, self.head = nn.Linear(width, 12), nn.Linear(12, width), nn.Linear(width, 10)

    def forward(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2) + self.place
        y = self.n1(x)
        x = x + self.attend(y, y, y, need_weights=False)[0]
        x = x + self.down(F.gelu(self.up(self.n2(x))))
        return self.head(self.n3(x).mean(1))


class GPT(nn.Module):
    def __init__(self, width=16, heads=4, groups=2, hidden=12, words=5):
        super().__init__()
        linear = lambda n, m: nn.Linear(n, m, bias=False)
        self.size, self.table = width // heads, nn.Embedding(words, width)
        self.n1, self.n2, self.n3 = (nn.RMSNorm(width, eps=1e-6) for _ in range(3))
        self.q, self.o, self.head = linear(width, width), linear(width, width), linear(width, words)
        self.k, self.v = (linear(width, groups * self.size) for _ in range(2))
        self.gate, self.up, self.down = linear(width, hidden), linear(width, hidden), linear(hidden, width)

    def forward(self, words):
        x = self.table(words)
        y = self.n1(x)
        q, k, v = (part(y).unflatten(-1, (-1, self.size)).transpose(1, 2) for part in (self.q, self.k, self.v))
        y = F.scaled_dot_product_attention(_rotate(q), _rotate(k), v, is_causal=True, enable_gqa=True)
        x = x + self.o(y.transpose(1, 2).flatten(2))
        y = self.n2(x)
        x = x + self.down(F.silu(self.gate(y)) * self.up(y))
        return self.head(self.n3(x)).mT  # cross entropy wants the classes second


class UNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.below = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 6, 3, padding=1)
        self.back, self.joint = nn.ConvTranspose2d(6, 5, 2, stride=2), nn.Conv2d(9, 6, 3, padding=1)
        self.last = nn.Conv2d(6, 1, 1)

    def forward(self, x):
        skip = F.relu(self.first(x))
        x = self.back(F.relu(self.below(F.max_pool2d(skip, 2))))
        return self.last(F.silu(self.joint(torch.cat([skip, x], 1))))


def _rotate(x):
    """Rotary positions, one frequency for each pair of channels of a head."""
    half = x.shape[-1] // 2
    angle = torch.arange(x.shape[-2], device=x.device)[:, None] * 10.0 ** -torch.arange(half, device=x.device)
    cos, sin = (torch.cat([part, part], -1).to(x) for part in (angle.cos(), angle.sin()))
    return x * cos + torch.cat([-x[..., half:], x[..., :half]], -1) * sin


NETS = {"LeNet": LeNet, "residual": Residual, "ViT": ViT, "GPT": GPT, "U-Net": UNet}


def started(name, kind, seed):
    """A network of this name, plain or deepened, from the start that all kinds share: weights uniform as PyTorch's, biases 0."""
    with chain.forked(0):  # replaced below
        net = NETS[name]().double()
    generator = chain.seeded(seed)
    with torch.no_grad():
        for label, W in net.named_parameters():
            if W.ndim > 1:
                reach = W[0].numel() ** -0.5
                W.copy_(chain.uniform(-reach, reach, *W.shape, generator=generator))
            elif label.endswith("bias"):
                W.zero_()
    return net if kind == "plain" else deepening.deepen(net, factors=2, start=kind)


def problem(config, name):
    """Inputs and targets of all rows, those to learn from first, and the loss."""
    digits, count = data.load(config.dataset), sum(config.rows)
    order = torch.arange(len(digits.X)).reshape(10, -1).T.flatten()[:count]  # the digits lie in order of their labels
    x, labels = digits.X[order].double().reshape(-1, 1, 28, 28) + 0.5, digits.y[order].long()
    if name == "GPT":
        words = (4 * F.avg_pool2d(x, 4)).long().clamp(0, 3).flatten(1)
        return torch.cat([torch.full((count, 1), 4), words[:, :-1]], 1), words, F.cross_entropy
    if name == "U-Net":
        clean = F.avg_pool2d(x, 2)
        return clean + 0.5 * chain.normal(*clean.shape, generator=chain.seeded(99)), clean, F.mse_loss
    return x, labels, F.cross_entropy


def jobs(config, device):
    """One network, optimiser and kind each; the size is that of the grid before it is widened and of the runs compared."""
    runs = 3 * len(config.tuned) + len(config.seeds)
    return [{"net": net, "optimiser": optimiser, "rate": rate, "kind": kind, "size": runs * config.steps}
            for net in config.nets for optimiser, rate in config.optimisers for kind in config.kinds]


def run_job(config, job, device, checkpoint=None, report=None):
    """``rates`` (rates,); ``grid`` (rates, tuned seeds): the loss on the rows learnt from, after the last step; ``at``
    (points,); at the best rate ``curve`` (points, seeds): the loss of the batches; ``ends`` (seeds, 2): on the rows
    learnt from and on the others; ``fold`` (seeds,): how far outputs of the folded network are from those of the
    trained, over the largest output; ``parameters`` (2,): trained, and after folding."""
    done = [0]
    parts = [part.to(device) if isinstance(part, torch.Tensor) else part for part in problem(config, job["net"])]

    def trained(rate, seed):
        found = _run(config, job, rate, seed, parts)
        done[0] += config.steps
        if report:
            report(min(done[0] / job["size"], 0.99))
        return found

    grid = {power: [trained(job["rate"] * 2.0**power, seed)["ends"][0] for seed in config.tuned] for power in (-1, 0, 1)}
    for _ in range(config.widenings):
        best = _best(grid)
        power = max(grid) + 1 if max(grid) - best < config.margin else min(grid) - 1
        if min(grid) + config.margin <= best <= max(grid) - config.margin:
            break
        grid[power] = [trained(job["rate"] * 2.0**power, seed)["ends"][0] for seed in config.tuned]
    runs = [trained(job["rate"] * 2.0**_best(grid), seed) for seed in config.seeds]
    powers = sorted(grid)
    tensor = lambda values: torch.tensor(values, dtype=torch.float64).numpy()
    return {"rates": tensor([job["rate"] * 2.0**power for power in powers]), "grid": tensor([grid[power] for power in powers]),
            "at": torch.tensor(descent.logarithmic(config.steps - 1, config.points)).numpy(),
            "curve": tensor([run["curve"] for run in runs]).T, "ends": tensor([run["ends"] for run in runs]),
            "fold": tensor([run["fold"] for run in runs]), "parameters": tensor(runs[0]["parameters"])}


def _best(grid):
    powers = sorted(grid)
    return powers[tuning.choose(tuning.median([grid[power] for power in powers])).index or 0]


def _run(config, job, rate, seed, parts):
    """One run: the losses of the batches at the recorded steps, the losses at the end, and what folding changes."""
    X, Y, loss_of = parts
    net, learnt = started(job["net"], job["kind"], seed).to(X.device), config.rows[0]
    optimiser = (torch.optim.SGD(net.parameters(), lr=rate, momentum=0.9) if job["optimiser"] == "momentum"
                 else torch.optim.Adam(net.parameters(), lr=rate))
    generator, curve = chain.seeded(1000 + seed), []
    at = set(descent.logarithmic(config.steps - 1, config.points))
    for step in range(config.steps):
        batch = torch.from_numpy(chain.integers(0, learnt - 1, config.batch, generator=generator)).to(X.device)
        loss = loss_of(net(X[batch]), Y[batch])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if step in at:
            curve.append(loss.item())
    with torch.no_grad():
        outputs, folded = settled(net, X[:learnt])(X), folding.fold(net)
        gap = (folded(X) - outputs).abs().max() / outputs.abs().max()
        ends = [loss_of(outputs[part], Y[part]).item() for part in (slice(learnt), slice(learnt, None))]
    return {"curve": curve, "ends": ends, "fold": gap.item(),
            "parameters": [sum(W.numel() for W in each.parameters()) for each in (net, folded)]}


def settled(net, rows):
    """The network in evaluation, its batch normalisation by the statistics of these rows in the place of running ones."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None  # the mean of all batches, of which there is one
    net.train()(rows)
    return net.eval()


def label(job):
    """The name of a job in the record: ``LeNet Adam balanced``."""
    return f"{job['net']} {job['optimiser']} {job['kind']}"


def collect(config, jobs, results):
    """For every job, named as by :func:`label`, the arrays ``<name> rates``, ``grid``, ``curve``, ``ends``; and ``at``.
    Summary: for every job its ``rate``, whether it lies inside the grid, ``fold`` (the largest of the starts that
    lived), ``parameters``, the median ends ``learnt`` and ``others``, and for a deepened network ``ratios``, its losses
    over the plain one's, paired, on the rows learnt from and on the others: mean and 95 % interval."""
    arrays, metrics, summary = {"at": torch.as_tensor(results[0]["at"])}, [], {}
    ends = {label(job): torch.as_tensor(result["ends"]) for job, result in zip(jobs, results)}
    for job, result in zip(jobs, results):
        name, rates, grid = label(job), torch.as_tensor(result["rates"]), torch.as_tensor(result["grid"])
        arrays |= {f"{name} {key}": torch.as_tensor(result[key]) for key in ("rates", "grid", "curve", "ends")}
        best = tuning.choose(tuning.median(grid))
        middle = [_or_none(value) for value in tuning.median(ends[name].T).tolist()]
        lived = [gap for gap in result["fold"].tolist() if math.isfinite(gap)]
        found = {"rate": None if best.index is None else rates[best.index].item(), "interior": best.interior,
                 "fold": _or_none(max(lived, default=math.nan)),
                 "parameters": [int(count) for count in result["parameters"]],
                 "learnt": middle[0], "others": middle[1]}
        plain = ends.get(label({**job, "kind": "plain"}))
        if job["kind"] != "plain" and plain is not None:
            pairs = [tuning.compare(ends[name][:, k], plain[:, k]) for k in range(2)]
            found["ratios"] = [[_or_none(value) for value in (pair.mean, pair.low, pair.high)] for pair in pairs]
        summary[name] = found
        metrics += [{"run": name, "seed": seed, "learnt": _or_none(each[0]), "others": _or_none(each[1])}
                    for seed, each in zip(config.seeds, ends[name].tolist())]
    return metrics, summary, arrays


def _or_none(value):
    """The number, or None where a run was lost."""
    return value if math.isfinite(value) else None
