import dataclasses

import pytest
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
    (lambda l, w: dl.train(l, w[1:], dl.GD(0.1), 10), r"W has shape \(1, 2\); expected \(..., 1, 4\)"),
    (lambda l, w: dl.train(l, w, dl.GD(0.1), 10).end_to_end, "history is None; expected a run trained with keep_weights"),
])
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(*setup())


def mixed():
    """Two losses on the same data, three depths, four optimisers, both rules; a third of the rates diverges."""
    (loss, _), rates = setup(), torch.tensor([1e-3, 1e-2, 30.0], dtype=torch.float64)
    square = dl.LpLoss(loss.X, loss.Yt[0], 2)
    rules = [dl.GD(rates), dl.HeavyBall(rates / 10), dl.Adam(rates), dl.AdaGrad.tensorflow1(rates)]
    groups = [dl.Group(each, dl.near_zero_init((4,) + (2,) * (depth - 1) + (1,), 0.5, generator(depth)), rule)
              for each in (loss, square) for depth in (1, 2, 4) for rule in rules]
    return groups + [dl.Group(loss, groups[4].weights, dl.GD(rates), "end-to-end")]


def test_one_call_trains_what_many_calls_train():
    groups = mixed()
    together = dl.sweep(groups, 200, 20)
    for group, run in zip(groups, together):
        alone = dl.train(group.loss, group.weights, group.optimizer, 200, 20, group.rule)
        assert torch.equal(run.diverged_at, alone.diverged_at)
        torch.testing.assert_close(run.loss, alone.loss, equal_nan=True, rtol=1e-10, atol=0)
    dropped = [run for run in together if run.diverged_at[2] >= 0]
    assert len(dropped) > 8 and all(run.weights[0][2].isnan().all() for run in dropped)
    assert all(torch.isfinite(run.loss[:, :2]).all() and torch.isfinite(run.weights[0][:2]).all() for run in together)


@pytest.mark.parametrize("p", [2, 4])
def test_the_step_of_a_divergence_is_that_of_a_plain_run(p):
    loss, weights = setup(2, p)
    run = dl.train(loss, [W.expand(9, *W.shape) for W in weights], dl.GD(torch.logspace(-2, 0, 9).double()), 300, 300)
    found = []
    for rate, at in zip(torch.logspace(-2, 0, 9).double().tolist(), run.diverged_at.tolist()):
        plain = [loss.value(dl.end_to_end(layers)).item() for layers in dl.descent.iterate(loss, weights, rate, 300)]
        wild = [t for t, value in enumerate(plain) if not value <= 1e6 * plain[0]]
        assert at == (wild[0] if wild else -1)
        found.append(at)
    assert -1 in found and max(found) > 0


class Stop(Exception):
    pass


def stop_at(step):
    def report(done):
        if done == step:
            raise Stop
    return report


@pytest.mark.parametrize("step", [0, 50, 150])
def test_a_resumed_run_is_bit_for_bit_the_same(tmp_path, step):
    whole = dl.sweep(mixed(), 333, [0, 1, 10, 50, 150, 151, 300, 333])
    checkpoint = dl.recorded.Checkpoint(tmp_path / "run.npz", "mixed")
    with pytest.raises(Stop):
        dl.sweep(mixed(), 333, [0, 1, 10, 50, 150, 151, 300, 333], checkpoint=checkpoint, report=stop_at(step))
    assert checkpoint.path.is_file()
    resumed = dl.sweep(mixed(), 333, [0, 1, 10, 50, 150, 151, 300, 333], checkpoint=checkpoint)
    assert checkpoint.path.is_file()  # it goes when the result is safe
    for a, b in zip(whole, resumed, strict=True):
        assert torch.equal(a.steps, b.steps) and torch.equal(a.diverged_at, b.diverged_at)
        for x, y in zip([a.loss, *a.weights], [b.loss, *b.weights], strict=True):
            assert torch.equal(x.nan_to_num(-1), y.nan_to_num(-1))


