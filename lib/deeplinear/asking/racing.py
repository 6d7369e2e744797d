"""The race: gradient descent at depths 1, 2 and 3, Adam and L-BFGS on one table, each at its own best rate.

The rules are those of :mod:`deeplinear.tuning`. A run of gradient descent has ten rates a decade from a tenth of its edge
to twice it, Adam ten a decade around the best of the paper's grid, found on a tenth of the steps; both are widened while the
best rate lies at an end. Models run side by side, one thread each, so that the bits do not hang on the cores.
"""

import concurrent.futures
import dataclasses
import functools
import os
import threading
import time

import numpy as np
import torch
from scipy.optimize import minimize

from .. import chain, descent, losses, optimizers, tuning
from ..annotations import Report
from . import sizes

SEEDS = (0, 1, 2, 3, 4)
DEPTHS = (1, 2, 3)
NAMES = (*(f"depth {depth}" for depth in DEPTHS), "Adam", "L-BFGS")  # depth 1 first: the others wait for its goal
STD = 0.02  # of the start's end-to-end matrix, as in chapters 7 and 8
GOALS = 1e-3, 1e-4  # of the first gap, as there; the second one where depth 1 is at the first after a few steps already
FEW = 20
LEAST = 1e-9  # of the first gap: below it a gap is rounding
SIGNAL = 1e-6  # of the loss at zero, the least first gap: the loss is rounded to 1e-16, so that gaps of LEAST can be told
BRACKET = 1e-12, 1e3
ADAM = -4, 0
POINTS = 400
WIDENINGS = 3


class OutOfTime(Exception):
    """The race's time is over."""


class _Stopped(Exception):
    """Somebody has interrupted."""


@dataclasses.dataclass(frozen=True)
class Versus:
    """A model against depth 1, by ``measure``, ``"steps"`` to the goal where all starts of both get there, else the
    ``"gap"`` at the end. ``paired``: the ratio over the starts, each model at its best rate that all starts survive;
    ``medians``: the ratio of the medians, each at its best rate by the median, a failed start counted as infinity."""

    measure: str
    paired: tuning.Comparison
    medians: float


@dataclasses.dataclass(frozen=True)
class Runner:
    """One model at the end. ``rate``: its best one that all five starts survive, None for L-BFGS; ``gap``: the median gap
    there at the end, and ``steps``: the median of the steps to the goal, infinity where it is not reached; ``curve``: the
    gaps there (records, seeds), as shares of the first gap, NaN of a failed start. ``versus``: depth 1, or None."""

    name: str
    rate: float | None
    gap: float
    steps: float
    curve: torch.Tensor
    versus: Versus | None = None


@dataclasses.dataclass(frozen=True)
class Race:
    """``runners`` by name, those that were through in time; ``steps``: how many each had; ``records``: at which of them
    the curves say the gap; ``rows``: how many of the table's rows were raced on; ``goal``: the share of the first gap to
    which steps are counted; ``settled``: whether all were through."""

    runners: dict[str, Runner]
    steps: int
    records: list[int]
    rows: int
    goal: float
    settled: bool
    seconds: float


@dataclasses.dataclass(frozen=True)
class _Runs:
    """``rates`` (rates,), or None; ``gaps`` (records, rates, seeds) over the first gap."""

    rates: torch.Tensor | None
    gaps: torch.Tensor
    steps: torch.Tensor

    def scores(self, measure):
        """What is to be small, shape (rates, seeds), infinite or NaN where a start has failed."""
        return self.steps if measure == "steps" else self.gaps[-1].clamp(min=LEAST)

    def best(self, measure, rule=tuning.strict):
        """The best rate by the strict score or, with ``tuning.median``, by the median."""
        return tuning.choose(rule(self.scores(measure)))

    @property
    def arrives(self):
        return self.best("steps").index is not None


