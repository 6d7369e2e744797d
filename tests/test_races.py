"""Races to one goal: counts and curves against what they are defined by, and bounds that a flow keeps."""

import numpy as np
import pytest
import torch
from conftest import generator

import deeplinear as dl
from deeplinear import races


@pytest.fixture
def regression():
    X = dl.normal(40, 4, generator=generator(0))
    return dl.LpLoss(X, X @ dl.normal(4, generator=generator(1)) + 0.3 * dl.normal(40, generator=generator(2)), 4)


def test_steps_are_those_of_the_best_rate():
    X = dl.normal(40, 4, generator=generator(0))
    y = X @ dl.normal(4, generator=generator(1))
    one, two = races.fewest_steps(X, y, depths=(1, 2), horizon=200)
    assert 1 <= one < 200 and 1 <= two < 200
    assert races.fewest_steps(X, y, depths=(1,), horizon=200, share=1e-5)[0] > one
    assert races.fewest_steps(X, y, depths=(1,), horizon=3, share=1e-12) == [torch.inf]
    loss = dl.LpLoss(X, y, 4)
    goal = loss.value(dl.losses.minimiser(loss)) + 1e-3 * loss.value(torch.zeros(1, 4).double())
    starts = torch.stack([dl.balanced_init((4, 1), dl.seeded(seed), std=0.02)[0] for seed in range(5)])
    slower = dl.train(loss, [starts], dl.GD(0.02), 200, 1).steps_to(goal).median()  # near one of the 21 rates
    assert one <= 1.1 * slower


def test_curves_are_gaps_over_work(regression):
    least = regression.value(dl.losses.minimiser(regression)).item()
    first = regression.value(torch.zeros(1, 4).double()).item() - least
    for (work, gaps), begin in ((races.lbfgs(regression), 2), (races.newton(regression), 10),
                                (races.first_order(regression, dl.GD, 2, steps=200), 2)):
        assert work[0] == begin and len(work) == len(gaps) and (np.diff(work) > 0).all() and (gaps > races.LEAST).all()
        assert gaps[0] == pytest.approx(first, rel=0.2 if begin == 2 else 1e-12)
        assert gaps[-1] < 0.2 * first, begin
    assert (np.diff(races.lbfgs(regression)[1]) <= 0).all()
    assert len(races.newton(regression, steps=3)[0]) == 3


def test_the_bounds_hold_without_noise_and_fail_with_it():
    X, times = dl.normal(12, 3, generator=generator(3)), np.array([0.0, 1.0, 10.0, 100.0])
    for noise in (0.0, 1.0):
        y = X @ torch.ones(3).double() + noise * dl.normal(12, generator=generator(4))
        loss = dl.LpLoss(X, y, 4)
        floor = loss.value(dl.losses.minimiser(loss)).item() if noise else 0.0
        path = dl.flow.end_to_end(loss, 0.3 * torch.ones(1, 3), 2, times).end_to_end
        gaps, below, above = races.power_law(loss, path, 2, times, floor)
        assert gaps[0] == pytest.approx(below[0]) == pytest.approx(above[0])
        assert (gaps <= 1.001 * above).all()
        assert (gaps >= 0.999 * below).all() == (noise == 0)
