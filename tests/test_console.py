"""The command ``deeplinear``: what it prints, what it writes, what it says of bad input and of Ctrl-C."""

import importlib
import os
import re
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import numpy as np
import pytest

from deeplinear import __version__, data, recorded, shards
from deeplinear.__main__ import main
from deeplinear.experiments import EXPERIMENTS

ROOT = Path(__file__).parents[1]


@pytest.fixture
def table(tmp_path, monkeypatch):
    """A CSV file of 40 rows in the folder that the command runs in."""
    pytest.importorskip("pandas", reason="pandas is not installed")
    monkeypatch.chdir(tmp_path)
    t = np.linspace(0, 9, 40)
    rows = [f"{a:.3f},{b:.3f},{2 * a - b:.3f}" for a, b in zip(np.sin(t), np.cos(3 * t))]
    Path("table.csv").write_text("a,b,y\n" + "\n".join(rows) + "\n")
    return tmp_path


def test_the_script_of_the_wheel_is_this_command(capsys):
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    module, _, name = scripts.pop("deeplinear").partition(":")
    assert getattr(importlib.import_module(module), name) is main and not scripts
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0 and capsys.readouterr().out == f"deeplinear {__version__}\n"


@pytest.mark.usefixtures("table")
def test_ask_prints_an_answer_and_writes_figure_and_page(capsys):
    assert main(["ask", "table.csv", "--target", "y", "--power", "4", "--seconds", "4", "--html", "page.html"]) == 0
    said = capsys.readouterr()
    assert "verdict     At power 4" in said.out and "figure      table-ask.svg" in said.out and said.err == ""  # no terminal, no bar
    assert Path("table-ask.svg").read_text().startswith("<svg") and "At power 4" in Path("page.html").read_text(encoding="utf-8")


@pytest.mark.usefixtures("table")
def test_ask_without_a_minute_says_so(capsys):
    assert main(["ask", "table.csv", "--target", "y", "--seconds", "1e-9", "--html", "page.html", "--figure", "f.svg"]) == 0
    assert "not settled" in capsys.readouterr().out and "not settled" in Path("page.html").read_text(encoding="utf-8")
    assert not Path("f.svg").exists()


@pytest.mark.usefixtures("table")
def test_ask_hears_what_is_missing_kept_and_left_out(capsys):
    rows = Path("table.csv").read_text().splitlines()
    asked = ["ask", "table.csv", "--target", "y", "--seconds", "1e-9"]
    rows[6], rows[8] = (",".join(["-999", *rows[i].split(",")[1:]]) for i in (6, 8))
    Path("table.csv").write_text("\n".join([f"n,{rows[0]}", *(f"{i},{row}" for i, row in enumerate(rows[1:]))]))
    assert main(asked) == 0
    said = capsys.readouterr().out
    assert "features    a, b\n" in said and "n: numbers of the rows, 0 to 39; keep=n takes it in" in said
    assert "warning     a: -999 in 2 of 40 rows" in said
    assert main([*asked, "--missing", "-999", "--keep", "n", "--without", "b"]) == 0
    said = capsys.readouterr().out
    assert "features    n, a\nleft out    b: as asked\ndone        a: 2 missing entries" in said and "warning" not in said
    assert main([*asked, "--missing=-999", "--keep=n", "--without=b"]) == 0 and capsys.readouterr().out == said


@pytest.mark.parametrize("arguments, said", [
    (["tble.csv", "--target", "y"], "error: no file tble.csv; did you mean table.csv?"),
    (["table.csv", "--target", "z"], "error: target 'z' is no column; expected one of a, b, y"),
    (["table.csv", "--target", "y", "--keep", "aa"], "error: keep 'aa' is no column; did you mean a?"),
    (["table.csv", "--target", "y", "--power", "3"], "error: power is 3; expected 2 or 4"),
    (["table.csv", "--target", "y", "--figure", "x.png"], "error: the figure is 'x.png'; expected a name that ends in .svg"),
    (["table.csv", "--target", "y", "--html", "none/page.html"], "error: no folder none for page.html; expected one that exists")])
def test_ask_names_what_is_wrong_in_one_line(table, capsys, arguments, said):
    assert main(["ask", *arguments]) == 1
    assert capsys.readouterr().err == said + "\n" and not list(table.glob("*.svg"))


@pytest.mark.skipif(os.name != "posix", reason="the pipe is POSIX's")
@pytest.mark.parametrize("command, unbuffered", [("about", "1"), ("run phase-diagram --dry-run", ""),
                                                 ("ask table.csv --target y --seconds 1e-9", "")])
@pytest.mark.usefixtures("table")
def test_a_reader_that_has_read_enough_ends_a_command_without_a_word(command, unbuffered):
    reads, writes = os.pipe()
    os.close(reads)
    found = subprocess.run([sys.executable, "-m", "deeplinear", *command.split()], stdout=writes, stderr=subprocess.PIPE, text=True,
                           env={**os.environ, "PYTHONUNBUFFERED": unbuffered})
    os.close(writes)
    assert found.returncode == 141 and found.stderr == ""


@pytest.mark.skipif(os.name != "posix", reason="the signal is POSIX's")
def test_ask_ends_on_interrupt_and_leaves_nothing(table):
    command = subprocess.Popen([sys.executable, "-c", "import sys, threading, os, signal\nfrom deeplinear import asking\n"
                                "from deeplinear.__main__ import main\nask = asking.ask\n"
                                "def interrupted(frame, target, power, seconds, report, **options):\n"
                                "    threading.Timer(1, os.kill, (os.getpid(), signal.SIGINT)).start()\n"
                                "    return ask(frame, target, power, 600, report, **options)\n"
                                "asking.ask = interrupted\nsys.exit(main(['ask', 'table.csv', '--target', 'y']))"],
                               stderr=subprocess.PIPE, text=True)
    begun, said = time.monotonic(), command.communicate(timeout=120)[1]
    assert command.returncode == 130 and said == "stopping, nothing is kept; the same command starts again\n"
    assert time.monotonic() - begun < 100 and not list(table.glob("*.svg"))


