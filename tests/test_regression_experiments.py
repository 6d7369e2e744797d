"""The experiments of l4 regression at tuned rates and at the printed ones: what they record is what a direct run gives."""

import dataclasses

import numpy as np
import pytest
import torch

import deeplinear as dl
from deeplinear import recorded, stiff, tuning
from deeplinear.experiments import l4_adam, l4_deeper, l4_optimisers, l4_printed, regression_edges, tuned


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
    assert l4_printed.crossing(times, limit, 1.0, 2)[0] == pytest.approx(10**1.5) and l4_printed.crossing(times, limit, 1.0, 0)[0] == 1
    assert np.isnan(l4_printed.crossing(times, limit, 1.0, 0)[1])


def test_a_tuned_model_is_the_direct_runs_of_its_grids():
    """Edge, grids, medians, choices and comparisons of two depths, against runs written out."""
    config = dataclasses.replace(regression_edges.SCALES["quick"], powers=(4,))
    jobs = tuned.jobs(config, "cpu")
    metrics, summary, arrays = tuned.collect(config, jobs, [tuned.run_job(config, job, "cpu") for job in jobs])
    loss, minimum = diabetes()
    steps = dl.descent.logarithmic(config.steps, config.points)
    starts = [dl.near_zero_init((10, 1, 1), config.std, dl.seeded(seed)) for seed in config.seeds]

    def gaps(rate, horizon, record):
        return torch.stack([dl.train(loss, start, dl.GD(rate), horizon, record).padded_loss(len(record))
                            for start in starts], -1) - minimum

    found = summary["l4 gd depth 2"]
    assert gaps(found["edge"], 10, [10]).isfinite().all() and not gaps(1.3 * found["edge"], 10, [10]).isfinite().all()
    assert arrays["l4 gd depth 2 paper rates"].tolist() == [0.01, 0.05, 0.1]
    assert arrays["l4 gd depth 2 fine rates"][10].item() == found["edge"]
    for grid in tuned.GRIDS:
        runs = torch.stack([gaps(rate.item(), config.steps, steps) for rate in arrays[f"l4 gd depth 2 {grid} rates"]], 1)
        alive = runs[-1].isfinite()  # at the edge the last bit decides on the third digit
        torch.testing.assert_close(arrays[f"l4 gd depth 2 {grid} ends"], runs[-1], rtol=0.01, atol=1e-9, equal_nan=True)
        scores = torch.where(alive.all(1), runs[-1].mean(1), torch.inf)  # of two starts
        best = int(scores.argmin())
        assert found[grid]["rate"] == found[grid]["strict_rate"] == arrays[f"l4 gd depth 2 {grid} rates"][best].item()
        torch.testing.assert_close(arrays[f"l4 gd depth 2 {grid}"], runs[:, best], rtol=0.01, atol=1e-9)
        assert found[grid]["failures"] == (1 - alive.double().mean(1)).tolist()
        pair, = (row for row in summary["comparisons"] if row["grid"] == grid)
        ends = [arrays[f"l4 gd depth {depth} {grid}"][-1] for depth in (1, 2)]
        assert (pair["first"], pair["second"]) == ("l4 gd depth 1", "l4 gd depth 2")
        assert pair["ratios"] == tuning.compare(*ends).ratios.tolist() and pair["ahead"] == tuning.compare(*ends).ahead
    assert len(metrics) == 2 * 2 * (3 + 14) and 1.0 in found["fine"]["failures"] and found["fine"]["steps_to_gap"][0] is not None