def race(X: torch.Tensor, y: torch.Tensor, power: int, seconds: float, until: float,
         report: Report | None = None) -> Race:
    """The :class:`Race` on features (n, d) and labels (n,): steps sized to ``seconds``, ended when the monotonic clock shows
    ``until``. ``report(share)`` is called now and then."""
    X, y = sizes.drawn(X, y)
    n, d = X.shape
    steps = sizes.horizon(n, d, power, seconds)
    field = _Field(losses.LpLoss(X, y, power), steps, until, report)
    found, threads = {}, torch.get_num_threads()
    with concurrent.futures.ThreadPoolExecutor(min(2, os.cpu_count() or 1)) as pool:
        running = {name: pool.submit(field.run, name) for name in NAMES}
        try:
            while concurrent.futures.wait(running.values(), 0.2).not_done:
                failed = [one.exception() for one in running.values() if one.done()]
                field.stopped |= not all(error is None or isinstance(error, OutOfTime) for error in failed)
        except BaseException:  # Ctrl-C, which the main thread alone hears
            field.stopped = True
            raise
        finally:
            torch.set_num_threads(threads)
    for name in NAMES:
        try:
            found[name] = running[name].result()
        except OutOfTime:
            pass
    runners = {name: _runner(name, runs, found.get("depth 1")) for name, runs in found.items()}
    return Race(runners, steps, field.record, len(X), field.goal, len(found) == len(NAMES), seconds)


