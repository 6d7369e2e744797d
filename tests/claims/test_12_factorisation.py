"""One test for each claim of chapter 12, on other shapes, seeds and losses than the chapter, each with its control."""

import itertools

import deeplinear as dl
import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import half_square, seeds, worst

from conftest import generator

spectral = lambda A: torch.linalg.matrix_norm(A, 2)
square_norm = lambda A: A.square().sum((-2, -1))


def factor_problem(seed, m, n, r, batch=(), std=0.5):
    M, U, V = (dl.normal(*batch, *shape, generator=generator(seed + i)) for i, shape in enumerate(((m, n), (m, r), (n, r))))
    return M, std * U, std * V


def factor_size(M, U, V):
    """The number x of thm-factor-descent."""
    return spectral(dl.factorisation.imbalance(U, V)) + spectral(M) + 2 * square_norm(U @ V.mT - M).sqrt()


def factor_run(M, U, V, etas):
    """Losses, squared gradients, sizes and imbalances at every step, by the two formulas of the text."""
    rows = []
    for eta in [*etas, None]:
        R = U @ V.mT - M
        G, H = R @ V, R.mT @ U
        rows.append((square_norm(R) / 2, square_norm(G) + square_norm(H), torch.maximum(spectral(U), spectral(V)) ** 2,
                     dl.factorisation.imbalance(U, V)))
        if eta is not None:
            U, V = U - eta[..., None, None] * G, V - eta[..., None, None] * H
    return map(torch.stack, zip(*rows))


def test_prop_hyperbola():
    for seed, (m, n, r) in enumerate(((3, 5, 2), (6, 2, 3), (2, 2, 1))):
        M, U, V = factor_problem(seed, m, n, r)
        loss = half_square(M)
        assert abs(loss.value(U @ V.mT) / (square_norm(U @ V.mT - M) / 2) - 1) < 1e-13
        C = torch.eye(r) + 0.3 * dl.normal(r, r, generator=generator(50))
        before, same, other = (square_norm(A @ B.mT - M) for A, B in ((U, V), (U @ C, V @ torch.linalg.inv(C).mT), (U @ C, V @ C)))
        assert abs(same / before - 1) < 1e-12 and abs(other / before - 1) > 1e-2
        for c in (0.5, 3, 30):
            assert dl.descent.sharpness(loss, [V.mT / c, c * U]) >= c**2 * spectral(U) ** 2 * (1 - 1e-9)
    for u, v in ((2.0, 0.3), (0.2, 1.1)):  # rank one: the flow's minimum and its sharpness
        loss = half_square(1.5 * torch.ones(1, 1).double())
        end = [W[-1] for W in dl.flow.layers(loss, [torch.tensor([[s]]).double() for s in (v, u)], [60.0]).weights]
        D = u**2 - v**2
        assert worst(dl.imbalance(end)[0] - D) < 1e-7
        assert abs(dl.descent.sharpness(loss, end) - np.sqrt(D**2 + 4 * 1.5**2)) < 1e-6
        assert abs(dl.descent.sharpness(loss, end) - 2 * 1.5) > 0.05  # the control: not the balanced value


@settings(max_examples=200)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 4), seeds, st.floats(-2, 2))
def test_lem_factor_size(m, n, r, seed, power):
    _, U, V = factor_problem(seed, m, n, r)
    U = 10**power * U
    size, product, D = max(spectral(U), spectral(V)) ** 2, spectral(U @ V.mT), dl.factorisation.imbalance(U, V)
    assert size <= (spectral(D) + product) * (1 + 1e-12)
    scaled = 1e3 * U / spectral(U), 1e-3 * V / spectral(V)  # the control: without D no bound holds
    assert spectral(scaled[0]) ** 2 > 1e5 * spectral(scaled[0] @ scaled[1].mT)


