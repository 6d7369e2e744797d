"""Going on from a trajectory with the state of its optimiser; reports, and the time limit that makes it needed."""

import pytest
import torch
from test_descent import OPTIMISERS, setup

import deeplinear as dl

RESUMED = {name: (optimizer, rule, p) for p in (2, 4) for rule in ("layers", "end-to-end")
           for name, optimizer in ((f"{each} {rule} {p}", made) for each, (made, _) in OPTIMISERS.items())}


@pytest.mark.parametrize("optimizer, rule, p", RESUMED.values(), ids=RESUMED)
def test_a_run_goes_on_from_a_trajectory(optimizer, rule, p):
    loss, weights = setup(p=p, batch=(2,))
    whole = dl.train(loss, weights, optimizer, 40, rule=rule)
    first = dl.train(loss, weights, optimizer, 15, rule=rule)
    second = dl.train(loss, first, optimizer, 25, rule=rule)
    assert first.state.depth == second.state.depth == 3
    turned = p == 2 and optimizer.rotates
    compare = torch.testing.assert_close if turned else lambda a, b: torch.testing.assert_close(a, b, rtol=0, atol=0)
    compare(second.loss, whole.loss[15:])
    for W, V in zip([*second.weights, *second.state.tensors], [*whole.weights, *whole.state.tensors], strict=True):
        compare(W, V)
    if first.state.tensors and p == 4:  # without the state it is another run
        assert not torch.equal(dl.train(loss, first.weights, optimizer, 25).loss, whole.loss[15:])


def test_a_trajectory_with_a_diverged_run_goes_on_without_it():
    loss, weights = setup(depth=1)
    optimizer = dl.HeavyBall([1e3, 1e-3])
    first = dl.train(loss, weights, optimizer, 60)
    second = dl.train(loss, first, optimizer, 40)
    assert first.diverged_at[0] > 0 and second.diverged_at.tolist() == [0, -1]
    torch.testing.assert_close(second.loss[:, 1], dl.train(loss, weights, optimizer, 100).loss[60:, 1], rtol=0, atol=0)


def test_a_run_reports_and_keeps_to_its_time_limit():
    loss, weights = setup()
    told = []
    whole = dl.train(loss, weights, dl.Adam(0.01), 160, report=told.append, time_limit=3600)
    assert told == [0, 50, 100, 150] and whole.steps[-1] == 160
    assert torch.equal(whole.loss, dl.train(loss, weights, dl.Adam(0.01), 160).loss)
    for record_every, steps in ((1, 50), (7, 49), (160, 0)):
        clock = iter([0.0, 1.0, 2.0, 1e9])  # the start, then the looks at steps 0 and 50
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(dl.descent.time, "monotonic", clock.__next__)
            short = dl.train(loss, weights, dl.Adam(0.01), 160, record_every, time_limit=2.0)
        assert short.steps[-1] == 50 and short.loss[-1] == whole.loss[50] and steps in short.steps
        rest = dl.train(loss, short, dl.Adam(0.01), 160 - int(short.steps[-1]))
        assert torch.equal(rest.loss, whole.loss[50:])
