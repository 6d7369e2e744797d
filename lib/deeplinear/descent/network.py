"""A group of configurations in motion: the layers that a step changes."""

import dataclasses

import torch

from .. import chain, data, preconditioner
from .records import Trajectory

CACHE = 2**22  # bytes of layers that are worked on at a time


class Network:
    """A group in motion: its parameters and the state of its optimiser, with one leading axis of configurations.

    A step is taken in parts whose layers fit into a processor's cache, each from its gradients to its new end-to-end
    matrix; the parts are views. ``kept``: which configurations of the group are still in motion. ``basis``: the
    features' coordinates in which it moves, or None for those of the data.
    """

    def __init__(self, group, basis):
        if group.rule not in ("layers", "end-to-end"):
            raise ValueError(f"rule is {group.rule!r}; expected 'layers' or 'end-to-end'")
        if not (dataclasses.is_dataclass(group.optimizer) and hasattr(group.optimizer, "lr")) or \
                isinstance(group.optimizer, type):
            raise ValueError(f"optimizer is {group.optimizer!r}; expected an optimiser with its rate, such as dl.GD(0.1)")
        resumed = isinstance(group.weights, Trajectory)
        layers, before = (group.weights.weights, group.weights.state) if resumed else (group.weights, None)
        self.depth, self.rule, self.optimizer = before.depth if before else len(layers), group.rule, group.optimizer
        parameters = [data.tensor(W) for W in layers]
        W = chain.end_to_end(parameters)
        group.loss.value(W)  # a start that does not fit the data says so here
        if self.rule == "end-to-end":
            parameters = [W]
            if getattr(self.optimizer, "weight_decay", 0):  # each of the N layers shrinks, so the product N-fold
                self.optimizer = dataclasses.replace(self.optimizer, weight_decay=self.depth * self.optimizer.weight_decay)
        rates = torch.as_tensor(self.optimizer.lr, dtype=W.dtype, device=W.device)
        self.shape = torch.broadcast_shapes(W.shape[:-2], rates.shape)
        self.basis = basis
        if basis is not None:
            parameters[0] = parameters[0] @ basis
        self.parameters = [P.expand(self.shape + P.shape[-2:]).reshape(-1, *P.shape[-2:]).clone(
            memory_format=torch.contiguous_format) for P in parameters]
        self.optimizer = dataclasses.replace(self.optimizer, lr=rates.expand(self.shape).reshape(-1).clone())
        self.state = self.optimizer.start(self.parameters)
        if before is not None:
            self._go_on_from(before)
        self.total = len(self.parameters[0])
        self.kept = torch.arange(self.total, device=W.device)
        self.restart()

    def _go_on_from(self, before):
        """Take up the state of the optimiser at the end of another run."""
        kind = type(self.optimizer).__name__
        if (before.optimizer, before.rule) != (kind, self.rule):
            raise ValueError(f"the trajectory is one of {before.optimizer} on {before.rule!r}; expected the same to go on, "
                             f"not {kind} on {self.rule!r} (its weights alone start another)")
        for i, S in enumerate(before.tensors):
            turned = S @ self.basis if self._is_turned(i, S) else S
            self.state[i] = turned.expand(self.shape + S.shape[-2:]).reshape(-1, *S.shape[-2:]).clone()

    def optimizer_state(self):
        """The state of the optimiser in the coordinates of the data."""
        return [S @ self.basis.mT if self._is_turned(i, S) else S for i, S in enumerate(self.state)]

    def _is_turned(self, i, S):
        """Whether the i-th tensor of the optimiser's state belongs to the first layer, which turns with the features."""
        return self.basis is not None and i % len(self.parameters) == 0 and S.shape[-2:] == self.parameters[0].shape[-2:]

    def restart(self):
        """Take up changed parameters: their end-to-end matrices ``W`` and the parts in which a step is taken."""
        self.count = len(self.kept)
        self.W = chain.end_to_end(self.parameters)
        if len(self.parameters) == 1:  # a view: it must not be the parameter that the step changes
            self.W = self.W.clone()
        size = max(1, CACHE // sum(P[0].numel() * P.element_size() for P in self.parameters)) if self.count else 1
        step = size if self.W.device.type == "cpu" else max(1, self.count)
        self.parts = []
        for first in range(0, self.count, step):
            part = slice(first, first + step)
            self.parts.append((part, dataclasses.replace(self.optimizer, lr=self.optimizer.lr[part]),
                               [P[part] for P in self.parameters], [S[part] for S in self.state]))

    def move(self, G):
        """One step, from the gradients ``G`` at the end-to-end matrices ``W`` to the next ones, in place."""
        for part, optimizer, parameters, state in self.parts:
            if self.rule == "layers":
                gradients = chain.layer_gradients(parameters, G[part])
            else:
                gradients = [preconditioner.apply(parameters[0], G[part], self.depth)]
            optimizer.step(parameters, gradients, state)
            self.W[part] = chain.end_to_end(parameters)

    def weights(self):
        """The parameters in the coordinates of the data, in new tensors."""
        if self.basis is None:
            return [P.clone() for P in self.parameters]
        return [self.parameters[0] @ self.basis.mT, *(P.clone() for P in self.parameters[1:])]

    def keep(self, alive):
        """Go on with the configurations where ``alive``, shape (count,), is true."""
        self.kept = self.kept[alive]
        self.parameters = [P[alive] for P in self.parameters]
        self.state = [S[alive] for S in self.state]
        self.optimizer = dataclasses.replace(self.optimizer, lr=self.optimizer.lr[alive])
        self.restart()