def test_thm_factor_descent():
    rng = np.random.default_rng(0)
    for seed, (m, n, r, std) in enumerate(((3, 4, 2, 1.0), (1, 1, 1, 2.0), (2, 6, 5, 0.1), (5, 2, 1, 3.0))):
        M, U, V = factor_problem(seed, m, n, r, (100,), std)
        x, D0 = factor_size(M, U, V), dl.factorisation.imbalance(U, V)
        for kind in ("random", "largest", "decaying"):
            share = {"random": rng.uniform(0.01, 1, 150), "largest": np.ones(150),
                     "decaying": np.arange(1, 151.0) ** -0.75}[kind]
            etas = torch.from_numpy(share)[:, None] / (4 * x)
            f, slopes, sizes, D = factor_run(M, U, V, etas)
            assert (f[1:] <= f[:-1] - etas / 2 * slopes[:-1] + 1e-13 * f[0]).all() and (sizes <= x * (1 + 1e-12)).all()
            sums = (etas**2 * slopes[:-1]).cumsum(0)
            assert (spectral(D[1:] - D0) <= sums * (1 + 1e-9) + 1e-13 * x).all()
            assert (sums <= 2 * etas[0].maximum(etas.amax(0)) * (f[0] - f[1:]) + 1e-13).all()
    M, U, V = factor_problem(9, 4, 4, 2)  # the control: steps above 2 over the sharpness of every minimum
    f, *_ = factor_run(M, U, V, torch.full((400,), 1.2).double() / spectral(M))
    assert not f.isfinite().all() or f.diff().max() > 0.01


def test_cor_factor_limit():
    M, U, V = factor_problem(20, 4, 3, 2, (20,))
    eta, moved, slope = 1 / (4 * factor_size(M, U, V))[:, None, None], {}, {}
    for name, power in (("constant", 0), ("decaying", 0.2), ("finite", 2.5)):
        one = dl.factorisation.descend(M, U, V, lambda t, p=power: eta * (t + 1) ** -p, 3000, record_every=3000)
        two = dl.factorisation.descend(M, one.U, one.V, lambda t, p=power: eta * (t + 3001) ** -p, 3000, record_every=3000)
        moved[name] = (two.U - one.U).norm(dim=(1, 2))
        slope[name] = ((two.U @ two.V.mT - M) @ two.V).norm(dim=(1, 2))
    assert moved["finite"].max() < 1e-6 and slope["finite"].median() > 0.05  # the control: it converges, not to a critical point
    for name in ("constant", "decaying"):
        assert moved[name].median() < 1e-4 and slope[name].median() < 1e-5
        assert slope[name].max() < slope["finite"].median()


def test_prop_clock():
    rng = np.random.default_rng(1)
    for seed, (m, n, r, std) in enumerate(((4, 3, 2, 0.5), (2, 2, 1, 0.1), (1, 5, 3, 2.0))):
        M, U, V = factor_problem(30 + seed, m, n, r, (100,), std)
        x = factor_size(M, U, V)
        etas = torch.from_numpy(rng.uniform(0.2, 1, (60, 100))) / (4 * x)
        f, *_ = factor_run(M, U, V, etas)
        assert (f[1:] >= f[0] * torch.exp(-7 * x * etas.cumsum(0)) * (1 - 1e-12)).all()
        T = torch.arange(1, 301)[:, None]
        f, *_ = factor_run(M, U, V, 1 / (4 * x * T))
        assert (f[1:] >= f[0] * (np.e * T) ** -1.75).all()
    one = torch.ones(1, 1).double()  # the control: a constant step is not bound by the clock of 1/t
    x = factor_size(one, 0.5 * one, 0.5 * one)
    f, *_ = factor_run(one, 0.5 * one, 0.5 * one, torch.full((300,), 0.25).double() / x)
    assert f[-1] < 1e-3 * f[0] * (np.e * 300) ** -1.75


