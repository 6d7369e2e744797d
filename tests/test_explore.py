"""The formulas of the interactive figures, run in a real browser, against the library."""

import json
from pathlib import Path

import numpy as np
import pytest
import sympy as sp
import torch

import deeplinear as dl

SCRIPT = Path(__file__).parents[1] / "book" / "_static" / "explore.js"
FIGURES = ("field", "race", "hyperbola", "modes")


@pytest.fixture
def run(chromium):
    """The value of a JavaScript expression on a fresh page with the four figures."""
    def evaluate(expression):
        with chromium.new_page() as page:
            page.set_content("".join(f'<div class="explore" data-figure="{name}"></div>' for name in FIGURES))
            page.add_script_tag(path=SCRIPT)
            return page.evaluate(expression)

    return evaluate


def loss(name):
    x, y = sp.symbols("x y")
    return {"linear": dl.Polynomial(x, [x, y]),
            "least squares": dl.LpLoss([[1.0, 0], [0, 3**0.5]], [1.0, 0.5 * 3**0.5], 2, "sum", 0.5),
            "quartic": dl.LpLoss([[1.0, 0], [0, 1]], [1.0, 0.5], 4, "sum", 0.25)}[name]


def test_field_curl_and_integral(run):
    names, depths, points = ("linear", "least squares", "quartic"), (1, 2, 3, 7), ((0.4, -0.9), (-1.2, 0.3))
    found = run(f"""{list(names)}.map(name => {list(depths)}.map(N => [
        {json.dumps(points)}.map(([x, y]) => [explore.field(name, N, x, y), explore.curl(name, N, x, y)]),
        explore.integral(name, N, 0.5, 1.5)]))""")
    for name, by_depth in zip(names, found):
        for N, (at_points, integral) in zip(depths, by_depth):
            for point, (vector, curl) in zip(points, at_points):
                w = torch.tensor([point], dtype=torch.float64)
                expected = dl.field.vector_field(loss(name), w, N)
                assert np.abs(np.array(vector) - expected[0].numpy()).max() < 1e-12 * (1 + expected.norm())
                assert abs(curl - dl.field.curl(loss(name), w, N)[1, 0]) < 1e-6 * (1 + abs(curl))
            exact = dl.field.line_integral(loss(name), N, 0.5, 1.5)
            assert abs(integral - exact) < 1e-3 * (1 + abs(exact)), (name, N)  # chords instead of arcs
    assert abs(found[0][2][1]) > 1 and abs(found[0][0][1]) < 1e-9  # it refuses to be 0 at depth 3, and is 0 at depth 1


@pytest.mark.parametrize("N, p", [(1, 2), (2, 4), (3, 4), (4, 6)])
def test_race(run, N, p):
    kappa, step, size = 10.0, 0.1, 0.1
    found = run(f"explore.race({N}, {p}, {kappa}, {step}, 200)")
    X = torch.diag(torch.tensor([1.0, kappa ** (-1 / p)], dtype=torch.float64))
    tail = size ** (1 / N)
    layers = [torch.full((1, 2), tail / 2**0.5, dtype=torch.float64)] + [torch.full((1, 1), tail, dtype=torch.float64)] * (N - 1)
    run_here = dl.train(dl.LpLoss(X, X.diagonal(), p, "sum", 1 / p), layers, dl.GD(step), 200)
    assert np.allclose(found, run_here.loss.numpy(), rtol=1e-9, atol=1e-15)


def test_hyperbola(run):
    found = run("explore.hyperbola(0.2, 1.6, 0.4, 50)")
    one = dl.LpLoss([[1.0]], [1.0], 2, scale=0.5)
    path = dl.descent.iterate(one, [torch.tensor([[s]], dtype=torch.float64) for s in (0.2, 1.6)], 0.4, 50)
    assert np.allclose(found, [[W.item() for W in state] for state in path], rtol=1e-10)


def test_modes(run):
    times = [0.5, 1.0, 1.5, 3.0]
    found = run(f"[1, 2, 3, 5].map(N => explore.mode(N, 2, 0.01, {times}))")
    single = dl.LpLoss([[1.0]], [2.0], 2, scale=0.5)
    for N, values in zip((1, 2, 3, 5), found):
        path = dl.flow.end_to_end(single, torch.tensor([[0.01]], dtype=torch.float64), N, times).end_to_end.flatten()
        assert np.allclose(values, path.numpy(), rtol=1e-5), N


def test_every_figure_draws_and_speaks(run):
    found = run("""[...document.querySelectorAll('.explore')].map(box => [
        box.querySelectorAll('svg path').length, box.querySelector('p').textContent, box.querySelector('svg').getAttribute('aria-label'),
        box.querySelectorAll('label input, label select').length, box.innerHTML.includes('NaN')])""")
    assert len(found) == 4
    for paths, said, label, controls, broken in found:
        assert paths >= 2 and len(said) > 30 and len(label) > 40 and controls >= 2 and not broken
    moved = run("""(() => { const box = document.querySelectorAll('.explore')[0], input = box.querySelector('input');
        const before = box.querySelector('p').textContent; input.value = 1; input.dispatchEvent(new Event('input'));
        return [before, box.querySelector('p').textContent, input.getAttribute('aria-valuetext')]; })()""")
    assert "gradient of nothing" in moved[0] and moved[1] == "Depth 1: the integral around the curve is 0." and moved[2] == "1"
