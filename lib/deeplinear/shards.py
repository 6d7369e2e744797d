"""The jobs of an experiment, run here, in local processes or on a Dask cluster; every finished one is kept on disk.

What a job computes depends on its description alone, so the result is the same wherever and in whatever order the jobs
ran. A folder ``.<name>-<digest>`` beside the record holds finished jobs and checkpoints of unfinished ones until the
record is written; the digest covers the configuration, the device, and ``inputs``, a text that names sources, data and
versions, so nothing stale is ever taken up.
"""

import asyncio
import concurrent.futures
import contextlib
import dataclasses
import hashlib
import importlib
import json
import logging
import multiprocessing
import os
import shutil
import signal
import sys
import threading
import time
import types
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from . import data, recorded


CONNECT = 10  # seconds for a scheduler to answer
GRACE = 20  # seconds that a worker whose command was killed has to save a checkpoint


class JobFailed(RuntimeError):
    """A job of an experiment raised an error."""


class WorkerDied(RuntimeError):
    """A worker process ended without a result; what was finished is kept."""


@dataclasses.dataclass(frozen=True)
class Work:
    """Everything that settles the result of an experiment's jobs, and the folder that holds them meanwhile.

    ``module``: the experiment's module by its full name, which every worker must be able to import.
    """

    module: str
    config: Any
    device: str
    inputs: str
    out: Path

    @property
    def name(self) -> str:
        return importlib.import_module(self.module).NAME

    @property
    def digest(self) -> str:
        text = json.dumps([self.module, dataclasses.asdict(self.config), self.device, self.inputs])
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def folder(self) -> Path:
        return Path(self.out) / f".{self.name}-{self.digest[:12]}"

    def finished(self, index: int) -> Path:
        return self.folder / f"job-{index}.npz"

    def checkpoint(self, index: int) -> recorded.Checkpoint:
        return recorded.Checkpoint(self.folder / f"job-{index}.part.npz", f"job {index} of {self.name} {self.digest}")


def execute(work: Work, jobs: list[dict[str, Any]], dask: str | None = None,
            workers: int | None = None) -> list[dict[str, np.ndarray]]:
    """Run every job that is not finished; returns the results, a dict of arrays each, in the order of ``jobs``.

    ``jobs``: what the experiment's ``jobs(config, device)`` gives, dicts with their ``"size"`` in config-steps. ``dask``:
    the address of a Dask scheduler; otherwise ``workers`` local processes, one thread each, by default as many as there
    are cores and jobs, and only one for a GPU. Ctrl-C saves checkpoints and raises ``KeyboardInterrupt``; on Dask, where
    workers share no folder, only finished jobs are kept. Raises :class:`WorkerDied` where a process is lost for good.
    """
    waiting = [i for i in range(len(jobs)) if not work.finished(i).is_file()]
    if workers is None:
        workers = 1 if work.device != "cpu" else min(len(waiting), os.cpu_count() or 1)
    done = [1.0 if i not in waiting else 0.0 for i in range(len(jobs))]
    with tqdm(total=sum(job["size"] for job in jobs), unit=" config-steps", unit_scale=True, disable=None) as bar:
        def show(shares):
            bar.update(sum(share * job["size"] for share, job in zip(shares, jobs)) - bar.n)

        show(done)
        if dask is not None:
            _on_dask(work, waiting, dask, done, show)
        elif workers > 1:
            _in_processes(work, waiting, workers, done, show)
        else:
            _here(work, waiting, done, show)
    return [recorded.read_arrays(work.finished(i)) for i in range(len(jobs))]


def forget(work):
    """Remove the folder of finished jobs, once the record is written."""
    shutil.rmtree(work.folder, ignore_errors=True)


def run_job(work, index, checkpoint=None, report=None):
    """One job's arrays, with ``_device``, in words, and ``_seconds``, how long it took since its last start.

    Raises :class:`JobFailed` for an error of the experiment's own.
    """
    torch.set_num_threads(1)
    device = recorded.device_name(work.device)
    module, started = importlib.import_module(work.module), time.monotonic()
    job = module.jobs(work.config, work.device)[index]
    try:
        arrays = module.run_job(work.config, job, work.device, checkpoint, report)
    except (data.DataUnavailable, recorded.RecordError, OSError, MemoryError):
        raise
    except Exception as error:
        words = ", ".join(f"{key} {value}" for key, value in job.items() if key != "size")
        raise JobFailed(f"job {index} of {work.name} ({words}) failed with {type(error).__name__}: {error}") from error
    return {**arrays, "_device": device, "_seconds": time.monotonic() - started}


def _run_and_keep(work, index, stopped, report):
    def look(share):
        report(share)
        if stopped():
            raise KeyboardInterrupt

    checkpoint = work.checkpoint(index)
    recorded.write_arrays(work.finished(index), run_job(work, index, checkpoint, look))
    checkpoint.remove()


def _here(work, waiting, done, show):
    stop = threading.Event()
    with _on_interrupt(_ask(stop)):
        for index in waiting:
            def report(share, index=index):
                done[index] = share
                show(done)

            _run_and_keep(work, index, stop.is_set, report)
            report(1.0)