def test_emp_factor_steps():
    # on another matrix and other starts: a constant step that takes as long drifts less; faster decay than delta 0.05 is open
    P, Q = (torch.linalg.qr(dl.normal(k, 2, generator=generator(k)))[0] for k in (12, 9))
    M, powers = P * torch.tensor([2.0, 1.0]).double() @ Q.mT, torch.tensor([0, 0.25, 0.55]).double()[:, None, None, None]
    U, V = (0.1 * dl.normal(6, k, 2, generator=generator(300 + k)) for k in (12, 9))
    run = dl.factorisation.descend(M, U, V, lambda t: 0.2 * (t + 1) ** -powers, 2500, record_every=5)
    D0 = dl.factorisation.imbalance(U, V)
    drift = spectral(dl.factorisation.imbalance(run.U, run.V) - D0)
    late = 5 * (run.loss > 1e-6).sum(0)
    assert (late.diff(dim=0) > 0).all() and (late < 2500).all()
    assert (drift.diff(dim=0) < 0).all() and (drift <= run.drift_bound[-1]).all()
    clock = (0.2 * (torch.arange(2500) + 1) ** -0.55).cumsum(0)[late[2] - 1]
    even = dl.factorisation.descend(M, U, V, clock / late[2], 2500, record_every=5)
    assert (5 * (even.loss > 1e-6).sum(0) / late[2] - 1).abs().max() < 0.05
    assert (spectral(dl.factorisation.imbalance(even.U, even.V) - D0) < 0.6 * drift[2]).all()


def rank_one_starts(seed, m, n, sigma, count, size=1.0):
    rng = np.random.default_rng(seed)
    M = torch.zeros(count, m, n).double()
    M[:, 0, 0] = sigma
    u, v = (dl.normal(count, k, 1, generator=generator(seed + k)) for k in (m, n + 100))
    u, v = (w / w.norm(dim=1, keepdim=True) for w in (u, v[:, :n]))
    lengths = torch.from_numpy(rng.uniform(0.05, size, (2, count, 1, 1))) * (sigma / 8) ** 0.5
    return M, lengths[0] * u, lengths[1] * v


def test_thm_rank_one():
    failures = 0
    for seed, (m, n, sigma) in enumerate(((2, 7, 0.3), (4, 4, 5.0), (9, 2, 1.0))):
        M, u, v = rank_one_starts(seed, m, n, sigma, 150)
        a, b = u[:, 0, 0], v[:, 0, 0]
        gamma = torch.maximum(square_norm(u[:, 1:]), square_norm(v[:, 1:]))
        inside = 2 * gamma * (a - b).abs() <= sigma * (a + b).abs()
        assert inside[a * b >= 0].all() and inside.double().mean() > 0.8
        etas = torch.from_numpy(np.random.default_rng(seed).uniform(0.6, 1, 2500)) / (14 * sigma)
        run = dl.factorisation.descend(M, u, v, etas.__getitem__, 2499)
        clock, f0 = sigma * etas.cumsum(0)[:-1, None], square_norm(u @ v.mT - M) / 2
        for eps in (0.1, 1e-4, 1e-8):
            need = 3 * torch.log(1.5 * sigma**0.5 / (a + b).abs()) + 5 * torch.log(f0 / (eps * f0[0])) + 1 / 14
            late = (clock >= need) & inside
            assert late.sum() > 1000 and (run.loss[1:] <= eps * f0[0])[late].all()
            early = (clock >= 0.02 * need) & (eps == 1e-8)  # the control: a fiftieth of the time does not do
            failures += int((run.loss[1:] > eps * f0[0])[early].sum())
        done = inside & (run.loss[-1] < 1e-12 * sigma**2)
        ratio = (square_norm(run.U) / square_norm(run.V))[done]
        assert done.sum() > 100 and (ratio < 1.25).all() and (ratio > 0.8).all()
    assert failures > 1000


