"""One test for each claim of chapter 11, on other shapes, seeds and losses than the chapter, each with its control."""

import dataclasses

import numpy as np
import torch
from conftest import generator
from hypothesis import given
from hypothesis import strategies as st
from problems import quick, seeds, worst
from torch import nn
from torch.nn import functional as F

import deeplinear as dl


def relu_net(widths, seed, phi=nn.ReLU(), bias=True):
    layers = [nn.Linear(a, b, bias=bias, dtype=torch.float64) for a, b in zip(widths, widths[1:])]
    net = nn.Sequential(*[part for layer in layers for part in (layer, phi)][:-1])
    with torch.no_grad():
        for k, W in enumerate(net.parameters()):
            W.copy_(dl.normal(*W.shape, generator=generator(100 * seed + k)) / max(W[0].numel(), 4) ** 0.5)
    return net


def logits_step(net, laws, lr, decay=0.0, seed=0, rows=12):
    """One step with weight decay on some data: for each law, what it makes of it less what the theorem says."""
    X = dl.normal(rows, net[0].in_features, generator=generator(seed))
    labels = torch.arange(rows) % net[-1].out_features
    net.zero_grad()
    F.cross_entropy(net(X), labels).backward()
    said = [(1 - lr * decay) ** 2 * law.value() + lr**2 * law.change() for law in laws]
    with torch.no_grad():
        for W in net.parameters():
            W.copy_((1 - lr * decay) * W - lr * W.grad)
    return [law.value() - value for law, value in zip(laws, said)]


@quick
@given(widths=st.lists(st.integers(1, 6), min_size=3, max_size=5), seed=seeds, lr=st.floats(0.01, 2), decay=st.floats(0, 0.4),
       phi=st.sampled_from([nn.ReLU(), nn.LeakyReLU(0.3), nn.Identity()]))
def test_thm_unit_balance(widths, seed, lr, decay, phi):
    net = relu_net(widths, seed, phi)
    assert worst(*logits_step(net, dl.homogeneous.laws(net), lr, decay, seed)) < 1e-11 * (1 + lr) ** 2  # any step, any decay
    smooth = relu_net((4, 5, 3), 1, nn.Tanh())
    assert worst(*logits_step(smooth, dl.homogeneous.laws(smooth, strict=False), 0.1)) > 1e-5


def test_lem_in_out():
    # at kinks too: every pre-activation of the unit is zero on some examples, and the identity still holds
    net = relu_net((3, 2, 2), 0)
    with torch.no_grad():
        net[0].bias.zero_()
    X = torch.cat([torch.zeros(4, 3), dl.normal(3, 3, generator=generator(1))]).double()
    F.cross_entropy(net(X), torch.tensor([0, 1, 0, 1, 0, 1, 0])).backward()
    first, second = net[0], net[2]
    into, bias = (first.weight * first.weight.grad).sum(1), first.bias * first.bias.grad
    out = (second.weight * second.weight.grad).sum(0)
    assert worst((into + bias - out).detach()) < 1e-15 and worst(out.detach()) > 1e-3
    # back-propagation need not return the gradient at a kink, and the identity holds for both
    x = torch.zeros(1, requires_grad=True)
    (slope,) = torch.autograd.grad(F.relu(x) - F.relu(-x), x)
    assert slope == 0
    net[0].bias.data += 0.3
    F.cross_entropy(net.zero_grad() or net(X), torch.tensor([0, 1, 0, 1, 0, 1, 0])).backward()
    into, out = (first.weight * first.weight.grad).sum(1), (second.weight * second.weight.grad).sum(0)
    assert worst((into - out).detach()) > 1e-3  # control: the bias is left out


def test_cor_layer_balance():
    # a convolution is a matrix with shared and absent entries: the squares of the free weights are what is balanced
    conv, dense = nn.Conv1d(1, 3, 2, bias=False).double(), nn.Linear(12, 2, bias=False).double()
    with torch.no_grad():
        for W in (conv.weight, dense.weight):
            W.copy_(dl.normal(*W.shape, generator=generator(W.numel())))
    X, before = dl.normal(6, 1, 5, generator=generator(3)), []
    loss = F.cross_entropy(dense(F.relu(conv(X)).flatten(1)), torch.arange(6) % 2)
    G, H = torch.autograd.grad(loss, (conv.weight, dense.weight))
    lr = 0.3
    for uses in (1, 4):  # each kernel entry is used at four positions
        old = dense.weight.square().sum() - uses * conv.weight.square().sum()
        new = (dense.weight - lr * H).square().sum() - uses * (conv.weight - lr * G).square().sum()
        before.append((new - old - lr**2 * (H.square().sum() - uses * G.square().sum())).abs().item())
    assert before[0] < 1e-14 and before[1] > 1e-3


