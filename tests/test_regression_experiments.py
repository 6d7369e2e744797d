"""The experiments of l4 regression at tuned rates and at the printed ones: what they record is what a direct run gives."""

import numpy as np
import pytest
import torch

import deeplinear as dl
from deeplinear import stiff
from deeplinear.experiments import l4_printed


@pytest.fixture(scope="module")
def printed():
    """The quick configuration with its jobs by kind and depth, and what is collected."""
    config = l4_printed.SCALES["quick"]
    jobs = l4_printed.jobs(config, "cpu")
    results = [l4_printed.run_job(config, job, "cpu") for job in jobs]
    return config, l4_printed.collect(config, jobs, results)


def diabetes():
    data = dl.data.load("diabetes")
    loss = dl.LpLoss(data.X, data.y, 4)
    return loss, loss.value(dl.losses.minimiser(loss))


def test_heavy_ball_is_a_direct_run_at_the_effective_rate(printed):
    config, (metrics, summary, arrays) = printed
    loss, minimum = diabetes()
    start = dl.near_zero_init((10, 1, 1), config.std, dl.seeded(1))
    run = dl.train(loss, start, dl.HeavyBall(0.1 * config.rates[1]), config.steps, record_every=l4_printed.record(config))
    torch.testing.assert_close(arrays["heavy ball depth 2"][:, 1], run.loss - minimum, rtol=1e-8, atol=1e-12)
    assert [row["gap"] for row in metrics if (row["depth"], row["seed"]) == (2, 1)][-1] == arrays["heavy ball depth 2"][-1, 1]
    far = dl.train(loss, start, dl.HeavyBall(0.1 * config.rates[1] * config.factors[0]), 40, 40)
    assert arrays["heavy ball depth 2 first"][0, 1] == pytest.approx((far.loss[-1] - minimum).item(), rel=1e-9)
    assert summary["depth 2"]["alive"] == [2, 0] and arrays["heavy ball depth 2 last"][1].isnan().all()


def test_plain_descent_that_takes_over_from_the_flow(printed):
    config, (_, summary, arrays) = printed
    loss, _ = diabetes()
    start, step = dl.near_zero_init((10, 1, 1), config.std, dl.seeded(0)), config.handover[1]
    layers = [W[-1] for W in stiff.layers(loss, start, [0.0, config.rates[1] * step]).weights]
    run = dl.train(loss, layers, dl.GD(config.rates[1]), config.until - step)
    assert arrays["plain depth 2"][0] == step + run.diverged_at > step
    assert summary["depth 2"]["plain_diverged_at"][0] == step + run.diverged_at
    assert "plain_diverged_at" not in summary["depth 1"]


def test_the_flow_and_the_rates_that_the_points_imply(printed):
    config, (_, summary, arrays) = printed
    loss, minimum = diabetes()
    start = dl.near_zero_init((10, 1), config.std, dl.seeded(0))
    times = arrays["flow depth 1 times"][[0, 5, 10]]
    run = dl.flow.layers(loss, start, times)
    torch.testing.assert_close(arrays["flow depth 1 gaps"][[0, 5, 10], 0], loss.value(run.end_to_end) - minimum, rtol=1e-5, atol=0)
    sharpness = dl.descent.sharpness(loss, [run.weights[0][-1]])
    assert arrays["flow depth 1 limit"][10, 0] == pytest.approx(2 / sharpness, rel=1e-5)
    rates = arrays["flow depth 1 implied"][:, 0]
    there = stiff.layers(loss, start, [0.0, *(rates * torch.tensor(config.at))]).end_to_end[1:]
    torch.testing.assert_close(loss.value(there) - minimum, torch.tensor(config.printed[0]).double(), rtol=0.02, atol=0)
    middle = arrays["flow depth 1 implied"].sort(1).values[:, 0]  # of two starts the lower one, as torch has it
    assert summary["depth 1"]["implied"] == middle.tolist()


def test_implied_rates_and_crossings_by_hand():
    times, gaps = np.array([0.0, 1.0, 10.0, 100.0]), np.array([[8.0, 8.0], [4.0, 4.0], [1.0, 4.0], [0.25, 2.0]])
    found = l4_printed.implied(times, gaps, (10, 20, 30), (2.0, 1.0, 0.1))
    assert found[0] == pytest.approx([10**0.5 / 10, 10]) and found[1, 0] == pytest.approx(0.5) and np.isnan(found[[1, 2], [1, 0]]).all()
    limit = np.array([[3.0, 3.0], [0.5, 3.0], [2.0, 3.0], [0.5, 3.0]])
    assert l4_printed.crossing(times, limit, 1.0, 2)[0] == 100 and l4_printed.crossing(times, limit, 1.0, 0)[0] == 1
    assert np.isnan(l4_printed.crossing(times, limit, 1.0, 0)[1])
