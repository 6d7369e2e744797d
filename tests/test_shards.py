import dataclasses
import io
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import trial_experiment

import deeplinear as dl
from deeplinear import shards
from deeplinear.__main__ import main

if os.name != "posix":
    pytest.skip("the tests send signals of POSIX", allow_module_level=True)


def work(folder, log="log", **changes):
    return shards.Work("trial_experiment", trial_experiment.Config(log=str(folder / log), **changes), "cpu", "0", folder)


def run(work, **how):
    jobs = trial_experiment.jobs(work.config, work.device)
    return shards.execute(work, jobs, **how)


def lines(work):
    path = Path(work.config.log)
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


def same(results, others):
    return all(np.array_equal(a[key], b[key], equal_nan=True)
               for a, b in zip(results, others, strict=True) for key in ("loss", "diverged"))


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """What one process finds, and the work it did."""
    mine = work(tmp_path_factory.mktemp("alone"))
    results = run(mine, workers=1)
    assert (results[0]["diverged"] >= 0).tolist() == [False, False, True]  # a run was dropped on the way
    assert [line[0] for line in lines(mine)].count("start") == 6
    return results


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def test_processes_find_what_one_process_finds(tmp_path, alone):
    mine = work(tmp_path, pause=0.3)  # else the first process may be through before the second has started
    assert same(run(mine, workers=2), alone)
    assert len({line[2] for line in lines(mine)} - {str(os.getpid())}) == 2
    before = len(lines(mine))
    assert same(run(mine, workers=2), alone) and len(lines(mine)) == before  # all finished: nothing runs again
    shards.forget(mine)
    assert not mine.folder.exists()


def test_an_interrupted_run_goes_on_bit_for_bit(tmp_path, alone):
    mine = work(tmp_path, pause=0.1)

    def interrupt():
        wait_for(lambda: sum(line[0] == "at-150" for line in lines(mine)) == 2)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        run(mine, workers=1)
    ended = {line[1] for line in lines(mine) if line[0] == "end"}
    assert len(ended) < 6 and any(mine.folder.glob("*.part.npz"))
    before = len(lines(mine))
    assert same(run(mine, workers=1), alone)
    after = lines(mine)[before:]
    assert not ended & {line[1] for line in after}  # nothing that was finished ran twice
    assert after[1][0] in ("at-150", "at-200")  # the interrupted job went on from where it was


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=["ctrl-c", "killed"])
def test_workers_stop_with_their_command(tmp_path, alone, how):
    """Ctrl-C at a terminal, or a kill of the command alone: its workers leave checkpoints; the same command resumes."""
    mine = work(tmp_path, pause=0.1)
    script = tmp_path / "command.py"
    script.write_text(f"import sys, pathlib; sys.path[:0] = {[str(Path(__file__).parent)]!r}\n"
                      "import test_shards as t\n"
                      f"if __name__ == '__main__':\n    t.run(t.work(pathlib.Path({str(tmp_path)!r}), pause=0.1), workers=2)\n")
    with open(tmp_path / "errors", "wb") as errors:
        command = subprocess.Popen([sys.executable, script], stderr=errors, start_new_session=True)
    wait_for(lambda: len({line[2] for line in lines(mine) if line[0] == "at-50"}) == 2)
    if how == signal.SIGINT:  # as a terminal does it, to the whole group
        os.killpg(command.pid, how)
    else:
        command.kill()
    command.wait(timeout=30)
    assert ("KeyboardInterrupt" in (tmp_path / "errors").read_text()) == (how == signal.SIGINT)
    wait_for(lambda: len(list(mine.folder.glob("*.part.npz"))) >= 2)
    before = len(lines(mine))
    time.sleep(0.6)
    assert len(lines(mine)) <= before + 4  # nobody goes on without the command, but for the job that was queued
    assert same(run(work(tmp_path, pause=0.1), workers=2), alone)


def test_a_killed_worker_is_named_and_what_was_finished_is_kept(tmp_path, alone):
    mine = work(tmp_path, pause=0.05)

    def kill():
        wait_for(lambda: any(mine.folder.glob("job-?.npz")))
        os.kill(int(next(line[2] for line in reversed(lines(mine)) if line[0].startswith("at-"))), signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(shards.WorkerDied, match="a worker process died; finished jobs are kept in .*same command"):
        run(mine, workers=2)
    killer.join()
    ended = [path.name[4:-4] for path in mine.folder.glob("job-?.npz")]
    before = len(lines(mine))
    assert same(run(mine, workers=2), alone)
    assert ended and not set(ended) & {line[1] for line in lines(mine)[before:]}


def test_a_cluster_survives_the_loss_of_a_worker(tmp_path, alone):
    """Two worker processes, one killed in the middle of a job: the same arrays, and no finished job runs again."""
    distributed = pytest.importorskip("distributed")
    mine = work(tmp_path, pause=0.1)
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster:
        kept = []

        def kill():
            wait_for(lambda: len(list(mine.folder.glob("job-?.npz"))) >= 2)
            ended = {line[1] for line in lines(mine) if line[0] == "end"}
            seed, pid = next(line[1:] for line in reversed(lines(mine))
                             if line[0].startswith("at-") and line[1] not in ended)
            kept.extend(path.name for path in mine.folder.glob("job-?.npz"))
            os.kill(int(pid), signal.SIGKILL)
            kept.append(seed)

        killer = threading.Thread(target=kill)
        killer.start()
        results = run(mine, dask=cluster.scheduler_address)
        killer.join()
    assert same(results, alone)
    starts = [line[1] for line in lines(mine) if line[0] == "start"]
    assert starts.count(kept.pop()) == 2  # the job that was lost ran again
    assert all(starts.count(name[4:-4]) == 1 for name in kept) and len(kept) >= 2


def test_another_configuration_shares_nothing(tmp_path):
    mine = work(tmp_path)
    others = [work(tmp_path, steps=401), dataclasses.replace(mine, device="cuda"),
              dataclasses.replace(mine, inputs="1")]
    assert len({each.folder for each in (mine, *others)}) == 4


def test_progress_is_silent_away_from_a_terminal(tmp_path, capsys):
    run(work(tmp_path, steps=50), workers=1)
    assert capsys.readouterr() == ("", "")


def test_a_record_is_written_once_the_jobs_are_done(tmp_path, capsys):
    assert main(["run", "layers-and-rule", "--out", str(tmp_path)]) == 0
    assert [path.suffix for path in sorted(tmp_path.iterdir())] == [".npz", ".json"]
    assert dl.recorded.load("layers-and-rule", folder=tmp_path, quiet=True).provenance["compute_seconds"] >= 0


def test_progress_on_a_terminal_shows_rate_and_time_left(tmp_path, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    run(work(tmp_path, pause=0.02), workers=1)
    shown = sys.stderr.getvalue()
    assert "config-steps/s" in shown and "100%" in shown and re.search(r"\[\d\d:\d\d<\d\d:\d\d", shown)
