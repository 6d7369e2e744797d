"""One test for each claim of chapter 10, on other shapes, seeds and losses than the chapter, each with its control."""

import json
import re
from pathlib import Path

import deeplinear as dl
import numpy as np
import torch
from deeplinear import convnet, decay
from deeplinear.penalties import Penalty
from hypothesis import given
from hypothesis import strategies as st
from problems import quick, seeds, worst

from conftest import generator

TINY = {"channels": (3, 4), "kernel": 3, "hidden": 12, "side": 12}


def test_emp_parameters():
    counts = {name: convnet.parameters(convnet.build(name, generator(0))) for name in ("original", "deep", "folded")}
    assert counts["original"] == 832 + 51_264 + 1_606_144 + 5_130 == 1_663_370 == counts["folded"]
    assert counts["deep"] - counts["original"] == 262_244
    assert round(100 * 262_244 / 1_663_370, 2) == 15.77


@quick
@given(seed=seeds, lr=st.floats(0.01, 0.3), penalty=st.floats(0, 0.5), dropout=st.sampled_from([0.0, 0.5]))
def test_thm_inside(seed, lr, penalty, dropout):
    net = convnet.build("deep", generator(seed % 1000), std=0.3, **TINY, dropout=dropout).double()
    X, y = dl.normal(6, 144, generator=generator(seed)), torch.arange(6)
    for pair in (net.dense, net.output):
        before = [layer.weight.detach().clone() for layer in pair]
        G = torch.autograd.grad(torch.nn.functional.cross_entropy(net(X), y), [layer.weight for layer in pair])
        after = [(1 - lr * penalty) * W - lr * g for W, g in zip(before, G)]
        D, E = dl.imbalance(before)[0], dl.imbalance(after)[0]
        rest = lr**2 * (G[1].T @ G[1] - G[0] @ G[0].T)
        assert worst(E - (1 - lr * penalty) ** 2 * D - rest) < 1e-12 * (1 + worst(D))
    if worst(*G) > 1e-3:  # control: without the term of second order
        assert worst(E - (1 - lr * penalty) ** 2 * D) > 1e-12


@quick
@given(k=st.integers(1, 5), h=st.integers(1, 5), d=st.integers(1, 5), seed=seeds)
def test_prop_average_rate(k, h, d, seed):
    W1, W2 = dl.near_zero_init((d, h, k), 1.0, generator(seed))
    A = torch.kron(W2 @ W2.T, torch.eye(d).double()) + torch.kron(torch.eye(k).double(), W1.T @ W1)
    mean = (W2**2).sum() / k + (W1**2).sum() / d
    assert abs(A.trace() / (k * d) - mean) < 1e-12 * (1 + mean)
    G = dl.normal(k, d, generator=generator(seed + 1))
    moved = (W2 - 1e-6 * G @ W1.T) @ (W1 - 1e-6 * W2.T @ G) - W2 @ W1
    assert worst(moved / -1e-6 - (A @ G.flatten()).reshape(k, d)) < 1e-4 * (1 + mean)
    many = [dl.near_zero_init((d, h, k), 0.5, generator(seed + i)) for i in range(400)]
    average = sum((W2**2).sum() / k + (W1**2).sum() / d for W1, W2 in many) / 400
    assert abs(average / (h * 0.5) - 1) < 0.35  # h (0.25 + 0.25)


@quick
@given(k=st.integers(1, 4), d=st.integers(1, 4), extra=st.integers(0, 2), seed=seeds)
def test_prop_nuclear(k, d, extra, seed):
    W, h = dl.normal(k, d, generator=generator(seed)), min(k, d) + extra
    nuclear = torch.linalg.svdvals(W).sum()
    first, second = dl.balanced_init((d, h, k), generator(seed), W=W)
    penalty = lambda *layers: sum((V**2).sum() for V in layers) / 2
    assert abs(penalty(first, second) - nuclear) < 1e-10 * (1 + nuclear)
    turn = dl.normal(h, h, generator=generator(seed + 1)) + 3 * torch.eye(h).double()
    other = torch.linalg.solve(turn, first), second @ turn
    assert worst(other[1] @ other[0] - W) < 1e-8 and penalty(*other) > nuclear * (1 - 1e-12)
    c = 1e3
    assert worst((c * second) @ (first / c) - W) < 1e-9 and penalty(first / c) < 1e-3 * (1 + nuclear)
    assert penalty(c * second, first / c) > 10 * nuclear  # control: with both, that costs


