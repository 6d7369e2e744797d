import pytest
import sympy as sp
import torch
from conftest import generator

import deeplinear as dl


def setup(depth=3, p=4, batch=(), seed=0, hidden=2):
    X = torch.randn(20, 4, generator=generator(seed), dtype=torch.float64)
    y = torch.randn(20, generator=generator(seed + 1), dtype=torch.float64)
    dims = (4,) + (hidden,) * (depth - 1) + (1,)
    return dl.LpLoss(X, y, p), dl.near_zero_init(dims, 0.5, generator(seed + 2), batch)


def torch_run(loss, weights, optimiser, steps):
    """The field's way: a chain of parameters, autograd, torch.optim."""
    parameters = [torch.nn.Parameter(W.clone()) for W in weights]
    optimiser = optimiser(parameters)
    for _ in range(steps):
        optimiser.zero_grad()
        out = loss.X
        for W in parameters:
            out = out @ W.T
        ((out - loss.Yt.T) ** loss.p).mean(0).sum().backward()
        optimiser.step()
    return [W.detach() for W in parameters]


OPTIMISERS = {
    "GD": (dl.GD(0.003, weight_decay=0.001), lambda w: torch.optim.SGD(w, lr=0.003, weight_decay=0.001)),
    "HeavyBall": (dl.HeavyBall(0.0003, 0.9), lambda w: torch.optim.SGD(w, lr=0.0003, momentum=0.9)),
    "Nesterov": (dl.Nesterov(0.0003, 0.9), lambda w: torch.optim.SGD(w, lr=0.0003, momentum=0.9, nesterov=True)),
    "AdaGrad": (dl.AdaGrad.pytorch(0.01), lambda w: torch.optim.Adagrad(w, lr=0.01)),
    "AdaGrad, TensorFlow 1": (dl.AdaGrad.tensorflow1(0.01), lambda w: torch.optim.Adagrad(
        w, lr=0.01, initial_accumulator_value=0.1, eps=0)),
    "AdaDelta": (dl.AdaDelta.pytorch(0.001), lambda w: torch.optim.Adadelta(w, lr=0.001)),
    "AdaDelta, TensorFlow 1": (dl.AdaDelta.tensorflow1(0.02), lambda w: torch.optim.Adadelta(
        w, lr=0.02, rho=0.95, eps=1e-8)),
    "Adam": (dl.Adam.pytorch(0.001), lambda w: torch.optim.Adam(w, lr=0.001)),
}


@pytest.mark.parametrize("name", OPTIMISERS)
@pytest.mark.parametrize("hidden, depths", [(1, (1, 2, 3, 8)), (128, (2, 3, 8))])
@pytest.mark.parametrize("p", [2, 4])
def test_same_iterates_as_torch(name, hidden, depths, p):
    """300 stable steps of nn.Linear's mathematics with autograd and torch.optim, to 1e-12 of the end-to-end matrix."""
    mine, theirs = OPTIMISERS[name]
    loss, _ = setup(p=p)
    std = 0.9 if hidden == 1 else 0.09
    starts = [dl.near_zero_init((4,) + (hidden,) * (depth - 1) + (1,), std, generator(depth)) for depth in depths]
    runs = dl.sweep([dl.Group(loss, start, mine) for start in starts], 300, 300)
    for run, start in zip(runs, starts):
        W, V = dl.end_to_end(run.weights), dl.end_to_end(torch_run(loss, start, theirs, 300))
        assert run.loss[-1] < run.loss[0] and abs(W - V).max() <= 1e-12 * abs(V).max()


def test_iterate_is_the_reference_of_train():
    loss, weights = setup()
    plain = dl.descent.iterate(loss, weights, 0.01, 30, weight_decay=0.2)
    run = dl.train(loss, weights, dl.GD(0.01, weight_decay=0.2), 30, keep_weights=True)
    for layer, history in zip(zip(*plain), run.history):
        torch.testing.assert_close(torch.stack(layer), history)


def test_records_at_the_chosen_steps_and_the_last():
    loss, weights = setup()
    run = dl.train(loss, weights, dl.GD(0.01), 25, 10, keep_weights=True)
    assert run.steps.tolist() == [0, 10, 20, 25]
    torch.testing.assert_close(run.loss, loss.value(run.end_to_end))
    assert dl.train(loss, weights, dl.GD(0.01), 0).steps.tolist() == [0]


def test_a_batch_of_starts_and_rates_equals_single_runs():
    loss, starts = setup(batch=(3, 1))
    rates = torch.tensor([0.001, 0.01], dtype=torch.float64)
    both = dl.train(loss, starts, dl.GD(rates), 40, 10)
    assert both.loss.shape == (5, 3, 2)
    for i in range(3):
        for j, rate in enumerate(rates.tolist()):
            alone = dl.train(loss, [W[i, 0] for W in starts], dl.GD(rate), 40, 10)
            torch.testing.assert_close(both.loss[:, i, j], alone.loss)


