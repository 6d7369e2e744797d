"""One test for each claim of chapter 17, on other shapes, seeds and losses than the chapter, each with its control."""

import dataclasses
import itertools

import deeplinear as dl
import numpy as np
import pytest
import torch
from deeplinear import adapters
from deeplinear.experiments import train_and_fold
from flint import fmpq
from torch.nn import functional as F

from conftest import generator


def rationals(seed, *shapes):
    draw = generator(seed)
    return [dl.checks.rational(dl.integers(-9, 9, *shape, generator=draw), 7) for shape in shapes]


def logistic(seed, k=3, d=6):
    """Softmax regression on random data, not convex in the factors: a task whose frozen weight is not zero."""
    draw = generator(seed)
    X, W0 = dl.normal(20, d, generator=draw), 0.3 * dl.normal(k, d, generator=draw)
    y = torch.arange(20) % k
    return adapters.Task(W0, lambda W: F.cross_entropy(X @ W.T, y))


@pytest.mark.parametrize("shape, rank", [((3, 7), 1), ((6, 2), 4), ((1, 5), 2)])
def test_thm_adapter_step(shape, rank):
    """In exact rationals, rates of both signs included; two different G, or the law of other rates, fail."""
    k, d = shape
    A, B, G, other = rationals(rank, (rank, d), (k, rank), (k, d), (k, d))
    for s, rates in itertools.product((fmpq(3, 2), fmpq(-1, 5)), ((fmpq(1, 9), fmpq(4, 3)), (fmpq(2), fmpq(-1, 7)))):
        A1, B1 = A - rates[0] * s * (B.T @ G), B - rates[1] * s * (G @ A.T)
        assert all(np.all(one == two) for one, two in zip(adapters.step(A, B, G, s, rates), (A1, B1)))
        E = lambda A, B, rates=rates: B.T @ B / rates[1] - A @ A.T / rates[0]
        added = s**2 * (rates[1] * (A @ G.T @ G @ A.T) - rates[0] * (B.T @ G @ G.T @ B))
        assert np.all(E(A1, B1) - E(A, B) == added)
        assert np.all(adapters.law(A1, B1, rates) - adapters.law(A, B, rates) == adapters.law_added(A, B, G, s, rates))
        moved = s**3 * rates[0] * rates[1] * (G @ A.T @ B.T @ G) - s**2 * (rates[1] * (G @ A.T @ A) + rates[0] * (B @ B.T @ G))
        assert np.all(s * (B1 @ A1 - B @ A) == moved) and np.all(moved == adapters.merged_added(A, B, G, s, rates))
        A2 = A - rates[0] * s * (B.T @ other)
        assert np.any(E(A2, B1) - E(A, B) != added)
        assert np.any(E(A1, B1, (1, 1)) - E(A, B, (1, 1)) != adapters.law_added(A, B, G, s))


@pytest.mark.parametrize("rank", [1, 4])
def test_thm_adapter_flow(rank):
    task, times = logistic(rank), (0.0, 1.0, 4.0)
    start = adapters.usual_start(3, 6, rank, generator(1))
    for s, rates in ((1.0, (1.0, 1.0)), (0.5, (3.0, 0.5))):
        path = adapters.flow(task, start, times, s, rates)
        E = adapters.law(path.A, path.B, rates)
        assert (E - E[0]).abs().max() < 1e-8 and path.product[-1].abs().max() > 0.01
        sizes = torch.linalg.svdvals(path.A)
        assert (sizes >= sizes[0] - 1e-9).all()
        other = adapters.law(path.A, path.B, rates[::-1])
        assert rates[0] == rates[1] or (other - other[0]).abs().max() > 1e-3
    for decay in (0.3, 1.0):
        path = adapters.flow(task, start, times, 1.0, weight_decay=decay)
        D = adapters.law(path.A, path.B)
        shrunk = torch.exp(-2 * decay * torch.tensor(times, dtype=torch.float64))[:, None, None] * D[0]
        assert (D - shrunk).abs().max() < 1e-8 and (D - shrunk)[1].abs().max() < 0.1 * (D[1] - np.exp(-decay) * D[0]).abs().max()
        assert torch.linalg.svdvals(path.A)[-1].max() < torch.linalg.svdvals(path.A)[0].max()  # decay lets A shrink
    apart = start[0], 0.5 + start[1]  # control: decay and two rates
    uneven = adapters.flow(task, apart, times, 1.0, (1.0, 3.0), 0.3)
    E = adapters.law(uneven.A, uneven.B, (1.0, 3.0))
    assert (E[1] - np.exp(-0.6) * E[0]).abs().max() > 1e-2


