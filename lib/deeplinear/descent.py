"""Discrete training: of the layers, or of the end-to-end matrix by the end-to-end rule; batched over leading axes.

Each step costs the same two products with the data for every depth and width: the loss gives its gradient at the
end-to-end matrix, ``chain`` turns it into layer gradients (or ``preconditioner`` into the end-to-end step), and the
optimiser moves.
"""

import bisect
import dataclasses
import functools
import itertools
import math
import numbers
from collections.abc import Iterable

import numpy as np
import torch

from . import chain, preconditioner
from .fingerprint import fingerprint
from .products import Plain, eigenbasis, has_moments, products


@dataclasses.dataclass(frozen=True)
class Trajectory:
    """A training run, or a batch of them.

    ``steps``: the recorded steps, shape (T,). ``loss``: the loss there, shape (T, ...), NaN from a divergence on.
    ``weights``: the final layers (one matrix under the end-to-end rule), NaN for a diverged run. ``diverged_at``: the
    step at which a run was stopped because its loss was not finite or had grown a million times, -1 where it was not,
    shape (...). ``history``: with ``keep_weights``, a list with one array ``(T, ..., n_{j+1}, n_j)`` a layer.
    """

    steps: torch.Tensor
    loss: torch.Tensor
    weights: list
    diverged_at: torch.Tensor
    history: list | None = None

    def steps_to(self, level):
        """The first recorded step at which the loss is at most ``level``, shape (...); infinity where it never is."""
        reached = self.loss <= level
        first = self.steps.to(self.loss.device).double()[reached.to(torch.uint8).argmax(0)]
        return torch.where(reached.any(0), first, torch.inf)

    def padded_loss(self, records):
        """The loss with NaN for the records after the last run had gone, (records, ...), on the CPU."""
        full = self.loss.new_full((records, *self.loss.shape[1:]), torch.nan, device="cpu")
        full[:len(self.loss)] = self.loss.cpu()
        return full

    @property
    def end_to_end(self):
        """The end-to-end matrix at each recorded step, ``(T, ..., k, d)``; needs ``keep_weights=True``."""
        if self.history is None:
            raise ValueError("history is None; expected a run trained with keep_weights=True")
        return chain.end_to_end(self.history)


def iterate(loss, weights, lr, steps, weight_decay=0):
    """Plain gradient descent on the layers, in one line, for any arrays: the layers at steps 0, 1, ..., ``steps``.

    The reference for :func:`train`, and the form in which exact rationals and symbols run through the same code.
    ``loss`` needs ``gradient(W)`` only. Returns a list of ``steps + 1`` lists of layers.
    """
    run = [list(weights)]
    for _ in range(steps):
        G = chain.layer_gradients(run[-1], loss.gradient(chain.end_to_end(run[-1])))
        run.append([(1 - lr * weight_decay) * W - lr * dW for W, dW in zip(run[-1], G)])
    return run


def sharpness(loss, weights):
    """The largest eigenvalue of the Hessian of the network's loss in all its layers, a float.

    By automatic differentiation, for networks small enough to hold the Hessian. ``weights``: one network, no batch.
    """
    shapes, sizes = [W.shape for W in weights], [W.numel() for W in weights]

    def value(flat):
        layers = [part.reshape(shape) for part, shape in zip(flat.split(sizes), shapes)]
        return loss.value(chain.end_to_end(layers))

    flat = torch.cat([W.detach().flatten() for W in weights])
    return torch.linalg.eigvalsh(torch.autograd.functional.hessian(value, flat))[-1].item()


EXPLODED = 1e6  # a loss this many times its first value is a divergence
CHECK_EVERY = 50  # steps between two looks at who has diverged
CACHE = 2**22  # bytes of layers that are worked on at a time


