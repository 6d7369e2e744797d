"""The small GPT with every linear layer doubled: its record is the run that it names."""

import numpy as np
import torch

import deeplinear as dl
from deeplinear.experiments import doubled_transformer
from test_experiments import collected


def test_the_doubled_transformer_is_the_run_it_names():
    config = doubled_transformer.SCALES["quick"]
    jobs, summary, arrays = collected(doubled_transformer, config)
    name, seed, tokens = "adam balanced", 1, dl.transformer.encode(dl.transformer.text())
    net = dl.deepen(dl.transformer.build(23, dl.seeded(seed), width=8, heads=2, blocks=1, length=8), start="balanced")
    plain = doubled_transformer.started(config, "plain", seed)
    judged, draw = dl.transformer.windows(tokens, 9, 4, dl.seeded(99)), dl.seeded(1000 + seed)
    assert (net(judged[:, :8]) - plain(judged[:, :8])).abs().max() < 1e-12
    optimiser = torch.optim.Adam(net.parameters(), lr=summary[name]["rate"])
    losses = [dl.transformer.loss(net, judged).item()]
    for _ in range(config.horizon // 2):
        dl.transformer.train(net, optimiser, tokens, 2, draw, length=8, batch=4)
        losses.append(dl.transformer.loss(net, judged).item())
    assert np.allclose(arrays[f"{name} curve"][:, 1], losses, rtol=1e-9)
    late = max(k for k, loss in enumerate(losses) if loss > config.goal)
    at = list(arrays[f"{name} rates"]).index(summary[name]["rate"])
    found = arrays[f"{name} steps"][at, 1]
    assert found == (np.inf if late == len(losses) - 1 else 2 * late + 2) and summary[name]["interior"]
    assert np.isclose(summary[name]["end_ratio"][0], (arrays[f"{name} curve"][-1] / arrays["adam plain curve"][-1]).log().mean().exp())
    assert len(jobs) == 8 and set(summary) == {doubled_transformer.label(job) for job in doubled_transformer.jobs(config, "cpu")}


def test_muon_of_the_doubled_transformer_moves_matrices_by_polar_factors():
    config = doubled_transformer.SCALES["quick"]
    net = doubled_transformer.started(config, "balanced", 0)
    rule, tokens = doubled_transformer.Muon(net, 0.1, 1e-3), dl.transformer.encode(dl.transformer.text(30))
    before = {name: W.detach().clone() for name, W in net.named_parameters()}
    dl.transformer.train(net, rule, tokens, 1, dl.seeded(0), length=8, batch=4)
    for name, W in net.named_parameters():
        moved = (W - before[name]).detach()
        if name.endswith(("original0", "original1")):
            step = 0.1 * dl.polar.newton_schulz(W.grad)
            assert (moved + step).abs().max() < 1e-9 and torch.linalg.matrix_norm(moved, 2) < 0.12, name
        else:
            assert moved.abs().max() < 1.01e-3, name  # Adam's first step