def test_the_checkpoint_of_another_run_is_refused(tmp_path):
    path = tmp_path / "run.npz"
    with pytest.raises(Stop):
        dl.sweep(mixed(), 200, checkpoint=dl.recorded.Checkpoint(path, "one"), report=stop_at(100))
    with pytest.raises(dl.recorded.RecordError, match="run.npz belongs to one; expected two. Remove it to start again"):
        dl.sweep(mixed(), 200, checkpoint=dl.recorded.Checkpoint(path, "two"))
    whole = path.read_bytes()
    for broken in (whole[:1000], *(whole[:i] + bytes([whole[i] ^ 255]) + whole[i + 1:] for i in range(60, 1500, 60))):
        path.write_bytes(broken)
        try:
            dl.recorded.Checkpoint(path, "one").load()  # a flipped bit in what nothing depends on may pass
        except dl.recorded.RecordError as error:
            assert "run.npz is damaged" in str(error) or "belongs to" in str(error)
    path.write_bytes(whole[:1000])
    with pytest.raises(dl.recorded.RecordError, match="run.npz is damaged"):
        dl.sweep(mixed(), 200, checkpoint=dl.recorded.Checkpoint(path, "one"))


def test_the_checkpoint_of_other_settings_is_refused(tmp_path):
    """Fewer steps, another rate, data of the same shape, another start, rule or record: never the old result."""
    loss, weights = setup(depth=2)
    other = dl.LpLoss(loss.X.flip(0), loss.Yt.mT, loss.p)
    checkpoint = dl.recorded.Checkpoint(tmp_path / "run.npz", "one")

    def run(steps=200, record=1, loss=loss, weights=weights, optimizer=dl.GD(1e-3), rule="layers", **more):
        return dl.sweep([dl.Group(loss, weights, optimizer, rule)], steps, record, checkpoint=checkpoint, **more)[0]

    with pytest.raises(Stop):
        run(report=stop_at(150))
    for change in (dict(steps=100), dict(steps=201), dict(record=2), dict(loss=other), dict(optimizer=dl.GD(2e-3)),
                   dict(optimizer=dl.GD(torch.tensor([1e-3, 2e-3]))), dict(optimizer=dl.HeavyBall(1e-3)), dict(rule="end-to-end"),
                   dict(weights=[weights[0] + 1e-9, *weights[1:]])):
        with pytest.raises(dl.recorded.RecordError, match="run.npz belongs to one with other starts, data, rates or steps"):
            run(**change)
    assert torch.equal(run().loss, dl.train(loss, weights, dl.GD(1e-3), 200).loss)


def test_a_layer_stored_transposed_resumes_bit_for_bit(tmp_path):
    X = torch.randn(60, 37, generator=generator(0), dtype=torch.float64)
    loss = dl.LpLoss(X, X[:, :3] ** 2, 4)
    frames = torch.linalg.qr(torch.randn(4, 37, 37, generator=generator(1), dtype=torch.float64)).Q
    groups = [dl.Group(loss, [frames.mT, frames[:, :3]], dl.GD(1e-4))]
    checkpoint = dl.recorded.Checkpoint(tmp_path / "run.npz", "frames")
    with pytest.raises(Stop):
        dl.sweep(groups, 120, checkpoint=checkpoint, report=stop_at(50))
    assert torch.equal(dl.sweep(groups, 120, checkpoint=checkpoint)[0].loss, dl.sweep(groups, 120)[0].loss)


def test_divergence_before_the_first_record():
    """Alone or in company, a run that has gone is told by its first record after that."""
    loss, weights = setup(depth=1)
    wild, tame = (dl.Group(loss, weights, dl.GD(lr)) for lr in (1e3, 1e-3))
    for record in ([200], 100):
        alone, = dl.sweep([wild], 200, record)
        beside, _ = dl.sweep([wild, tame], 200, record)
        assert alone.diverged_at == beside.diverged_at > 0
        assert torch.equal(alone.steps, beside.steps) and torch.equal(alone.loss.isnan(), beside.loss.isnan())
        assert alone.loss[-1].isnan()


def test_an_interruption_before_the_first_record_leaves_a_checkpoint(tmp_path):
    checkpoint = dl.recorded.Checkpoint(tmp_path / "run.npz", "mixed")
    with pytest.raises(Stop):
        dl.sweep(mixed(), 200, [200], checkpoint=checkpoint, report=stop_at(50))
    for a, b in zip(dl.sweep(mixed(), 200, [200], checkpoint=checkpoint), dl.sweep(mixed(), 200, [200])):
        assert torch.equal(a.loss.nan_to_num(-1), b.loss.nan_to_num(-1))


