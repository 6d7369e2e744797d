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
from unittest.mock import Mock

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


def wait_for(condition, seconds=180):  # a busy machine takes a minute to start two workers
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


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL, signal.SIGTERM, signal.SIGHUP], ids=lambda how: how.name)
def test_workers_stop_with_their_command(tmp_path, alone, how):
    """Ctrl-C at a terminal, or a kill of the command alone: its workers leave checkpoints and exit; the same command
    resumes."""
    mine = work(tmp_path, pause=0.04)
    script = tmp_path / "command.py"
    script.write_text(f"import sys, pathlib; sys.path[:0] = {[str(Path(__file__).parent)]!r}\n"
                      "import test_shards as t\n"
                      f"if __name__ == '__main__':\n    t.run(t.work(pathlib.Path({str(tmp_path)!r}), pause=0.04), workers=2)\n")
    with open(tmp_path / "errors", "wb") as errors:
        command = subprocess.Popen([sys.executable, script], stderr=errors, start_new_session=True)
    wait_for(lambda: len({line[2] for line in lines(mine) if line[0] == "at-50"}) == 2)
    if how == signal.SIGINT:  # as a terminal does it, to the whole group
        os.killpg(command.pid, how)
    else:
        command.send_signal(how)
    command.wait(timeout=30)
    wait_for(lambda: not in_session(command.pid), 30)
    assert ("KeyboardInterrupt" in (tmp_path / "errors").read_text()) == (how == signal.SIGINT)
    assert len(list(mine.folder.glob("*.part.npz"))) >= 2
    assert same(run(work(tmp_path, pause=0.04), workers=2), alone)


def in_session(session):
    """The processes of a session, but for those that have ended and wait to be noticed."""
    found = subprocess.run(["ps", "-eo", "sid=,stat=,pid="], capture_output=True, text=True, check=True).stdout
    return [line.split()[2] for line in found.splitlines() if line.split()[0] == str(session) and line.split()[1][0] != "Z"]


def test_a_worker_in_a_long_step_ends_too(tmp_path):
    """The command is killed while a job looks at nothing for minutes, and another worker has no work."""
    mine = work(tmp_path, seeds=(0, 1), pause=0.01)
    script = tmp_path / "command.py"
    script.write_text(f"import sys, pathlib; sys.path[:0] = {[str(Path(__file__).parent)]!r}\n"
                      "import test_shards as t\n"
                      f"if __name__ == '__main__':\n"
                      f"    t.run(t.work(pathlib.Path({str(tmp_path)!r}), seeds=(0, 1), sleep=300), workers=2)\n")
    command = subprocess.Popen([sys.executable, script], start_new_session=True, stderr=subprocess.DEVNULL)
    wait_for(lambda: {line[0] for line in lines(mine)} >= {"end", "sleeping"})
    command.kill()
    command.wait(timeout=30)
    wait_for(lambda: not in_session(command.pid), 30)


def test_a_second_interrupt_ends_workers_that_are_starting(tmp_path):
    script = tmp_path / "command.py"
    script.write_text("from deeplinear.__main__ import main\nimport sys\n"
                      f"sys.exit(main(['run', 'layers-and-rule', '--workers', '2', '--out', {str(tmp_path / 'out')!r}]))\n")
    command = subprocess.Popen([sys.executable, script], stderr=subprocess.PIPE, text=True, start_new_session=True)
    wait_for(lambda: len(in_session(command.pid)) >= 4)  # the command, its resource tracker, two workers
    for _ in range(2):
        os.killpg(command.pid, signal.SIGINT)
        time.sleep(0.8)
    said = command.communicate(timeout=60)[1]
    assert command.returncode == 130 and said == "stopping, finished jobs are kept; the same command goes on from there\n", said
    wait_for(lambda: not in_session(command.pid), 30)  # a killed worker may still be giving its memory back


