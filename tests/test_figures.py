"""Figures: byte-stable, within limits, and compared as pictures."""

import re
from pathlib import Path

import numpy as np
import pytest
import sympy as sp
from figures import difference

import deeplinear as dl
from deeplinear import plots

CURVE = {"a panel": {"depth 1": (np.arange(1, 300), 1 / np.arange(1, 300)), "depth 2": ([1, 10, 300], [1, 0.2, 0.01])}}


def test_the_same_numbers_give_the_same_bytes():
    assert plots.lines(CURVE).svg() == plots.lines(CURVE).svg()
    assert plots.ellipses().svg() == plots.ellipses().svg()
    assert "<!DOCTYPE" not in plots.lines(CURVE).svg() and "date" not in plots.lines(CURVE).svg().lower()


def test_the_cover_is_the_one_drawn_by_the_library():
    stored = (dl.data.book_folder("_static") / "cover.svg").read_text()
    assert difference(stored, plots.cover().svg()) is None


def test_every_figure_is_a_public_name():
    files = Path(plots.__file__).parent.glob("*.py")
    drawn = [name for path in files for name in re.findall(r"^@styled\ndef (\w+)", path.read_text(encoding="utf-8"), re.M)]
    assert len(drawn) >= 5 and set(drawn) <= set(plots.__all__)


def test_the_name_of_a_guide_stands_behind_its_end():
    """Where two guides may end at one place, that of the smaller slope stands above."""
    one = plots.lines(CURVE, slopes={"depth 2": -1}).axes[0].texts
    assert [text.get_va() for text in one] == ["center"] and one[0].xy[0] == 300
    two = plots.lines({"": {"a": ([1, 10], [1, 9]), "b": ([1, 10], [1, 99])}}, slopes={"a": 1, "b": 2}).axes[0].texts
    assert {text.get_text(): text.get_va() for text in two} == {"slope 1": "bottom", "slope 2": "top"}


def test_long_curves_are_thinned_but_keep_their_ends():
    for logarithmic in (True, False):
        x, _ = plots.curves.thin(np.arange(10**5), np.arange(10**5) ** 0.5, logarithmic)
        assert len(x) <= plots.curves.MOST_POINTS and x[-1] == 10**5 - 1 and x[0] == (1 if logarithmic else 0)
    x, _ = plots.curves.thin([0, 1, 2, 3], [1, np.nan, 2, np.inf], True)
    assert x.tolist() == [2]


