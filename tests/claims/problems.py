"""What the tests of several chapters share: losses, records, and the draws of hypothesis for statements "for all shapes"."""

import deeplinear as dl
import sympy as sp
import torch
from hypothesis import settings
from hypothesis import strategies as st

from conftest import generator

seeds = st.integers(0, 10**6)
depths = st.integers(1, 5)
widths = st.integers(1, 4)
chains = st.lists(widths, min_size=3, max_size=6)
quick = settings(max_examples=25)
w = sp.symbols("w1:5", real=True)


class Logistic:
    """The mean of log(1 + exp(-y W x)): a loss that is no polynomial and has no minimum at a matrix."""

    def __init__(self, n=12, k=1, d=3, seed=0):
        self.X = dl.normal(n, d, generator=generator(seed))
        self.Y = torch.sign(dl.normal(k, n, generator=generator(seed + 1)))

    def value(self, W):
        return torch.nn.functional.softplus(-self.Y * (W @ self.X.mT)).sum(-2).mean(-1)

    def gradient(self, W):
        return -(self.Y * torch.sigmoid(-self.Y * (W @ self.X.mT))) @ self.X / len(self.X)

    def value_and_gradient(self, W):
        return self.value(W), self.gradient(W)


def half_square(Phi):
    """The loss |W - Phi|_F^2 / 2."""
    return dl.LpLoss(torch.eye(Phi.shape[1], dtype=torch.float64), Phi.T, 2, "sum", 0.5)


def regression(k, d, p, seed, n=9):
    return dl.LpLoss(dl.normal(n, d, generator=generator(seed)), dl.normal(n, k, generator=generator(seed + 1)), p)


def any_loss(k, d, seed):
    return [regression(k, d, 2, seed), regression(k, d, 4, seed), Logistic(k=k, d=d, seed=seed)][seed % 3]


def rational(rng, *shape):
    return dl.checks.rational(rng.integers(-6, 7, shape), 5)


def worst(*differences):
    return max(float(torch.as_tensor(D).abs().max()) for D in differences)


def recorded_models():
    record = dl.recorded.load("regression-models", quiet=True)
    return record, {key: found["median_gap"] for key, found in record.summary.items() if key != "minimum"}
