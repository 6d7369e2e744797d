"""Adapters: shapes, the start, the scale, the task, runs and flows; errors that name what was given."""

import pytest
import torch
from torch.nn import functional as F

import deeplinear as dl
from deeplinear import adapters


def task(k=3, d=5):
    W0 = dl.normal(k, d, generator=dl.seeded(0))
    return adapters.Task(W0, lambda W: (W - 1).square().sum() / 2)


def test_the_start_is_the_one_that_peft_draws():
    A, B = adapters.usual_start(4, 9, 2, dl.seeded(1))
    assert A.shape == (2, 9) and B.shape == (4, 2) and not B.any() and A.dtype == torch.float64
    many, _ = adapters.usual_start(4, 9, 50, dl.seeded(1), batch=[200])
    with dl.forked(0):
        layer = torch.nn.Linear(9, 10_000, bias=False)
        torch.nn.init.kaiming_uniform_(layer.weight, a=5**0.5)
    for values in (many, layer.weight.detach().double()):
        assert values.abs().max() <= 1 / 3 and abs(values.var() * 27 - 1) < 0.02


def test_scale_and_merged_weight():
    assert adapters.scaling(4, 8.0) == 2 and adapters.scaling(4, 8.0, stable=True) == 4 and adapters.scaling(3) == 1 / 3
    one, (A, B) = task(), (dl.normal(2, 5, generator=dl.seeded(2)), dl.normal(3, 2, generator=dl.seeded(3)))
    assert torch.equal(adapters.merged(one.W0, A, B, 0.5), one.W0 + 0.5 * (B @ A))
    traced = [factor.clone().requires_grad_() for factor in (A, B)]
    found = torch.autograd.grad(one.loss(adapters.merged(one.W0, *traced, 0.5)), traced)
    G = one.gradient(adapters.merged(one.W0, A, B, 0.5))
    assert all((g - h).abs().max() < 1e-13 for g, h in zip(found, adapters.gradients(A, B, G, 0.5)))
    assert torch.equal(one.gradient(), one.gradient(one.W0)) and (one.gradient() - (one.W0 - 1)).abs().max() < 1e-14


def test_a_run_is_plain_descent_and_remembers_its_start():
    one, start = task(), adapters.usual_start(3, 5, 2, dl.seeded(4))
    run = adapters.train(one, start, (0.1, 0.3), 7, 0.5, weight_decay=0.2)
    A, B = start
    for t in range(8):
        assert (run.A[t] - A).abs().max() < 1e-14 and (run.B[t] - B).abs().max() < 1e-14
        assert abs(run.loss[t] - one.loss(one.W0 + 0.5 * B @ A)) < 1e-12 and (run.product[t] - B @ A).abs().max() < 1e-14
        G = one.gradient(one.W0 + 0.5 * B @ A)
        A, B = A - 0.1 * (0.5 * B.T @ G + 0.2 * A), B - 0.3 * (0.5 * G @ A.T + 0.2 * B)
    assert not start[1].any() and run.memory[0] == 1 and run.loss[-1] < run.loss[0]
    small = adapters.train(one, start, (1e-4, 1e-4), 5)
    assert (small.memory - 1).abs().max() < 1e-5 < 1e-2 < (run.memory[-1] - 1).abs()
    clipped = adapters.train(one, start, (1.0, 1.0), 1, clip=0.1)
    assert abs((clipped.B[1] - clipped.B[0]).norm() - 0.1) < 1e-6


def test_a_flow_is_the_limit_of_small_steps():
    one, start = task(), adapters.usual_start(3, 5, 2, dl.seeded(5))
    path = adapters.flow(one, start, (0.0, 0.5), 0.7, (1.0, 2.0), 0.1)
    gaps = []
    for steps in (100, 200):
        run = adapters.train(one, start, (0.5 / steps, 1.0 / steps), steps, 0.7, weight_decay=0.1)
        gaps.append((run.product[-1] - path.product[-1]).abs().max())
    assert gaps[0] < 0.05 and 1.8 < gaps[0] / gaps[1] < 2.2 and torch.equal(path.A[0], start[0])


def test_the_digits_are_learned_upright_only():
    one = adapters.turned_digits()
    assert one.W0.shape == (64, 64) and one.loss(one.W0) > 3 and torch.equal(one.W0, adapters.turned_digits().W0)
    assert one.gradient().norm() > 0.1 and adapters.turned_digits(steps=0).loss(one.W0) != one.loss(one.W0)
    assert F.relu(one.loss(one.W0 - 0.01 * one.gradient())) < one.loss(one.W0)


@pytest.mark.parametrize("call, words", [
    (lambda A, B: adapters.usual_start(3, 5, 0, dl.seeded(0)), "rank is 0; expected an integer >= 1"),
    (lambda A, B: adapters.scaling(True), "rank is True"), (lambda A, B: adapters.scaling(2.5), "rank is 2.5"),
    (lambda A, B: adapters.merged(torch.zeros(3, 4), A, B), r"B has shape \(3, 2\) and A \(2, 5\); expected .* shape \(3, 4\)"),
    (lambda A, B: adapters.gradients(A, B[:, :1], torch.zeros(3, 5)), r"B has shape \(3, 1\)"),
    (lambda A, B: adapters.one_rate((A, B), (0.1, 0.0)), r"rates are \(0.1, 0.0\)"),
    (lambda A, B: adapters.one_rate((A, B), (0.1, 0.1), -1), "degree is -1; expected positive rates and a degree above -1")])
def test_what_does_not_fit_is_named(call, words):
    A, B = adapters.usual_start(3, 5, 2, dl.seeded(6))
    with pytest.raises(ValueError, match=words):
        call(A, B)
