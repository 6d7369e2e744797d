"""All groups of one loss, trained together: who moves, who has diverged, what a checkpoint holds."""

import itertools

import torch

from ..products import Plain, eigenbasis, products
from .network import Network
from .records import Records
from .replay import Replay

EXPLODED = 1e6  # a loss this many times its first value is a divergence, unless that value is near 0


class Batch:
    """All groups of one loss: their end-to-end matrices, stacked, meet the data together.

    ``alive``: which of the ``count`` configurations have not diverged; ``lived``: how many losses each has survived.
    Everything a step touches stays in place, so that steps can be captured in a CUDA graph.
    """

    def __init__(self, groups, rows, keep_weights, rotate=False):
        self.groups, self.rows = groups, rows
        self.loss = groups[0].loss
        self.basis = eigenbasis(self.loss) if rotate else None
        self.networks = [Network(group, self.basis) for group in groups]
        self.total = sum(network.total for network in self.networks)
        W = self._stacked()
        self.records = Records(self.total, W, keep_weights)
        self.diverged = torch.full((self.total,), -1, device=W.device)
        self._resize(W)
        self.limit = torch.empty_like(self.value)
        self.alive = torch.ones(self.total, dtype=torch.bool, device=W.device)
        self.lived = torch.zeros(self.total, dtype=torch.long, device=W.device)

    def begin(self):
        self._evaluate()
        largest = torch.finfo(self.value.dtype).max  # so that an infinite loss is never within the limit
        self.limit = EXPLODED * self.value
        at_zero = self._loss_at_zero()
        self.limit = torch.where(self.limit < at_zero, EXPLODED * at_zero, self.limit)
        self.limit = torch.where(self.value > 0, self.limit, torch.inf).clamp(max=largest)
        self._judge()

    def _loss_at_zero(self):
        """What the loss of a start near 0 is measured by: a start that fits the data has no scale of its own."""
        try:
            return self.loss.value(torch.zeros_like(self._stacked()[:1])).reshape(())
        except (ArithmeticError, RuntimeError, ValueError):  # a foreign loss need not be defined there
            return self.value.new_zeros(())

    def advance(self, steps):
        """That many times: move, then evaluate where the move has led."""
        if self.count:
            self.replay(self._step, steps)

    def record(self, step):
        losses = self.value.new_full((self.total,), torch.nan)
        if self.count:
            exact = self.products.exact(self._stacked(), self.value)
            losses[self._kept()] = torch.where(self.alive, exact, torch.nan)
        self.records.add(step, losses, self.networks)

    def drop_diverged(self):
        """Note who has diverged; go on without them once they are an eighth of the batch."""
        alive = int(self.alive.sum())
        if not alive:
            self.count = 0
        if self.records.keep_weights or 8 * alive > 7 * self.count:
            return
        self._note_diverged()
        for network, part in zip(self.networks, self.alive.split([n.count for n in self.networks])):
            network.keep(part)
        self.limit, self.lived = self.limit[self.alive], self.lived[self.alive]
        self.alive = self.alive[self.alive]
        self._restart()

    def results(self):
        """Each group with its trajectory."""
        self._note_diverged()
        return zip(self.groups, self.records.trajectories(self.networks, self.diverged), strict=True)

    def snapshot(self, prefix):
        """Everything that :meth:`restore` needs, as named arrays."""
        self._note_diverged()
        named = {"alive": self.alive, "lived": self.lived, "limit": self.limit, "diverged": self.diverged,
                 "steps": torch.tensor(self.records.steps, dtype=torch.long), "losses": self.records.stacked()}
        for i, network in enumerate(self.networks):
            named[f"{i}.kept"] = network.kept
            named |= {f"{i}.parameter{j}": P for j, P in enumerate(network.parameters)}
            named |= {f"{i}.state{j}": S for j, S in enumerate(network.state)}
        return {prefix + name: tensor.cpu().numpy() for name, tensor in named.items()}

    def restore(self, saved, prefix):
        def get(name):
            return torch.from_numpy(saved[prefix + name]).to(self.value.device, copy=True)  # aligned as torch does it

        for i, network in enumerate(self.networks):
            alive = torch.zeros(network.total, dtype=torch.bool, device=self.value.device)
            alive[get(f"{i}.kept")] = True
            network.keep(alive)
            network.parameters = [get(f"{i}.parameter{j}") for j in range(len(network.parameters))]
            network.state = [get(f"{i}.state{j}") for j in range(len(network.state))]
            network.restart()
        self.alive, self.lived, self.limit, self.diverged = map(get, ("alive", "lived", "limit", "diverged"))
        self.records.steps, self.records.losses = saved[prefix + "steps"].tolist(), list(get("losses"))
        self._restart()

    def _stacked(self):
        parts = [network.W for network in self.networks if network.count]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _kept(self):
        starts = itertools.accumulate([0] + [network.total for network in self.networks])
        return torch.cat([start + network.kept for start, network in zip(starts, self.networks)])

    def _restart(self):
        """Go on with the networks as they now are."""
        if self.alive.numel():
            self._resize(self._stacked())
            self._evaluate()
        else:
            self.count = 0

    def _resize(self, W):
        self.count = len(W)
        self.G, self.value = torch.empty_like(W), W.new_empty(self.count)
        self.gradients = self.G.split([network.count for network in self.networks])
        self.products = products(self.loss, self.count, self.rows, self.basis)
        # A graph asks nothing of the host: no foreign losses, no singular values.
        decomposes = any(network.rule != "layers" and min(network.W.shape[-2:]) > 1 for network in self.networks)
        self.replay = Replay(W.device, not isinstance(self.products, Plain) and not decomposes)

    def _evaluate(self):
        self.products(self._stacked(), self.value, self.G)

    def _judge(self):
        self.alive &= self.value <= self.limit
        self.lived += self.alive

    def _step(self):
        for network, G in zip(self.networks, self.gradients):
            network.move(G)
        self._evaluate()
        self._judge()

    def _note_diverged(self):
        kept = self._kept()
        self.diverged[kept] = torch.where(self.alive, self.diverged[kept], self.lived)
