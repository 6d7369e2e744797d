import dataclasses

import numpy as np
import pytest
import sympy as sp
import torch

import deeplinear as dl
from deeplinear.fingerprint import fingerprint


class Foreign:
    """A loss of somebody else's, with a generator and a reference to itself."""

    def __init__(self, scale):
        self.scale, self.me, self.generator, self.call = scale, self, torch.Generator(), lambda: 0


@dataclasses.dataclass
class Rate:
    lr: object


@pytest.mark.parametrize("make", [
    lambda: torch.arange(6.0).reshape(2, 3).mT, lambda: torch.zeros(0, 3), lambda: torch.tensor(2.0, dtype=torch.float32),
    lambda: np.array([sp.Rational(1, 3), 2], dtype=object), lambda: {"b": [1, 2.5], "a": None}, lambda: Foreign(2),
    lambda: dl.LpLoss([[1.0, 2.0]], [1.0], 4), lambda: dl.Adam(torch.tensor([0.1, 0.2])), lambda: sp.Symbol("x") ** 2,
    lambda: dl.Polynomial(sp.Symbol("a") ** 2, [sp.Symbol("a")])], ids=range(10))
def test_what_is_made_again_has_the_same_fingerprint(make):
    assert fingerprint(make()) == fingerprint(make())


@pytest.mark.parametrize("one, other", [
    (torch.zeros(2, 3), torch.zeros(3, 2)), (torch.zeros(2), torch.zeros(2).double()), (np.zeros(2), np.array([0.0, -0.0])),
    ([1, 2], [2, 1]), ([[1], 2], [[1, 2]]), (1, 1.0), ("1", 1), (Foreign(2), Foreign(3)), (Rate(0.1), Rate(0.2)),
    (dl.GD(0.1), dl.Adam(0.1)), (dl.LpLoss([[1.0, 2.0]], [1.0], 4), dl.LpLoss([[1.0, 2.0]], [1.0], 2)),
    (np.array([sp.Integer(1)], dtype=object), np.array([sp.Integer(2)], dtype=object))], ids=range(12))
def test_what_differs_has_another(one, other):
    assert fingerprint(one) != fingerprint(other)
