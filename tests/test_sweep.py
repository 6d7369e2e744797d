"""Many configurations in one call: the same as many calls, divergence, checkpoints, records, a GPU."""

import pytest
import torch
from conftest import Stop, generator, stop_at
from test_descent import setup

import deeplinear as dl


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


def test_matrices_that_diverge_under_the_rule_leave_the_others_alone():
    X, Y = dl.normal(20, 4, generator=generator(0)), dl.normal(20, 3, generator=generator(1))
    loss, weights = dl.LpLoss(X, Y, 4), dl.near_zero_init((4, 3, 3), 0.5, generator(2))
    both = dl.train(loss, weights, dl.GD([1e-3, 30.0]), 120, rule="end-to-end")
    assert both.diverged_at[0] == -1 and both.diverged_at[1] > 0  # at once infinite, where no SVD exists
    alone = dl.train(loss, weights, dl.GD(1e-3), 120, rule="end-to-end")
    torch.testing.assert_close(both.loss[:, 0], alone.loss, rtol=1e-10, atol=0)
    assert dl.train(loss, weights, dl.GD(30.0), 120, rule="end-to-end").diverged_at == both.diverged_at[1]


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