class _Field:
    """What all models share: the loss, the starts, the clock, and the goal, which depth 1 sets when its grid has run."""

    def __init__(self, loss, steps, until, report):
        self.loss, self.steps, self.until, self.report, self.stopped = loss, steps, until, report, False
        self.record = descent.logarithmic(steps, POINTS)
        try:
            self.minimum = loss.value(losses.minimiser(loss)).item()
        except RuntimeError as error:
            raise ValueError(f"the least loss of this table cannot be found: {error}") from error
        at_zero = loss.value(torch.zeros(1, loss.shape[1], dtype=torch.float64)).item()
        self.first = at_zero - self.minimum
        if not self.first > SIGNAL * at_zero:
            raise ValueError("the columns say nothing of the target: no linear model has a loss that is smaller by a millionth than "
                             "without them; expected some signal")
        self.lock, self.shares = threading.Lock(), {}
        self.goal, self.has_goal = GOALS[0], threading.Event()

    def run(self, name):
        """The :class:`_Runs` of one model, in a thread of its own."""
        torch.set_num_threads(1)
        own = {"Adam": self._adam, "L-BFGS": self._lbfgs}.get(name)
        try:
            found = own() if own else self._descent(int(name.split()[-1]))
        finally:
            if name == "depth 1":
                self.has_goal.set()  # whatever has happened: the others wait for it
        self._tell(name, 1.0)
        return found

    def starts(self, depth):
        dims = (self.loss.shape[1],) + (1,) * depth
        starts = [chain.balanced_init(dims, chain.seeded(seed), std=STD) for seed in SEEDS]
        return [torch.stack(layer) for layer in zip(*starts)]

    def _descent(self, depth):
        sweep = functools.partial(self._sweep, f"depth {depth}", self.starts(depth), optimizers.GD)

        def survives(rate):
            tenth = max(1, self.steps // 10)
            return tuning.lives(sweep(torch.tensor([rate], dtype=torch.float64), tenth, [tenth])[0, 0])

        rates = tuning.fine_grid(tuning.edge(survives, *BRACKET))
        return self._widened(sweep, rates, sets_goal=depth == 1)

    def _adam(self):
        sweep = functools.partial(self._sweep, "Adam", self.starts(1), optimizers.Adam)
        tenth, coarse = max(1, self.steps // 10), tuning.paper_grid(*ADAM)
        ends = sweep(coarse, tenth, [tenth])[-1]
        best = tuning.choose(tuning.median(ends)).index
        return self._widened(sweep, tuning.around(coarse[0 if best is None else best].item()))

    def _widened(self, sweep, rates, sets_goal=False):
        """The :class:`_Runs` at these rates, and at three more beyond an end while the best one lies there."""
        values = sweep(rates, self.steps, self.record)
        if sets_goal:
            self.goal = self._goal(values)
            self.has_goal.set()
        self.has_goal.wait()
        runs = self._runs(rates, values)
        for _ in range(WIDENINGS):
            more = tuning.widened(rates, runs.best("steps" if runs.arrives else "gap"))
            if not len(more):
                break
            rates, order = torch.cat([rates, more]).sort()
            values = torch.cat([values, sweep(more, self.steps, self.record)], 1)[:, order]
            runs = self._runs(rates, values)
        return runs

    def _goal(self, values):
        """The first of ``GOALS`` or, where depth 1 is there after a few steps and all its starts reach the second, that."""
        first, second = (tuning.strict(_steps_to(goal, self.record, self._gaps(values))).min() for goal in GOALS)
        return GOALS[1] if first < FEW and second.isfinite() else GOALS[0]

    def _gaps(self, values):
        return (values - self.minimum) / self.first

    def _runs(self, rates, values):
        gaps = self._gaps(values)
        return _Runs(rates, gaps, _steps_to(self.goal, self.record, gaps))

    def _sweep(self, name, layers, optimizer, rates, steps, record):
        """The losses (records, rates, seeds); :class:`OutOfTime` where the clock ends the run."""
        left = self.until - time.monotonic()
        if left <= 0:
            raise OutOfTime
        report = functools.partial(self._look, name, steps == self.steps)
        run, = descent.sweep([descent.Group(self.loss, layers, optimizer(rates[:, None]))], steps, record, report=report,
                             time_limit=left)
        if run.steps[-1] < steps and (run.diverged_at < 0).any():
            raise OutOfTime
        return run.padded_loss(len(record))

    def _lbfgs(self):
        """The lowest loss so far after each gradient, (records, 1, seeds)."""
        curves = []
        for start in self.starts(1)[0]:
            seen = [self.loss.value(start).item()]

            def value(w, seen=seen):
                if self.stopped:
                    raise _Stopped
                if time.monotonic() >= self.until:
                    raise OutOfTime
                found, gradient = self.loss.value_and_gradient(torch.from_numpy(w)[None])
                seen.append(found.item())
                return found.item(), gradient[0].numpy()

            minimize(value, start[0].numpy(), jac=True, method="L-BFGS-B",
                     options={"ftol": 0, "gtol": 0, "maxfun": self.steps, "maxiter": self.steps})
            best = np.minimum.accumulate(seen)
            curves.append(best[np.minimum(self.record, len(best) - 1)])
        self.has_goal.wait()
        return self._runs(None, torch.from_numpy(np.stack(curves, 1))[:, None])

    def _look(self, name, whole, step):
        if self.stopped:
            raise _Stopped
        self._tell(name, (0.1 + 0.8 * step / self.steps) if whole else 0.1 * step / self.steps)

    def _tell(self, name, share):
        with self.lock:
            self.shares[name] = max(share, self.shares.get(name, 0.0))
            if self.report is not None:
                self.report(sum(self.shares.values()) / len(NAMES))


def _steps_to(goal, record, gaps):
    """Steps until the gap has fallen to ``goal``, shape (rates, seeds), between records along the chord of its logarithm;
    infinity where it has not, or is above it again at the end."""
    steps = torch.tensor(record, dtype=torch.float64)
    below = gaps <= goal
    first = below.to(torch.uint8).argmax(0)
    before = (first - 1).clamp(min=0)
    high, low = (gaps.gather(0, index[None])[0].clamp(min=LEAST).log() for index in (before, first))
    share = ((high - np.log(goal)) / (high - low)).nan_to_num(1.0).clamp(0, 1)
    found = steps[before] + share * (steps[first] - steps[before])
    return torch.where(below.any(0) & (gaps[-1] <= goal), found, torch.inf)


def _runner(name, runs, one):
    """What is told of a model, beside ``one``, the runs of depth 1, or None."""
    measure = "steps" if runs.arrives and (one is None or one.arrives) else "gap"
    best = runs.best(measure).index
    if best is None:
        return Runner(name, None, torch.inf, torch.inf, runs.gaps[:, 0] * torch.nan)
    curve = runs.gaps[:, best]
    found = Runner(name, None if runs.rates is None else runs.rates[best].item(),
                   tuning.median(curve[-1]).item(), tuning.median(runs.steps[best]).item(), curve)
    if one is None or name == "depth 1" or one.best(measure).index is None:
        return found
    paired = tuning.compare(runs.scores(measure)[best], one.scores(measure)[one.best(measure).index])
    medians = [tuning.median(each.scores(measure)).min().item() for each in (runs, one)]
    return dataclasses.replace(found, versus=Versus(measure, paired, medians[0] / medians[1]))
