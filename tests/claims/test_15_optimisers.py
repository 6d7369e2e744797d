"""One test for each claim of chapter 15, on other shapes, seeds and losses than the chapter, each with its control."""

import dataclasses

import deeplinear as dl
import numpy as np
import torch
from deeplinear.experiments import doubled_transformer, optimisers
from hypothesis import given
from hypothesis import strategies as st
from problems import half_square, quick, seeds, worst

from conftest import generator


def frame(n, m, draw):
    return torch.linalg.qr(dl.normal(n, m, generator=draw)).Q


def shampoo_step(G, eps, steps=1):
    """Minus the last of so many steps along the same gradient."""
    rule, W = dl.polar.Shampoo(1.0, eps), [torch.zeros_like(G)]
    state = rule.start(W)
    for _ in range(steps):
        before = W[0].clone()
        rule.step(W, [G], state)
    return before - W[0]


@quick
@given(k=st.integers(1, 5), d=st.integers(1, 5), seed=seeds, eps=st.floats(1e-6, 10))
def test_prop_shampoo(k, d, seed, eps):
    G = dl.normal(k, d, generator=generator(seed))
    U, s, Vh = torch.linalg.svd(G, full_matrices=False)
    step, P = shampoo_step(G, eps), dl.polar.factor(G)
    assert worst(step - (U * s / (s**2 + eps) ** 0.5) @ Vh) < 1e-8
    assert torch.linalg.matrix_norm(step - P, 2) <= eps / (2 * s[-1] ** 2) + 1e-8
    if s[-1] > 0.05 * s[0]:
        assert worst(shampoo_step(G, 0.0) - P) < 1e-7
        assert worst(shampoo_step(G, 0.0, steps=3) - P) > 0.4 / min(k, d) ** 0.5 / max(k, d) ** 0.5  # control
    X = dl.normal(20, k, d, generator=generator(seed + 1))
    assert ((G * X).sum((1, 2)) <= (1 + 1e-12) * s.sum() * torch.linalg.matrix_norm(X, 2)).all()


def test_prop_shampoo_has_one_best_direction_at_full_rank_only():
    draw = generator(3)
    U, V = torch.linalg.qr(dl.normal(4, 4, generator=draw)).Q, torch.linalg.qr(dl.normal(3, 3, generator=draw)).Q
    low = (U[:, :2] * torch.tensor([2.0, 1.0])) @ V[:, :2].T
    other = dl.polar.factor(low) + 0.7 * U[:, 2:3] @ V[:, 2:].T
    assert torch.linalg.matrix_norm(other, 2) < 1 + 1e-12 and abs((low * other).sum() - 3) < 1e-12
    full = (U[:, :3] * torch.tensor([2.0, 1.0, 0.5])) @ V.T
    assert abs((full * dl.polar.factor(full)).sum() - 3.5) < 1e-12 and (full * other).sum() < 3.4  # control


def polar_run(dims, phi, s0, eta, seed, steps):
    """The modes (steps + 1, m) of aligned layers under polar steps, and those of the goal."""
    draw, m = generator(seed), len(phi)
    U, V = frame(dims[-1], m, draw), frame(dims[0], m, draw)
    start = dl.balanced_init(dims, draw, W=s0 * U @ V.T)
    run = dl.train(half_square(U * phi @ V.T), start, dl.polar.Muon(eta, momentum=0.0), steps, keep_weights=True)
    return torch.einsum("ir,tij,jr->tr", U, run.end_to_end, V), run, U, V


def test_thm_polar_times():
    eta, theta = 4.1e-3, 0.8  # no mode is hit exactly
    for dims, goals, s0, seed in (((3, 2), (3.0, 1.2), 0.1, 0), ((2, 4, 3), (5.0, 0.7), 0.01, 1),
                                  ((4, 2, 2, 3, 5), (2.0, 0.4), 1e-4, 2)):
        phi, N = torch.tensor(goals, dtype=torch.float64), len(dims) - 1
        said = dl.modes.polar_times(phi, s0, theta, N)
        modes, run, U, V = polar_run(dims, phi, s0, eta, seed, int(said.max() / eta) + 40)
        seen = eta * (modes < theta * phi).sum(0).numpy()
        assert np.abs(seen - said).max() < 1.5 * eta and seen[1] < seen[0]
        assert worst(run.end_to_end - torch.einsum("ir,tr,jr->tij", U, modes, V)) < 1e-9  # nothing else moves
        other = dl.modes.polar_times(phi, s0, theta, N + 1)
        assert np.abs(seen - other).max() > 10 * eta  # control: another depth