@pytest.mark.parametrize("shape, rank", [((3, 7), 2), ((6, 2), 3)])
def test_what_decay_does_to_the_law_at_two_rates(shape, rank):
    """The derivative of E along the flow, in exact rationals: -2 lambda D with one lambda, -2 mu E with one eta lambda."""
    k, d = shape
    A, B, G = rationals(rank, (rank, d), (k, rank), (k, d))
    s, mu, rates = fmpq(2, 3), fmpq(3, 5), (fmpq(1, 2), fmpq(7, 3))
    E, D = adapters.law(A, B, rates), adapters.law(A, B)

    def moved(decays):
        dA, dB = (-rate * (g + decay * W) for rate, g, decay, W in zip(rates, adapters.gradients(A, B, G, s), decays, (A, B)))
        return (dB.T @ B + B.T @ dB) / rates[1] - (dA @ A.T + A @ dA.T) / rates[0]

    one, apart = moved((mu, mu)), moved((mu / rates[0], mu / rates[1]))
    assert np.all(one == -2 * mu * D) and np.any(one != -2 * mu * E)
    assert np.all(apart == -2 * mu * E) and np.any(apart != -2 * mu * D)


def test_the_product_and_the_law_do_not_fix_the_next_step():
    """Rank 2: one product and one D for all rotations, and other steps; at rank one, or where D = 0, A^T A is fixed."""
    S, eye = torch.diag(torch.tensor([2, 0.5], dtype=torch.float64)), torch.eye(2, dtype=torch.float64)
    G, ends = torch.tensor([[1, 2], [0, 1]], dtype=torch.float64), []
    for angle in torch.tensor([0, 0.7], dtype=torch.float64):
        Q = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()]).reshape(2, 2)
        A, B = S @ Q, Q.T @ S.inverse()
        assert (B @ A - eye).abs().max() < 1e-14
        assert (adapters.law(A, B) - 3.75 * torch.diag(torch.tensor([-1.0, 1.0]))).abs().max() < 1e-14
        ends.append(G @ A.T @ A + B @ B.T @ G)
    assert (ends[0] - ends[1]).abs().max() > 3
    a, b = dl.normal(1, 4, generator=generator(1)), dl.normal(3, 1, generator=generator(2))
    W, law = b @ a, adapters.law(a, b).item()
    size = (-law + (law**2 + 4 * W.square().sum()) ** 0.5) / 2  # |a|^2, from W and D alone
    assert (a.T @ a - size * W.T @ W / W.square().sum()).abs().max() < 1e-13
    U, values, V = torch.linalg.svd(dl.normal(3, 4, generator=generator(3)), full_matrices=False)
    Q = torch.linalg.qr(dl.normal(3, 3, generator=generator(4)))[0]
    A, B = Q @ (values.sqrt()[:, None] * V), (U * values.sqrt()) @ Q.T
    assert adapters.law(A, B).abs().max() < 1e-13 and (A.T @ A - V.T @ (values[:, None] * V)).abs().max() < 1e-13


def test_the_flow_moves_the_merged_weight_as_the_chapter_says():
    task, rates, s, h = logistic(5), (2.0, 0.7), 0.8, 1e-5
    A, B = dl.normal(2, 6, generator=generator(2)), dl.normal(3, 2, generator=generator(3))
    path = adapters.flow(task, (A, B), (0.0, h), s, rates)
    moved = s * (path.product[1] - path.product[0]) / h
    G = task.gradient(task.W0 + s * B @ A)
    said = -(s**2) * (rates[1] * G @ A.T @ A + rates[0] * B @ B.T @ G)
    assert (moved - said).norm() < 1e-3 * said.norm() < 0.1 * (moved + G).norm()


