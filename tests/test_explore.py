"""The interactive figures, run in a real browser: their formulas against the library, their controls by keyboard and touch."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import sympy as sp
import torch

import deeplinear as dl
from deeplinear.plots import figure as still

SCRIPTS = Path(__file__).parents[1] / "book" / "_static" / "explore"
FIGURES = sorted(path.stem for path in SCRIPTS.glob("*.js") if path.stem != "shared")


def open_figures(chromium, names, **options):
    """A fresh page with these figures, in the book's style."""
    page = chromium.new_page(**options)
    page.on("pageerror", lambda error: pytest.fail(str(error)))
    page.set_content("".join(f'<div class="explore" data-figure="{name}"></div>' for name in names))
    page.add_style_tag(path=SCRIPTS.parent / "book.css")
    for name in ("shared", *names):
        page.add_script_tag(path=SCRIPTS / f"{name}.js")
    return page


@pytest.fixture(scope="module")
def run(chromium):
    """The value of a JavaScript expression on a page with all figures."""
    page = open_figures(chromium, FIGURES)
    yield page.evaluate
    page.close()


@pytest.fixture
def opened(chromium):
    """A function that opens a fresh page with some figures."""
    pages = []

    def open_page(*names, **options):
        pages.append(open_figures(chromium, names, **options))
        return pages[-1]

    yield open_page
    for page in pages:
        page.close()


def flow_of(loss, start, depth, times):
    return dl.flow.end_to_end(loss, torch.tensor([start], dtype=torch.float64), depth, times).end_to_end[:, 0].numpy()


def test_palette_and_dashes_are_those_of_the_still_figures(run):
    colours, dashes, depths = run("[explore.COLOURS, explore.DASHES, explore.OF_DEPTH]")
    assert colours == list(still.COLOURS)
    assert dashes == [[] if dash == "-" else list(dash[1]) for dash in still.DASHES]
    assert {str(depth): number for depth, number in still.OF_DEPTH.items()}.items() <= depths.items()
    assert sorted(depths.values()) == list(range(len(colours)))


def loss(name):
    x, y = sp.symbols("x y")
    return {"linear": dl.Polynomial(x, [x, y]),
            "least squares": dl.LpLoss([[1.0, 0], [0, 3**0.5]], [1.0, 0.5 * 3**0.5], 2, "sum", 0.5),
            "quartic": dl.LpLoss([[1.0, 0], [0, 1]], [1.0, 0.5], 4, "sum", 0.25)}[name]


def test_field_curl_and_integral(run):
    names, depths, points = ("linear", "least squares", "quartic"), (1, 2, 3, 7), ((0.4, -0.9), (-1.2, 0.3))
    found = run(f"""{list(names)}.map(name => {list(depths)}.map(N => [
        {json.dumps(points)}.map(([x, y]) => [explore.field.field(name, N, x, y), explore.field.curl(name, N, x, y)]),
        explore.field.integral(name, N, 0.5, 1.2)]))""")
    for name, by_depth in zip(names, found):
        for N, (at_points, integral) in zip(depths, by_depth):
            for point, (vector, curl) in zip(points, at_points):
                w = torch.tensor([point], dtype=torch.float64)
                expected = dl.field.vector_field(loss(name), w, N)
                assert np.abs(np.array(vector) - expected[0].numpy()).max() < 1e-12 * (1 + expected.norm())
                assert abs(curl - dl.field.curl(loss(name), w, N)[1, 0]) < 1e-6 * (1 + abs(curl))
            exact = dl.field.line_integral(loss(name), N, 0.5, 1.2)
            assert abs(integral - exact) < 1e-6 * (1 + abs(exact)), (name, N)
    assert abs(found[0][2][1]) > 0.5 and abs(found[0][0][1]) < 1e-9  # it refuses to be 0 at depth 3, and is 0 at depth 1


