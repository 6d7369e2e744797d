import numpy as np
import pytest
import torch
from conftest import generator
from scipy.linalg import expm

import deeplinear as dl


def quadratic(k=2, d=3, seed=0):
    """1/2 |W - T|^2 as a least-squares loss, with its target T."""
    T = torch.randn(k, d, generator=generator(seed), dtype=torch.float64)
    return dl.LpLoss(torch.eye(d, dtype=torch.float64), T.mT, 2, reduction="sum", scale=0.5), T


def test_one_layer_against_the_exact_solution():
    loss, T = quadratic()
    W = torch.zeros(2, 3, dtype=torch.float64)
    times = [0.0, 0.5, 2.0]
    for run in (dl.flow.layers(loss, [W], times), dl.flow.end_to_end(loss, W, 1, times)):
        assert run.end_to_end.shape == (3, 2, 3)
        exact = torch.stack([(1 - torch.tensor(-t, dtype=torch.float64).exp()) * T for t in times])
        torch.testing.assert_close(run.end_to_end, exact, rtol=1e-11, atol=1e-12)


def test_weight_decay_in_closed_form():
    loss, T = quadratic()
    W = torch.randn(2, 3, generator=generator(4), dtype=torch.float64)
    run = dl.flow.layers(loss, [W], [1.0], weight_decay=0.5)
    torch.testing.assert_close(run.end_to_end[0], T / 1.5 + (W - T / 1.5) * torch.tensor(-1.5).double().exp())


def test_least_squares_flow_against_the_matrix_exponential():
    X = torch.randn(9, 3, generator=generator(1), dtype=torch.float64)
    loss = dl.LpLoss(X, torch.zeros(9, dtype=torch.float64), 2)
    W = torch.ones(1, 3, dtype=torch.float64)
    expected = W @ torch.from_numpy(expm((-2 * X.T @ X / 9).numpy()))
    torch.testing.assert_close(dl.flow.layers(loss, [W], [1.0]).end_to_end[0], expected)


def test_heavy_ball_in_closed_form():
    loss, T = quadratic()
    W, V = torch.zeros(2, 3, dtype=torch.float64), torch.zeros(2, 3, dtype=torch.float64)
    run, speeds = dl.flow.heavy_ball(loss, [W], [V], [1.0], friction=2.0)  # critically damped: 1 - (1 + t) e^-t
    torch.testing.assert_close(run.end_to_end[0], (1 - 2 * torch.tensor(-1.0).double().exp()) * T)
    torch.testing.assert_close(speeds[0][0], torch.tensor(-1.0).double().exp() * T)


def test_refuses_a_start_that_is_not_balanced_unless_asked():
    loss, _ = quadratic()
    weights = dl.near_zero_init((3, 2, 2), 0.5, generator(3))
    with pytest.raises(ValueError, match="relative imbalance .*; expected at most 1e-10.*require_balanced=False"):
        dl.flow.compare(loss, weights, [1.0])
    assert dl.flow.compare(loss, weights, [1.0], require_balanced=False).gap > 1e-3


@pytest.mark.parametrize("times", [[], [1.0, 1.0], [-1.0, 0.0], [[1.0]], [0, np.nan], [np.nan, 1], [0, np.inf]])
def test_bad_times_are_named(times):
    loss, T = quadratic()
    with pytest.raises(ValueError, match="expected increasing finite numbers >= 0"):
        dl.flow.layers(loss, [T], times)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, [0.1, 0.2]])
def test_what_is_not_finite_is_named_at_once(bad):
    loss, T = quadratic()
    flows = [lambda: dl.flow.layers(loss, [T], [1.0], weight_decay=bad),
             lambda: dl.flow.end_to_end(loss, T, 2, [1.0], weight_decay=bad),
             lambda: dl.flow.compare(loss, [T], [1.0], weight_decay=bad)]
    for call in flows:
        with pytest.raises(ValueError, match="weight_decay is .*; expected a finite number"):
            call()
    for friction in (bad, [bad]):
        with pytest.raises(ValueError, match="friction"):
            dl.flow.heavy_ball(loss, [T], [T], [1.0], friction)
    if not isinstance(bad, list):
        with pytest.raises(ValueError, match="matrix 1 of the start is .*; expected finite numbers"):
            dl.flow.layers(loss, [bad * T], [1.0])
        with pytest.raises(ValueError, match="W is .*; expected finite numbers"):
            dl.flow.end_to_end(loss, bad * T, 2, [1.0])
        with pytest.raises(ValueError, match="y is .*; expected finite numbers"):
            dl.flow.destination(torch.eye(2), torch.tensor([1, bad]), torch.ones(1, 2), 2)
    with pytest.raises(ValueError, match="depth is"):
        dl.flow.destination(torch.eye(2), torch.ones(2), torch.ones(1, 2), 0 if bad == [0.1, 0.2] else bad)


def test_as_many_velocities_and_frictions_as_layers():
    loss, T = quadratic()
    for velocities, friction in (([T], [0.1, 0.2]), ([], 0.1), ([T, T], 0.1)):
        with pytest.raises(ValueError, match="for 1 layers; expected one each"):
            dl.flow.heavy_ball(loss, [T], velocities, [1.0], friction)