TINY = {"optimiser": torch.optim.Adam, "eps": 1e-300}
HEAVY = {"momentum": 0.8}
METHODS = {"SGD": (1.0, 0.3, {}), "heavy ball": (1.0, 0.05, HEAVY), "Nesterov": (1.0, 0.05, {**HEAVY, "nesterov": True}),
           "Adam": (0.0, 0.01, TINY), "AMSGrad": (0.0, 0.01, {**TINY, "amsgrad": True}),
           "RMSprop": (0.0, 0.01, {"optimiser": torch.optim.RMSprop, "eps": 1e-300})}


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("zero", [True, False])
def test_thm_rate_ratio(name, zero):
    degree, rate, options = METHODS[name]
    task, (A, B) = logistic(7), adapters.usual_start(3, 6, 2, generator(4))
    B = B if zero else 0.1 * dl.normal(3, 2, generator=generator(5))
    for ratio in (16, 256, 1 / 16, 3):
        rates = (rate / ratio**0.5, rate * ratio**0.5)
        for s in (1.0, 0.6):
            plus, plain = adapters.both(task, (A, B), rates, degree, 40, s=s, **options)
            gap = (plus.product - plain.product).abs().max()
            assert gap < 1e-11 and (ratio == 3 or gap == 0)
            size = ratio ** (1 / (2 * degree + 2))
            assert (plain.A - size * plus.A).abs().max() < 1e-10 and (plain.B - plus.B / size).abs().max() < 1e-10
        wrong, _ = adapters.both(task, (A, B), rates, degree, 40, **options)
        start, one = adapters.one_rate((A, B), rates, 1 - degree)
        other = adapters.train(task, start, one, 40, **options)
        assert (wrong.loss - other.loss).abs().max() > 1e-3
        if degree:
            for more in ({"weight_decay": 0.2}, {"clip": 0.05}):
                pair = adapters.both(task, (A, B), rates, degree, 40, **options, **more)
                assert (pair[0].loss - pair[1].loss).abs().max() > 1e-4, more


def test_a_ratio_is_nearly_a_start_under_adamw_as_it_comes_and_not_with_clipping():
    task, start = adapters.turned_digits(), adapters.usual_start(64, 64, 4, generator(8))
    gaps = []
    for options in ({"optimiser": torch.optim.AdamW}, {"optimiser": torch.optim.Adam, "clip": 1.0}):
        plus, plain = adapters.both(task, start, (1e-3, 1.6e-2), 0, 40, **options)
        gaps.append((plus.loss - plain.loss).abs().max() / plus.loss[0])
    assert gaps[0] < 1e-3 < 1e-2 < gaps[1]


@pytest.mark.parametrize("plus, plain, kept", [
    (dict(decays=(0.4, 0.025)), dict(decays=(0.1, 0.1)), True), (dict(decays=(0.4, 0.4)), dict(decays=(0.4, 0.4)), False),
    (dict(decays=(0.4, 0.025)), dict(decays=(0.4, 0.4)), False), (dict(bounds=(0.02, 0.03)), dict(bounds=(0.005, 0.12)), True),
    (dict(bounds=(0.02, 0.03)), dict(bounds=(0.02, 0.03)), False)])
def test_decay_and_clipping_of_each_factor_keep_the_ratio_a_start_under_adamw(plus, plain, kept):
    task, start = logistic(7), adapters.usual_start(3, 6, 2, generator(4))
    rates = 0.01, 0.16

    def losses(factors, rates, decays=(0, 0), bounds=None):
        A, B = (factor.clone().requires_grad_() for factor in factors)
        groups = [{"params": [W], "lr": rate, "weight_decay": decay} for W, rate, decay in zip((A, B), rates, decays)]
        adamw, found = torch.optim.AdamW(groups, eps=1e-300), []
        for _ in range(40):
            adamw.zero_grad()
            found.append(task.loss(adapters.merged(task.W0, A, B)))
            found[-1].backward()
            for W, bound in zip((A, B), bounds or ()):
                W.grad *= min(1, bound / max(W.grad.norm().item(), 1e-300))
            adamw.step()
        return torch.stack(found).detach()

    gap = (losses(start, rates, **plus) - losses(*adapters.one_rate(start, rates, 0), **plain)).abs().max()
    assert gap < 1e-10 if kept else gap > 1e-4


