"""The paper's printed values: the record of the printed curves has the same, and panels hold what was asked for."""

import numpy as np
import pytest

import deeplinear as dl
from deeplinear import printed


def test_the_values_are_those_that_were_run_for():
    record = dl.recorded.load("l4-printed", quiet=True)
    assert tuple(record.config["at"]) == printed.STEPS
    assert [tuple(row) for row in record.config["printed"]] == [printed.FIGURE_3[4][depth] for depth in (1, 2, 3)]
    for curves in printed.FIGURE_3.values():
        assert all(len(curve) == len(printed.STEPS) and (np.diff(curve) < 0).all() for curve in curves.values())


def test_a_power_law_is_read_off_exactly():
    steps = np.array([0, 10, 100, 1000])
    assert printed.read_off(steps, np.array([1, 2.0, 0.2, 0.02]), at=(20, 500)) == pytest.approx([1, 0.04])


def test_a_rate_off_the_grid_is_refused():
    record = dl.recorded.load("regression-depth", quiet=True)
    steps, gaps = printed.curve(record, 2, 1, 1e-2)
    assert steps.shape == gaps.shape and gaps[-1] == pytest.approx(0.0027, rel=0.05)
    with pytest.raises(ValueError, match="rate is 0.003"):
        printed.curve(record, 2, 1, 3e-3)


def test_panels_hold_curves_and_points():
    panel = printed.beside(dl.recorded.load("regression-depth", quiet=True), 2, (1e-2, 1e-3, 5e-4))
    assert set(panel) == set(printed.PAPER) | set(printed.PAPER.values()) and min(panel["depth 1"][0]) > 300
    flow, ball = printed.clocked(dl.recorded.load("l4-printed", quiet=True)).values()
    assert set(flow) == set(ball) == set(panel) and min(flow["depth 2"][0]) > 0.3
    assert flow["paper, depth 1"][0] == pytest.approx(4.2e-3 * np.array(printed.STEPS))
