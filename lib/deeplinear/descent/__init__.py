"""Discrete training: of the layers, or of the end-to-end matrix by the end-to-end rule; batched over leading axes.

Each step costs the same two products with the data for every depth and width: the loss gives its gradient at the
end-to-end matrix, ``chain`` turns it into layer gradients (or ``preconditioner`` into the end-to-end step), and the
optimiser moves.
"""

import bisect
import dataclasses
import functools
import math
import numbers
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch

from .. import chain, data
from ..annotations import Checkpoint, Differentiable, Number, Numbers, Optimizer, Report, Rule, Trainable, Valued
from ..fingerprint import fingerprint
from ..products import has_moments
from .batch import Batch
from .records import Trajectory

__all__ = ["Group", "Trajectory", "iterate", "logarithmic", "sharpness", "sweep", "train"]


def iterate(loss: Differentiable, weights: Sequence[Any], lr: Number, steps: int,
            weight_decay: Number = 0) -> list[list[Any]]:
    """Plain gradient descent on the layers, in one line, for any arrays: the layers at steps 0, 1, ..., ``steps``.

    The reference for :func:`train`, and the form in which exact rationals and symbols run through the same code.
    ``loss`` needs ``gradient(W)`` only. Returns a list of ``steps + 1`` lists of layers.
    """
    run = [[data.tensor(W) if isinstance(W, np.ndarray) and W.dtype != object else W for W in weights]]
    for _ in range(steps):
        G = chain.layer_gradients(run[-1], loss.gradient(chain.end_to_end(run[-1])))
        run.append([(1 - lr * weight_decay) * W - lr * dW for W, dW in zip(run[-1], G)])
    return run


def sharpness(loss: Valued, weights: Sequence[Numbers]) -> float:
    """The largest eigenvalue of the Hessian of the network's loss in all its layers, a float.

    By automatic differentiation, for networks small enough to hold the Hessian. ``weights``: one network, no batch.
    """
    layers = [data.tensor(W) for W in weights]
    shapes, sizes = [W.shape for W in layers], [W.numel() for W in layers]

    def value(flat):
        parts = [part.reshape(shape) for part, shape in zip(flat.split(sizes), shapes)]
        return loss.value(chain.end_to_end(parts))

    with torch.inference_mode(False):  # under which every derivative would be 0
        flat = torch.cat([W.detach().flatten() for W in layers])
        return torch.linalg.eigvalsh(torch.autograd.functional.hessian(value, flat))[-1].item()


CHECK_EVERY = 50  # steps between two looks at who has diverged


@dataclasses.dataclass(frozen=True)
class Group:
    """Configurations that share their shapes: one loss, one depth, one optimiser, one rule; many starts and rates.

    ``weights``: list of N layers ``(..., n_{j+1}, n_j)``, leading axes a batch that broadcasts against the rates in
    ``optimizer.lr``; or a :class:`Trajectory` of the same rule and kind of optimiser, to go on from its end with the
    state of that optimiser (bit for bit, but for rounding where p = 2 lets the features be turned). ``rule``:
    ``"layers"`` moves every layer; ``"end-to-end"`` collapses the start to one matrix and
    moves that by the end-to-end rule of the same depth (:prf:ref:`thm-end-to-end`).
    """

    loss: Trainable
    weights: Sequence[Any] | Trajectory
    optimizer: Optimizer
    rule: Rule = "layers"


def train(loss: Trainable, weights: Sequence[Any] | Trajectory, optimizer: Optimizer, steps: int,
          record_every: int | Sequence[int] = 1, rule: Rule = "layers", keep_weights: bool = False,
          batch_size: int | None = None, generator: torch.Generator | None = None, report: Report | None = None,
          time_limit: float | None = None) -> Trajectory:
    """Train layers, or the end-to-end matrix by the end-to-end rule of the same depth, from the same start.

    ``loss``: an object with ``value_and_gradient(W)``. ``weights``, ``optimizer``, ``rule``: as in :class:`Group`.
    ``steps``: how many; the loss is recorded at steps 0, record_every, 2 record_every, ... and at the last.
    ``batch_size``: gradients from that many rows drawn afresh with ``generator`` at each step, the same for all layers.
    ``report``, ``time_limit``: as in :func:`sweep`. Returns a :class:`Trajectory`; the input is not changed. Raises
    ``ValueError`` for a negative count, an unknown rule, or an ``optimizer`` that is none.
    """
    rows = None
    if batch_size is not None:
        count = len(loss.X)  # type: ignore[attr-defined]  # minibatches want a loss with rows
        if not 1 <= batch_size <= count:
            raise ValueError(f"batch_size is {batch_size!r}; expected 1 to {count}")
        rows = lambda: torch.randperm(count, generator=generator)[:batch_size]
    group = Group(loss, weights, optimizer, rule)
    return sweep([group], steps, record_every, keep_weights=keep_weights, rows=rows, report=report,
                 time_limit=time_limit)[0]