def moved(svg, by):
    """The picture with one vertex of its longest path moved by ``by`` points, and all its hashed names changed."""
    path = max(re.findall(r' d="(M[^"]*)"', svg), key=len)
    numbers = list(re.finditer(r"\d+\.\d+", path))
    middle = numbers[len(numbers) // 2]
    changed = path[:middle.start()] + str(float(middle[0]) + by) + path[middle.end():]
    svg = svg.replace(path, changed)
    names = set(re.findall(r'id="(m[0-9a-f]{10}|p[0-9a-f]{10})"', svg))
    for i, name in enumerate(sorted(names)):
        svg = svg.replace(name, f"other{i}")
    return svg


def test_another_processor_passes_and_a_changed_curve_fails():
    svg = plots.lines(CURVE, markers=False).svg()
    assert difference(svg, moved(svg, 0.0)) is None
    assert difference(svg, moved(svg, 0.05)) is None
    assert "drawn" in difference(svg, moved(svg, 1.0))


def test_a_closed_curve_may_say_so_or_not():
    closed = '<svg><path d="M 1.5 2 \nL 3 4 \nL 1.5 2 \n{}"/></svg>'
    assert difference(closed.format(""), closed.format("z\n")) is None
    assert difference(closed.format(""), closed.format("L 3 4 \nz\n")) is not None
    assert difference(closed.replace("L 1.5 2", "L 1.5 9").format(""), closed.replace("L 1.5 2", "L 1.5 9").format("z\n")) is not None


@pytest.mark.parametrize("change", [
    {"a panel": {"depth 1": CURVE["a panel"]["depth 1"]}},
    {"another": CURVE["a panel"]},
    {"a panel": {"depth 1": CURVE["a panel"]["depth 1"], "depth 3": CURVE["a panel"]["depth 2"]}},
    {"a panel": {"depth 1": CURVE["a panel"]["depth 1"], "depth 2": ([1, 10, 300], [1, 0.22, 0.01])}},
], ids=["a curve less", "another title", "another label", "another value"])
def test_a_changed_figure_is_told(change):
    assert difference(plots.lines(CURVE).svg(), plots.lines(change).svg()) is not None


def test_a_band_lies_behind_its_curve():
    x = np.arange(1, 300)
    banded = plots.lines({"": {"depth 1": (x, 1 / x, 0.5 / x, 2 / x)}})
    (ax,), (band,) = banded.axes, banded.axes[0].collections
    assert band.get_zorder() < ax.lines[0].get_zorder()
    low, high = band.get_paths()[0].vertices[:, 1].min(), band.get_paths()[0].vertices[:, 1].max()
    assert low == 0.5 / 299 and high == 2
    assert difference(banded.svg(), plots.lines({"": {"depth 1": (x, 1 / x)}}).svg()) is not None


def test_styles_and_colours_count():
    svg = plots.lines(CURVE).svg()
    assert difference(svg, svg.replace("#0072b2", "#0072b9")) is not None
    assert difference(svg, svg.replace("stroke-width: 1.8", "stroke-width: 4")) is not None


def test_a_map_of_factors_does_not_hang_on_the_last_bit():
    values = np.array([[1.0, 0.125, 8.5], [0.0, np.inf, np.nan]])
    drawn = [plots.factors({"": values * (1 + eps)}, "abc", "de", "x", "y", "over").svg() for eps in (0, 1e-13, -1e-13)]
    assert difference(drawn[0], drawn[1]) is None and difference(drawn[0], drawn[2]) is None
    assert difference(drawn[0], plots.factors({"": values * 1.1}, "abc", "de", "x", "y", "over").svg()) is not None


def test_the_sectors_of_a_curve_add_up_to_its_integral():
    w = sp.symbols("w1:3")
    loss = dl.Polynomial(w[0] ** 2 + w[1] ** 2 - w[0] * w[1] + w[0], w)
    drawn = plots.sectors(loss, {"blind": (180, 135, 45, 0), "seeing": (45, -45)})
    shown = [[float(text.get_text().replace("\u2212", "-")) for text in ax.texts if text.get_text()] for ax in drawn.axes]
    totals = [float(ax.get_xlabel().split()[1]) for ax in drawn.axes]
    assert totals == [0.0, 0.292] and [round(sum(parts), 3) for parts in shown] == totals and len(shown[0]) == 3
    assert drawn.svg() == plots.sectors(loss, {"blind": (180, 135, 45, 0), "seeing": (45, -45)}).svg()


def test_on_the_flat_sheet_the_path_is_steepest_descent():
    drawn = plots.cone(depth=4)
    plane, sheet = ([(np.array(text.xy) - np.array(text.xyann)) for text in ax.texts] for ax in drawn.axes)
    angles = [np.linalg.det([step / np.linalg.norm(step) for step in steps]) for steps in (plane, sheet)]
    assert abs(angles[1]) < 0.02 < 0.2 < abs(angles[0])
    assert drawn.svg() == plots.cone(depth=4).svg() and len(drawn.svg().encode()) < 60_000


def test_intervals_lie_in_their_rows_and_tell_a_change():
    panels = {"a": {"one": {"x": (1.0, 0.5, 2.0), "y": (1.2, 1.1, 1.3)}, "two": {"y": (0.9, 0.8, 1.0)}}}
    drawn = plots.intervals(panels, x="ratio")
    (ax,) = drawn.axes
    assert [label.get_text() for label in ax.get_yticklabels()] == ["x", "y"] and drawn.svg() == plots.intervals(panels, x="ratio").svg()
    places = [line.get_ydata() for line in ax.lines if len(line.get_ydata()) and line.get_linestyle() == "None"]
    assert all(abs(place - round(place)) < 0.2 for found in places for place in found)
    assert difference(drawn.svg(), plots.intervals(panels, x="ratio", at=2.0).svg()) is not None


def test_a_band_of_runs_is_smoothed_and_keeps_its_steps():
    runs = np.array([[1.0, 5.0, 2.0], [3.0, 1.0, 2.0], [5.0, 3.0, 8.0]])  # (steps, runs)
    steps, middle, least, most = plots.band(runs, 2)
    assert steps.tolist() == [2, 3] and middle.tolist() == [2, 4] and least.tolist() == [2, 2] and most.tolist() == [3, 5]
    assert plots.band(runs, steps=[0, 20, 40])[0].tolist() == [0, 20, 40] and (plots.band(runs)[3] == runs.max(1)).all()
    for wrong in ((runs, 4), (runs, 0), (runs[0], 1)):
        with pytest.raises(ValueError, match="expected"):
            plots.band(*wrong)


def test_matrices_are_shaded_by_sign_and_size_and_blank_where_nothing_is_seen():
    M = np.array([[1.0, -0.5], [np.nan, 0.0]])
    drawn = plots.matrices({"a": M, "b": 0.5 * M})
    first, second = drawn.axes
    squares = {patch.get_facecolor()[:3]: patch.get_facecolor()[3] for patch in first.patches if patch.get_facecolor()[3]}
    assert len(squares) == 2 and len(set(squares.values())) == 2  # blue and orange, one darker than the other
    assert difference(drawn.svg(), plots.matrices({"a": M, "b": M}).svg()) is not None
    assert difference(drawn.svg(), plots.matrices({"a": M * (1 + 1e-13), "b": 0.5 * M}).svg()) is None
    assert len(second.patches) == 3


def test_a_large_last_layer_makes_a_circle_and_a_large_first_one_a_needle():
    needle, even, circle = (ax.patches[0] for ax in plots.imbalances(chis=(-10.0, 0.0, 1e3)).axes)
    assert even.height / even.width == pytest.approx(0.5) and needle.height / needle.width < 0.01
    assert circle.height / circle.width == pytest.approx(1, abs=1e-5)