NET = """
import torch
import beside

def build():
    return torch.nn.Sequential(torch.nn.Linear(3, 4, bias=False), torch.nn.ReLU(), torch.nn.Linear(4, beside.OUT)), torch.ones(2, 3)

def lone():
    return torch.nn.Linear(2, 2)

def words():
    return torch.nn.Linear(2, 2), "example"

def fails():
    raise KeyError("lost")

def values():
    a, b = [1]

def silent():
    raise ValueError

def refused():
    return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1)), torch.ones(2, 3)

number = 3
"""


@pytest.fixture
def net(tmp_path):
    (tmp_path / "net.py").write_text(NET)
    (tmp_path / "beside.py").write_text("OUT = 1\n")
    (tmp_path / "broken.py").write_text("def build(:\n")
    (tmp_path / "net.txt").write_text(NET)
    return tmp_path


def test_laws_of_a_network_in_a_file(net, capsys):
    before = list(sys.path)
    assert main(["laws", f"{net / 'net.py'}:build"]) == 0
    assert "|0.weight|^2" in capsys.readouterr().out and sys.path == before
    assert main(["laws", f"{net / 'net.py'}:refused"]) == 0
    assert "refused  " in capsys.readouterr().out


@pytest.mark.parametrize("place, said", [
    ("{}/net.py", "names no function; expected FILE:FUNCTION, such as model.py:build"), ("{}/nt.py:build", "no file {}/nt.py"),
    ("{}/net.py:biuld", "in {}/net.py the function 'biuld' is unknown; did you mean build"),
    ("{}/net.py:number", "number in {}/net.py is of the type int; expected a function"),
    ("{}/net.py:lone", "returns Linear; expected (net, example), a torch.nn.Module and a tensor"),
    ("{}/net.py:words", "returns Linear, str; expected"), ("{}/net.py:fails", "fails failed with KeyError in line 15: 'lost'"),
    ("{}/net.py:silent", "silent failed with ValueError in line 21\n"),
    ("{}/net.py:values", "values failed with ValueError in line 18: not enough values to unpack"),
    ("{}/broken.py:build", "failed with SyntaxError"), ("{}/net.txt:build", "is no file of Python")])
def test_laws_name_what_is_wrong_in_one_line(net, capsys, place, said):
    assert main(["laws", place.format(net)]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and said.format(net) in error and error.count("\n") == 1


def test_a_dry_run_names_the_jobs_and_touches_nothing(tmp_path, capsys):
    folder = tmp_path / "out"
    assert main(["run", "phase-diagram", "--scale", "full", "--dry-run", "--workers", "2", "--out", str(folder)]) == 0
    said = capsys.readouterr().out
    seconds = recorded.load("phase-diagram", quiet=True).provenance["compute_seconds"]
    assert "job 0: p 2, conditioning 1\n" in said and "12 of 12 jobs to run, " in said and not folder.exists()
    assert f"estimate: {seconds / 120:.0f} minutes in 2 process(es)" in said
    assert main(["run", "phase-diagram", "--dry-run", "--out", str(folder)]) == 0 and "under a minute" in capsys.readouterr().out
    assert main(["run", "l4-printed", "--dry-run", "--out", str(folder)]) == 0
    assert re.search("no estimate: the book has no record of it|estimate: ", capsys.readouterr().out)


@pytest.mark.parametrize("name", ["l4-adam", "mnist-convnet", "layers-and-rule", "regression-depth"])
def test_a_dry_run_needs_no_data(name, tmp_path, capsys, monkeypatch):
    def absent(set_name, download=True):
        assert not download
        raise data.DataUnavailable(f"no {set_name}")

    monkeypatch.setattr(data, "load", absent)
    assert main(["run", name, "--scale", "full", "--dry-run", "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    wanted = EXPERIMENTS[name].SCALES["full"].dataset
    assert f"all jobs need the data set {wanted}, which is not here" in said and "job 0: " in said and "estimate: " in said


def test_a_dry_run_leaves_out_what_is_finished(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(shards, "execute", lambda work, *_: (recorded.write_arrays(work.finished(1), {"a": np.ones(1)}), 1 / 0))
    with pytest.raises(ZeroDivisionError):
        main(["run", "phase-diagram", "--out", str(tmp_path)])
    assert main(["run", "phase-diagram", "--dry-run", "--out", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "job 1: p 2, conditioning 100 (finished)" in said and "3 of 4 jobs to run" in said


@pytest.mark.parametrize("checkpoint, kept", [(True, "a checkpoint is written; the same command goes on from it"),
                                              (False, "finished jobs are kept; the same command goes on from there")])
def test_an_interrupted_run_says_what_is_kept(tmp_path, capsys, monkeypatch, checkpoint, kept):
    def execute(work, *_):
        if checkpoint:
            work.checkpoint(0).save({"w": np.ones(3)})
        raise KeyboardInterrupt

    monkeypatch.setattr(shards, "execute", execute)
    assert main(["run", "phase-diagram", "--out", str(tmp_path)]) == 130
    assert capsys.readouterr().err == f"stopping, {kept}\n"