def test_a_script_without_a_guard_records(tmp_path):
    """Workers do not run the script that started them once more; one that holds the experiment itself they must."""
    script = tmp_path / "script.py"
    script.write_text("from deeplinear.__main__ import main\nprint('started')\n"
                      f"main(['run', 'layers-and-rule', '--workers', '2', '--out', {str(tmp_path / 'out')!r}])\n")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=300)
    assert done.stdout.count("started") == 1 and "recorded: " in done.stdout and done.stderr == ""
    script.write_text((Path(__file__).parent / "trial_experiment.py").read_text() + "\n"
                      "if __name__ == '__main__':\n    import pathlib\n    from deeplinear import shards\n"
                      f"    config = Config({str(tmp_path / 'log')!r}, seeds=(0, 1), steps=40)\n"
                      f"    work = shards.Work('__main__', config, 'cpu', '0', pathlib.Path({str(tmp_path)!r}))\n"
                      "    print(len(shards.execute(work, jobs(config, 'cpu'), workers=2)))\n")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=300)
    assert (done.stdout, done.stderr) == ("2\n", "")


@pytest.mark.parametrize("workers", [1, 2])
def test_a_job_that_fails_is_named_in_one_line(tmp_path, workers):
    mine = work(tmp_path, seeds=(0, 1), fail="no such thing")
    with pytest.raises(shards.JobFailed, match=r"job [01] of trial \(seed [01]\) failed with RuntimeError: no such thing"):
        run(mine, workers=workers)


def test_the_command_line_says_in_one_line_what_failed(tmp_path, monkeypatch, capsys):
    module = dl.experiments.EXPERIMENTS["layers-and-rule"]
    for error in (RuntimeError("cuDNN"), KeyError("x"), ZeroDivisionError("by zero")):
        monkeypatch.setattr(module, "run_job", Mock(side_effect=error))
        assert main(["run", "layers-and-rule", "--workers", "1", "--out", str(tmp_path)]) == 1
        said = capsys.readouterr().err
        assert said == f"error: job 0 of layers-and-rule (p 4, depth 2) failed with {type(error).__name__}: {error}\n"


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


def test_a_scheduler_that_is_lost_or_absent_is_named(tmp_path, monkeypatch):
    """One line each; what was finished is kept."""
    pytest.importorskip("distributed")
    monkeypatch.setattr(shards, "CONNECT", 1)
    with pytest.raises(ValueError, match="no Dask scheduler answers at 'tcp://127.0.0.1:1'"):
        run(work(tmp_path), dask="tcp://127.0.0.1:1")
    mine = work(tmp_path, pause=0.1)
    script = ("import distributed, time, sys\nif __name__ == '__main__':\n"
              "    cluster = distributed.LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None,\n"
              "                                       protocol='tcp://')\n    print(cluster.scheduler_address, flush=True)\n"
              "    time.sleep(600)\n")
    (tmp_path / "cluster.py").write_text(script)
    with subprocess.Popen([sys.executable, tmp_path / "cluster.py"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                          env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}) as cluster:
        address = cluster.stdout.readline().strip()

        def kill():
            wait_for(lambda: any(mine.folder.glob("job-?.npz")))
            cluster.kill()

        killer = threading.Thread(target=kill)
        killer.start()
        with pytest.raises(shards.WorkerDied, match=f"the scheduler at {address} was lost; finished jobs are kept in {mine.folder}"):
            run(mine, dask=address)
        killer.join()
    assert any(mine.folder.glob("job-?.npz"))


@pytest.mark.parametrize("device, said", [("cpu", "has no worker yet"), ("cuda", "has no worker with the resource GPU yet")])
def test_a_scheduler_without_workers_is_told(tmp_path, capsys, device, said):
    distributed = pytest.importorskip("distributed")
    mine = dataclasses.replace(work(tmp_path, steps=50), device=device)
    with distributed.LocalCluster(n_workers=0 if device == "cpu" else 1, threads_per_worker=1, processes=False,
                                  dashboard_address=None) as cluster:
        stopper = threading.Timer(3, lambda: os.kill(os.getpid(), signal.SIGINT))
        stopper.start()
        with pytest.raises(KeyboardInterrupt):
            run(mine, dask=cluster.scheduler_address)
    assert said in capsys.readouterr().err


def test_another_configuration_shares_nothing(tmp_path):
    mine = work(tmp_path)
    others = [work(tmp_path, steps=401), dataclasses.replace(mine, device="cuda"),
              dataclasses.replace(mine, inputs="1")]
    assert len({each.folder for each in (mine, *others)}) == 4


def test_progress_is_silent_away_from_a_terminal(tmp_path, capsys):
    run(work(tmp_path, steps=50), workers=1)
    assert capsys.readouterr() == ("", "")


def test_a_record_is_written_once_the_jobs_are_done(tmp_path):
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