@torch.no_grad()
def sweep(groups: Sequence[Group], steps: int, record_every: int | Sequence[int] = 1, keep_weights: bool = False,
          rows: Callable[[], torch.Tensor] | None = None, checkpoint: Checkpoint | None = None,
          report: Report | None = None, time_limit: float | None = None) -> list[Trajectory]:
    """Train many configurations at once; groups with the same loss object share its two products with the data.

    ``groups``: a list of :class:`Group`. ``record_every``: as in :func:`train`, or the increasing steps to record
    themselves (:func:`logarithmic`). A configuration whose loss is not finite or a million times its first value has
    diverged: the step is kept, its loss is NaN from there on, and it soon leaves the batch. (A first value below a
    millionth of the loss at W = 0 is too near 0 to measure by; then it is a million times that loss.) ``checkpoint``: a
    :class:`deeplinear.recorded.Checkpoint`; a run that finds one goes on from it, bit for bit as if never stopped. Its
    file stays until :meth:`~deeplinear.recorded.Checkpoint.remove` is called, when the result is safe.
    ``report(steps_done)`` is called now and then; what it raises ends the run, after a checkpoint. ``rows``: a function
    that draws the examples of each gradient (minibatches); it cannot be resumed. ``time_limit``: seconds after which the
    run ends at the next look, every 50 steps; its last record is then its end, from which another may go on. Returns
    one :class:`Trajectory` a group. On a GPU, steps are replayed as CUDA graphs.
    """
    _check_count("steps", steps, 0)
    if not groups:
        raise ValueError("groups is empty; expected at least one Group")
    record = _recorded_steps(steps, record_every)
    until = math.inf if time_limit is None else time.monotonic() + time_limit
    for name, value in (("keep_weights", keep_weights or None), ("rows", rows), ("time_limit", time_limit)):
        if value is not None and checkpoint is not None:
            raise ValueError(f"{name} is {value!r}; expected nothing of the kind with a checkpoint")
    batches = _batches(groups, rows, keep_weights)
    if checkpoint is not None:
        checkpoint = checkpoint.of(fingerprint(groups, record, steps))
    saved = checkpoint.load() if checkpoint is not None else None
    t, stops = 0, sorted({*record, *range(0, steps, CHECK_EVERY), steps})
    if saved is None:
        for batch in batches:
            batch.begin()
    else:
        t = int(saved["step"])
        stops = stops[bisect.bisect_right(stops, t):]
        for i, batch in enumerate(batches):
            batch.restore(saved, f"{i}.")
    _move(batches, t, stops, record, functools.partial(_tell, batches, checkpoint, report), until)
    found = {id(group): trajectory for batch in batches for group, trajectory in batch.results()}
    return [found[id(group)] for group in groups]


def logarithmic(steps: int, points: int) -> list[int]:
    """At most ``points`` steps from 0 to ``steps``, close to evenly spaced on a logarithmic axis, both ends among them."""
    _check_count("steps", steps, 1)
    _check_count("points", points, 3)
    spaced = torch.logspace(0, math.log10(steps), points - 1, dtype=torch.float64).round().long().tolist()
    return sorted({0, steps, *spaced})


def _batches(groups, rows, keep_weights):
    """The groups of one loss together, those that may turn the features by themselves."""
    members = {}
    for group in groups:
        rotate = rows is None and has_moments(group.loss) and getattr(group.optimizer, "rotates", False)
        members.setdefault((id(group.loss), rotate), []).append(group)
    return [Batch(together, rows, keep_weights, rotate) for (_, rotate), together in members.items()]


def _move(batches, t, stops, record, tell, until):
    """From step ``t`` through all ``stops``, or until every configuration has diverged or the clock shows ``until``."""
    wanted = set(record)
    for stop in stops:
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
            tell(t)
            if time.monotonic() >= until:
                for batch in batches if t not in wanted else ():
                    batch.record(t)
                break


def _tell(batches, checkpoint, report, step):
    """Report, and save a checkpoint where its time has come."""
    snapshot = functools.partial(_snapshot, batches, step)
    try:
        if report is not None:
            report(step)
    except BaseException:
        if checkpoint is not None:
            checkpoint.save(snapshot())
        raise
    if checkpoint is not None:
        checkpoint.save_now_and_then(snapshot)


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
