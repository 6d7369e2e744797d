"""tools/refresh.py: what it keeps and what it marks."""

import nbformat

from refresh import keep_rounding, mark_verdicts


def notebook(*texts):
    """One cell for each text, which has printed it."""
    cells = []
    for i, text in enumerate(texts):
        out = nbformat.v4.new_output("stream", name="stdout", text=text)
        cells.append(nbformat.v4.new_code_cell("1", id=f"cell-{i}", outputs=[out]))
    return nbformat.v4.new_notebook(cells=cells)


def printed(found):
    return ["".join(out.text for out in cell.outputs) for cell in found.cells]


def test_the_stored_size_of_a_rounding_error_is_kept_and_nothing_else():
    stored = notebook("holds  a  3e-15, below 1e-13\nholds  b  2 nets, worst 1e-15, below 1e-13\nx 1\n", "holds  c  0.4, below 1\n")
    fresh = notebook("x 2\nholds  a  7e-15, below 1e-13\nholds  b  3 nets, worst 4e-15, below 1e-13\n", "holds  c  0.5, below 1\n",
                     "holds  a  9e-15, below 1e-13\n")
    assert printed(keep_rounding(fresh, stored)) == [
        "x 2\nholds  a  3e-15, below 1e-13\nholds  b  3 nets, worst 4e-15, below 1e-13\n", "holds  c  0.5, below 1\n",
        "holds  a  9e-15, below 1e-13\n"]


def test_a_line_printed_twice_keeps_each_of_its_sizes():
    stored = notebook("holds  a  1e-15, below 1e-13\nholds  a  2e-15, below 1e-13\n")
    fresh = notebook("holds  a  5e-15, below 1e-13\nholds  a  6e-15, below 1e-13\nholds  a  7e-15, below 1e-13\n")
    assert printed(keep_rounding(fresh, stored)) == [
        "holds  a  1e-15, below 1e-13\nholds  a  2e-15, below 1e-13\nholds  a  7e-15, below 1e-13\n"]


def test_verdicts_name_their_cells():
    found = notebook("holds  a\nfails  b  1, not below 0.1, as it must\n", "fails  b  1, not below 0.1, as it must\n", "it holds  a\n")
    found.cells[2].metadata["tags"] = ["check", "other"]
    assert [cell.metadata["tags"] for cell in mark_verdicts(found).cells] == [["check"], ["control"], ["other"]]
