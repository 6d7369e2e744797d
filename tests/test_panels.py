"""Where a figure is cut into panels for a phone."""

import runpy
from pathlib import Path

import pytest

PANELS = runpy.run_path(str(Path(__file__).parents[1] / "book" / "_ext" / "panels.py"))


def picture(*axes, legend=(), title=""):
    """An SVG as matplotlib writes it, 504 by 216: axes as (left, right, top, bottom, x of a label), a legend's places."""
    drawn = "".join(f'<g id="axes_{i}"> <g id="patch_{i}"> <path d="M {a} {d} L {b} {d} L {b} {c} L {a} {c} z"/></g>'
                    f'<g id="text_{i}"> <g transform="translate({x} {d})"/></g></g>' for i, (a, b, c, d, x) in enumerate(axes, 1))
    entries = "".join(f'<g id="text_9{i}"> <g transform="translate({x} {y})"/></g>' for i, (x, y) in enumerate(legend))
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 504 216"><g id="figure_1">{drawn}{title}'
            f'<g id="legend_1">{entries}</g></g></svg>')


def test_a_single_panel_stays_whole():
    assert PANELS["views"](picture((40, 500, 10, 150, 5), legend=[(200, 200)])) == []
    assert PANELS["stacked"]("a.svg", picture((40, 500, 10, 150, 5))) == ""


def test_each_panel_keeps_its_labels_and_no_piece_of_the_next():
    first, second, below = PANELS["views"](picture((40, 250, 17, 150, 5), (300, 500, 17, 150, 270), legend=[(150, 205), (250, 205)]))
    assert first == [(0, 0, 260, 194)] and second == [(265, 0, 504 - 265, 194)]
    assert below == [(114, 194, 504 - 2 * 114, 22)]


def test_a_shared_scale_is_drawn_with_each_panel():
    _, second = PANELS["views"](picture((40, 260, 17, 150, 5), (270, 500, 17, 150, 280)))
    assert second == [(0, 0, 39, 216), (269, 0, 235, 216)]


def test_rows_and_long_legends():
    grid = [(left, left + 100, top, top + 80, left) for top in (20, 120) for left in (60, 200, 340)]
    title = '<g id="text_99"><g transform="translate(100 2)"/></g>'
    name, *boxes = PANELS["views"](picture(*grid, legend=[(60, 210), (170, 210), (280, 210), (390, 210)], title=title))
    assert name == [(97, 0, 310, 3)]
    assert [panel[0][1] for panel in boxes[:6]] == [3, 3, 3, 103, 103, 103] and len(boxes) == 8
    assert boxes[6][0][0] + boxes[6][0][2] == pytest.approx(boxes[7][0][0])
