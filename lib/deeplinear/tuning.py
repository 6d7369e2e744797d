"""The rules by which models are compared, each at its own best rate: edges, grids, scores, paired intervals.

``ends``: numbers at the end of the runs of one model, shape (rates, seeds), NaN or infinity for a start that failed.
``curves``: the same along the runs, shape (records, rates, seeds). Smaller is better. A failed start counts as infinity
in the median over the seeds; the strict score is infinite as soon as one start fails.
"""

import dataclasses
import math
from collections.abc import Callable

import torch
from scipy import stats

from . import data
from .annotations import Numbers

A_DECADE = 10  # rates in each decade of a fine grid
TIE = 1e-6  # scores that differ by less, relatively, differ by rounding


@dataclasses.dataclass(frozen=True)
class Choice:
    """The best rate of a grid: its ``index``, or None where the score is infinite at every rate; ``interior``, whether the
    grid goes on below and above it."""

    index: int | None
    interior: bool


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Paired runs of two models: all ``ratios`` (seeds,), their geometric ``mean`` and the 95 % t-interval from ``low`` to
    ``high`` of the mean of their logarithms, as ratios. NaN, and neither ahead nor behind, where a ratio is not a
    positive number; from 0 to infinity for a single pair."""

    ratios: torch.Tensor
    mean: float
    low: float
    high: float

    @property
    def ahead(self) -> bool:
        """Whether the first model is ahead: the interval lies below 1."""
        return self.high < 1

    @property
    def behind(self) -> bool:
        """Whether the first model is behind: the interval lies above 1."""
        return self.low > 1


def paper_grid(first: int, last: int) -> torch.Tensor:
    """The rates 1 and 5 times each power of ten from ``10**first`` to ``10**last``, the last one without its 5.

    The grid of Arora, Cohen and Hazan 2018, section 8. Shape (rates,), float64.
    """
    if not first <= last:
        raise ValueError(f"first is {first} and last {last}; expected first <= last")
    rates = [float(f"{digit}e{power}") for power in range(first, last + 1) for digit in (1, 5)]
    return torch.tensor(rates[:-1], dtype=torch.float64)


def fine_grid(edge: float) -> torch.Tensor:
    """Ten rates a decade from ``edge / 10`` to twice the edge (10**0.3 times it), shape (14,); the eleventh is the edge."""
    return edge * _powers(range(-A_DECADE, 4))


def around(rate: float, reach: int = 3) -> torch.Tensor:
    """Ten rates a decade, ``reach`` of them on each side of ``rate``, shape (2 reach + 1,)."""
    return rate * _powers(range(-reach, reach + 1))


def widened(rates: torch.Tensor, choice: Choice, by: int = 3) -> torch.Tensor:
    """The next ``by`` rates on the side of the grid at whose end the choice lies, spaced as there; an empty tensor where
    it is interior or where there is no choice.

    ``rates``: shape (rates,), evenly spaced on a logarithmic axis. Returns shape (by,), increasing.
    """
    if choice.interior or choice.index is None:
        return rates[:0]
    step = rates[1] / rates[0]
    powers = torch.arange(1, by + 1, dtype=rates.dtype)
    return rates[-1] * step**powers if choice.index else rates[0] / step**powers.flip(0)


def edge(survives: Callable[[float], bool], low: float, high: float, tolerance: float = 0.02) -> float:
    """The largest rate at which a model lives, by bisection of the logarithm; within ``tolerance``, relatively.

    ``survives(rate)``: whether the median start lives for a tenth of the horizon. Returns a rate that survives, while one
    larger by ``tolerance`` at most does not (where rates that live and die alternate, the first such pair that is met);
    ``high`` where that survives. Raises ``ValueError`` where ``low`` does not survive, or is not below ``high``.
    """
    if not 0 < low < high:
        raise ValueError(f"low is {low!r} and high {high!r}; expected 0 < low < high")
    if survives(high):
        return high
    if not survives(low):
        raise ValueError(f"the median start fails at the rate {low:g} already; expected a lower bound that it survives")
    while high > (1 + tolerance) * low:
        middle = math.sqrt(low * high)
        low, high = (middle, high) if survives(middle) else (low, middle)
    return low


def lives(ends: Numbers) -> bool:
    """Whether the median start lives: more than half of ``ends`` (seeds,) are finite."""
    ends = data.tensor(ends)
    return bool(2 * ends.isfinite().sum() > len(ends))


def failures(ends: Numbers) -> torch.Tensor:
    """The share of the starts that failed at each rate, shape (rates,)."""
    return 1 - data.tensor(ends).isfinite().double().mean(-1)


def median(ends: Numbers) -> torch.Tensor:
    """The median over the seeds, the last axis, a failed start counted as infinity; of an even number the mean of the two
    in the middle. Shape ``(...)``."""
    ordered = _failed_infinite(ends).sort(-1).values
    count = ordered.shape[-1]
    return (ordered[..., (count - 1) // 2] + ordered[..., count // 2]) / 2


def strict(ends: Numbers) -> torch.Tensor:
    """The median over the seeds where no start failed, infinity elsewhere, shape ``(...)``."""
    return median(ends).where(data.tensor(ends).isfinite().all(-1), torch.inf)


def choose(scores: Numbers, curves: Numbers | None = None) -> Choice:
    """The rate with the smallest of ``scores`` (rates,), as a :class:`Choice`.

    Scores within rounding of the smallest (``TIE``) tie: then the rate wins at which the curve, of ``curves`` (records,
    rates), is the first to come down to them, and among those equal in this the smallest rate.
    """
    scores = data.tensor(scores)
    if not scores.isfinite().any():
        return Choice(None, False)
    least = _failed_infinite(scores).min()
    level = least + TIE * least.abs()
    tied = scores <= level
    order = torch.zeros_like(scores) if curves is None else first_below(data.tensor(curves), level)
    index = int(torch.where(tied, order, torch.inf).argmin())
    if not tied[index]:  # a score that no recorded point of its curve has: the order says nothing
        index = int(tied.to(torch.uint8).argmax())
    return Choice(index, 0 < index < len(scores) - 1)


def first_below(curves: torch.Tensor, level: float | torch.Tensor) -> torch.Tensor:
    """The first record at which each of ``curves`` (records, ...) is at most ``level``, a float; infinity where none is."""
    reached = curves <= level
    return torch.where(reached.any(0), reached.to(torch.uint8).argmax(0).double(), torch.inf)


def compare(first: Numbers, second: Numbers) -> Comparison:
    """The ratios ``first / second`` over paired seeds, both of shape (seeds,), as a :class:`Comparison`.

    First is ahead where the 95 % t-interval of the mean log ratio leaves out 1 below. Raises ``ValueError`` for shapes
    that differ or hold nothing.
    """
    first, second = data.tensor(first).double(), data.tensor(second).double()
    if first.shape != second.shape or first.ndim != 1 or not len(first):
        raise ValueError(f"the runs have shapes {tuple(first.shape)} and {tuple(second.shape)}; expected (seeds,) for both")
    ratios, count = first / second, len(first)
    positive = first.isfinite() & second.isfinite() & (first > 0) & (second > 0)
    if not positive.all():
        return Comparison(ratios, math.nan, math.nan, math.nan)
    logs = ratios.log()
    mean = logs.mean().item()
    if count == 1:
        return Comparison(ratios, math.exp(mean), 0.0, math.inf)
    reach = stats.t.ppf(0.975, count - 1) * logs.std().item() / math.sqrt(count)
    return Comparison(ratios, *(math.exp(value) for value in (mean, mean - reach, mean + reach)))


def _failed_infinite(ends):
    ends = data.tensor(ends)
    return torch.where(ends.isfinite(), ends, torch.inf)


def _powers(steps):
    return 10 ** (torch.tensor(list(steps), dtype=torch.float64) / A_DECADE)