def test_a_start_of_infinite_loss_has_diverged_at_once():
    loss, weights = setup(depth=1)
    run = dl.train(loss, [1e200 * weights[0]], dl.GD(1e-3), 5)
    assert run.diverged_at == 0 and run.loss[0].isnan()


def test_records_at_given_steps():
    loss, weights = setup()
    run = dl.train(loss, weights, dl.GD(0.01), 120, [0, 3, 50, 119])
    every = dl.train(loss, weights, dl.GD(0.01), 120)
    assert run.steps.tolist() == [0, 3, 50, 119] and torch.equal(run.loss, every.loss[run.steps])
    steps = dl.descent.logarithmic(10**6, 61)
    assert steps[0] == 0 and steps[-1] == 10**6 and len(steps) <= 61 and steps == sorted(set(steps))
    assert 1.2 < steps[-1] / steps[-2] < 1.3  # 60 points from 1 to 10**6: a factor 10**(6/59)


@pytest.mark.parametrize("name", OPTIMISERS)
def test_single_precision_follows_double_precision(name):
    loss, start = setup(depth=2, hidden=2)
    double = dl.train(loss, start, OPTIMISERS[name][0], 200)
    single = dl.train(loss.to(torch.float32), [W.float() for W in start], OPTIMISERS[name][0], 200)
    assert single.loss.dtype == torch.float32 and abs(single.loss / double.loss - 1).max() < 1e-5


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine")
def test_a_gpu_finds_the_same():
    loss, start = setup(depth=3)
    several = dl.LpLoss(loss.X, loss.X[:, :2], 4)  # two outputs: the rule needs an SVD, which is not captured
    start = dl.near_zero_init((4, 3, 2), 0.5, generator(0))
    groups = mixed() + [dl.Group(several, start, dl.GD(mixed()[0].optimizer.lr), "end-to-end")]

    def there(tensor):
        return tensor.cuda() if isinstance(tensor, torch.Tensor) else tensor

    losses = {id(group.loss): group.loss.to("cuda") for group in groups}
    moved = [dl.Group(losses[id(group.loss)], [W.cuda() for W in group.weights],
                      dataclasses.replace(group.optimizer, lr=there(group.optimizer.lr)), group.rule)
             for group in groups]
    for here, gpu in zip(dl.sweep(groups, 333, 7), dl.sweep(moved, 333, 7)):
        assert torch.equal(here.diverged_at, gpu.diverged_at.cpu())
        assert torch.equal(here.steps_to(1.0)[:2], gpu.steps_to(1.0)[:2].cpu())
        torch.testing.assert_close(here.loss[:, :2], gpu.loss[:, :2].cpu(), rtol=1e-9, atol=0)


@pytest.mark.parametrize("call, message", [
    (lambda: dl.sweep([], 10), "groups is empty"),
    (lambda: dl.sweep(mixed()[:1], 10, [0, 5, 5]), "record_every is .*; expected a count, or increasing steps from 0 to 10"),
    (lambda: dl.sweep(mixed()[:1], 10, [0, 11]), "record_every is"),
    (lambda: dl.sweep(mixed()[:1], 10, 2.5), "record_every is 2.5; expected a count, or increasing steps"),
    (lambda: dl.sweep(mixed()[:1], 10, keep_weights=True, checkpoint=1), "keep_weights is True; expected nothing of the"),
    (lambda: dl.sweep(mixed()[:1], 10, rows=len, checkpoint=1), "rows is .*; expected nothing of the kind with a check"),
    (lambda: dl.descent.logarithmic(5, 2), "points is 2; expected an integer >= 3"),
    (lambda: dl.Adam(0.1, beta1=1), "beta1 is 1; expected a number below 1"),
    (lambda: dl.descent.logarithmic(0, 5), "steps is 0; expected an integer >= 1"),
    (lambda: dl.AdaDelta(0.1, rho=float("inf")), "rho is inf; expected finite numbers >= 0"),
])
def test_bad_sweeps_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
