"""The recorded experiments at quick scale: what they count is what a direct run counts."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

import deeplinear as dl
from deeplinear import convnet
from deeplinear.experiments import (EXPERIMENTS, l4_tries, mnist_balance, mnist_convnet, mnist_tutorial,
                                    optimisers, phase_diagram, regression_models, relu_balance, train_and_fold, two_scales)


def collected(module, config):
    """What an experiment computes at this configuration: metrics, summary, arrays."""
    jobs = module.jobs(config, "cpu")
    return module.collect(config, jobs, [module.run_job(config, job, "cpu") for job in jobs])


def test_every_module_of_the_folder_is_an_experiment():
    modules = {path.stem for path in Path(dl.experiments.__file__).parent.glob("*.py")} - {"__init__", "tuned"}  # what several share
    assert {module.__name__.rpartition(".")[2] for module in EXPERIMENTS.values()} == modules


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_both_scales_run_the_same_code(name):
    module = EXPERIMENTS[name]
    assert module.NAME == name and module.SCALES.keys() == {"quick", "full"}
    assert {type(config) for config in module.SCALES.values()} == {module.Config}
    sizes = [sum(job["size"] for job in module.jobs(config, "cpu")) for config in module.SCALES.values()]
    assert 5 * sizes[0] < sizes[1] and sizes[0] < 1e6


def test_phase_diagram_counts_the_steps_of_a_direct_run():
    config = phase_diagram.SCALES["quick"]
    job = phase_diagram.jobs(config, "cpu")[1]
    result = phase_diagram.run_job(config, job, "cpu")["steps_to_goal"]
    X, y = phase_diagram.problem(config, job["conditioning"], config.noise[1], 0)
    loss = dl.LpLoss(X, y, job["p"])
    minimum = loss.value(dl.losses.minimiser(loss))
    goal = minimum + config.share * (loss.value(torch.zeros(1, config.features).double()) - minimum)
    start = dl.balanced_init((config.features, 1, 1), dl.seeded(1), std=config.std)
    run = dl.train(loss, start, dl.GD(0.1), config.steps,
                   record_every=dl.descent.logarithmic(config.steps, config.points))
    expected = run.steps_to(goal) if run.loss[-1] <= goal else torch.inf
    assert result[1, 0, 1, 1, 1] == expected and result.shape == (2, 1, 3, 3, 2)


def test_the_random_problems_have_the_conditioning_they_claim():
    config = phase_diagram.SCALES["full"]
    X, y = phase_diagram.problem(config, 1000, 0.1, 2)
    eigenvalues = torch.linalg.eigvalsh(X.T @ X / len(X))
    assert abs(eigenvalues[-1] / eigenvalues[0] / 1000 - 1) < 1e-9
    clean = phase_diagram.problem(config, 1000, 0.0, 2)[1]
    assert abs(clean.var(correction=0) - 1) < 1e-9 and 0.05 < (y - clean).std() < 0.2
    loss = dl.LpLoss(X, clean, 4)
    assert loss.value(dl.losses.minimiser(loss)) < 1e-12  # without noise every label can be met
    assert phase_diagram.origin_of_data(config).sha256 == phase_diagram.origin_of_data(config).sha256


def test_phase_diagram_picks_the_best_rate():
    config = phase_diagram.SCALES["quick"]
    jobs = phase_diagram.jobs(config, "cpu")
    results = [phase_diagram.run_job(config, job, "cpu") for job in jobs]
    metrics, summary, arrays = phase_diagram.collect(config, jobs, results)
    runs = torch.as_tensor(results[0]["steps_to_goal"])[0, :, 1].permute(1, 0, 2).flatten(1)
    assert arrays["steps"][0, 0, 0, 1] == runs.median(1).values.min()
    assert (arrays["speed-up"][..., 0][torch.isfinite(arrays["steps"][..., 0])] == 1).all()
    assert len(metrics) == arrays["steps"].numel() and summary["runs"] == 2 * 2 * 2 * 3 * 3 * 2


def test_regression_models_are_the_runs_they_name():
    config = regression_models.SCALES["quick"]
    metrics, summary, arrays = collected(regression_models, config)
    data = dl.data.load(config.dataset)
    loss = dl.LpLoss(data.X, data.y, 4)
    start = dl.near_zero_init((10, 1, 1, 1, 1), config.std, dl.seeded(1))
    start = [W + one for W, one in zip(start, dl.identity_init((10, 1, 1, 1, 1)))]
    rate = summary["gd depth 4 identity"]["best_rate"]
    run = dl.train(loss, start, dl.GD(rate), config.steps, record_every=config.steps)
    assert abs(run.loss[-1] - summary["minimum"] - arrays["gd depth 4 identity"][-1, 1]) < 1e-9
    adam = summary["adam-tensorflow1 depth 2"]
    assert arrays["adam-tensorflow1 depth 2"][-1].median() == adam["median_gap"]
    assert len(metrics) == 3 * 3 * 2 and adam["steps_to_gap"][0] is not None
    assert regression_models._median_steps(torch.tensor([0, 5, 9]), torch.tensor([[3.0], [1.0], [1.0]]), 0.5) is None
    assert regression_models._median_steps(torch.tensor([0, 5, 9]), torch.tensor([[3.0], [1.0], [1.0]]), 1.0) == 5


def test_two_scales_counts_the_steps_of_a_direct_run():
    config = two_scales.SCALES["quick"]
    job = two_scales.jobs(config, "cpu")[1]
    found = two_scales.run_job(config, job, "cpu")["steps_to_goal"]
    angle = torch.tensor(60 * torch.pi / 180, dtype=torch.float64)
    W = 0.1 / job["ratio"] * torch.stack([angle.cos(), angle.sin()])[None]
    loss, rate = two_scales.problem(4, job["ratio"]), two_scales.rates(config)[4].item()
    run = dl.train(loss, dl.balanced_init((2, 1, 1), dl.seeded(0), W=W), dl.GD(rate), config.steps,
                   record_every=dl.descent.logarithmic(config.steps, config.points))
    goal = 2 * 0.2**4 / 4
    assert found.shape == (2, 7, 2) and (run.loss.diff() <= 1e-15).all()
    assert found[1, 4, 1] == run.steps_to(goal) < torch.inf
    assert found[0, -1].max() == float("inf")  # the largest rate overshoots
    metrics, _, arrays = two_scales.collect(config, [job, job], [{"steps_to_goal": found}] * 2)
    assert arrays["steps"].shape == (1, 2, 2, 2) and arrays["exponent"].isnan().all() and len(metrics) == 8


@pytest.mark.parametrize("case", ["two scales 4", "least squares 10"])
def test_optimisers_count_the_steps_after_which_the_loss_stays(case):
    config = optimisers.SCALES["quick"]
    _, summary, arrays = collected(optimisers, config)
    name, hardness = case.rsplit(" ", 1)
    loss, goal = optimisers.problem(name, int(hardness), config.share)
    start = [layer[1] for layer in optimisers.starts(config, name, int(hardness), 2)]
    horizon, rates, both = {"two scales": 200, "least squares": 100}[name], optimisers.grid(config, name), []
    for index in (6, 13):
        run = dl.train(loss, start, dl.polar.Muon(rates[index].item(), momentum=0.0), horizon)
        above = (run.padded_loss(horizon + 1) > goal).nonzero().flatten()
        both.append(float("inf") if above[-1] == horizon else above[-1].item() + 1)
        assert arrays[case][1, 1, index, 1] == both[-1]
    assert min(both) < float("inf") or name == "least squares"
    found = summary[case]["gd"]
    assert found["median"][1] == arrays[case][0, 1].mean(-1).min() and found["interior"] == [True, True]
    assert arrays[f"{case} best"][0, 1].mean() == found["median"][1] < found["strict"][1] + 1


def test_a_first_passage_is_not_an_arrival():
    """A run that dips below the goal, leaves it and comes back has arrived the second time."""
    class Scripted:
        values = iter([5.0, 0.5, 3.0, 0.5, 0.4, 0.3])

        def value_and_gradient(self, W):
            return W.new_full(W.shape[:-2], next(self.values)), W

    layers = [torch.ones(1, 1, 1).double()]
    assert optimisers.steps_to_stay(Scripted(), layers, dl.GD(0.1), 1.0, 5).tolist() == [3.0]
    Scripted.values = iter([0.5, 0.5, 3.0])
    assert optimisers.steps_to_stay(Scripted(), layers, dl.GD(0.1), 1.0, 2).tolist() == [float("inf")]
    Scripted.values = iter([0.5, float("nan"), 0.5])
    assert optimisers.steps_to_stay(Scripted(), layers, dl.GD(0.1), 1.0, 2).tolist() == [2.0]
    assert layers[0].item() == 1


def test_l4_tries_are_the_runs_they_name():
    config = l4_tries.SCALES["quick"]
    _, summary, arrays = collected(l4_tries, config)
    data = dl.data.load(config.dataset)
    loss = dl.LpLoss(data.X, data.y, 4)
    minimum, steps = loss.value(dl.losses.minimiser(loss)), arrays["steps"].tolist()
    W = dl.near_zero_init((10, 1), config.std, dl.seeded(1))[0]
    clipped, warm, capped, lr = W.clone(), W.clone(), W.clone(), 0.1
    sharpness = torch.linalg.eigvalsh(torch.autograd.functional.hessian(lambda w: loss.value(w[None]), W[0]))[-1]
    for step in range(1, steps[5] + 1):  # three of the tries, written out
        G = loss.gradient(clipped)
        clipped = clipped - lr * G / max(1.0, G.norm().item())
        warm = warm - lr * step / 1000 * loss.gradient(warm)
        capped = capped - min(lr, config.cap * 2 / sharpness.item()) * loss.gradient(capped)
    assert steps[5] < config.measure
    for name, end in (("clipped at 1", clipped), ("warm-up 1000", warm), ("capped", capped)):
        assert abs(arrays[name][5, 2, 1] - (loss.value(end) - minimum)) < 1e-12, name
    assert sharpness * 0.1 > 2 and arrays["near zero"][-1, 2].isnan().all()  # where the plain run is lost
    assert summary["near zero"]["largest_rate_all"] < summary["clipped at 1"]["largest_rate_all"]


def test_convnet_experiment_runs_the_nets_it_names():
    config = mnist_convnet.SCALES["quick"]
    jobs = [job for job in mnist_convnet.jobs(config, "cpu") if job["model"] == 0]
    results = [mnist_convnet.run_job(config, job, "cpu") for job in jobs]
    metrics, summary, arrays = mnist_convnet.collect(
        dataclasses.replace(config, models=config.models[:1]), jobs, results)
    data = dl.data.load("mnist-5k")
    kept = torch.arange(5000) % 10 > 0
    name, best = config.models[0].name, summary[config.models[0].name]["best_rate"]
    net = convnet.build("original", dl.seeded(1), **convnet.SMALL)
    run = convnet.train(net, data.X[kept], data.y[kept], best * 0.1, config.steps, seed=1)
    assert (arrays[name][:, 1] - run.data).abs().max() < 1e-5
    assert summary[name]["loss"] == min(torch.as_tensor([result["data"][r][-25:].mean() for result in results]).median()
                                        for r in range(4))
    assert len(metrics) == 8 and summary[name]["parameters"] == 52138
    lost = [{**result, "data": result["data"] * float("nan")} for result in results]  # every rate diverged
    _, empty, without = mnist_convnet.collect(dataclasses.replace(config, models=config.models[:1]), jobs, lost)
    assert empty[name] == {"best_rate": None} and without[name].shape == (60, 0)
    errors = [result["validation"][config.models[0].rates.index(best)][1] for result in results]
    assert errors[1] == convnet.evaluate(net, data.X[~kept], data.y[~kept])[1]


def test_full_convnet_experiments_use_the_tutorials_settings():
    sweep, tutorial = mnist_convnet.SCALES["full"], mnist_tutorial.SCALES["full"]
    assert {config.batch for config in (sweep, tutorial)} == {64} and {c.order for c in (sweep, tutorial)} == {"tutorial"}
    assert tutorial.steps == 10 * 55_000 // 64 and [m.variant for m in tutorial.models] == ["original", "deep"]
    assert {(m.rates, m.momentum) for m in tutorial.models} == {((0.1,), 0.9)}  # 0.01 / (1 - 0.9)
    assert len(sweep.seeds) == 5 and {model.net for model in sweep.models} == {"tutorial", "small"}


def test_relu_balance_is_plain_descent_on_its_problem():
    config = dataclasses.replace(relu_balance.SCALES["quick"], rates=(0.02,))
    jobs, summary, arrays = collected(relu_balance, config)
    X, Y = relu_balance.problem(config, 0)
    stds, generator = dict(config.stds)["unbalanced"], dl.seeded(1000)
    W = [std * dl.normal(b, a, generator=generator) for std, a, b in zip(stds, config.widths, config.widths[1:])]
    for _ in range(config.steps):
        z1 = X @ W[0].T
        z2 = z1.clamp(min=0) @ W[1].T
        E = (z2.clamp(min=0) @ W[2].T - Y) / len(X)
        d2 = (E @ W[2]) * (z2 > 0)
        d1 = (d2 @ W[1]) * (z1 > 0)
        W = [V - 0.02 * G for V, G in zip(W, (d1.T @ X, d2.T @ z1.clamp(min=0), E.T @ z2.clamp(min=0)))]
    squares = torch.stack([V.square().sum() for V in W])
    assert (arrays["unbalanced 0.02"][-1, :, 0] - squares).abs().max() < 1e-9
    assert np.allclose(summary["unbalanced 0.02"]["differences"], -squares.diff())
    assert summary["balanced 0.02"]["loss"] > 0 and len(jobs) == 2 and arrays["at"][-1] == config.steps
    full = relu_balance.SCALES["full"]
    assert full.widths == (1000, 100, 100, 10) and full.steps == 10_000 and dict(full.stds)["balanced"][1] ** 2 == 1e-5


def test_mnist_balance_follows_the_identity_under_sgd_only():
    config = dataclasses.replace(mnist_balance.SCALES["quick"], rates=(0.1,), time=2.0)
    jobs, summary, arrays = collected(mnist_balance, config)
    assert len(jobs) == 2 and [mnist_balance.steps_of(config, rate) for rate in (0.1, 0.05)] == [20, 40]
    assert arrays["start"].shape == (8 + 16 + 64,) and arrays["SGD 0.1 at"][-1] == 20
    assert max(summary["SGD 0.1"]["defect"]) < 1e-5 < 0.01 * max(summary["SGD 0.1"]["drift"])
    assert max(summary["momentum 0.1"]["defect"]) > 0.1 * max(summary["momentum 0.1"]["drift"])
    assert (arrays["SGD 0.1 drift"][0] == 0).all() and arrays["SGD 0.1 drift"].abs().max() == max(summary["SGD 0.1"]["drift"])
    full = mnist_balance.SCALES["full"]
    assert [mnist_balance.steps_of(full, rate) for rate in full.rates] == [4296, 8592, 17184]  # 5, 10, 20 passes of 859


def test_train_and_fold_is_the_run_it_names():
    config = train_and_fold.SCALES["quick"]
    jobs, summary, arrays = collected(train_and_fold, config)
    name = "residual Adam balanced"
    X, Y, loss_of = train_and_fold.problem(config, "residual")
    net = dl.deepen(train_and_fold.started("residual", "plain", 2), start="balanced")
    optimiser, generator = torch.optim.Adam(net.parameters(), lr=summary[name]["rate"]), dl.seeded(1002)
    for _ in range(config.steps):
        batch = torch.from_numpy(dl.integers(0, 127, config.batch, generator=generator))
        optimiser.zero_grad()
        loss_of(net(X[batch]), Y[batch]).backward()
        optimiser.step()
    with torch.no_grad():
        folded = dl.fold(train_and_fold.settled(net, X[:128]))
    found = [loss_of(folded(X[part]), Y[part]).item() for part in (slice(128), slice(128, None))]
    assert np.allclose(arrays[f"{name} ends"][1], found, rtol=1e-10) and summary[name]["fold"] < 1e-12
    parameters = sum(W.numel() for W in train_and_fold.NETS["residual"]().parameters())
    assert summary[name]["parameters"][1] == parameters < summary[name]["parameters"][0]
    grid, rates = arrays[f"{name} grid"][:, 0], arrays[f"{name} rates"]
    assert summary[name]["rate"] == rates[grid.argmin()] and torch.allclose(rates[1:], 2 * rates[:-1])
    plain = arrays["residual Adam plain ends"][:, 0]
    assert np.isclose(summary[name]["ratios"][0][0], (arrays[f"{name} ends"][:, 0] / plain).log().mean().exp())
    assert len(jobs) == 30 and set(summary) == {train_and_fold.label(job) for job in train_and_fold.jobs(config, "cpu")}


def test_a_lost_start_leaves_a_record_of_train_and_fold_that_can_be_written():
    config = train_and_fold.SCALES["quick"]
    jobs = train_and_fold.jobs(config, "cpu")[:1]
    result = train_and_fold.run_job(config, jobs[0], "cpu")
    kept = float(result["fold"][0])
    for key in ("fold", "ends"):
        result[key][1:] = float("nan")
    _, summary, _ = train_and_fold.collect(config, jobs, [result])
    assert summary[train_and_fold.label(jobs[0])]["fold"] == kept
    result["fold"][:] = float("nan")
    _, summary, _ = train_and_fold.collect(config, jobs, [result])
    assert summary[train_and_fold.label(jobs[0])]["fold"] is None


@pytest.mark.parametrize("name", train_and_fold.NETS)
def test_the_kinds_of_train_and_fold_start_as_one_function(name):
    X, Y, loss_of = train_and_fold.problem(train_and_fold.SCALES["quick"], name)
    plain, *deep = (train_and_fold.started(name, kind, 5).eval() for kind in ("plain", "balanced", "identity"))
    for net in deep:
        assert (net(X[:8]) - plain(X[:8])).abs().max() < 1e-12 < loss_of(net(X[:8]), Y[:8])
        assert sum(W.numel() for W in net.parameters()) > sum(W.numel() for W in plain.parameters())