def _in_processes(work, waiting, workers, done, show):
    context, others = multiprocessing.get_context("spawn"), multiprocessing.active_children()
    # without locks, which a killed process would keep for ever
    stop, shares = context.Value("b", 0, lock=False), context.Array("d", done, lock=False)
    pool = concurrent.futures.ProcessPoolExecutor(workers, context, _start_worker, (stop, shares))
    asked = threading.Event()
    with _on_interrupt(signal.SIG_IGN), _script_left_out(work):  # a Ctrl-C while they start does not reach them
        running = [pool.submit(_in_worker, work, index) for index in waiting]
    try:
        with _on_interrupt(lambda *_: asked.set()):
            while running and not asked.is_set():
                finished, running = concurrent.futures.wait(running, 0.3, concurrent.futures.FIRST_COMPLETED)
                show(shares)
                for future in finished:
                    future.result()
        if asked.is_set():
            raise KeyboardInterrupt
    except concurrent.futures.process.BrokenProcessPool as error:
        if asked.is_set():
            raise KeyboardInterrupt from error
        raise WorkerDied(f"a worker process died; finished jobs are kept in {work.folder}. "
                         "The same command goes on from there") from error
    finally:
        stop.value = 1  # the others save a checkpoint
        _close(pool, set(multiprocessing.active_children()) - set(others))
    show(shares)


def _close(pool, workers):
    """Wait until the workers have stopped; a Ctrl-C meanwhile ends them at once, without another checkpoint."""
    asked = threading.Event()
    closing = threading.Thread(target=pool.shutdown, kwargs={"cancel_futures": True})
    with _on_interrupt(lambda *_: asked.set()):  # nothing is raised: an interrupted join takes its thread for ended
        closing.start()
        while closing.is_alive():
            closing.join(0.3)
            if asked.is_set():
                for worker in workers:
                    worker.kill()
    if asked.is_set():
        raise KeyboardInterrupt


@contextlib.contextmanager
def _script_left_out(work):
    """Workers that start meanwhile do not run the caller's script again, guarded or not, unless the work is in it."""
    script = sys.modules["__main__"]
    if "__main__" not in (work.module, type(work.config).__module__):
        sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = script


def _start_worker(stop, shares):
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears it and tells
    _start_worker.stop, _start_worker.shares, _start_worker.busy = stop, shares, threading.Lock()
    threading.Thread(target=_end_with_command, daemon=True).start()


def _end_with_command():
    """End this worker once the command is gone, however that was killed: after the job's checkpoint, or ``GRACE``."""
    multiprocessing.parent_process().join()
    _start_worker.stop.value = 1
    _start_worker.busy.acquire(timeout=GRACE)
    os._exit(1)  # from a thread; the other one waits for work that nobody will send


def _in_worker(work, index):
    def report(share):
        _start_worker.shares[index] = share

    with _start_worker.busy:
        _run_and_keep(work, index, lambda: _start_worker.stop.value, report)
    report(1.0)


def _on_dask(work, waiting, address, done, show):
    try:
        from distributed import Client, KilledWorker, as_completed
        from distributed.comm import CommClosedError
    except ModuleNotFoundError as error:
        raise ValueError("dask was asked for and is not installed; pip install 'deeplinear[cluster]'") from error

    resources = {"GPU": 1} if work.device == "cuda" else None
    with _answering(Client, address) as client:
        workers = client.scheduler_info()["workers"].values()
        if not any(worker.get("resources", {}).get("GPU", 0) >= 1 if resources else True for worker in workers):
            print(f"the scheduler at {address} has no worker{' with the resource GPU' if resources else ''} yet; waiting "
                  "for one (Ctrl-C ends this)", file=sys.stderr)
        futures = {client.submit(run_job, work, index, key=f"{work.name}-{work.digest[:12]}-{index}",
                                 resources=resources): index for index in waiting}
        try:
            for future, arrays in as_completed(futures, with_results=True):  # a lost worker's jobs are run by another
                if isinstance(arrays, BaseException):  # so it hands on that the scheduler is gone
                    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # no traceback of every try to reconnect
                    raise arrays
                recorded.write_arrays(work.finished(futures[future]), arrays)
                done[futures[future]] = 1.0
                show(done)
                future.release()
        except KilledWorker as error:
            raise WorkerDied(f"{error}; finished jobs are kept in {work.folder}") from error
        except (concurrent.futures.CancelledError, asyncio.CancelledError, CommClosedError) as error:
            raise WorkerDied(f"the scheduler at {address} was lost; finished jobs are kept in {work.folder}. The same "
                             "command goes on from there") from error


def _answering(Client, address):
    """A client of the scheduler; ``ValueError`` where none answers."""
    try:
        return Client(address, timeout=CONNECT)
    except (OSError, ValueError) as error:  # a time-out is one
        raise ValueError(f"no Dask scheduler answers at {address!r} ({type(error).__name__}: {error})") from error


def _ask(stop):
    """A handler of Ctrl-C that sets ``stop``, which runs look at between steps; a second one interrupts at once."""
    def handler(*_):
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    return handler


@contextlib.contextmanager
def _on_interrupt(handler):
    """Ctrl-C goes to ``handler``, in the main thread, the only one to get it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