def test_thm_polar_times_has_the_opposite_order_of_gradient_flow():
    pair = [7.0, 1.0]
    for N in (1, 2, 3, 5):
        polar = [np.divide(*dl.modes.polar_times(pair, s0, 1.0, N)) for s0 in (1e-2, 1e-4, 1e-8, 1e-16, 1e-60)]
        assert (np.diff(polar) < 1e-12).all() and polar[-1] >= 7 ** (1 / N) and abs(polar[-1] / 7 ** (1 / N) - 1) < 1e-6
        flow = [np.divide(*dl.modes.flow_times(pair, s0, 0.5, N)) for s0 in (1e-4, 1e-8, 1e-16, 1e-60)]
        limit = 1 if N == 1 else 1 / 7
        assert (np.diff(np.abs(np.array(flow) - limit)) <= 1e-9).all() and abs(flow[-1] / limit - 1) < 0.02
    late = dl.modes.flow_times(pair, 0.45, 0.5, 2)
    assert late[0] > late[1]  # control: from a start that is not small, the small mode can be first under gradient flow too


@quick
@given(seed=seeds, depth=st.integers(2, 4), eta=st.floats(0.01, 0.3))
def test_prop_polar_balance(seed, depth, eta):
    draw, m = generator(seed), 2
    dims = dl.integers(2, 5, depth + 1, generator=draw)
    Q = [frame(int(n), m, draw) for n in dims]
    sizes = dl.uniform(0.2, 1.0, depth, m, generator=draw)
    layers = [Q[j + 1] * sizes[j] @ Q[j].T for j in range(depth)]
    loss = half_square(Q[-1] * dl.uniform(200, 500, m, generator=draw) @ Q[0].T)
    before = dl.modes.root_imbalance(layers)
    run = dl.train(loss, layers, dl.polar.Muon(eta, momentum=0.0), 5)
    after = dl.modes.root_imbalance(run.weights)
    assert worst(*[A - B for A, B in zip(after, before)]) < 1e-9
    squares = [A - B for A, B in zip(dl.imbalance(run.weights), dl.imbalance(layers))]
    assert abs(worst(*squares) / (10 * eta * worst(*before)) - 1) < 1e-6  # control: the imbalance grows with the layers


def test_prop_polar_balance_asks_for_alignment_and_for_polar_steps():
    draw = generator(4)
    dims, m = (4, 5, 3), 2
    Q = [frame(n, m, draw) for n in dims]
    aligned = [Q[1] * torch.tensor([0.3, 0.8]) @ Q[0].T, Q[2] * torch.tensor([0.9, 0.5]) @ Q[1].T]
    loss = half_square(Q[2] * torch.tensor([30.0, 20.0]) @ Q[0].T)
    polar, other = dl.polar.Muon(0.1, momentum=0.0), half_square(dl.normal(3, 4, generator=draw))
    for goal, start, rule in ((loss, dl.near_zero_init(dims, 0.4, draw), polar), (loss, aligned, dl.GD(1e-2)),
                              (other, dl.balanced_init(dims, draw, std=1.0), polar)):  # the last aligned, but not with the goal
        run = dl.train(goal, start, rule, 5)
        moved = [A - B for A, B in zip(dl.modes.root_imbalance(run.weights), dl.modes.root_imbalance(start))]
        assert worst(*moved) > 0.02