def test_a_diverged_run_stops_and_says_when():
    loss, weights = setup(depth=1)
    run = dl.train(loss, weights, dl.GD(1e3), 1000)
    assert 0 < run.diverged_at < 10 and run.steps[-1] == run.diverged_at
    assert torch.isnan(run.loss[-1]) and torch.isfinite(run.loss[:-1]).all()
    pair = dl.train(loss, [W[None] for W in weights], dl.GD(torch.tensor([1e3, 1e-3], dtype=torch.float64)), 50)
    assert pair.diverged_at.tolist() == [run.diverged_at, -1] and torch.isfinite(pair.loss[:, 1]).all()
    assert torch.isnan(pair.loss[run.diverged_at:, 0]).all()
    torch.testing.assert_close(pair.loss[:, 1], dl.train(loss, weights, dl.GD(1e-3), 50).loss)
    assert pair.weights[0][0].isnan().all() and torch.isfinite(pair.weights[0][1]).all()


def fitted():
    """Sixteen numbers met exactly, and a start so near that the loss there has no scale."""
    loss = dl.LpLoss(torch.eye(4, dtype=torch.float64), [1, 2, 3, 4], 4)
    return loss, [torch.tensor([[1.01, 2.01, 3.01, 4.01]], dtype=torch.float64)]


@pytest.mark.parametrize("loss_of", [lambda loss: loss, lambda loss: dl.Polynomial(
    dl.exact.to_sympy(loss, sp.symbols("w1:5")), sp.symbols("w1:5"))])
def test_a_start_that_fits_is_measured_by_the_loss_at_zero(loss_of):
    loss, start = fitted()
    loss = loss_of(loss)
    run = dl.train(loss, start, dl.Adam(0.5), 200)
    assert run.diverged_at == -1 and torch.isfinite(run.loss).all() and run.loss.max() > 1e6 * run.loss[0]
    assert dl.train(loss, start, dl.GD(1e6), 200).diverged_at > 0


def test_twenty_starts_that_have_converged_do_not_diverge():
    X = dl.normal(30, 4, generator=generator(0))
    loss = dl.LpLoss(X, X @ torch.tensor([1.0, -2, 3, 0.5], dtype=torch.float64), 2)
    starts = dl.near_zero_init((4, 1), 0.5, generator(1), (20,))
    before = dl.train(loss, starts, dl.GD(0.3), 3000, record_every=3000)
    assert (before.loss[-1] < 1e-20).all()
    after = dl.train(loss, before.weights, dl.Adam(1e-3), 200)
    assert (after.diverged_at == -1).all() and torch.isfinite(after.loss).all()


def test_the_loss_at_zero_changes_no_other_limit():
    """A run from anywhere above a millionth of the loss at W = 0 stops where a million times its first value says."""
    loss, _ = fitted()
    truth = torch.tensor([[1.0, 2, 3, 4]], dtype=torch.float64)
    for scale in (0.04, 0.5, 1, 30):  # the loss goes with the fourth power
        W = truth + scale * torch.tensor([[1.0, -2, 3, -4]], dtype=torch.float64)
        run = dl.train(loss, [W], dl.GD(0.5 / scale**2), 300)
        plain = [W]
        losses = [loss.value(W)]
        while losses[-1] <= 1e6 * losses[0] and len(losses) < 300:
            plain = dl.descent.iterate(loss, plain, 0.5 / scale**2, 1)[1]
            losses.append(loss.value(plain[0]))
        assert losses[0] > 1e-6 * loss.value(0 * W) and run.diverged_at == len(losses) - 1


def test_a_loss_that_is_not_defined_at_zero():
    class Barrier:
        def value(self, W):
            if (W == 0).any():
                raise ValueError("log of 0")
            return (W.square() / 2 - torch.log(W.abs())).sum((-2, -1))

        def value_and_gradient(self, W):
            return self.value(W), W - 1 / W

    run = dl.train(Barrier(), [torch.full((1, 2), 3.0, dtype=torch.float64)], dl.GD(0.1), 200)
    torch.testing.assert_close(run.weights[0], torch.ones(1, 2, dtype=torch.float64))


def test_arrays_are_weights():
    loss, weights = setup()
    arrays = [W.numpy() for W in weights]
    for call in (lambda w: dl.train(loss, w, dl.Adam(0.01), 20).loss, lambda w: dl.descent.iterate(loss, w, 0.01, 3)[-1][0],
                 lambda w: dl.train(loss, w, dl.GD(0.001), 20, rule="end-to-end").loss):
        assert torch.equal(call(arrays), call(weights))
    assert dl.descent.sharpness(loss, arrays) == dl.descent.sharpness(loss, weights)
    with pytest.raises(ValueError, match="W is torch.int64, the data are torch.float64"):
        dl.train(loss, [W.long() for W in weights], dl.GD(0.1), 3)


def test_sharpness_under_inference_mode():
    loss, weights = setup()
    expected = dl.descent.sharpness(loss, weights)
    for mode in (torch.inference_mode, torch.no_grad):
        with mode():
            assert dl.descent.sharpness(loss, weights) == expected
            assert dl.descent.sharpness(loss, [1 * W for W in weights]) == expected