def test_a_ratio_is_a_start_under_schedules_and_one_common_shrinking_and_for_any_degree():
    """Steps written out: sign(g) |g|^q, rates that change, factors that shrink alike, minibatches that change."""
    for q, ratio in itertools.product((0.25, 0.5, 2.0), (0.2, 9.0)):
        task, start = [logistic(seed) for seed in range(3)], adapters.usual_start(3, 6, 2, generator(6))
        start = start[0] + 0.5, start[1] + 0.1
        ends = []
        for factors, rates in ((start, (1e-3, ratio * 1e-3)), adapters.one_rate(start, (1e-3, ratio * 1e-3), q)):
            A, B = factors
            for t in range(12):
                G = task[t % 3].gradient(adapters.merged(task[0].W0, A, B, 0.7))
                powers = [g.sign() * g.abs() ** q for g in adapters.gradients(A, B, G, 0.7)]
                m, fade = 0.99, 1 / (1 + t)
                A, B = m * A - rates[0] * fade * powers[0], m * B - rates[1] * fade * powers[1]
            ends.append(B @ A)
        rounding = 1e-10 + 1e-2 * 1e-17**q  # a gradient of 1e-17 in the place of 0, to the power q, a few steps of 1e-3
        assert (ends[1] - ends[0]).abs().max() < rounding


@pytest.mark.parametrize("shape, rank", [((3, 20), 2), ((9, 5), 4)])
def test_prop_first_step(shape, rank):
    """Means and spreads over many draws, and the two formulas against a step that is really taken."""
    k, d = shape
    G, draws, alpha = dl.normal(k, d, generator=generator(8)) ** 3, 20_000, 3.0
    A, B = adapters.usual_start(k, d, rank, generator(9), batch=[draws])
    assert A.shape == (draws, rank, d) and not B.any() and A.abs().max() <= d**-0.5 < 1.01 * A.abs().max()
    for s, mean in ((alpha / rank, alpha**2 / (3 * d * rank)), (alpha / rank**0.5, alpha**2 / (3 * d))):
        p = adapters.first_progress(A, G, s)
        assert abs(p.mean() / mean - 1) < 5 * p.std() / mean / draws**0.5 and p.std() < (2 / rank) ** 0.5 * mean * 1.03
        q = adapters.first_sign_progress(A, G, s)
        C = q.mean() / (s * rank)
        bound = G.norm(dim=1).sum() / ((3 * d) ** 0.5 * G.abs().sum())
        assert bound / 3**0.5 < C < bound
        one = adapters.usual_start(k, d, 1, generator(10), batch=[draws])[0]
        assert abs(adapters.first_sign_progress(one, G, 1.0).mean() / C - 1) < 0.03  # the same C at rank 1
    task = adapters.Task(dl.normal(k, d, generator=generator(11)), lambda W: (G * W).sum())
    for sign, formula in ((False, adapters.first_progress), (True, adapters.first_sign_progress)):
        options = TINY if sign else {}
        run = adapters.train(task, (A[0], B[0]), (0.1, 0.1), 1, 0.5, **options)
        full = 0.1 * (G.abs().sum() if sign else G.square().sum())
        assert abs((run.loss[0] - run.loss[1]) / full - formula(A[0], G, 0.5)) < 1e-12
        later = adapters.train(task, (A[0], B[0] + 0.3), (0.1, 0.1), 1, 0.5, **options)  # control: B does not start at 0
        assert abs((later.loss[0] - later.loss[1]) / full - formula(A[0], G, 0.5)) > 1e-3


@pytest.mark.parametrize("size", [3, 11])
def test_prop_weight_norm(size):
    """PyTorch's parametrisation on rows behind a loss; the flow by small steps; a unit's law with its gain."""
    draw = generator(size)
    layer = torch.nn.utils.parametrizations.weight_norm(torch.nn.Linear(size, 4, dtype=torch.float64))
    for W in layer.parameters():
        W.data = dl.normal(*W.shape, generator=draw)
    X, out = dl.normal(15, size, generator=draw), dl.normal(2, 4, generator=draw).requires_grad_()
    gain, v = layer.parametrizations.weight.original0, layer.parametrizations.weight.original1
    loss = F.cross_entropy(F.relu(layer(X)) @ out.T, torch.arange(15) % 2)
    dg, dv, db, dout = torch.autograd.grad(loss, (gain, v, layer.bias, out))
    with torch.no_grad():
        assert (v * dv).sum(1).abs().max() < 1e-15
        assert ((v - 3 * dv).square().sum(1) - v.square().sum(1) - 9 * dv.square().sum(1)).abs().max() < 1e-12
        assert ((gain * dg).sum(1) + layer.bias * db - (out * dout).sum(0)).abs().max() < 1e-15
        assert (v * (dv + 0.1 * v)).sum(1).abs().max() > 1e-3  # control: with decay
        assert (v * dv.sign()).sum(1).abs().max() > 1e-3  # control: a step by signs


