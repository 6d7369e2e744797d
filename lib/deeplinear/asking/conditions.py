"""The three conditions of chapter 8 under which depth helped, measured on a table, and what they predict."""

import dataclasses
import math

import torch

NOISE = 0.55  # over signal: the middle, on a logarithmic axis, between 0.3, where depth gained on the map, and 1, where not
WEAK = 0.1  # of the largest variance: a direction with less is weak; on the map a conditioning of 10 gains twofold
SHARE = 1e-3**0.5  # of the signal: what a thousandth of an l4 loss without noise leaves of it
FASTER = 2.0  # what chapters 7 and 8 call an effect


@dataclasses.dataclass(frozen=True)
class Conditions:
    """``conditioning``: the largest over the smallest variance of a direction among the features; ``rank``: how many
    directions they have, up to rounding. ``noise``: the residual of the best linear fit over the signal, as standard
    deviations. ``weak``: the share of the signal in directions with less than a tenth of the largest variance;
    ``first``: its share in the strongest direction."""

    conditioning: float
    rank: int
    noise: float
    weak: float
    first: float


@dataclasses.dataclass(frozen=True)
class Prediction:
    """``faster``: whether depth is to be at least twice as fast; ``reasons``: each condition, whether it holds, in words."""

    faster: bool
    reasons: tuple[tuple[bool, str], ...]

    def __str__(self):
        why = [words for holds, words in self.reasons if holds == self.faster]
        return (f"depth at least twice as fast: {', '.join(why)}" if self.faster else
                f"depth less than twice as fast, if at all: {', '.join(why)}")


def measure(X: torch.Tensor, y: torch.Tensor) -> Conditions:
    """The :class:`Conditions` of features (n, d) and labels (n,), both standardised."""
    U, s, _ = torch.linalg.svd(X, full_matrices=False)
    kept = s > s[0] * max(X.shape) * torch.finfo(X.dtype).eps
    variances, parts = s[kept] ** 2, (U[:, kept].mT @ y) ** 2
    signal = parts.sum().item()
    rest = max(0.0, (y @ y).item() - signal)
    weak, first = parts[variances < WEAK * variances[0]].sum().item(), parts[0].item()
    if not signal > 0:
        return Conditions((variances[0] / variances[-1]).item(), int(kept.sum()), math.inf, 0.0, 0.0)
    return Conditions((variances[0] / variances[-1]).item(), int(kept.sum()), math.sqrt(rest / signal), weak / signal,
                      first / signal)


def predict(found: Conditions, power: int) -> Prediction:
    """What chapters 7 and 8 let one expect: depth is twice as fast where all three conditions hold.

    A rule of thumb read off one map of random problems and three data sets, not a theorem.
    """
    nearly, weak = found.noise <= NOISE, found.weak >= SHARE
    reasons = (
        (power > 2, f"power {power} is {'above' if power > 2 else 'not above'} 2"),
        (nearly, f"the labels {'can nearly' if nearly else 'cannot nearly'} be met (noise over signal {found.noise:.2f})"),
        (weak, f"weak directions carry {'signal' if weak else 'hardly any signal'} ({100 * found.weak:.1f} %)"))
    return Prediction(all(holds for holds, _ in reasons), reasons)
