import argparse
import json

import bench
import peers
import pytest
import torch

import deeplinear as dl


def problem(**changes):
    data = dl.data.load("diabetes")
    return peers.Problem(**{**dict(X=data.X, y=data.y, p=4, depth=3, width=1, runs=4, rate=1e-3), **changes})


@pytest.mark.parametrize("changes", [{}, {"p": 2, "rate": 1e-2}, {"width": 6}, {"depth": 1}, {"optimizer": "Adam"}])
def test_all_entries_take_the_same_steps(changes):
    names = ("engine",) if "optimizer" in changes else ("batched autograd", "vmap(grad)", "engine")
    bench.agree(problem(**changes), names)


def test_an_engine_with_other_iterates_gets_no_speed(monkeypatch, capsys):
    class Cheat(peers.Engine):
        def advance(self, steps):
            super().advance(steps - 1)  # one step in three hundred is not taken

    monkeypatch.setitem(bench.PEERS, "engine", Cheat)
    with pytest.raises(bench.Disagreement, match="engine differs from the autograd chain by .* after 300 steps"):
        bench.agree(problem(), ("engine",))
    assert bench.main(["--smoke", "--rounds", "1", "--seconds", "0.01"]) == 1
    out = capsys.readouterr()
    assert "Its speed says nothing" in out.err and "steps/s" not in out.out


def test_runs_that_do_not_move_prove_nothing():
    with pytest.raises(bench.Disagreement, match="hardly move"):
        bench.agree(problem(rate=1e-12), ("engine",))


def test_the_smoke_run_prints_every_table(tmp_path, capsys):
    bench.main(["--smoke", "--rounds", "1", "--seconds", "0.005", "--out", str(tmp_path)])
    out = capsys.readouterr().out
    for words in ("p = 4, float64", "p = 4, float32", "p = 2, float64", "Adam", "roofline", "vmap(grad)", "L-BFGS",
                  "Newton", "columns", "target"):
        assert words in out
    assert not list(tmp_path.iterdir())


def test_ratios_are_taken_within_a_round():
    class Steady:
        runs, least_steps = 2, 1

        def __init__(self, name):
            self.name = name

        def advance(self, steps):
            turns.append(self.name)
            torch.linalg.eigvalsh(torch.eye(40).expand(steps, 40, 40))

    turns = []
    options = argparse.Namespace(rounds=3, seconds=0.02, smoke=False)
    rates = bench.race({"a": Steady("a"), "b": Steady("b")}, options)
    assert turns[-6:] == ["a", "b"] * 3
    assert set(rates) == {"a", "b"} and all(len(each) == 3 and min(each) > 0 for each in rates.values())


@pytest.mark.parametrize("path", sorted(bench.RESULTS.glob("*.json")), ids=lambda p: p.stem)
def test_committed_results_say_where_they_come_from(path):
    found = json.loads(path.read_text())
    assert {"device", "threads", "versions", "date", "data", "tables", "growth", "time_to_gap", "targets"} <= found.keys()
    for table in found["tables"]:
        for row in table["rows"]:
            assert all(ratio["min"] <= ratio["median"] <= ratio["max"] for ratio in row["engine_over"].values())
