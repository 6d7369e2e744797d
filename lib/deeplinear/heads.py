"""What training does to the laws of attention: two weights, a small GPT under several optimisers, the heads of pretrained
models as recorded. The laws are those of :mod:`deeplinear.attention` and :func:`deeplinear.networks.laws`.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch

from . import attention, chain, networks, transformer
from .networks import Law
from .recorded import Record

READ = 400  # random directions, more than any case here has numbers


def follow(net: torch.nn.Module, laws: Mapping[str, Law], optimizer: transformer.Optimizer, tokens: torch.Tensor, steps: int,
           generator: torch.Generator, shrink: float = 0.0, parts: int = 10) -> tuple[float, dict[str, torch.Tensor]]:
    """Train ``net`` on batches of 8 and follow the laws of a copy: the mean loss of the last of ``parts`` equal parts, and for
    each law, (parts,), how far it is from its value at the start, in units of that value's norm.

    ``shrink``: the share of every parameter that decay takes at a step, lr times weight decay; the law is compared with its
    value at the start times (1 - shrink)^(2 steps), what decay on all parameters makes of it.
    """
    parameters = dict(net.named_parameters())
    start = {name: law.value(parameters) for name, law in laws.items()}
    moved: dict[str, list[float]] = {name: [] for name in laws}
    for part in range(1, parts + 1):
        losses = transformer.train(net, optimizer, tokens, steps // parts, generator, batch=8)
        left = (1 - shrink)**(2 * part * (steps // parts))
        for name, law in laws.items():
            moved[name].append(((law.value(parameters) - left * start[name]).norm() / start[name].norm()).item())
    return losses.mean().item(), {name: torch.tensor(values, dtype=torch.float64) for name, values in moved.items()}


def two_weights(optimizer: Callable[..., torch.optim.Optimizer], lr: float = 0.005, steps: int = 400) -> torch.Tensor:
    """The path, (2, steps), of a query weight and a key weight from (2, 0.1) towards the score 1, loss (ab - 1)^2 / 2."""
    w = torch.tensor([2.0, 0.1], dtype=torch.float64, requires_grad=True)
    moving, path = optimizer([w], lr=lr), []
    for _ in range(steps):
        path.append(w.detach().clone())
        moving.zero_grad()
        ((w.prod() - 1).square() / 2).backward()
        moving.step()
    return torch.stack(path, 1)


def on_matrices(parameters: Iterable[torch.nn.Parameter], lr: float, weight_decay: float = 0.01) -> torch.optim.SGD:
    """Gradient descent whose weight decay acts on matrices alone, not on biases and gains, as is often done."""
    every = list(parameters)
    groups: list[dict[str, Any]] = [{"params": [p for p in every if p.ndim == 2], "weight_decay": weight_decay},
                                    {"params": [p for p in every if p.ndim != 2]}]
    return torch.optim.SGD(groups, lr=lr)


class Network(torch.nn.Module):
    """The network of a case of :func:`deeplinear.attention.cases`, as a module with all parameters of that module."""

    def __init__(self, case: attention.Case) -> None:
        super().__init__()
        self.computes = case.net
        for name, value in attention.parameters().items():
            self.register_parameter(name, torch.nn.Parameter(value))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """What the case computes of its inputs ``x``."""
        return self.computes(dict(self.named_parameters()), x)


def read(case: attention.Case, seed: int = 0) -> tuple[int, int]:
    """How many independent numbers the law of a case has, and how many of them :func:`deeplinear.networks.laws` reads.

    Both are ranks of derivatives in random directions at one point, exact as central differences: all laws are quadratic."""
    net, generator = Network(case), chain.seeded(seed)
    laws = networks.laws(net, chain.normal(2, attention.TIME, attention.WIDTH, generator=generator))
    p = attention.parameters(seed)
    columns = []
    for _ in range(READ):
        d = {name: chain.normal(*value.shape, generator=generator) for name, value in p.items()}
        ahead, back = ({name: p[name] + sign * d[name] for name in p} for sign in (1, -1))
        parts = [[case.kept(q).flatten()] + [law.value(q).flatten() for law in laws] for q in (ahead, back)]
        columns.append(torch.cat(parts[0]) - torch.cat(parts[1]))
    moved = torch.stack(columns, 1)
    size = case.kept(p).numel()
    kept, both, known = (int(torch.linalg.matrix_rank(part, rtol=1e-9)) if part.numel() else 0
                         for part in (moved[:size], moved, moved[size:]))
    return kept, kept - (both - known)


def alignment(record: Record, names: Mapping[str, str]) -> list[list]:
    """The rows of the table of chapter 16 from the record ``pretrained``: for each of ``names``, of a model in the record to
    the one to print, and each law: name, law, number of heads, median cosine, heads above all their rotations, the least
    cosine that gradient flow would leave, and the law's norm over that at the start, the median, the least and the most."""
    rows = []
    for key, name in names.items():
        cosines, rotated, predicted, grown = (record.arrays[f"{key} {part}"] for part in
                                              ("cosines", "rotated", "predicted", "grown"))
        for i, law in ((0, "q, k"), (2, "biases"), (1, "o, v")):
            above = int((cosines[i] > rotated[i, 0]).sum())
            rows.append([name, law, len(cosines[i]), cosines[i].median().item(), above, predicted[i, 0].min().item(),
                         *(part.item() for part in (grown[i].median(), grown[i].min(), grown[i].max()))])
    return rows