def test_emp_rank_one():
    counts = []
    for d in (8, 128, 2048):
        starts = dl.normal(2, 100, d, generator=generator(d)) / (16 * d) ** 0.5
        plane = torch.stack([starts[..., 0], starts[..., 1:].norm(dim=-1)], -1)[..., None]
        M = torch.diag(torch.tensor([1.0, 0.0]).double()).expand(100, 2, 2)
        loss = dl.factorisation.descend(M, *plane, 0.1, 400).loss
        counts.append([(loss > eps).sum(0).median().item() for eps in (1e-3, 1e-6, 1e-9)])
        assert (loss[-1] < 1e-9).all()
        if d == 8:  # the plane is the run: the same losses from the full vectors
            full = torch.zeros(100, d, d).double()
            full[:, 0, 0] = 1
            again = dl.factorisation.descend(full, *starts[..., None], 0.1, 100).loss
            assert worst(again - loss[:101]) < 1e-12
    counts = np.array(counts, dtype=float)
    assert (np.abs(np.diff(counts) - np.log(1000) / (-2 * np.log(0.9))) < 4).all()
    growth = np.polyfit(np.log([8, 128, 2048]), counts[:, 1], 1)[0]
    assert abs(growth * 2 * np.log(1.1) - 1) < 0.3  # and not the factor 2048 / 8 of a count linear in d


def test_prop_rank_one_rate():
    M = torch.zeros(4, 3).double()
    M[0, 0] = 2.0
    u, v = (torch.tensor([c]).double().mT for c in ([0.3, 0.1, 0.2, 0.1], [1.9, 0.2, 0.1]))
    for eta in (0.05, 0.15):
        for turned in (1, 0):
            side = [torch.tensor([[1.0]] + [[turned]] * k).double() for k in (3, 2)]
            run = dl.factorisation.descend(M, side[0] * u, side[1] * v, eta, 1500)
            k = int((run.loss > 1e-14).sum())
            rate, a, b = run.loss[k] / run.loss[k - 1], square_norm(run.U), square_norm(run.V)
            assert abs(a * b - 4) < 1e-10 and b > 1.5 * a and eta * (b + 2 * a) < 2
            found, plane = abs(rate - (1 - eta * a) ** 2), abs(rate - (1 - eta * (a + b)) ** 2)
            assert (found < 1e-5 and plane > 0.05) if turned else (plane < 1e-5 and found > 0.05)


def test_emp_factor_figure_1():
    for seed, std in ((1, 0.05), (2, 0.02)):
        P, Q = (torch.linalg.qr(dl.normal(k, 3, generator=generator(seed + k)))[0] for k in (20, 60))
        M = P * torch.tensor([3.0, 2.0, 1.0]).double() @ Q.mT
        U, V = (std * dl.normal(k, 3, generator=generator(10 * seed + k)) for k in (20, 60))
        trace, ends = dl.factorisation.imbalance(U, V).trace(), []
        for c in (0, 0.5):
            run = dl.factorisation.descend(M, U, V, 0.004, 3000, regulariser=c, record_every=250)
            bend = run.loss.log().diff()[-4:] / 250
            assert (bend + 2 * 0.004).abs().max() < 0.15 * 2 * 0.004
            ends.append((run.U.norm() / run.V.norm()).item())
        assert abs(ends[0] - ((12 + trace) / (12 - trace)).sqrt()) < 0.1 * (1 - ends[0]) and abs(ends[1] - 1) < 1e-4
        assert 1 - ends[0] > 1e-3  # the control: without the penalty it is not 1


def hessian(M, U, V):
    (m, n), r = M.shape, U.shape[1]

    def value(z):
        return square_norm(z[:m * r].reshape(m, r) @ z[m * r:].reshape(n, r).mT - M) / 2
    return torch.autograd.functional.hessian(value, torch.cat([U.flatten(), V.flatten()]))


