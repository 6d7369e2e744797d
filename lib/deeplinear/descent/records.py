"""What a batch has told on its way, and the trajectories made of it."""

import bisect
import dataclasses

import torch

from .. import chain


@dataclasses.dataclass(frozen=True)
class State:
    """Where the optimiser of a trajectory stood at its end: the names of its class and of the rule, the depth of the
    network, and its ``tensors``, batched like the weights."""

    optimizer: str
    rule: str
    depth: int
    tensors: list[torch.Tensor]


@dataclasses.dataclass(frozen=True)
class Trajectory:
    """A training run, or a batch of them.

    ``steps``: the recorded steps, shape (T,). ``loss``: the loss there, shape (T, ...), NaN from a divergence on.
    ``weights``: the final layers (one matrix under the end-to-end rule), NaN for a diverged run. ``diverged_at``: the
    step at which a run was stopped because its loss was not finite or had grown a million times, -1 where it was not,
    shape (...). ``history``: with ``keep_weights``, a list with one array ``(T, ..., n_{j+1}, n_j)`` a layer. ``state``:
    what another run needs besides the weights to go on from the end.
    """

    steps: torch.Tensor
    loss: torch.Tensor
    weights: list[torch.Tensor]
    diverged_at: torch.Tensor
    history: list[torch.Tensor] | None = None
    state: State | None = None

    def steps_to(self, level: float) -> torch.Tensor:
        """The first recorded step at which the loss is at most ``level``, shape (...); infinity where it never is."""
        reached = self.loss <= level
        first = self.steps.to(self.loss.device).double()[reached.to(torch.uint8).argmax(0)]
        return torch.where(reached.any(0), first, torch.inf)

    def padded_loss(self, records: int) -> torch.Tensor:
        """The loss with NaN for the records after the last run had gone, (records, ...), on the CPU."""
        full = self.loss.new_full((records, *self.loss.shape[1:]), torch.nan, device="cpu")
        full[:len(self.loss)] = self.loss.cpu()
        return full

    @property
    def end_to_end(self) -> torch.Tensor:
        """The end-to-end matrix at each recorded step, ``(T, ..., k, d)``; needs ``keep_weights=True``."""
        if self.history is None:
            raise ValueError("history is None; expected a run trained with keep_weights=True")
        return chain.end_to_end(self.history)


class Records:
    """The ``losses`` of all configurations of a batch at the recorded ``steps``, and their layers where they are kept.

    ``like``: a tensor of the losses' kind. A configuration that has gone has the loss NaN.
    """

    def __init__(self, total, like, keep_weights):
        self.empty, self.keep_weights = like.new_empty(0, total), keep_weights
        self.steps, self.losses, self.history = [], [], []

    def add(self, step, losses, networks):
        self.steps.append(step)
        self.losses.append(losses)
        if self.keep_weights:
            self.history.append([network.weights() for network in networks])

    def stacked(self):
        """The losses, (records, configurations)."""
        return torch.stack(self.losses) if self.losses else self.empty

    def trajectories(self, networks, diverged):
        """One for each network; ``diverged``: the step at which each configuration has, or -1."""
        sizes = [network.total for network in networks]
        parts = zip(networks, self.stacked().split(sizes, 1), diverged.split(sizes), strict=True)
        return [self._trajectory(*part, index) for index, part in enumerate(parts)]

    def _trajectory(self, network, loss, diverged, index):
        end, shape = len(self.steps), network.shape
        if (diverged >= 0).all():  # nothing to tell after the last one has gone
            end = min(end, bisect.bisect_left(self.steps, int(diverged.max())) + 1)

        def full(P):  # those that have gone among the others
            whole = P.new_full((network.total, *P.shape[1:]), torch.nan)
            whole[network.kept] = P
            whole[diverged >= 0] = torch.nan
            return whole.reshape(shape + P.shape[1:])

        state = State(type(network.optimizer).__name__, network.rule, network.depth,
                      [full(S) for S in network.optimizer_state()])
        history = None
        if self.keep_weights:
            history = [torch.stack(layer).reshape(-1, *shape, *layer[0].shape[1:])
                       for layer in zip(*(row[index] for row in self.history[:end]))]
        steps = torch.tensor(self.steps[:end], dtype=torch.long)
        return Trajectory(steps, loss[:end].reshape(-1, *shape), [full(P) for P in network.weights()],
                          diverged.reshape(shape), history, state)
