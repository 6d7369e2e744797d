"""The rules of a verdict: grids, the edge, failed starts, ties, paired intervals."""

import math

import pytest
import torch
from scipy import stats

import deeplinear as dl
from deeplinear import tuning

NAN, INF = float("nan"), float("inf")


def test_the_grids_are_those_of_the_rules():
    assert tuning.paper_grid(-3, -1).tolist() == [1e-3, 5e-3, 1e-2, 5e-2, 1e-1]
    assert tuning.paper_grid(0, 0).tolist() == [1.0]
    fine = tuning.fine_grid(0.2)
    assert len(fine) == 14 and fine[10] == 0.2 and fine[0] == pytest.approx(0.02) and fine[-1] == pytest.approx(0.4, rel=3e-3)
    assert (fine[1:] / fine[:-1]).tolist() == pytest.approx([10**0.1] * 13)
    near = tuning.around(3.0)
    assert len(near) == 7 and near[3] == 3 and near[-1] / near[0] == pytest.approx(10**0.6)
    with pytest.raises(ValueError, match="first is 1 and last 0; expected first <= last"):
        tuning.paper_grid(1, 0)


def test_a_grid_is_widened_on_the_side_of_its_optimum_until_that_is_interior():
    rates, best = tuning.around(1.0, 5), 20.0
    tried = 0
    while len(more := tuning.widened(rates, tuning.choose((rates / best).log().abs()))):
        rates, tried = torch.cat([rates, more]), tried + 1
        assert (rates.diff() > 0).all() and (rates[1:] / rates[:-1]).tolist() == pytest.approx([10**0.1] * (len(rates) - 1))
    assert tried == 3 and abs(math.log10(rates[tuning.choose((rates / best).log().abs()).index] / best)) <= 0.05
    below = tuning.widened(rates, tuning.choose(rates), by=2)
    assert below.tolist() == pytest.approx((rates[0] * torch.tensor([10**-0.2, 10**-0.1])).tolist())
    assert len(tuning.widened(rates, tuning.choose(torch.full_like(rates, INF)))) == 0


def test_the_edge_is_found_from_below_within_its_tolerance():
    asked = []

    def survives(rate):
        asked.append(rate)
        return rate <= 0.37

    found = tuning.edge(survives, 1e-4, 10.0, tolerance=0.02)
    assert 0.37 / 1.02 < found <= 0.37 and len(asked) <= 2 + math.ceil(math.log2(math.log(1e5) / math.log(1.02)))
    assert tuning.edge(lambda rate: True, 0.1, 1.0) == 1.0
    with pytest.raises(ValueError, match="the median start fails at the rate 0.5 already"):
        tuning.edge(survives, 0.5, 1.0)
    with pytest.raises(ValueError, match="low is 2 and high 1; expected 0 < low < high"):
        tuning.edge(survives, 2, 1)


def test_the_edge_of_descent_on_a_parabola_is_two_over_its_curvature():
    loss = dl.LpLoss([[1.0]], [0.0], 2, scale=1.5)  # curvature 3

    def survives(rate):
        runs = dl.train(loss, [torch.tensor([1.0, 2.0, 3.0]).double()[:, None, None]], dl.GD(rate), 1000, 1000)
        return tuning.lives(runs.padded_loss(2)[-1])

    assert tuning.edge(survives, 0.01, 10.0, tolerance=0.01) == pytest.approx(2 / 3, rel=0.03)


def test_a_failed_start_counts_as_infinite_in_the_median():
    ends = torch.tensor([[3.0, 1.0, NAN, 2.0, 5.0], [1.0, NAN, INF, NAN, 1.0], [2.0, 2.0, 2.0, 2.0, 2.0], [NAN] * 5])
    assert tuning.median(ends).tolist() == [3.0, INF, 2.0, INF]
    assert tuning.strict(ends).tolist() == [INF, INF, 2.0, INF]
    assert tuning.failures(ends).tolist() == pytest.approx([0.2, 0.6, 0.0, 1.0])
    assert [tuning.lives(row) for row in ends] == [True, False, True, False]
    assert tuning.median([[1.0, 2.0], [1.0, NAN]]).tolist() == [1.5, INF]  # of two the mean: one failure fails both
    assert not tuning.lives([1.0, NAN]) and tuning.median([[4.0]]).tolist() == [4.0]