def test_prop_matrix_balance():
    for phi, bound in ((nn.Identity(), None), (nn.ReLU(), 1e-4)):
        net = relu_net((3, 4, 2), 5, phi)
        (law,) = dl.homogeneous.laws(net)
        law = dataclasses.replace(law, matrix=True)
        start = law.value()
        defect = worst(*logits_step(net, [law], 0.1, 0.2, 5))
        assert defect < 1e-14 if bound is None else defect > bound
        if bound:  # two units that are on for the same examples keep their entry
            net[0].weight.data[1] = 2 * net[0].weight.data[0]
            net[0].bias.data[1] = 2 * net[0].bias.data[0]
            (moved,) = logits_step(net, [law], 0.1, seed=5)
            assert moved[0, 1].abs() < 1e-14 and moved[2:, :2].abs().max() > 1e-5
        assert start.shape == (4, 4)


def test_emp_unit_drift():
    drift = {}
    for name, phi in (("relu", nn.ReLU()), ("sigmoid", nn.Sigmoid())):
        for lr in (0.02, 0.01):
            net = relu_net((4, 6, 3), 2, phi)
            laws = dl.homogeneous.laws(net, strict=False)
            start = laws[0].value()
            for _ in range(round(2 / lr)):
                logits_step(net, laws, lr, seed=2)
            drift[name, lr] = worst(laws[0].value() - start)
    assert abs(drift["relu", 0.01] / drift["relu", 0.02] - 0.5) < 0.05
    assert drift["sigmoid", 0.01] / drift["sigmoid", 0.02] > 0.95 and drift["sigmoid", 0.01] > 10 * drift["relu", 0.02]


def test_prop_batch_norm():
    net = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5, eps=1e-30), nn.LeakyReLU(0.2), nn.Linear(5, 3)).double()
    with torch.no_grad():
        for k, W in enumerate(net.parameters()):
            W.copy_(dl.normal(*W.shape, generator=generator(k)))
    first, norm, second = net[0], net[1], net[3]
    X, labels = dl.normal(9, 4, generator=generator(20)), torch.arange(9) % 3
    squares = lambda: (first.weight.detach().square().sum(1), first.bias.detach().clone(),
                       second.weight.detach().square().sum(0), norm.weight.detach().square() + norm.bias.detach().square())
    F.cross_entropy(net(X), labels).backward()
    into, bias, out, scale = squares()
    grown, lr = first.weight.grad.square().sum(1), 0.2
    inner = second.weight.grad.square().sum(0) - norm.weight.grad.square() - norm.bias.grad.square()
    with torch.no_grad():
        for W in net.parameters():
            W.sub_(lr * W.grad)
    new_into, new_bias, new_out, new_scale = squares()
    assert worst(new_into - into - lr**2 * grown, new_bias - bias) < 1e-13 and (new_into > into).all()
    assert worst((new_out - new_scale) - (out - scale) - lr**2 * inner) < 1e-13
    assert worst((new_out - new_into) - (out - into)) > 1e-2  # control: the law without normalisation


def test_emp_figure_2():
    record = dl.recorded.load("relu-balance", quiet=True)
    assert record.config["widths"] == [1000, 100, 100, 10] and record.config["steps"] == 10_000
    found = record.summary
    for rate, half in (("0.04", "0.02"), ("0.02", "0.01")):
        for start in ("balanced", "unbalanced"):
            grown = [np.subtract(found[f"{start} {r}"]["differences"], found[f"{start} {r}"]["differences_at_start"])
                     for r in (rate, half)]
            assert np.abs(grown[0] / grown[1] - 2).max() < 0.05
        assert np.abs(np.array(found[f"balanced {rate}"]["ratios"]) - 1).max() < 0.0034
        first, second = found[f"unbalanced {rate}"]["ratios"]
        assert first > 1.4 and 1 < second < 1.05
    assert found["balanced 0.04"]["loss"] < 1e-20  # it has arrived
    squares = record.arrays["unbalanced 0.02"][:, :, 0]
    assert np.allclose(squares[0], [10, 1, 0.1], rtol=0.1) and (squares[0, 0] / squares[0, 1]) > 9


def test_emp_convnet_balance():
    record = dl.recorded.load("mnist-balance", quiet=True)
    assert record.provenance["dataset"]["name"] == "mnist" and record.summary["units"] == [32, 64, 512]
    config = record.config
    assert config["net"] == "tutorial" and config["momenta"] == [0.0, 0.9] and config["rates"] == [0.1, 0.05, 0.025]
    drift, defect = {}, {}
    for kind in ("SGD", "momentum"):
        for rate in config["rates"]:
            name = f"{kind} {rate:g}"
            changes = record.arrays[f"{name} drift"][-1].split([32, 64, 512])
            drift[name] = np.array([part.square().mean().sqrt().item() for part in changes])
            defect[name] = max(record.summary[name]["defect"])
            assert record.summary[name]["loss"] < 0.05  # it has learned
            assert abs(record.arrays[f"{name} at"][-1] * rate - config["time"]) < 1
            assert defect[name] < 2e-4 if kind == "SGD" else defect[name] > 0.3
        assert (drift[f"{kind} 0.025"] < drift[f"{kind} 0.05"]).all() and (drift[f"{kind} 0.05"] < drift[f"{kind} 0.1"]).all()
    for rate in config["rates"]:  # and not the factor 19 of slowly changing gradients
        assert np.abs(np.log2(drift[f"momentum {rate:g}"] / drift[f"SGD {rate:g}"])).max() < 1
