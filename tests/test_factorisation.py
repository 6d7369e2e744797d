"""Matrix factorisation: the gradients, the exact change of the balance in one step, the bound of its drift, batches."""

import pytest
import torch

import deeplinear as dl
from deeplinear import factorisation


def problem(seed=0, m=6, n=5, r=2, std=0.3):
    generator = dl.seeded(seed)
    M = dl.normal(m, r, generator=generator) @ dl.normal(r, n, generator=generator)
    return M, std * dl.normal(m, r, generator=generator), std * dl.normal(n, r, generator=generator)


@pytest.mark.parametrize("regulariser", [0.0, 0.7])
def test_a_step_is_a_gradient_step(regulariser):
    M, U, V = problem()
    U, V = U.requires_grad_(), V.requires_grad_()
    loss = (U @ V.mT - M).square().sum() / 2 + regulariser / 4 * (U.mT @ U - V.mT @ V).square().sum()
    G, H = torch.autograd.grad(loss, (U, V))
    U, V = U.detach(), V.detach()
    run = factorisation.descend(M, U, V, 0.01, 1, regulariser)
    assert (run.U - (U - 0.01 * G)).abs().max() < 1e-14 and (run.V - (V - 0.01 * H)).abs().max() < 1e-14
    change = factorisation.imbalance(run.U, run.V) - factorisation.imbalance(U, V) - 0.01**2 * (G.mT @ G - H.mT @ H)
    assert (change.abs().max() < 1e-13) == (regulariser == 0)  # the control: another identity with it


@pytest.mark.parametrize("step_size", [0.02, factorisation.decaying(0.1, 0.05)])
def test_the_drift_stays_below_its_bound(step_size):
    M, U, V = problem(1)
    run = factorisation.descend(M, U, V, step_size, 2000, record_every=100)
    drift = torch.linalg.matrix_norm(factorisation.imbalance(run.U, run.V) - factorisation.imbalance(U, V), 2)
    assert 0.01 * run.drift_bound[-1] < drift <= run.drift_bound[-1] and run.loss[-1] < 1e-3 * run.loss[0]
    assert (run.drift_bound.diff() >= 0).all() and run.steps[-1] == 2000 and len(run.steps) == 21


def test_a_constant_step_drifts_in_proportion_and_the_regulariser_balances():
    M, U, V = problem(2)
    drift = []
    for lr in (0.02, 0.01):
        run = factorisation.descend(M, U, V, lr, int(20 / lr), record_every=1000)
        drift.append((factorisation.imbalance(run.U, run.V) - factorisation.imbalance(U, V)).norm())
    assert 1.6 < drift[0] / drift[1] < 2.4
    regular = factorisation.descend(M, U, V, 0.01, 4000, regulariser=1.0, record_every=4000)
    assert regular.imbalance[-1] < 1e-3 * run.imbalance[-1] and regular.loss[-1] < 1e-6


def test_a_batch_is_its_runs():
    problems = [problem(seed) for seed in (3, 4, 5)]
    M, U, V = (torch.stack(part) for part in zip(*problems))
    rates = torch.tensor([0.01, 0.02, 0.03], dtype=torch.float64)[:, None, None]
    batch = factorisation.descend(M, U, V, rates, 50, record_every=10)
    for i, (M, U, V) in enumerate(problems):
        run = factorisation.descend(M, U, V, rates[i].item(), 50, record_every=10)
        for name in ("loss", "imbalance", "drift_bound"):
            torch.testing.assert_close(getattr(batch, name)[:, i], getattr(run, name), rtol=1e-10, atol=1e-12)
    sweep = factorisation.descend(M, U, V, rates, 50)  # one problem, three steps
    assert sweep.loss.shape == (51, 3) and sweep.U.shape == (3, *U.shape)
    torch.testing.assert_close(sweep.loss[-1, 2], run.loss[-1], rtol=1e-10, atol=1e-12)


def test_decaying_steps():
    eta = factorisation.decaying(0.3, 0.25)
    assert eta(0) == 0.3 and abs(eta(15) - 0.3 / 8) < 1e-15
    for delta in (0, 0.6, -1):
        with pytest.raises(ValueError, match=f"delta is {delta}; expected 0 < delta <= 1/2"):
            factorisation.decaying(0.1, delta)