def test_an_adaptive_method_is_tuned_until_its_optimum_is_interior():
    config = dataclasses.replace(l4_optimisers.SCALES["quick"], models=(("adagrad-pytorch", 1, "near-zero"),), widenings=3)
    job, = tuned.jobs(config, "cpu")
    result = tuned.run_job(config, job, "cpu")
    _, summary, arrays = tuned.collect(config, [job], [result])
    found, name = summary["l4 adagrad-pytorch depth 1"], "l4 adagrad-pytorch depth 1"
    assert found["edge"] is None and found["paper"]["interior"] and found["fine"]["interior"]
    wide = arrays[f"{name} paper rates"].tolist()
    assert len(wide) > 3 and wide == sorted(wide) and {0.01, 0.05, 0.1} < set(wide)
    loss, minimum = diabetes()
    start = dl.near_zero_init((10, 1), config.std, dl.seeded(1))
    for rate, gap in zip(wide, arrays[f"{name} paper ends"][:, 1].tolist()):  # each rate with its own runs
        run = dl.train(loss, start, dl.AdaGrad.pytorch(rate), config.steps, config.steps)
        assert run.loss[-1] - minimum == pytest.approx(gap, rel=1e-8), rate
    fine = arrays[f"{name} fine rates"]
    assert (fine[1:] / fine[:-1]).numpy() == pytest.approx(10**0.1)
    narrow = dataclasses.replace(config, widenings=0)
    _, summary, _ = tuned.collect(narrow, [job], [tuned.run_job(narrow, job, "cpu")])
    assert not summary[name]["paper"]["interior"]  # the record says so


def test_a_model_that_never_lives_has_no_best_rate():
    config = dataclasses.replace(l4_adam.SCALES["quick"], models=(("adam-tensorflow1", 1, "near-zero"),), widenings=1)
    job, = tuned.jobs(config, "cpu")
    result = tuned.run_job(config, job, "cpu")
    lost = {key: array * np.nan if key.endswith("loss") else array for key, array in result.items()}
    metrics, summary, arrays = tuned.collect(config, [job], [lost])
    found = summary["l4 adam-tensorflow1 depth 1"]["fine"]
    assert found["rate"] is None and found["gap"] is None and set(found["failures"]) == {1.0}
    assert arrays["l4 adam-tensorflow1 depth 1 fine"].shape == (0, 2) and all(row["gap"] is None for row in metrics)
    recorded._refuse_nan({"metrics": metrics, "summary": summary}, "record")


def test_every_part_of_a_tuned_run_goes_on_from_its_own_checkpoint(tmp_path):
    config = l4_deeper.SCALES["quick"]
    job = tuned.jobs(config, "cpu")[1]
    checkpoint, calls = recorded.Checkpoint(tmp_path / "job-0.part.npz", "a job"), []

    class Stop(Exception):
        pass

    def stop(share):
        calls.append(share)
        if waiting and waiting[0](share):
            waiting.pop(0)
            raise Stop

    waiting = [lambda share: len(calls) == 2, lambda share: len(calls) == 8, lambda share: share > 0.6]
    while waiting:
        with pytest.raises(Stop):
            tuned.run_job(config, job, "cpu", checkpoint, stop)
    found, plain = tuned.run_job(config, job, "cpu", checkpoint, stop), tuned.run_job(config, job, "cpu")
    assert {"job-0.part.paper.npz", "job-0.part.fine.npz"} <= {path.name for path in tmp_path.iterdir()}
    for key, array in plain.items():
        np.testing.assert_array_equal(found[key], array)
    assert max(calls) <= 0.99


def test_full_scales_are_the_papers_settings():
    edges, optimisers, adam, deeper = (module.SCALES["full"] for module in (regression_edges, l4_optimisers, l4_adam, l4_deeper))
    assert edges.steps == optimisers.steps == 1_000_000 and adam.steps == deeper.steps == 100_000
    assert {config.std for config in (edges, optimisers, adam, deeper)} == {0.01} and len(edges.seeds) == 5
    assert [tuned.label(4, model) for model in edges.models] == [f"l4 gd depth {depth}" for depth in (1, 2, 3)]
    assert {model[0] for model in optimisers.models} == {
        f"{method}-{framework}" for method in ("adagrad", "adadelta") for framework in ("tensorflow1", "pytorch")}
    assert tuned.label(4, deeper.models[-1]) == "l4 gd depth 8" and len(deeper.models) == 5