@dataclasses.dataclass(frozen=True)
class Group:
    """Configurations that share their shapes: one loss, one depth, one optimiser, one rule; many starts and rates.

    ``weights``: list of N layers ``(..., n_{j+1}, n_j)``, leading axes a batch that broadcasts against the rates in
    ``optimizer.lr``. ``rule``: ``"layers"`` moves every layer; ``"end-to-end"`` collapses the start to one matrix and
    moves that by the end-to-end rule of the same depth (:prf:ref:`thm-end-to-end`).
    """

    loss: object
    weights: list
    optimizer: object
    rule: str = "layers"


def train(loss, weights, optimizer, steps, record_every=1, rule="layers", keep_weights=False, batch_size=None,
          generator=None):
    """Train layers, or the end-to-end matrix by the end-to-end rule of the same depth, from the same start.

    ``loss``: an object with ``value_and_gradient(W)``. ``weights``, ``optimizer``, ``rule``: as in :class:`Group`.
    ``steps``: how many; the loss is recorded at steps 0, record_every, 2 record_every, ... and at the last.
    ``batch_size``: gradients from that many rows drawn afresh with ``generator`` at each step, the same for all layers.
    Returns a :class:`Trajectory`; the input is not changed. Raises ``ValueError`` for a negative count or unknown rule.
    """
    rows = None
    if batch_size is not None:
        if not 1 <= batch_size <= len(loss.X):
            raise ValueError(f"batch_size is {batch_size!r}; expected 1 to {len(loss.X)}")
        rows = lambda: torch.randperm(len(loss.X), generator=generator)[:batch_size]
    group = Group(loss, weights, optimizer, rule)
    return sweep([group], steps, record_every, keep_weights=keep_weights, rows=rows)[0]


@torch.no_grad()
def sweep(groups, steps, record_every=1, keep_weights=False, rows=None, checkpoint=None, report=None):
    """Train many configurations at once; groups with the same loss object share its two products with the data.

    ``groups``: a list of :class:`Group`. ``record_every``: as in :func:`train`, or the increasing steps to record
    themselves (:func:`logarithmic`). A configuration whose loss is not finite or a million times its first value has
    diverged: the step is kept, its loss is NaN from there on, and it soon leaves the batch. ``checkpoint``: a
    :class:`deeplinear.recorded.Checkpoint`; a run that finds one goes on from it, bit for bit as if never stopped. Its
    file stays until :meth:`~deeplinear.recorded.Checkpoint.remove` is called, when the result is safe.
    ``report(steps_done)`` is called now and then; what it raises ends the run, after a checkpoint. ``rows``: a function
    that draws the examples of each gradient (minibatches); it cannot be resumed. Returns one :class:`Trajectory` a
    group. On a GPU, steps are replayed as CUDA graphs.
    """
    _check_count("steps", steps, 0)
    if not groups:
        raise ValueError("groups is empty; expected at least one Group")
    record = _recorded_steps(steps, record_every)
    for name, value in (("keep_weights", keep_weights), ("rows", rows)):
        if value and checkpoint is not None:
            raise ValueError(f"{name} is {value!r}; expected nothing of the kind with a checkpoint")
    batches = {}
    for group in groups:
        rotate = rows is None and has_moments(group.loss) and getattr(group.optimizer, "rotates", False)
        batches.setdefault((id(group.loss), rotate), []).append(group)
    batches = [_Batch(members, rows, keep_weights, rotate) for (_, rotate), members in batches.items()]
    t = 0
    if checkpoint is not None:
        checkpoint = checkpoint.of(fingerprint(groups, record, steps))
    saved = checkpoint.load() if checkpoint is not None else None
    if saved is not None:
        t = int(saved["step"])
        for i, batch in enumerate(batches):
            batch.restore(saved, f"{i}.")
    else:
        for batch in batches:
            batch.begin()
    wanted = set(record)
    stops = sorted(wanted | set(range(0, steps, CHECK_EVERY)) | {steps})
    for stop in stops if saved is None else stops[bisect.bisect_right(stops, t):]:
        for batch in batches:
            batch.advance(stop - t)
        if stop in wanted:
            for batch in batches:
                batch.record(stop)
        t = stop
        if t % CHECK_EVERY == 0:
            for batch in batches:
                batch.drop_diverged()
            if not any(batch.count for batch in batches):  # one more record, to tell that all have gone
                for step in record[bisect.bisect_right(record, t):][:1]:
                    for batch in batches:
                        batch.record(step)
                break
            snapshot = functools.partial(_snapshot, batches, t)
            try:
                if report is not None:
                    report(t)
            except BaseException:
                if checkpoint is not None:
                    checkpoint.save(snapshot())
                raise
            if checkpoint is not None:
                checkpoint.save_now_and_then(snapshot)
    found = {id(group): trajectory for batch in batches for group, trajectory in batch.results()}
    return [found[id(group)] for group in groups]


