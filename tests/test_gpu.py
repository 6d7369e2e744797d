"""``tools/gpu.py``, tried on a CPU: one line without CUDA, the time, what goes on from an archive, what is refused."""

import argparse
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import bench
import gpu
import numpy as np
import pytest
import torch
import trial_experiment

import deeplinear as dl
from deeplinear import recorded, shards, sources
from deeplinear.experiments import EXPERIMENTS

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def same_path(monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
@pytest.mark.skipif(shutil.which("make") is None, reason="no make on this machine")
def test_without_cuda_one_line_says_so(tmp_path):
    done = subprocess.run(["make", "--no-print-directory", "gpu", f"PYTHON={sys.executable}", f"OUT={tmp_path / 'a folder'}"], cwd=ROOT,
                          capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr and not list(tmp_path.iterdir())
    assert done.stdout == f"no CUDA device here (torch {torch.__version__}): nothing to run\n"


def test_every_experiment_has_its_place():
    assert set(gpu.ORDER) <= set(EXPERIMENTS) and gpu._experiments()[0] == gpu.ORDER[0]
    assert sorted(gpu._experiments()) == sorted(EXPERIMENTS)


@pytest.fixture
def visit(tmp_path, monkeypatch):
    """The arguments of a call at quick scale: the GPU's tests, which skip on a CPU, and the experiment of a single job."""
    tasks = gpu.tasks
    monkeypatch.setattr(gpu, "_experiments", lambda: ["regression-models"])
    monkeypatch.setattr(gpu, "tasks", lambda options: (task for task in tasks(options) if task.name != "bench"))
    return ["--device", "cpu", "--scale", "quick", "--work", str(tmp_path / "work"), "--out", str(tmp_path / "out")]


def test_one_visit_and_another(tmp_path, monkeypatch, capsys, visit):
    """The second call finds all done, on another machine too; other source runs again."""
    assert gpu.main(visit) == 0
    said = capsys.readouterr().out
    assert [line.split(" in ")[0] for line in said.splitlines()[:2]] == ["tests: done", "regression-models: done"]
    with tarfile.open(tmp_path / "out" / "gpu.tar") as tar:
        names = tar.getnames()
    assert {"done.json", "results/regression-models.json", "logs/tests.log"} <= set(names)
    assert not [name for name in names if name.endswith(".lock")]
    assert "skipped" in (tmp_path / "work" / "logs" / "tests.log").read_text()
    versions = recorded.load("regression-models", folder=tmp_path / "work" / "results", quiet=True).provenance["versions"]
    assert versions["torch"] == torch.__version__ and versions["deeplinear"] == dl.__version__

    visit += ["--resume", str(tmp_path / "out" / "gpu.tar")]
    shutil.rmtree(tmp_path / "work")  # another machine
    assert gpu.main(visit) == 0
    assert capsys.readouterr().out.count("done before") == 2
    monkeypatch.setattr(sources, "digest", lambda file: "of other source")
    monkeypatch.setattr(gpu, "run", lambda command, log, end, environment: again.append(command))
    again = []
    assert gpu.main(visit) == 0 and len(again) == 2


def test_the_benchmark_is_called_as_it_understands(tmp_path, monkeypatch):
    for name, nothing in (("cases", []), ("growth", {}), ("time_to_gap", [])):
        monkeypatch.setattr(bench, name, lambda *_, nothing=nothing: nothing)
    options = argparse.Namespace(device="cpu", scale="full", work=tmp_path)
    task = next(task for task in gpu.tasks(options) if task.name == "bench")
    assert task.command[:2] == [sys.executable, ROOT / "benchmarks" / "bench.py"]
    assert bench.main([str(word) for word in task.command[2:]]) == 0
    report = json.loads((tmp_path / "benchmarks" / f"{'cuda' if torch.cuda.is_available() else 'cpu'}.json").read_text())
    assert report["rounds"] == 5 and report["versions"]["torch"] == torch.__version__
    assert not task.finished()
    task.note()
    assert task.finished()


def trial(folder, log):
    """A task that runs the jobs of the trial experiment one after another and keeps their results."""
    script = folder / "trial.py"
    script.write_text(f"import sys, pathlib; sys.path[:] = {sys.path!r}\n"
                      "import test_gpu\n"
                      f"if __name__ == '__main__':\n    test_gpu.run_trial(pathlib.Path({str(folder)!r}), {str(log)!r})\n")
    return gpu.Task("trial", [sys.executable, script], (folder / "results" / "trial.npz").is_file)


def run_trial(folder, log, pause=0.05):
    work = shards.Work("trial_experiment", trial_experiment.Config(log=log, pause=pause), "cpu", "0", folder / "results")
    results = shards.execute(work, trial_experiment.jobs(work.config, "cpu"), workers=1)
    arrays = {f"{key} {i}": result[key] for i, result in enumerate(results) for key in ("loss", "diverged")}
    recorded.write_arrays(folder / "results" / "trial.npz", arrays)


def test_what_the_time_stops_goes_on_on_another_machine(tmp_path, monkeypatch, capsys):
    """The time is up in the middle of the second job: the archive alone carries the first one and a checkpoint."""
    log, here, there, alone = tmp_path / "log", tmp_path / "here", tmp_path / "there", tmp_path / "alone"
    for folder in (here, there, alone):
        folder.mkdir()

    def now():
        return float("inf") if log.exists() and "at-200 1" in log.read_text() else 0.0

    monkeypatch.setattr(gpu, "now", now)
    assert gpu.visit([trial(here, log)], here, 60.0, tmp_path / "gpu.tar") == 0
    assert "trial: stopped" in capsys.readouterr().out
    with tarfile.open(tmp_path / "gpu.tar") as tar:
        kept = [name.rpartition("/")[2] for name in tar.getnames()]
    assert "job-0.npz" in kept and "job-1.part.npz" in kept and "job-2.npz" not in kept
    assert gpu.visit([trial(here, log)], here, 60.0, tmp_path / "gpu.tar") == 0
    assert "trial: not begun, the time is up" in capsys.readouterr().out

    before = len(log.read_text().splitlines())
    monkeypatch.setattr(gpu, "now", lambda: 0.0)
    gpu.unpack(tmp_path / "gpu.tar", there)
    assert gpu.visit([trial(there, log)], there, 60.0, tmp_path / "gpu.tar") == 0
    assert "trial: done in" in capsys.readouterr().out
    again = [line.split()[:2] for line in log.read_text().splitlines()[before:]]
    assert ["start", "0"] not in again and ["at-100", "1"] not in again and ["start", "2"] in again
    run_trial(alone, str(tmp_path / "another log"), pause=0.0)
    found, plain = (recorded.read_arrays(folder / "results" / "trial.npz") for folder in (there, alone))
    assert all(np.array_equal(found[key], plain[key], equal_nan=True) for key in plain) and found.keys() == plain.keys()


def test_a_failure_is_shown_and_the_others_run(tmp_path, capsys):
    bad = gpu.Task("bad", [sys.executable, "-c", "print('what went wrong'); raise SystemExit(3)"], lambda: False)
    good = gpu.Task("good", [sys.executable, "-c", "import deeplinear"], (tmp_path / "logs" / "good.log").exists)
    assert gpu.visit([bad, good], tmp_path, gpu.now() + 60, tmp_path / "gpu.tar") == 1
    said = capsys.readouterr().out
    assert "bad: failed with exit status 3" in said and "    what went wrong" in said and "good: done in" in said


def test_a_command_that_does_not_heed_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "GRACE", 0.2)
    deaf = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"
    log = tmp_path / "log"
    monkeypatch.setattr(gpu, "now", lambda: float(log.exists() and "deaf" in log.read_text()))
    assert gpu.run([sys.executable, "-c", deaf], log, 0.5, dict(os.environ)) is None


def test_an_interruption_is_passed_on(tmp_path, monkeypatch, capsys):
    """Ctrl-C while a command runs: it is told once, what it left is packed, exit status 130."""
    script = "import time\nprint('begun', flush=True)\ntry:\n time.sleep(60)\nexcept KeyboardInterrupt:\n print('told')"
    work, log = tmp_path / "work", tmp_path / "work" / "logs" / "slow.log"

    def now():
        if log.exists() and "begun" in log.read_text():
            raise KeyboardInterrupt
        return 0.0

    monkeypatch.setattr(gpu, "now", now)
    monkeypatch.setattr(gpu, "tasks", lambda options: [gpu.Task("slow", [sys.executable, "-c", script], lambda: False)])
    assert gpu.main(["--device", "cpu", "--work", str(work), "--out", str(tmp_path)]) == 130
    assert log.read_text().split() == ["begun", "told"] and "goes on from" in capsys.readouterr().err
    with tarfile.open(tmp_path / "gpu.tar") as tar:
        assert tar.getnames() == ["logs/slow.log"]


def archive_of(path, **contents):
    with tarfile.open(path, "w") as tar:
        for name, (content, time) in contents.items():
            member = tarfile.TarInfo(name)
            member.size, member.mtime = len(content), time
            tar.addfile(member, io.BytesIO(content))
    return path


def test_of_two_versions_the_newer_one_stays(tmp_path):
    for name, time in (("older", 1000), ("newer", 3000)):
        (tmp_path / "results").mkdir(exist_ok=True)
        (tmp_path / "results" / name).write_text("here")
        os.utime(tmp_path / "results" / name, (time, time))
    contents = {f"results/{name}": (b"from the archive", 2000) for name in ("older", "newer", ".a-1/job-0.npz")}
    gpu.unpack(archive_of(tmp_path / "a.tar", **contents), tmp_path)
    assert (tmp_path / "results" / "older").read_text() == "from the archive"
    assert (tmp_path / "results" / "newer").read_text() == "here"
    assert (tmp_path / "results" / ".a-1" / "job-0.npz").read_text() == "from the archive"


@pytest.mark.parametrize("name", ["/etc/passwd", "../results/a", "results/../../a", "lib/deeplinear/chain.py"])
def test_files_of_other_places_are_refused(tmp_path, name, capsys):
    archive = archive_of(tmp_path / "a.tar", **{name: (b"", 0)})
    assert gpu.main(["--device", "cpu", "--work", str(tmp_path / "work"), "--resume", str(archive)]) == 1
    assert f"holds {name!r}; expected files below results" in capsys.readouterr().err
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize("content", [None, b"", b"not an archive"], ids=["none", "empty", "damaged"])
def test_an_archive_that_cannot_be_read(tmp_path, content, capsys):
    path = tmp_path / "gpu.tar"
    if content is not None:
        path.write_bytes(content)
    assert gpu.main(["--device", "cpu", "--work", str(tmp_path / "work"), "--resume", str(path)]) == 1
    assert capsys.readouterr().err.startswith("error: ")


def wheel(folder, name, version="1.0"):
    """A wheel of one empty module."""
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as file:
        about = f"{name}-{version}.dist-info"
        file.writestr(f"{name}.py", "")
        file.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        file.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr(f"{about}/RECORD", "")


def test_what_the_interpreter_lacks_comes_from_wheels(tmp_path, monkeypatch):
    """What is missing, or older than required: not another torch."""
    there = gpu.metadata.version
    monkeypatch.setattr(gpu.metadata, "version", lambda name: "3.0" if name == "filelock" and not site.exists() else there(name))
    wheels, site = tmp_path / "wheels", tmp_path / "site"
    wheels.mkdir()
    for name, version in (("depthgadget", "1.0"), ("filelock", "9.0"), ("torch", "1.0")):
        wheel(wheels, name, version)
    gpu.prepare(wheels, site)
    assert {path.name for path in site.glob("*.py")} == {"depthgadget.py", "filelock.py"}
    with pytest.raises(gpu.Trouble, match="no wheels in .*; expected what this interpreter lacks"):
        gpu.prepare(tmp_path, site)


def test_requirements_are_read():
    needs = gpu._needs()
    assert {"torch", "python-flint", "pyyaml", "pytest"} <= needs.keys() and needs["filelock"] == "4.2"
    assert gpu._has("numpy", "1.9") and not gpu._has("numpy", "1000") and not gpu._has("no-such-package", "")


def test_everything_that_is_missing_is_named(tmp_path, monkeypatch):
    there = gpu.metadata.version

    def version(name):
        if name in ("pooch", "python-flint"):
            raise gpu.metadata.PackageNotFoundError(name)
        return "4.0" if name == "filelock" else there(name)

    monkeypatch.setattr(gpu.metadata, "version", version)
    with pytest.raises(gpu.Trouble, match="lacks python-flint>=0.9, pooch>=1.8, filelock>=4.2; put wheels of these, and of what they need, "
                                          "into a folder and name that: make gpu WHEELS=FOLDER"):
        gpu.prepare(None, tmp_path)


def test_a_checkout_that_is_not_installed_knows_its_version(tmp_path):
    """A copy of the library on the path alone imports, and names the version of its pyproject.toml."""
    shutil.copytree(ROOT / "lib" / "deeplinear", tmp_path / "lib" / "deeplinear")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    script = ("import importlib.metadata as m\n"
              "find = m.version\n"
              "def version(name):\n"
              "    if name == 'deeplinear': raise m.PackageNotFoundError(name)\n"
              "    return find(name)\n"
              "m.version = version\n"
              "import json, deeplinear; print(json.dumps([deeplinear.__file__, deeplinear.__version__, deeplinear.recorded.versions()]))")
    done = subprocess.run([sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": str(tmp_path / "lib")},
                          capture_output=True, text=True, check=True)
    file, found, versions = json.loads(done.stdout)
    assert file.startswith(str(tmp_path)) and found == versions["deeplinear"] == dl.__version__
    assert versions["torch"] == torch.__version__
