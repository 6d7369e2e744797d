"""One test for each claim of chapter 11, on other shapes, seeds and losses than the chapter, each with its control."""

import dataclasses

import deeplinear as dl
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from problems import quick, seeds, worst
from scipy.integrate import solve_ivp
from torch import nn
from torch.nn import functional as F

from conftest import generator


def relu_net(widths, seed, phi=nn.ReLU(), bias=True):
    layers = [nn.Linear(a, b, bias=bias, dtype=torch.float64) for a, b in zip(widths, widths[1:])]
    net = nn.Sequential(*[part for layer in layers for part in (layer, phi)][:-1])
    with torch.no_grad():
        for k, W in enumerate(net.parameters()):
            W.copy_(dl.normal(*W.shape, generator=generator(100 * seed + k)) / max(W[0].numel(), 4) ** 0.5)
    return net


def read(net, of=None):
    """The laws of a net, or, as a control, those of another whose parameters have the same names."""
    laws = dl.laws(of or net, torch.ones(2, net[0].in_features, dtype=torch.float64))
    return [dataclasses.replace(law, net=net) for law in laws]


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
    assert worst(*logits_step(net, read(net), lr, decay, seed)) < 1e-11 * (1 + lr) ** 2  # any step, any decay
    smooth = relu_net((4, 5, 3), 1, nn.Tanh())
    assert worst(*logits_step(smooth, read(smooth, of=relu_net((4, 5, 3), 1)), 0.1)) > 1e-5


@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_thm_unit_balance_under_the_flow(decay):
    net = relu_net((2, 3, 2), 4)  # part 2 across kinks: a tight solver, then a curve that slides along one
    X, shapes = dl.normal(5, 2, generator=generator(1)), [W.shape for W in net.parameters()]
    (law,) = read(net)

    def put(theta):
        parts = torch.from_numpy(theta).split([shape.numel() for shape in shapes])
        for W, part in zip(net.parameters(), parts):
            W.data = part.reshape(W.shape).clone()

    def speed(_, theta):
        put(theta)
        net.zero_grad()
        F.mse_loss(net(X), X.sin()).backward()
        return -torch.cat([W.grad.flatten() for W in net.parameters()]).numpy() - decay * theta

    start, before = torch.cat([W.detach().flatten() for W in net.parameters()]).numpy(), law.value()
    path = solve_ivp(speed, (0, 1), start, rtol=1e-6, atol=1e-9)
    put(path.y[:, -1])
    assert worst(law.value() - np.exp(-2 * decay) * before) < 1e-4
    assert decay == 0 or worst(law.value() - before) > 0.05  # control: not kept as if without decay


def test_thm_unit_balance_along_a_kink():
    def slide(eta, time, decay):
        w, v, u = 1.5, 0.4, -0.3  # one unit with two outputs; the loss |v h - 1| + |u h + 1|, h = relu(w)
        for _ in range(round(time / eta)):
            h = max(w, 0)
            s, r = np.sign(v * h - 1), np.sign(u * h + 1)
            w, v, u = (w - eta * ((s * v + r * u) * (w > 0) + decay * w), v - eta * (s * h + decay * v),
                       u - eta * (r * h + decay * u))
        return v**2 + u**2 - w**2, abs(v * w - 1) + abs(u * w + 1)

    claim, defects = np.exp(-2 * 0.2 * 4) * (0.4**2 + 0.3**2 - 1.5**2), []
    for eta in (0.01, 0.005, 0.0025):
        law, loss = slide(eta, 4, 0.2)
        assert loss < 8 * eta  # it stays at both kinks
        defects.append(abs(law - claim))
    assert np.abs(np.divide(defects[1:], defects[:-1]) - 0.5).max() < 0.05 and defects[-1] < 0.05
    assert abs(slide(0.005, 4, 0.0)[0] - claim) > 1  # control: without decay the law stays


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