def race(case, rates, names, depths):
    """For each optimiser the steps of each depth, at the best rate at which all starts arrive; other starts than the chapter's."""
    config = dataclasses.replace(optimisers.SCALES["full"], cases=(case,), rates=((case[0], *rates),), optimisers=names,
                                 depths=depths, angles=(20, 65, 100, 200, 290), seeds=(10, 11, 12, 13, 14))
    jobs = optimisers.jobs(config, "cpu")
    found = optimisers.collect(config, jobs, [optimisers.run_job(config, job, "cpu") for job in jobs])[1]
    return {name: each["strict"] for name, each in found[f"{case[0]} {case[1]}"].items()}


def recorded(case):
    """From the counts of the record, for each optimiser the steps of each depth, where all starts arrive."""
    counts = dl.recorded.load("optimisers", quiet=True).arrays[case]
    best = torch.where(counts.isfinite().all(-1), counts.median(-1).values, torch.inf).min(-1).values
    return dict(zip(optimisers.SCALES["full"].optimisers, best))


def test_emp_depth_two_scales():
    for case, least in (("two scales 16", (30, 15, 4)), ("two scales 64", (100, 100, 40))):
        gain = {name: (steps[0] / steps[1:].min()).item() for name, steps in recorded(case).items()}
        assert all(gain[name] > bound for name, bound in zip(("gd", "shampoo", "heavy-ball"), least))
        assert max(gain[name] for name in ("adam", "muon", "normalised", "polar")) < 1.3
        counts = dl.recorded.load("optimisers", quiet=True).arrays[case]
        arrives = counts.isfinite().all(-1)
        best = torch.where(arrives, counts.median(-1).values, torch.inf).argmin(-1)  # (optimisers, depths)
        assert all(not arrives[0, n, best[0, n] + 1:].any() for n in range(4))  # descent is fastest at the edge
        to_five = [counts[-1, n, best[-1, n]:best[-1, n] + 8] for n in range(4)]  # Adam, up to 10^0.7, five, times its best rate
        assert all(rates.median(-1).values.isfinite().all() for rates in to_five)
        assert [bool(rates.isfinite().all()) for rates in to_five][:3] == [True, True, False]  # single starts are lost
    found = race(("two scales", 8, 500), (-2, 1), ("gd", "shampoo", "adam", "normalised"), (1, 2, 3))
    assert found["gd"][0] > 8 * min(found["gd"][1:]) and found["shampoo"][0] > 4 * min(found["shampoo"][1:])
    assert found["adam"][0] < 1.3 * min(found["adam"][1:]) and found["normalised"][0] < min(found["normalised"][1:])
    assert found["adam"][0] < 3 * min(found["gd"])


def test_emp_depth_least_squares():
    for case in ("least squares 10", "least squares 100"):
        assert all(one < 1.05 * min(more) for one, *more in recorded(case).values())
    found = race(("least squares", 20, 300), (-2, 1), ("gd", "polar", "adam"), (1, 2))
    for name, (one, two) in found.items():
        assert one < 1.05 * two, name


def test_emp_doubled_transformer():
    """The record; and one start of another seed at its rates: the doubled network arrives no sooner."""
    record, config = dl.recorded.load("doubled-transformer", quiet=True), doubled_transformer.SCALES["full"]
    assert all(each["interior"] for each in record.summary.values())
    lows = {name: each["ratio"][1] for name, each in record.summary.items() if "ratio" in each and "plain" not in name}
    assert len(lows) == 8 and all(1 < low < 1.01 if name.startswith("muon") else low > 1.03 for name, low in lows.items())
    medians = [record.summary[f"muon {kind}"]["steps"] for kind in ("plain", "balanced", "identity")]
    assert medians[1:] == [medians[0] + config.every] * 2  # under Muon by one look
    for rule, _ in config.optimisers:
        steps = {}
        for kind in config.kinds[:2]:
            job = {"optimiser": rule, "kind": kind}
            curve = doubled_transformer.curve(config, job, record.summary[f"{rule} {kind}"]["rate"], seed=11)
            steps[kind] = doubled_transformer.steps_to_stay(config, curve).item()
        assert steps["plain"] < 1.2 * steps["balanced"], (rule, steps)