def logarithmic(steps, points):
    """At most ``points`` steps from 0 to ``steps``, close to evenly spaced on a logarithmic axis, both ends among them."""
    _check_count("steps", steps, 1)
    _check_count("points", points, 3)
    spaced = torch.logspace(0, math.log10(steps), points - 1, dtype=torch.float64).round().long().tolist()
    return sorted({0, steps, *spaced})


class _Network:
    """A group in motion: its parameters and the state of its optimiser, with one leading axis of configurations.

    A step is taken in parts whose layers fit into a processor's cache, each from its gradients to its new end-to-end
    matrix; the parts are views. ``kept``: which configurations of the group are still in motion. ``basis``: the
    features' coordinates in which it moves, or None for those of the data.
    """

    def __init__(self, group, basis):
        if group.rule not in ("layers", "end-to-end"):
            raise ValueError(f"rule is {group.rule!r}; expected 'layers' or 'end-to-end'")
        self.depth, self.rule, self.optimizer = len(group.weights), group.rule, group.optimizer
        parameters = list(group.weights)
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
        self.total = len(self.parameters[0])
        self.kept = torch.arange(self.total, device=W.device)
        self.restart()

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


class _Batch:
    """All groups of one loss: their end-to-end matrices, stacked, meet the data together.

    ``alive``: which of the ``count`` configurations have not diverged; ``lived``: how many losses each has survived.
    Everything a step touches stays in place, so that steps can be captured in a CUDA graph.
    """

    def __init__(self, groups, rows, keep_weights, rotate=False):
        self.groups, self.rows, self.keep_weights = groups, rows, keep_weights
        self.loss = groups[0].loss
        self.basis = eigenbasis(self.loss) if rotate else None
        self.networks = [_Network(group, self.basis) for group in groups]
        self.total = sum(network.total for network in self.networks)
        self.steps, self.losses, self.history = [], [], []
        W = self._stacked()
        self.diverged = torch.full((self.total,), -1, device=W.device)
        self._resize(W)
        self.limit = torch.empty_like(self.value)
        self.alive = torch.ones(self.total, dtype=torch.bool, device=W.device)
        self.lived = torch.zeros(self.total, dtype=torch.long, device=W.device)

    def begin(self):
        self._evaluate()
        largest = torch.finfo(self.value.dtype).max  # so that an infinite loss is never within the limit
        self.limit = torch.where(self.value > 0, EXPLODED * self.value, torch.inf).clamp(max=largest)
        self._judge()

    def advance(self, steps):
        """That many times: move, then evaluate where the move has led."""
        if not self._capturable():
            for _ in range(steps if self.count else 0):
                self._step()
            return
        while steps and self.count:
            size = 1 << min(steps.bit_length() - 1, 5)
            self._replay(size)
            steps -= size

    def _capturable(self):
        """Whether a step runs on a GPU without asking the host: not for foreign losses, nor where an SVD is needed."""
        decomposes = any(network.rule != "layers" and min(network.W.shape[-2:]) > 1 for network in self.networks)
        return self.value.device.type == "cuda" and not isinstance(self.products, Plain) and not decomposes

    def record(self, step):
        self.steps.append(step)
        losses = self.value.new_full((self.total,), torch.nan)
        if self.count:
            exact = self.products.exact(self._stacked(), self.value)
            losses[self._kept()] = torch.where(self.alive, exact, torch.nan)
        self.losses.append(losses)
        if self.keep_weights:
            self.history.append([network.weights() for network in self.networks])

    def drop_diverged(self):
        """Note who has diverged; go on without them once they are an eighth of the batch."""
        alive = int(self.alive.sum())
        if not alive:
            self.count = 0
        if self.keep_weights or 8 * alive > 7 * self.count:
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
        losses = self._losses()
        parts = zip(self.groups, self.networks, losses.split([n.total for n in self.networks], 1),
                    self.diverged.split([n.total for n in self.networks]), strict=True)
        for index, (group, network, loss, diverged) in enumerate(parts):
            end = len(self.steps)
            if (diverged >= 0).all():  # nothing to tell after the last one has gone
                end = min(end, bisect.bisect_left(self.steps, int(diverged.max())) + 1)
            weights = []
            for P in network.weights():
                full = P.new_full((network.total, *P.shape[1:]), torch.nan)
                full[network.kept] = P
                full[diverged >= 0] = torch.nan
                weights.append(full.reshape(network.shape + P.shape[1:]))
            history = None
            if self.keep_weights:
                history = [torch.stack(layer).reshape(-1, *network.shape, *layer[0].shape[1:])
                           for layer in zip(*(row[index] for row in self.history[:end]))]
            steps = torch.tensor(self.steps[:end], dtype=torch.long)
            yield group, Trajectory(steps, loss[:end].reshape(-1, *network.shape), weights,
                                    diverged.reshape(network.shape), history)

    def snapshot(self, prefix):
        """Everything that :meth:`restore` needs, as named arrays."""
        self._note_diverged()
        named = {"alive": self.alive, "lived": self.lived, "limit": self.limit, "diverged": self.diverged,
                 "steps": torch.tensor(self.steps, dtype=torch.long), "losses": self._losses()}
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
        self.steps, self.losses = saved[prefix + "steps"].tolist(), list(get("losses"))
        self._restart()

    def _losses(self):
        """What was recorded, (records, configurations)."""
        return torch.stack(self.losses) if self.losses else self.value.new_empty(0, self.total)

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
        self.graphs = {}

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

    def _replay(self, steps):
        """The same steps from a CUDA graph; the first ones after a change of shapes are run, the next captured."""
        if not self.graphs:
            for _ in range(steps):
                self._step()
            self.graphs[0] = None
            return
        with torch.cuda.device(self.value.device):
            if steps not in self.graphs:
                self.graphs[steps] = torch.cuda.CUDAGraph()
                with torch.cuda.graph(self.graphs[steps], stream=torch.cuda.Stream(self.value.device)):
                    for _ in range(steps):
                        self._step()
            self.graphs[steps].replay()

    def _note_diverged(self):
        kept = self._kept()
        self.diverged[kept] = torch.where(self.alive, self.diverged[kept], self.lived)


def _snapshot(batches, step):
    named = {"step": np.array(step)}
    for i, batch in enumerate(batches):
        named |= batch.snapshot(f"{i}.")
    return named


def _recorded_steps(steps, record_every):
    if isinstance(record_every, numbers.Integral):
        _check_count("record_every", record_every, 1)
        return sorted({*range(0, steps + 1, record_every), steps})
    record = [int(step) for step in record_every] if isinstance(record_every, Iterable) else []
    if not record or record != sorted(set(record)) or record[0] < 0 or record[-1] > steps:
        raise ValueError(f"record_every is {record_every!r}; expected a count, or increasing steps from 0 to {steps}")
    return record


def _check_count(name, count, least):
    if isinstance(count, bool) or not isinstance(count, numbers.Integral) or count < least:
        raise ValueError(f"{name} is {count!r}; expected an integer >= {least}")