def test_weight_norm_is_the_preconditioner_of_the_chapter():
    v, h = dl.normal(2, 6, generator=generator(12))
    for gain in torch.tensor([0.4, 3.0], dtype=torch.float64):
        u, eps = v / v.norm(), 1e-6
        P = torch.outer(u, u)
        maps = ((lambda g, v: g * v / v.norm(), P + (gain / v.norm()) ** 2 * (torch.eye(6, dtype=torch.float64) - P)),
                (lambda g, v: g * v, torch.outer(v, v) + gain**2 * torch.eye(6, dtype=torch.float64)))
        for weight, expected in maps:
            dg, dv = torch.func.vjp(weight, gain, v)[1](h)
            moved = (weight(gain - eps * dg, v - eps * dv) - weight(gain, v)) / eps
            assert (moved + expected @ h).norm() < 1e-4 * moved.norm() and (moved + h).norm() > 0.1 * moved.norm()
        assert abs(gain * dg - v @ dv) < 1e-12  # the plain gain
    deep = [torch.outer(torch.ones(1).double(), u) * 1.3, torch.full((1, 1), 1.3, dtype=torch.float64)]  # a balanced gain is depth two
    W = dl.end_to_end(deep)
    expected = dl.preconditioner.apply(W, h[None], 2)
    assert ((1.3**2 * torch.outer(u, u) + 1.3**2 * torch.eye(6, dtype=torch.float64)) @ h - expected[0]).abs().max() < 1e-12


def test_emp_train_and_fold():
    """The record; and two of the networks from other seeds: folded they are what was trained, and little was gained or lost.

    What the chapter says of single starts and of the widths of intervals is in the record too."""
    recorded = dl.recorded.load("train-and-fold", quiet=True).summary
    deep = {name: each for name, each in recorded.items() if "balanced" in name}
    assert len(deep) == 10 and not any(high is not None and high < 1 for each in deep.values() for _, _, high in each["ratios"])
    behind = {name for name, each in deep.items() if all(low is not None and low > 1 for _, low, _ in each["ratios"])}
    assert behind == {f"{name} balanced" for name in ("residual momentum", "residual Adam", "ViT momentum", "GPT momentum", "LeNet Adam")}
    lows = [each["ratios"][0][1] for name, each in deep.items() if name not in {*behind, "LeNet momentum balanced"}]
    assert len(lows) == 4 and min(lows) > 0.95 and 1.5 < deep["LeNet Adam balanced"]["ratios"][0][0] < 1.6
    arrays = dl.recorded.load("train-and-fold", quiet=True).arrays
    ends = arrays["LeNet momentum balanced ends"]
    assert ends.isnan().all(1).sum() == 1 and recorded["LeNet momentum balanced"]["ratios"][0] == [None] * 3
    constant = ends[:, 0] > np.log(10) - 0.01
    assert constant.sum() == 3 and ends[constant, 0].max() < np.log(10) + 0.1
    for name, each in recorded.items():  # two rates or more were tried on each side of the best
        rates = arrays[f"{name} rates"].tolist()
        assert 2 <= rates.index(each["rate"]) <= len(rates) - 3, name
        assert arrays[f"{name} grid"].shape == (len(rates), 5) and len(arrays[f"{name} ends"]) == 10
    config = dataclasses.replace(train_and_fold.SCALES["quick"], nets=("ViT", "residual"), seeds=(7, 8, 9), tuned=(6,))
    jobs = train_and_fold.jobs(config, "cpu")
    _, found, _ = train_and_fold.collect(config, jobs, [train_and_fold.run_job(config, job, "cpu") for job in jobs])
    for net in config.nets:
        plain, deep = (found[f"{net} Adam {kind}"] for kind in config.kinds)
        assert deep["fold"] < 1e-12 and deep["parameters"][1] == plain["parameters"][0] < deep["parameters"][0]
        mean, low, high = deep["ratios"][0]
        assert 0.7 < mean < 1.4 and low < mean < high and "ratios" not in plain
    X, *_ = train_and_fold.problem(config, "ViT")  # control: from a random start it is another function
    net = train_and_fold.started("ViT", "plain", 7)
    other = dl.deepen(net, start="random", generator=generator(1))
    assert (other(X[:4]) - net(X[:4])).abs().max() > 1e-3