@pytest.mark.parametrize("used_twice", [False, True])
def test_lem_in_out_asks_that_a_bias_occurs_once(used_twice):
    drift, labels = [], torch.arange(12) % 3
    for lr in (0.1, 0.05, 0.025):
        g = generator(3)
        X, W, V, U = (dl.normal(*s, generator=g) / 2 for s in ((12, 4), (6, 4), (5, 6), (3, 5)))
        b, c = 0.3 * dl.normal(6, generator=g), 0.3 * dl.normal(5, generator=g)
        weights, law = [A.requires_grad_() for A in (W, V, U, b, c)], lambda V=V, W=W, b=b: (V**2).sum(0) - (W**2).sum(1) - b**2
        start = law().detach()
        for _ in range(round(2 / lr)):
            h = F.relu(F.relu(X @ W.T + b) @ V.T + (b[:5] if used_twice else c))
            grads = torch.autograd.grad(F.cross_entropy(h @ U.T, labels), weights, materialize_grads=True)
            with torch.no_grad():
                for A, G in zip(weights, grads):
                    A.sub_(lr * G)
        drift.append(worst(law().detach() - start))
    assert (drift[2] > 0.9 * drift[0]) if used_twice else (drift[2] < 0.3 * drift[0])


def test_lem_in_out_at_a_gated_unit():
    g = generator(8)
    X, gate, up, down = (dl.normal(*s, generator=g) for s in ((9, 4), (6, 4), (6, 4), (3, 6)))
    b = dl.normal(6, generator=g)
    weights = [A.requires_grad_() for A in (gate, up, down, b)]
    loss = F.cross_entropy((F.silu(X @ gate.T) * (X @ up.T + b)) @ down.T, torch.arange(9) % 3)
    dgate, dup, ddown, db = torch.autograd.grad(loss, weights)
    out = (down * ddown).sum(0)
    assert worst(((up * dup).sum(1) + b * db - out).detach()) < 1e-14
    assert worst(((gate * dgate).sum(1) - out).detach()) > 1e-3  # control: the gate is not in balance


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
        (law,) = read(net)
        if not law.gram:
            terms = (dataclasses.replace(term, entries=term.entries[None]) for term in law.terms)
            law = dataclasses.replace(law, terms=tuple(terms), gram=True)
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
            laws = read(net, of=relu_net((4, 6, 3), 2))
            start = laws[0].value()
            for _ in range(round(2 / lr)):
                logits_step(net, laws, lr, seed=2)
            drift[name, lr] = worst(laws[0].value() - start)
    assert abs(drift["relu", 0.01] / drift["relu", 0.02] - 0.5) < 0.05
    assert drift["sigmoid", 0.01] / drift["sigmoid", 0.02] > 0.95 and drift["sigmoid", 0.01] > 10 * drift["relu", 0.02]


@pytest.mark.parametrize("eps", [1e-30, 1e-5, 0.3])
def test_prop_batch_norm(eps):
    net = nn.Sequential(nn.Linear(4, 9), nn.BatchNorm1d(9, eps=eps), nn.LeakyReLU(0.2), nn.Linear(9, 3)).double()
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
    share = eps / (first(X).detach().var(0, unbiased=False) + eps)
    term = (2 * lr * share * norm.weight * norm.weight.grad).detach()
    inner = second.weight.grad.square().sum(0) - norm.weight.grad.square() - norm.bias.grad.square()
    with torch.no_grad():
        for W in net.parameters():
            W.sub_(lr * W.grad)
    new_into, new_bias, new_out, new_scale = squares()
    assert worst(new_into - into - lr**2 * grown + term, new_bias - bias) < 1e-13
    assert (new_into > into).all() if eps < 1e-20 else worst(term) > 1e-7
    assert eps < 0.1 or (new_into < into).any()  # control: with eps incoming weights can shrink
    assert worst((new_out - new_scale) - (out - scale) - lr**2 * inner) < 1e-13  # whatever eps is
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
        for start in ("balanced", "unbalanced"):  # the ratios are those that the kept differences make
            run = found[f"{start} {rate}"]
            said = 1 + np.divide(run["differences_at_start"], run["squares"][1:])
            assert np.abs(said - run["ratios"]).max() < 0.0034
        assert min(found[f"unbalanced {rate}"]["ratios"]) > 1 + 10 * 0.0034  # control: not near 1
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