def test_end_to_end_rule_takes_the_step_of_the_formula():
    loss, weights = setup(depth=3)
    W = dl.end_to_end(weights)
    moved = dl.train(loss, weights, dl.GD(0.02, weight_decay=0.1), 1, rule="end-to-end").weights[0]
    torch.testing.assert_close(moved, (1 - 3 * 0.02 * 0.1) * W - 0.02 * dl.preconditioner.apply(W, loss.gradient(W), 3))


def test_minibatches_use_one_set_of_rows_for_all_layers():
    loss, weights = setup()
    run = dl.train(loss, weights, dl.GD(0.02), 1, batch_size=5, generator=generator(7))
    rows = torch.randperm(20, generator=generator(7))[:5]
    G = loss.rows(rows).gradient(dl.end_to_end(weights))
    for W, before, g in zip(run.weights, weights, dl.layer_gradients(weights, G)):
        torch.testing.assert_close(W, before - 0.02 * g)


def test_sharpness_of_a_product_of_two_scalars():
    """The Hessian of (ab - 1)^2 / 2 at (a, b) by hand."""
    loss = dl.LpLoss([[1.0]], [1.0], 2, scale=0.5)
    a, b = 0.5, 3.0
    hessian = torch.tensor([[b * b, 2 * a * b - 1], [2 * a * b - 1, a * a]], dtype=torch.float64)
    layers = [torch.tensor([[x]], dtype=torch.float64) for x in (a, b)]
    assert abs(dl.descent.sharpness(loss, layers) - torch.linalg.eigvalsh(hessian)[-1]) < 1e-12


def test_steps_to():
    run = dl.descent.Trajectory(torch.tensor([0, 10, 20]), torch.tensor([[3.0, 3.0], [1.0, 2.0], [0.5, 2.0]]), [],
                                torch.tensor([-1, -1]))
    assert run.steps_to(1.0).tolist() == [10, float("inf")]


def test_the_start_is_not_changed():
    loss, weights = setup()
    before = [W.clone() for W in weights]
    dl.train(loss, weights, dl.Adam(0.1), 5)
    assert all(torch.equal(W, V) for W, V in zip(weights, before))


@pytest.mark.parametrize("call, message", [
    (lambda l, w: dl.GD(-0.1), "lr is -0.1; expected finite numbers >= 0"),
    (lambda l, w: dl.GD(0.1, weight_decay=float("nan")), "weight_decay is nan"),
    (lambda l, w: dl.HeavyBall(torch.tensor([0.1, -1])), "lr is tensor"),
    (lambda l, w: dl.train(l, w, dl.GD(0.1), -1), "steps is -1; expected an integer >= 0"),
    (lambda l, w: dl.train(l, w, dl.GD(0.1), 10, 0), "record_every is 0; expected an integer >= 1"),
    (lambda l, w: dl.train(l, w, dl.GD(0.1), 10, rule="chain"), "rule is 'chain'; expected 'layers' or 'end-to-end'"),
    (lambda l, w: dl.train(l, w, dl.GD(0.1), 10, batch_size=21), "batch_size is 21; expected 1 to 20"),
    (lambda l, w: dl.train(l, [], dl.GD(0.1), 10), "weights is empty"),
    (lambda l, w: dl.train(l, w, 0.1, 10), r"optimizer is 0.1; expected an optimiser with its rate, such as dl.GD\(0.1\)"),
    (lambda l, w: dl.train(l, w, dl.GD, 10), "optimizer is <class .*GD.*>; expected an optimiser with its rate"),
    (lambda l, w: dl.train(l, w, torch.optim.SGD([torch.ones(1)], 0.1), 10), r"optimizer is SGD (?s:.*); expected an optimiser"),
    (lambda l, w: dl.train(l, w, None, 10, rule="end-to-end"), "optimizer is None; expected an optimiser with its rate"),
    (lambda l, w: dl.train(l, dl.train(l, w, dl.HeavyBall(0.001), 5), dl.Nesterov(0.001), 5),
     "the trajectory is one of HeavyBall on 'layers'; expected the same to go on, not Nesterov on 'layers'"),
    (lambda l, w: dl.train(l, dl.train(l, w, dl.GD(0.001), 5), dl.GD(0.001), 5, rule="end-to-end"),
     "the trajectory is one of GD on 'layers'; expected the same to go on, not GD on 'end-to-end'"),
    (lambda l, w: dl.train(l, w[1:], dl.GD(0.1), 10), r"W has shape \(1, 2\); expected \(..., 1, 4\)"),
    (lambda l, w: dl.train(l, w, dl.GD(0.1), 10).end_to_end, "history is None; expected a run trained with keep_weights"),
])
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(*setup())


@pytest.mark.parametrize("name", OPTIMISERS)
def test_single_precision_follows_double_precision(name):
    loss, start = setup(depth=2, hidden=2)
    double = dl.train(loss, start, OPTIMISERS[name][0], 200)
    single = dl.train(loss.to(torch.float32), [W.float() for W in start], OPTIMISERS[name][0], 200)
    assert single.loss.dtype == torch.float32 and abs(single.loss / double.loss - 1).max() < 1e-5