def test_the_two_choices_differ_where_one_start_fails_at_the_best_rate():
    ends = torch.tensor([[2.0, 2.1, 2.2], [1.0, 1.1, NAN], [3.0, NAN, NAN]])
    loose, hard = tuning.choose(tuning.median(ends)), tuning.choose(tuning.strict(ends))
    assert loose == tuning.Choice(1, True) and hard == tuning.Choice(0, False)


@pytest.mark.parametrize("scores, index, interior", [
    ([3.0, 1.0, 2.0], 1, True), ([1.0, 2.0, 3.0], 0, False), ([3.0, 2.0, 1.0], 2, False), ([INF, 2.0, INF], 1, True),
    ([INF, INF], None, False), ([NAN, 4.0, NAN], 1, True), ([5.0], 0, False)])
def test_the_choice_says_whether_it_is_interior(scores, index, interior):
    assert tuning.choose(scores) == tuning.Choice(index, interior)


def test_a_tie_goes_to_the_first_to_come_down_not_to_rounding():
    curves = torch.tensor([[9.0, 9.0, 9.0, 9.0], [5.0, 2.0, 3.0, 4.0], [1.0, 1.0 + 1e-9, 1.0, 3.0],
                           [1.0 + 1e-12, 1.0 + 2e-12, 1.0 - 1e-12, 2.0]])
    assert tuning.choose(curves[-1], curves).index == 0  # the last score is the smallest by rounding alone
    sooner = curves.clone()
    sooner[1, 1] = 1.0
    assert tuning.choose(sooner[-1], sooner).index == 1
    sooner[-1, 2] = 0.99  # no tie any more
    assert tuning.choose(sooner[-1], sooner).index == 2
    assert tuning.choose([-1.0, -1.0 - 1e-12, -0.5]).index == 0  # a gap below a minimum that is known to rounding


def test_records_below_a_level():
    curves = torch.tensor([[4.0, NAN], [2.0, 9.0], [3.0, NAN]])
    assert tuning.first_below(curves, 2.0).tolist() == [1.0, INF] and tuning.first_below(curves, 9.0).tolist() == [0.0, 1.0]


def test_ahead_means_that_the_interval_leaves_out_one():
    first, second = torch.tensor([1.0, 1.1, 0.9, 1.05, 0.95]), torch.tensor([2.0, 2.1, 2.3, 1.9, 2.2])
    found = tuning.compare(first, second)
    logs = (first.double() / second.double()).log().numpy()
    low, high = stats.t.interval(0.95, 4, loc=logs.mean(), scale=stats.sem(logs))
    assert (found.mean, found.low, found.high) == pytest.approx(tuple(math.exp(x) for x in (logs.mean(), low, high)))
    assert found.ratios.tolist() == pytest.approx((first / second).tolist()) and found.ahead and not found.behind
    back = tuning.compare(second, first)
    assert back.behind and not back.ahead and back.mean == pytest.approx(1 / found.mean)
    # all five below 1, and yet not ahead: one pair is far from the others
    wide = tuning.compare([0.99, 0.98, 0.99, 0.97, 0.1], [1.0] * 5)
    assert (wide.ratios < 1).all() and not wide.ahead and wide.high > 1


@pytest.mark.parametrize("first, second", [([1.0, NAN], [2.0, 2.0]), ([1.0, 1.0], [2.0, INF]), ([1.0, -1e-18], [2.0, 2.0]),
                                           ([1.0, 1.0], [2.0, 0.0])])
def test_pairs_without_a_ratio_decide_nothing(first, second):
    found = tuning.compare(first, second)
    assert not found.ahead and not found.behind and math.isnan(found.mean) and len(found.ratios) == 2


def test_one_pair_decides_nothing_and_equal_ratios_decide_all():
    one = tuning.compare([1.0], [100.0])
    assert not one.ahead and (one.low, one.high) == (0.0, INF) and one.mean == pytest.approx(0.01)
    assert tuning.compare([1.0, 2.0], [2.0, 4.0]).ahead and not tuning.compare([1.0, 2.0], [1.0, 2.0]).ahead
    with pytest.raises(ValueError, match=r"shapes \(2,\) and \(3,\); expected \(seeds,\) for both"):
        tuning.compare([1.0, 2.0], [1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="expected"):
        tuning.compare([], [])