@pytest.mark.parametrize("N", [1, 2, 3, 8])
def test_plane_follows_the_flow_and_draws_the_preconditioner(run, N):
    start, goal = [0.3, -0.2], [1.2, 0.7]
    path, axes = np.array(run(f"explore.plane.path({N}, {start}, {goal})")), run(f"explore.plane.axes({N}, 0.3, -0.4)")
    some = path[[5, 20, len(path) // 2, -20, -1]]
    four = dl.LpLoss(torch.eye(2, dtype=torch.float64), goal, p=4)
    assert np.abs(flow_of(four, start, N, some[:, 2].tolist()) - some[:, :2]).max() < 1e-4
    assert np.hypot(*(path[-1, :2] - goal)) < 0.011
    P = dl.preconditioner.matrix(torch.tensor([[0.3, -0.4]], dtype=torch.float64), N) / N
    assert np.allclose(sorted(axes), torch.linalg.eigvalsh(P), rtol=1e-12)


def test_plane_stands_still_at_zero(run):
    """From the ray opposite to the minimum of a symmetric loss the flow of two layers tends to 0 and not to the minimum."""
    ends = run("[1, 2].map(N => explore.plane.path(N, [-0.3, -0.3], [0.8, 0.8]).at(-1))")
    assert np.hypot(*np.subtract(ends[0][:2], 0.8)) < 0.011 and np.hypot(*ends[1][:2]) < 0.003
    assert run("explore.plane.path(3, [0, 0], [1, 1]).length") == 1


@pytest.mark.parametrize("N, p", [(1, 2), (2, 4), (3, 4), (4, 2)])
def test_race(run, N, p):
    a, step, angle = 3.0, 0.05, np.deg2rad(120)
    found = run(f"explore.race.race({N}, {p}, {a}, {step}, 120, 200)")
    start = 0.1 / a * torch.tensor([[np.cos(angle), np.sin(angle)]])
    layers = dl.balanced_init((2,) + (1,) * N, dl.seeded(0), W=start)
    two_scales = dl.LpLoss(torch.diag(torch.tensor([a, 1.0], dtype=torch.float64)), [1.0, 1.0], p, "sum", 1 / p)
    assert np.allclose(found, dl.train(two_scales, layers, dl.GD(step), 200).loss.numpy(), rtol=1e-8, atol=1e-14)


def test_race_counts_what_arrives_and_stays(run):
    """The median over the starts of the first step at the goal, of runs that never rise; the best is the least."""
    p, a, N = 4, 4.0, 2
    sweep, steps, directions = run(f"[explore.race.sweep({N}, {p}, {a}), explore.race.STEPS, explore.race.DIRECTIONS]")
    two_scales = dl.LpLoss(torch.diag(torch.tensor([a, 1.0], dtype=torch.float64)), [1.0, 1.0], p, "sum", 1 / p)
    angles = torch.deg2rad(torch.tensor(directions, dtype=torch.float64))
    starts = [dl.balanced_init((2, 1, 1), dl.seeded(0), W=0.1 / a * torch.stack([angle.cos(), angle.sin()])[None]) for angle in angles]
    chosen = torch.tensor(steps[10:41:5], dtype=torch.float64)
    layers = [torch.stack(W).expand(len(chosen), *[-1] * 3) for W in zip(*starts)]
    path = dl.train(two_scales, layers, dl.GD(chosen[:, None]), 3000).padded_loss(3001)
    falls = ((path[1:] <= path[:-1]) | (path[1:] < 1e-16)).all(0)
    arrives = falls & (path[-1] <= 2 * 0.2**p / p)
    medians = (path > 2 * 0.2**p / p).sum(0).double().where(arrives, torch.inf).median(1).values
    assert [np.inf if n is None else n for n in sweep["counts"][10:41:5]] == medians.tolist()
    assert sweep["fewest"] == min(n for n in sweep["counts"] if n is not None)
    assert sweep["best"] == steps[sweep["counts"].index(sweep["fewest"])]


def test_the_fair_race_says_what_the_chapter_says(run):
    """Each at its best step: for p = 2 a deeper network is faster at no position of the sliders, for p = 4 two are, from ratio 2 on."""
    fewest = run("""[2, 4].map(p => [0, 0.5, 1, 1.5, 2, 2.5, 3, 3.5, 4].map(k => [1, 2, 3, 4, 5, 6, 7, 8].map(
        N => explore.race.sweep(N, p, 2 ** k).fewest)))""")
    two, four = np.array(fewest, dtype=float)
    assert (two >= two[:, :1]).all() and (two[2:, 1:] > two[2:, :1]).all()
    assert (four[2:, 1] < four[2:, 0]).all() and (np.diff((four[2:, 0] / four[2:, 1])[::2]) > 0).all()


@pytest.mark.parametrize("tilt", [1.0, 2.0])
def test_three_layers_and_the_rule(run, tilt):
    layers, imbalances, path, goal = run(f"""(() => {{ const layers = explore.layers.layersOf(0.2, {tilt});
        return [layers, explore.layers.imbalance(layers), explore.layers.train(0.2, {tilt}, 0.05, 60), explore.layers.GOAL]; }})()""")
    weights, goal = [torch.tensor(W, dtype=torch.float64).reshape(2, 2) for W in layers], torch.tensor(goal, dtype=torch.float64)
    assert np.allclose([D.flatten() for D in dl.imbalance(weights)], imbalances, atol=1e-14)
    assert (max(D.norm() for D in dl.imbalance(weights)) < 1e-14) == (tilt == 1)
    assert np.allclose(torch.linalg.svdvals(dl.end_to_end(weights)), [0.2, 0.12], rtol=1e-12)
    square = dl.LpLoss(torch.eye(2, dtype=torch.float64), goal.reshape(2, 2).T, 2, "sum", 0.5)
    net, rule = (dl.train(square, weights, dl.GD(0.05), 60, 1, kind, keep_weights=True) for kind in ("layers", "end-to-end"))
    for k, run_here in enumerate((net, rule)):
        assert np.allclose([at["losses"][k] for at in path], run_here.loss.numpy(), rtol=1e-8)
    assert np.allclose(path[-1]["net"], dl.end_to_end(net.weights).flatten(), rtol=1e-9)
    assert np.allclose(path[-1]["rule"], rule.weights[0].flatten(), rtol=1e-9)
    assert np.allclose(path[-1]["imbalance"], [D.norm() for D in dl.imbalance(net.weights)], atol=1e-9)
    worst = max(at["apart"] for at in path)
    assert worst < 0.1 if tilt == 1 else worst > 0.3  # balanced curves coincide, one tilt separates them


def test_operator_and_singular_values(run):
    W, G = ([[0.5, -1.2], [0.3, 0.8]], [[1.0, 2.0], [-0.7, 0.4]])
    flat = [sum(matrix, []) for matrix in (W, G)]
    found, values = run(f"[[1, 2, 3, 5].map(N => explore.layers.operator({flat[0]}, {flat[1]}, N)), explore.layers.singular({flat[0]})]")
    W, G = (torch.tensor(matrix, dtype=torch.float64) for matrix in (W, G))
    for N, matrix in zip((1, 2, 3, 5), found):
        assert np.allclose(matrix, dl.preconditioner.apply(W, G, N).flatten(), rtol=1e-11)
    assert np.allclose(values, torch.linalg.svdvals(W), rtol=1e-12)


def test_hyperbola(run):
    found = run("explore.hyperbola(0.2, 1.6, 0.4, 50)")
    one = dl.LpLoss([[1.0]], [1.0], 2, scale=0.5)
    path = dl.descent.iterate(one, [torch.tensor([[s]], dtype=torch.float64) for s in (0.2, 1.6)], 0.4, 50)
    assert np.allclose(found, [[W.item() for W in state] for state in path], rtol=1e-10)


def test_the_axes_of_the_hyperbola_are_those_of_its_still_figure(run):
    chapter = (SCRIPTS.parents[1] / "12-factorisation.ipynb").read_text(encoding="utf-8")
    names = re.search(r'names = \(\\"([^$]*)\$(.)\$\\", \\"([^$]*)\$(.)\$\\"\)', chapter).groups()
    texts = run("""[...document.querySelectorAll('[data-figure=hyperbola] svg text')].map(
        text => [text.textContent, text.hasAttribute('transform')])""")
    assert [f"{names[0].strip()}, {names[1]}", False] in texts and [f"{names[2].strip()}, {names[3]}", True] in texts


def test_modes(run):
    times = [0.5, 1.0, 1.5, 3.0]
    found = run(f"[1, 2, 3, 5].map(N => explore.mode(N, 2, 0.01, {times}))")
    single = dl.LpLoss([[1.0]], [2.0], 2, scale=0.5)
    for N, values in zip((1, 2, 3, 5), found):
        assert np.allclose(values, flow_of(single, [0.01], N, times).flatten(), rtol=1e-5), N


def test_penalty_is_weighed(run):
    found, record, weights = run("""[[10, 3, 0].map(k => ["data", "penalty", "data + penalty"].map(term =>
        explore.penalty.shown("deep", term, explore.penalty.weight(k)))),
        explore.penalty.RECORD.deep, [10, 3, 0].map(explore.penalty.weight)]""")
    assert weights == [5e-4, 5e-4 / 128, 0]
    for terms, share in zip(found, (1, 1 / 128, 0)):
        data, penalty = np.array(record["data"]), share * np.array(record["penalty"])
        assert np.allclose(terms, [data, penalty, data + penalty], rtol=1e-12)


def test_no_zero_has_a_minus(run):
    assert run("[-0.0001, -0.4, -0, 12.3456, -1.5].map(x => explore.fixed(x))") == ["0.000", "-0.400", "0.000", "12.346", "-1.500"]


SHOWN = """name => { const box = document.querySelector(`[data-figure=${name}]`); return [box.querySelector('.said').textContent,
    box.querySelector('.question').textContent, [...box.querySelectorAll('svg')].map(svg => [svg.getAttribute('aria-label'),
    svg.querySelectorAll('path').length]), /NaN|undefined|Infinity/.test(box.innerHTML)]; }"""


TURN = """(input, value) => { if (input.type === 'radio') input.checked = true; else if (value) input.value = input[value];
    else input.selectedIndex += 1; input.dispatchEvent(new Event('input')); }"""


@pytest.mark.parametrize("name", FIGURES)
def test_every_position_draws_and_speaks(opened, name):
    """Every slider at both ends and every choice, one after the other: drawings and a sentence without a flaw."""
    page = opened(name)
    controls = page.locator(f"[data-figure={name}] :is(input, select)")
    assert controls.count() >= 1
    for k in range(controls.count()):
        kind = controls.nth(k).evaluate("input => input.type")
        for value in ("min", "max") if kind == "range" else ("",):
            controls.nth(k).evaluate(TURN, value)
            said, question, drawings, broken = page.evaluate(SHOWN, name)
            assert len(said) > 25 and question.endswith("?") and not broken, (name, k, value, said)
            assert not re.search(r"-0\.0*(?!\d)", said), said
            assert all(len(label) > 35 and paths >= 2 for label, paths in drawings)


@pytest.mark.parametrize("name", [name for name in FIGURES if "handles:" in (SCRIPTS / f"{name}.js").read_text()])
def test_points_move_by_mouse_finger_and_keyboard(opened, name):
    page = opened(name, has_touch=True, viewport={"width": 360, "height": 800})
    if name == "race":
        page.locator("[data-figure=race] [type=radio]").first.check()
    knob = page.locator(f"[data-figure={name}] .handle").first
    knob.scroll_into_view_if_needed()
    places = [knob.get_attribute("aria-valuetext")]

    def moved():
        places.append(knob.get_attribute("aria-valuetext"))
        assert places[-1] not in places[:-1], (name, places)
        assert "NaN" not in places[-1]

    def middle():
        box = knob.locator(".reach").bounding_box()
        assert box["width"] >= 44 and box["height"] >= 44  # a finger's width
        return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

    x, y = middle()
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x - 25, y - 12)
    page.mouse.up()
    moved()
    x, y = middle()
    session = page.context.new_cdp_session(page)
    for kind, points in (("touchStart", [{"x": x, "y": y}]), ("touchMove", [{"x": x + 40, "y": y + 15}]), ("touchEnd", [])):
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    moved()
    knob.focus()
    page.keyboard.press("Shift+ArrowLeft")
    page.keyboard.press("ArrowLeft")
    moved()


def test_playing_moves_the_time_and_stops(opened):
    page = opened("layers")
    button, time = page.locator(".explore button"), page.locator("#explore-layers-time")
    button.click()
    page.wait_for_timeout(300)
    assert 0 < float(time.input_value()) < 0.5 and button.text_content() == "Pause"
    button.click()
    there = time.input_value()
    page.wait_for_timeout(200)
    assert time.input_value() == there and button.text_content() == "Play"


def test_nothing_plays_for_who_wants_no_motion(opened):
    page = opened("layers", reduced_motion="reduce")
    assert page.locator(".explore button").count() == 0 and page.locator("#explore-layers-time").count() == 1


def test_drawings_follow_the_width_and_stay_inside(opened):
    page = opened(*FIGURES, viewport={"width": 360, "height": 800})
    outside = """[...document.querySelectorAll('.explore svg')].flatMap(svg => { const edge = svg.getBoundingClientRect();
        return [...svg.querySelectorAll('text')].map(text => [text, text.getBoundingClientRect()]).filter(([, box]) =>
            box.left < edge.left - 1 || box.right > edge.right + 1).map(([text]) => text.textContent); })"""
    for width in (360, 1300):
        page.set_viewport_size({"width": width, "height": 800})
        page.wait_for_timeout(100)
        assert page.evaluate(outside) == []
        first = page.locator(".explore svg").first
        assert abs(first.evaluate("svg => svg.clientWidth") - int(first.get_attribute("viewBox").split()[2])) <= 1
