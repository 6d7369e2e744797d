"""Times of modes against steps and integrated flows; the roots that polar steps keep."""

import numpy as np
import pytest
import torch
from conftest import generator

import deeplinear as dl
from deeplinear import modes


def test_the_times_under_gradient_flow_are_those_of_the_integrated_flow():
    phi = torch.tensor([3.0, 1.0]).double()
    loss = dl.LpLoss(torch.eye(2).double(), phi.diag(), 2, "sum", 0.5)
    for depth in (1, 2, 3):
        times = modes.flow_times(phi, 0.01, 0.8, depth)
        start = dl.balanced_init((2,) * (depth + 1), dl.seeded(0), W=0.01 * torch.eye(2))
        for r, time in enumerate(times):
            run = dl.flow.layers(loss, start, [0.0, float(time)])
            assert abs(run.end_to_end[-1, r, r] - 0.8 * phi[r]) < 1e-7
    closed = np.log(4 * 99) / 2  # the logistic curve, phi = 1
    assert abs(modes.flow_times(1.0, 0.01, 0.8, 2) - closed) < 1e-9
    assert abs(modes.flow_times(1.0, 0.01, 0.8, 1) - np.log(0.99 / 0.2)) < 1e-9


def test_the_times_under_polar_flow_count_steps():
    phi, depth, rate = torch.tensor([4.0, 0.5]).double(), 2, 1e-3
    loss = dl.LpLoss(torch.eye(2).double(), phi.diag(), 2, "sum", 0.5)
    start = dl.balanced_init((2, 2, 2), dl.seeded(0), W=0.04 * torch.eye(2))
    run = dl.train(loss, start, dl.polar.Muon(rate, momentum=0.0), 2000, keep_weights=True)
    seen = (run.end_to_end.diagonal(dim1=1, dim2=2) < 0.9 * phi).sum(0) * rate
    assert np.abs(seen.numpy() - modes.polar_times(phi, 0.04, 0.9, depth)).max() < 1.5 * rate


def test_the_root_imbalance_is_that_of_roots():
    layers = dl.near_zero_init((4, 3, 5, 2), 1.0, generator(0))
    for E, above, below in zip(modes.root_imbalance(layers), layers[1:], layers):
        left, right = E + _root(below @ below.mT), _root(above.mT @ above)
        assert (left - right).abs().max() < 1e-7
    assert modes.root_imbalance(layers[:1]) == []
    with pytest.raises(ValueError, match="to follow W_1"):
        modes.root_imbalance(layers[::2])


def _root(A):
    values, Q = torch.linalg.eigh(A)
    return (Q * values.clamp(min=0).sqrt()) @ Q.mT


@pytest.mark.parametrize("given, said", [((1.0, 0.5, 0.5, 2), "start is 0.5"), ((1.0, 0.1, 1.1, 2), "share is 1.1"),
                                         ((1.0, 0.1, 0.5, 0), "depth is 0"), ((1.0, 0.0, 0.5, 1), "start is 0.0"),
                                         (([], 0.1, 0.5, 1), "start is 0.1"), ((1.0, 0.1, 0.5, 2.0), "depth is 2.0")])
def test_errors_name_the_value(given, said):
    for times in (modes.polar_times, modes.flow_times):
        with pytest.raises(ValueError, match=said):
            times(*given)
    assert modes.polar_times(1.0, 0.01, 1.0, 2) == pytest.approx(0.9)
    with pytest.raises(ValueError, match="share is 1.0"):
        modes.flow_times(1.0, 0.01, 1.0, 2)