def test_prop_factor_landscape():
    P, Q = (torch.linalg.qr(dl.normal(4, 4, generator=generator(k)))[0] for k in (1, 2))
    for values, r in (((2.0, 2.0, 1.0, 0.0), 2), ((3.0, 1.0, 1.0, 0.5), 3), ((1.0, 0.5, 0.0, 0.0), 3)):
        M = P * torch.tensor(values).double() @ Q.mT
        best, kinds = sum(s**2 for s in values[r:]) / 2, []
        for chosen in (some for size in range(r + 1) for some in itertools.combinations(range(4), size)):
            kept = [i for i in chosen if values[i] > 0]
            U, V = (torch.zeros(4, r).double() for _ in range(2))
            roots = torch.tensor([values[i] for i in kept]).double().sqrt()
            U[:, :len(kept)], V[:, :len(kept)] = P[:, kept] * roots, Q[:, kept] * roots
            if len(kept) < r and values[-1] == 0:  # a factor that the other one multiplies by zero
                U[:, -1] = 0.7 * P[:, 3]
            C = torch.eye(r) + 0.4 * dl.normal(r, r, generator=generator(5))
            U, V = U @ C, V @ torch.linalg.inv(C).mT
            R = U @ V.mT - M
            assert worst(R @ V, R.mT @ U) < 1e-12  # critical
            least, lossy = torch.linalg.eigvalsh(hessian(M, U, V))[0], square_norm(R) / 2 > best + 1e-9
            assert least < -1e-3 if lossy else least > -1e-10
            kinds.append(bool(lossy))
        assert any(kinds) and not all(kinds)
    one, near = torch.ones(1, 1).double(), torch.full((1, 1), 0.95).double()  # the control: not critical, not a minimum, no
    assert torch.linalg.eigvalsh(hessian(one, near, near))[0] > 0.05  # negative eigenvalue


def test_thm_almost_every_start():
    for seed, (m, n, r, size) in enumerate(((4, 3, 2, 1.0), (2, 5, 1, 3.0), (3, 3, 3, 0.5))):
        P, Q = (torch.linalg.qr(dl.normal(k, min(m, n), generator=generator(k + seed)))[0] for k in (m, n))
        values = torch.linspace(2.0, 0.8, min(m, n)).double()
        M = P * values @ Q.mT
        U, V = (dl.normal(60, k, r, generator=generator(20 * k + seed)) for k in (m, n))
        scale = size / (square_norm(U) + square_norm(V)).sqrt()[:, None, None]
        U, V = scale * U, scale * V  # the border of the ball
        eta = 1 / (8 * size**2 + 12 * M.norm())
        assert (factor_size(M.expand(60, m, n), U, V) <= 1 / (4 * eta)).all()
        run = dl.factorisation.descend(M, U, V, float(eta), 8000, record_every=8000)
        best = (values[r:] ** 2).sum() / 2
        assert (run.loss[-1] - best).abs().max() < 1e-6
        U[:, 0], V[:, 0] = 0, 0  # the control: an exceptional start, without parts along the first vectors, ends at a saddle
        diagonal = torch.zeros(m, n).double()
        diagonal[range(len(values)), range(len(values))] = values
        stuck = dl.factorisation.descend(diagonal, U, V, float(eta), 8000, record_every=8000)
        assert (stuck.loss[-1] > best + 0.1).all()
    ten = torch.full((1, 1), 10.0).double()  # the control: outside of the ball its step is too large
    assert dl.factorisation.descend(ten / 10, ten, ten, 0.1, 6).loss[-1].isinf()
    assert dl.factorisation.descend(ten / 10, ten / 10, ten / 20, 1 / (8 * 1.25 + 12), 2000).loss[-1] < 1e-12


def test_cor_rank_one_ratio():
    inside = {True: [], False: []}
    for seed, (m, n, sigma) in enumerate(((2, 7, 0.3), (4, 4, 5.0), (9, 2, 1.0))):
        M, u, v = rank_one_starts(40 + seed, m, n, sigma, 150)
        start = u[:, 0, 0] / v[:, 0, 0]
        low, high, held = start.clamp(max=8 / 9), start.clamp(min=9 / 8), torch.ones(150).bool()
        for share in np.random.default_rng(seed).uniform(0.1, 1, 500):
            R, eta = u @ v.mT - M, share / (14 * sigma)
            u, v = u - eta * R @ v, v - eta * R.mT @ u
            ratio = u[:, 0, 0] / v[:, 0, 0]
            held &= (ratio > low - 1e-12) & (ratio < high + 1e-12)
        for same in inside:
            inside[same].append(held[(start > 0) == same].double().mean())
    assert min(inside[True]) == 1 and max(inside[False]) < 0.8  # the control: opposite signs
