"""Random modules from a grammar of layers: every law that is returned is kept by an exact step, and none was misread.

``NETWORK_MODULES`` says which seeds are drawn, ``LAST`` or ``FIRST:LAST``: 200 in the ordinary tests, where the guard tries
each law once and this test three times more; 2000 once a week, with all that the guard does.
"""

import os

import deeplinear as dl
import pytest
import torch
from network_grammar import Drawn
from network_step import prepared, step

FIRST, _, LAST = os.environ.get("NETWORK_MODULES", "200").rpartition(":")
SEEDS, FEW = range(int(FIRST or 0), int(LAST)), "NETWORK_MODULES" not in os.environ


@pytest.mark.parametrize("seed", SEEDS)
def test_every_law_of_a_random_module_is_kept(seed, monkeypatch):
    net = Drawn(seed)
    if FEW:
        monkeypatch.setattr(dl.networks.guard, "SCALES", (1.0,))
        monkeypatch.setattr(dl.networks.guard, "DRAWS", 1)
    laws = dl.laws(net, net.example)
    for one in laws.refused:
        assert "misread" not in one.reason and "its defect is" not in one.reason, (net.text, one)
    for scale, training in ((0.3, True), (1.0, False), (2.0, True)):
        torch.manual_seed(seed)
        defect, _ = step(prepared(net, scale, seed).train(training), laws, net.example, seed=seed)
        finite = all(parameter.grad is None or parameter.grad.isfinite().all() for parameter in net.parameters())
        assert defect < 1e-11 or not finite, (net.text, list(map(str, laws)))  # a norm of zeros with eps = 0


def test_the_grammar_gives_laws_and_refusals():
    found = [dl.laws(net, net.example) for net in map(Drawn, range(4))]
    assert sum(map(len, found)) >= 4 and any(laws.refused for laws in found)