@quick
@given(k=st.integers(1, 4), h=st.integers(1, 5), d=st.integers(1, 4), std=st.floats(0.3, 1.2), rate=st.floats(0.1, 3), seed=seeds)
def test_prop_penalty_decay(k, h, d, std, rate, seed):
    """By the flow, whatever the widths and signs of D; the layers balanced are another flow from the same product."""
    layers, times = dl.near_zero_init((d, h, k), std, generator(seed)), torch.tensor([0.1, 0.7, 3.0]).double()
    loss = dl.LpLoss(torch.eye(d).double(), torch.zeros(d, k).double(), 2, "sum", rate / 2)
    square = lambda layers: dl.end_to_end(layers).square().sum((-2, -1))
    found = decay.product(*layers, rate * times)
    size = 1 + square(layers) + dl.imbalance(layers)[0].square().sum()
    assert worst(found - square(dl.flow.layers(loss, layers, times).weights)) < 1e-9 * size
    assert worst(decay.product(*layers, [0.0]) - square(layers)) < 1e-13 * size
    if h <= min(k, d):  # balanced factors of that product
        balanced = dl.balanced_init((d, h, k), generator(seed), W=dl.end_to_end(layers))
        law = sum(decay.singular_value(s, 0.0, rate * times) ** 2 for s in torch.linalg.svdvals(balanced[0]) ** 2)
        assert worst(decay.product(*balanced, rate * times) - law) < 1e-12 * size
        if worst(dl.imbalance(layers)[0]) > 0.5:  # control
            assert worst(found / law - 1) > 1e-3


def test_prop_penalty_decay_of_aligned_factors():
    """Each singular value by itself, with the law of its own imbalance and both ends of it."""
    basis, left = (torch.linalg.qr(dl.normal(4, 4, generator=generator(seed)))[0] for seed in (0, 1))
    first, second = torch.tensor([2.0, 1.0, 0.5, 0.7]).double(), torch.tensor([0.4, 1.0, 1.5, 0.1]).double()
    layers = [first[:, None] * basis, left * second]
    times = torch.tensor([0.0, 0.3, 2.0, 9.0]).double()
    each = decay.singular_value((first * second)[:, None], (second**2 - first**2)[:, None], times)
    assert worst(decay.product(*layers, times) / each.square().sum(0) - 1) < 1e-10
    s, kept = torch.tensor(0.6).double(), torch.tensor([-1.5, 0.2, 3.0]).double()
    late = decay.singular_value(s, kept, 150.0) * torch.exp(kept.abs() * 150)
    limit = kept.abs() * torch.exp(-torch.asinh(kept.abs() / (2 * s)))
    assert worst(late / limit - 1) < 1e-6  # exponential at the rate |d|
    assert abs(decay.singular_value(s, 0.0, 1e6) * 2e6 - 1) < 1e-5  # control: without imbalance algebraic
    assert abs(decay.singular_value(s, 1e-9, 5.0) / decay.singular_value(s, 0.0, 5.0) - 1) < 1e-12
    step = 1e-4
    slope = (decay.singular_value(s, kept, 1 + step) - decay.singular_value(s, kept, 1 - step)) / (2 * step)
    now = decay.singular_value(s, kept, 1.0)
    assert worst(slope + now * (kept**2 + 4 * now**2).sqrt()) < 1e-6