def test_the_start_alone_is_a_flow():
    loss, T = quadratic()
    for found in (dl.flow.layers(loss, [T], [0.0]), dl.flow.end_to_end(loss, T, 2, [0.0]),
                  dl.flow.heavy_ball(loss, [T], [T], [0.0], np.float64(0.1))[0]):
        assert found.times.tolist() == [0] and torch.equal(found.end_to_end, T[None])


def test_arrays_and_integers_are_weights():
    loss, T = quadratic()
    start = dl.near_zero_init((3, 2, 2), 0.5, generator(3))
    expected = dl.flow.layers(loss, start, [1.0]).end_to_end
    assert torch.equal(dl.flow.layers(loss, [W.numpy() for W in start], [1.0]).end_to_end, expected)
    assert torch.equal(dl.flow.layers(loss, [np.eye(3, dtype=int)[:2]], [1.0]).end_to_end,
                       dl.flow.layers(loss, [torch.eye(2, 3, dtype=torch.float64)], [1.0]).end_to_end)
    assert torch.equal(dl.flow.end_to_end(loss, T.numpy(), np.int64(2), [1.0]).end_to_end,
                       dl.flow.end_to_end(loss, T, 2, [1.0]).end_to_end)
    assert dl.flow.compare(loss, [T.numpy()], [1.0]).gap < 1e-9


def test_a_stiff_flow_ends_in_an_error(monkeypatch):
    """Columns in units 1 to 1000 apart: the step is bounded by the largest curvature, the time by the least."""
    X = dl.normal(20, 3, generator=generator(0)) * torch.tensor([1.0, 30.0, 1000.0], dtype=torch.float64)
    loss, start = dl.LpLoss(X, X[:, 0], 2), dl.near_zero_init((3, 1), 0.1, generator(1))
    monkeypatch.setattr(dl.flow, "EVALUATIONS", 2000)
    message = r"reached time \S+ of 50 after 2000 evaluations; expected a flow that is less stiff"
    for call in (lambda: dl.flow.layers(loss, start, [50.0]), lambda: dl.flow.end_to_end(loss, start[0], 2, [50.0]),
                 lambda: dl.flow.heavy_ball(loss, start, start, [50.0], 1.0)):
        with pytest.raises(RuntimeError, match=message):
            call()


def test_a_flow_reports_and_keeps_to_its_time_limit():
    loss, T = quadratic()
    start, told = dl.near_zero_init((3, 2, 2), 0.5, generator(3)), []
    watched = dl.flow.layers(loss, start, [50.0], report=told.append)
    assert told == sorted(told) and 0 < told[0] and told[-1] <= 50
    assert torch.equal(watched.end_to_end, dl.flow.layers(loss, start, [50.0], time_limit=3600).end_to_end)
    for call in (lambda limit: dl.flow.layers(loss, start, [50.0], time_limit=limit),
                 lambda limit: dl.flow.end_to_end(loss, T, 3, [50.0], time_limit=limit),
                 lambda limit: dl.flow.compare(loss, start, [50.0], require_balanced=False, time_limit=limit),
                 lambda limit: dl.flow.heavy_ball(loss, start, start, [50.0], 0.1, time_limit=limit)):
        with pytest.raises(TimeoutError, match=r"reached time \S+ of 50 within 0 s"):
            call(0)

    def stop(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        dl.flow.layers(loss, start, [50.0], report=stop)


def test_a_flow_that_blows_up_is_an_error():
    class Escaping:
        def gradient(self, W):
            return -(W**3)

    with pytest.raises(RuntimeError, match="the integration stopped"):
        dl.flow.layers(Escaping(), [torch.ones(1, 1, dtype=torch.float64)], [1.0])


def test_the_destination_and_what_it_refuses():
    X = torch.tensor([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]], dtype=torch.float64)
    y, W = torch.tensor([3.0, 4.0], dtype=torch.float64), torch.tensor([[0.3, 0.0, 0.4]], dtype=torch.float64)
    for depth in (1, 2, 5):
        end = dl.flow.destination(X, y, W, depth)
        torch.testing.assert_close(end @ X.T, y[None])
        kernel = end.norm() ** (1 - 1 / depth) * 0.4 / 0.5 ** (1 - 1 / depth)
        assert abs(end[0, 2] - kernel) < 1e-13
    huge = dl.flow.destination(X, y, 1e6 * W, 3)  # a start far away
    assert abs(huge[0, 2] - huge.norm() ** (2 / 3) * 4e5 / 5e5 ** (2 / 3)) < 1e-8
    inside = dl.flow.destination(X, y, torch.tensor([[1.0, 1.0, 0.0]]).double(), 3)
    torch.testing.assert_close(inside, torch.tensor([[3.0, 2.0, 0.0]], dtype=torch.float64))
    for bad in ((X, 0 * y, W), (X[[0, 0]], y, W)):
        with pytest.raises(ValueError, match="in the range of X"):
            dl.flow.destination(*bad, 2)
    for start in (0 * W, W[:, :2]):
        with pytest.raises(ValueError, match=r"a start of shape \(1, 3\)"):
            dl.flow.destination(X, y, start, 2)