def test_what_does_not_fit_is_named():
    M, U, V = problem()
    with pytest.raises(ValueError, match=r"M, U, V have shapes \(6, 5\), \(5, 2\), \(6, 2\)"):
        factorisation.descend(M, V, U, 0.1, 1)
    with pytest.raises(ValueError, match="steps is -1"):
        factorisation.descend(M, U, V, 0.1, -1)


def test_integers_are_named_and_arrays_taken():
    M, U, V = problem()
    with pytest.raises(ValueError, match="M, U, V are torch.int64, torch.int64, torch.int64; expected one floating-point"):
        factorisation.descend(M.long(), U.long(), V.long(), 0.1, 3)
    with pytest.raises(ValueError, match="M, U, V are torch.float64, torch.float32, torch.float64; expected one floating"):
        factorisation.descend(M, U.float(), V, 0.1, 3)
    assert torch.equal(factorisation.descend(M.numpy(), U.numpy(), V.numpy(), 0.1, 3).U,
                       factorisation.descend(M, U, V, 0.1, 3).U)


def test_a_list_of_steps_is_one_for_each_run():
    M, U, V = problem()
    both = factorisation.descend(M, U, V, [0.1, 0.05, 0.02], 5)
    assert both.loss.shape == (6, 3)
    for i, step in enumerate((0.1, 0.05, 0.02)):
        torch.testing.assert_close(both.loss[:, i], factorisation.descend(M, U, V, step, 5).loss)
    for bad in (float("nan"), [0.1, float("inf")], torch.ones(2, 3)):
        with pytest.raises(ValueError, match="step_size is .*; expected a finite number"):
            factorisation.descend(M, U, V, bad, 5)


def test_a_problem_has_its_singular_values_and_a_batch_is_its_problems():
    M, U, V = factorisation.problem(6, 5, (3.0, 2.0), 0.1, seed=4)
    assert (torch.linalg.svdvals(M)[:2] - torch.tensor([3.0, 2.0])).abs().max() < 1e-12 and torch.linalg.svdvals(M)[2] < 1e-12
    assert U.shape == (6, 2) and V.shape == (5, 2) and M.dtype == torch.float64
    batch = factorisation.problem(6, 5, (3.0, 2.0), 0.1, seed=range(3, 5))
    assert all(torch.equal(part[1], alone) for part, alone in zip(batch, (M, U, V)))


def test_value_gradients_and_the_network_agree():
    M, U, V = factorisation.problem(6, 5, (3.0, 2.0), 0.4, seed=1)
    loss, layers = factorisation.network_loss(M), [V.mT, U]
    assert abs(loss.value(dl.end_to_end(layers)) - factorisation.value(M, U, V)) < 1e-12
    second, first = dl.layer_gradients(layers, loss.gradient(dl.end_to_end(layers)))[::-1]
    G, H = factorisation.gradients(M, U, V)
    assert (G - second).abs().max() < 1e-12 and (H - first.mT).abs().max() < 1e-12


def test_the_bound_is_that_of_the_theorem_and_batched():
    M, U, V = factorisation.problem(6, 5, (3.0,), 0.4, seed=range(3))
    norm, x = lambda A: torch.linalg.svdvals(A)[..., 0], factorisation.bound(M, U, V)
    R = (U @ V.mT - M).norm(dim=(1, 2))
    assert (x - norm(U.mT @ U - V.mT @ V) - norm(M) - 2 * R).abs().max() < 1e-12
    run = factorisation.descend(M, U, V, 1 / (4 * x), 500)
    assert (norm(run.U) ** 2 <= x).all() and (norm(run.V) ** 2 <= x).all()


def test_a_run_tells_when_it_arrives_and_how_its_factors_compare():
    run = factorisation.descend(*factorisation.problem(6, 5, (3.0, 1.0), 0.1, seed=range(2)), 0.05, 400, record_every=10)
    for i in range(2):
        first = next(t for t, loss in zip(run.steps, run.loss[:, i]) if loss <= 1e-3)
        assert run.steps_to(1e-3)[i] == first
    assert (run.steps_to(-1.0) == torch.inf).all() and (run.steps_to(1e9) == 0).all()
    assert (run.ratio[-1] - run.U.norm(dim=(1, 2)) / run.V.norm(dim=(1, 2))).abs().max() < 1e-14