def test_prop_penalty_decay_by_heavy_ball():
    """The trainer's optimiser with no gradient but the penalty's, momentum and a falling rate."""
    net = convnet.build("deep", generator(5), **TINY).double()
    term = Penalty(net, "product", 0.2)
    optimiser, rates = term.optimiser(0.0, 0.9), 0.002 * 0.99 ** (np.arange(500) // 5)
    layers = [[layer.weight.detach().clone() for layer in pair] for pair in (net.dense, net.output)]
    clock = 0.2 * np.cumsum([0, *rates / (1 - 0.9)])  # rate over 1 - momentum, a step
    law = sum(decay.product(*pair, clock[[20, 100, 500]]) for pair in layers)
    slow = sum(decay.product(*pair, clock[[20, 100, 500]] / 10) for pair in layers)
    measured = []
    for step, rate in enumerate(rates, start=1):
        for p in net.parameters():
            p.grad = torch.zeros_like(p)
        for group in optimiser.param_groups:
            group["lr"] = rate
        term.add_gradient()
        optimiser.step()
        if step in (20, 100, 500):
            measured.append(sum((W2 @ W1).square().sum() for W1, W2 in term.products).detach())
    assert worst(torch.stack(measured[1:]) / law[1:] - 1) < 0.03 and law[-1] < 0.5 * law[0]
    assert measured[-1] / slow[-1] < 0.5  # control: without momentum's factor


def recorded_nets():
    record = dl.recorded.load("mnist-convnet", quiet=True)
    return record, {name: found for name, found in record.summary.items() if found["best_rate"] is not None}


def steps_to(record, name, level):
    """The steps of every seed, counted here from the losses of the batches."""
    found = []
    for run in record.arrays[name].numpy().T:
        means = np.convolve(run, np.ones(25) / 25, "valid")
        found.append(25 + np.argmax(means <= level) if (means <= level).any() else np.inf)
    return np.median(found)


def test_emp_mnist():
    record, nets = recorded_nets()
    for name in ("deep", "deep, new not penalised"):
        for level, recorded in zip(record.config["levels"], nets[name]["steps_to"]):
            assert abs(steps_to(record, name, level) - recorded) <= 1
            assert 2 / 3 < steps_to(record, "original", level) / steps_to(record, name, level) < 1.05
        assert nets[name]["least"] < nets["original"]["most"]
    for name, rates in (("original", (0.05, 0.4)), ("deep", (0.05, 0.4))):  # the best rate lies inside its window
        assert rates[0] < nets[name]["best_rate"] < rates[1]
    runs = [run for run in record.metrics if run["model"] == "original"]
    assert len(runs) == 20 and len({run["seed"] for run in runs}) == 5
    slow = np.median([run["loss"] for run in runs if run["rate"] == 0.05])  # control: rates make more difference than depth
    assert slow / nets["original"]["loss"] > nets["deep"]["loss"] / nets["original"]["loss"]


def test_emp_new_std():
    _, nets = recorded_nets()
    small, large = (nets[f"deep, std {std}"] for std in (0.001, 0.5))
    assert 2 / 3 < small["loss"] / nets["original"]["loss"] < 1.5 and small["most"] < nets["original"]["most"]  # level
    assert large["least"] > 2.5 * nets["original"]["most"] and large["steps_to"][1] is None


def test_emp_product():
    record, nets = recorded_nets()
    assert 5 < nets["original"]["parameters"] / nets["low-rank"]["parameters"] < 6
    assert nets["original, folded start"]["parameters"] == nets["original"]["parameters"]
    for name in ("low-rank", "deep, identity start"):
        ratios = np.array(nets["original"]["steps_to"]) / np.array(nets[name]["steps_to"])
        assert (0.9 < ratios).all() and (ratios < 1.5).all() and nets[name]["least"] < nets["original"]["least"]
    folded = np.array(nets["original"]["steps_to"]) / np.array(nets["original, folded start"]["steps_to"])
    assert (folded < 0.9).all() and nets["original, folded start"]["least"] > nets["original"]["most"]
    lost = [run["loss"] is None for run in record.metrics if run["model"] == "deep, no momentum"]
    assert sum(lost) > 10 and record.summary["deep, no momentum"] == {"best_rate": None}
    assert nets["original, no momentum"]["best_rate"] == 0.1  # the control: the original has a rate


def test_emp_second_net():
    _, nets = recorded_nets()
    ratios = {name: np.array(nets["small original"]["steps_to"]) / np.array(nets[name]["steps_to"])
              for name in ("small deep", "small deep, identity start")}
    assert (ratios["small deep"] < 0.9).all() and (np.abs(ratios["small deep, identity start"] - 1) < 0.1).all()
    assert nets["small deep"]["least"] > nets["small original"]["most"]
    assert all(nets[name]["best_rate"] == 0.4 for name in ("small original", *ratios))  # inside 0.1 to 0.8


def test_emp_mnist_tutorial():
    record = dl.recorded.load("mnist-tutorial", quiet=True)
    config, (first, second) = record.config, (record.summary[name] for name in ("original", "deep"))
    assert config["steps"] == 8593 and config["dataset"] == "mnist" and config["order"] == "tutorial"
    factors = np.array(first["steps_to"]) / np.array(second["steps_to"])
    assert len(factors) == 6 and (factors > 1 / 3).all() and (factors < 3).all()  # one seed settles no more
    assert second["loss"] < first["loss"] < 3 * second["loss"]  # late, the deep network is ahead in this one run
    assert second["parameters"] - first["parameters"] == 262_244
    terms = [record.arrays[f"{name} penalty"][:, 0] for name in ("original", "deep")]
    assert terms[1][0] > 1.1 * terms[0][0]  # both factors are penalised: they differ before the first step
    totals = [record.arrays[net][:, 0] + term.repeat_interleave(20)[:8593] for net, term in zip(("original", "deep"), terms)]
    middles = [total[:8500].reshape(85, 100).median(1).values for total in totals]
    assert (middles[1] > middles[0]).all()  # and the deep net's lies above, all along
    for name, found in record.summary.items():
        assert found["validation_error"] < 0.02, name  # both have learnt


def passes(name="mnist-penalties", nets=("original", "deep")):
    """Of each net the data term and the total of every batch, (steps, seeds), the totals added up here."""
    record = dl.recorded.load(name, quiet=True)
    data = {net: record.arrays[net].numpy() for net in nets}
    penalty = {net: np.repeat(record.arrays[f"{net} penalty"].numpy(), 20, axis=0)[:record.config["steps"]] for net in nets}
    return record, data, penalty, {net: data[net] + penalty[net] for net in nets}


def test_emp_mnist_readings():
    """Only the penalty on the product starts above the original's total and ends below it; the data terms stay alike."""
    long, data, _, total = passes()
    record, others, penalty, readings = passes("mnist-conventions", ("both", "old", "new", "none"))
    ours = {key: record.config[key] for key in ("order", "momentum", "decay", "batch", "seeds")}
    assert ours == {key: long.config[key] for key in ours} and record.config["steps"] == 2000
    mean = lambda values, at: values[at:at + 100].mean(0)  # for each seed
    for at in (0, 500, 1000, 1900):
        alone, product = mean(total["original"], at), mean(total["deep"], at)
        assert (product > 2 * alone).all() if at == 0 else (product < alone / 6).all() if at == 1900 else True
        assert (mean(readings["both"], at) > 1.03 * alone).all() and np.abs(mean(readings["old"], at) / alone - 1).max() < 0.08
        assert (mean(readings["new"], at) < alone / 2).all() and (mean(readings["none"], at) < alone / 2).all()
        for one in others.values():
            apart = mean(one, at) / mean(data["original"], at)
            assert apart.max() < 1.5 and apart.min() > 2 / 3
    assert not penalty["none"].any()


def test_emp_mnist_total():
    """With the product penalised the total ends far below, whatever the seed, since the penalty does."""
    record, data, penalty, total = passes()
    assert record.config["dataset"] == "mnist" and record.config["steps"] == 8593 and record.config["seeds"] == [0, 1, 2, 3, 4]
    assert [case["penalise"] for case in record.config["cases"]] == ["product", "product"]
    ends = {net: total[net][-100:].mean(0) for net in total}
    assert (ends["original"] > 10 * ends["deep"]).all() and (penalty["original"][-1] > 10 * penalty["deep"][-1]).all()
    assert (total["deep"][:25].mean(0) > 2 * total["original"][:25].mean(0)).all()  # it starts above
    first = [(np.convolve(run, np.ones(25) / 25, "valid") <= end).argmax() + 25 for run, end in zip(total["deep"].T, ends["original"])]
    assert max(first) < 8593 / 8
    share = {net: penalty[net][-1] / ends[net] for net in total}
    assert (share["original"] > 0.9).all() and (data["original"][-100:].mean(0) < 10 * data["deep"][-100:].mean(0)).all()  # control


def test_the_interactive_figure_redraws_the_record():
    """Medians over the seeds of means over a hundred batches; the sum of the two terms is the total that the tutorial prints."""
    script = Path(__file__).parents[2] / "book" / "_static" / "explore" / "penalty.js"
    drawn = json.loads(re.search(r"const RECORD = (\{.*?\n  \});", script.read_text(encoding="utf-8"), re.S).group(1))
    steps = drawn.pop("steps")
    assert len(steps) == 60 and (np.diff(steps) > 0).all() and (steps[0], steps[-1]) == (100, 8593)
    medians = lambda runs: np.median([runs[step - 100:step].mean(0, dtype=float) for step in steps], 1)
    for (net, found), *expected in zip(drawn.items(), *(runs.values() for runs in passes()[1:]), strict=True):
        for term, runs in zip(("data", "penalty"), expected):
            np.testing.assert_allclose(found[term], medians(runs), rtol=5.1e-3, err_msg=f"{net} {term}")
        np.testing.assert_allclose(np.add(found["data"], found["penalty"]), medians(expected[2]), rtol=0.03)
        assert (np.array(found["data"]) < 0.5 * medians(expected[2])).all()  # control: without the penalty it is another curve


def test_emp_mnist_total_follows_the_law_until_the_data_hold_it_up():
    """The penalty of the recorded deep net beside that of its starts without data; balanced factors miss it."""
    _, _, penalty, _ = passes()
    falling = 0.01 * 0.95 ** (64 * np.arange(8593) // 55_000)
    clock = 5e-4 / (1 - 0.9) * np.concatenate([[0], falling.cumsum()])
    at = [200, 500, 1000, 8580]
    net = convnet.build("deep", generator(0))
    pairs = [[layer.weight.detach().double() for layer in pair] for pair in (net.dense, net.output)]
    law = 5e-4 / 2 * sum(decay.product(*pair, torch.as_tensor(clock[at])) for pair in pairs).numpy()
    values = torch.cat([torch.linalg.svdvals(W2 @ W1) for W1, W2 in pairs])
    balanced = 5e-4 / 2 * decay.singular_value(values[:, None], 0, torch.as_tensor(clock[at])).square().sum(0).numpy()
    measured = penalty["deep"][at, 0]
    assert (np.abs(measured[:3] / law[:3] - 1) < 0.06).all() and measured[3] > 2 * law[3]  # from then on the data term holds it
    assert (balanced[1:3] / measured[1:3] > 1.3).all()  # control


def test_emp_mnist_data():
    """Level at the end; over means of 500 steps the deep net is ahead by a tenth or so from step 500 to 5000, never by a third."""
    _, data, _, _ = passes()
    means = {net: data[net][:8500].astype(float).reshape(17, 500, 5).mean(1) for net in data}
    ahead = means["original"] / means["deep"]
    assert (ahead < 4 / 3).all() and (ahead > 3 / 4).all() and (ahead[1:3] > 1.05).all() and (np.log(ahead[1:10]).mean(1) > 0.05).all()
    ends = {net: data[net][-100:].astype(float).mean(0) for net in data}
    ratio = ends["original"] / ends["deep"]
    assert (ratio < 3).all() and (ratio > 1 / 3).all()  # no order of magnitude
