"""An experiment for the tests of ``shards``: real runs, and a log of who started and ended which job."""

import dataclasses
import os
import time

import deeplinear as dl
from deeplinear import shards

NAME = "trial"
SUMMARY = "jobs that write down when they start and end"


@dataclasses.dataclass(frozen=True)
class Config:
    log: str
    dataset: str = "diabetes"
    seeds: tuple = (0, 1, 2, 3, 4, 5)
    steps: int = 400
    pause: float = 0.0  # seconds between two looks, so that there is time to kill or interrupt a job
    sleep: float = 0.0  # seconds without a look, of the second job
    fail: str = ""  # what a job raises
    dtype: str = "float64"


def jobs(config, device):
    return [{"seed": seed, "size": config.steps} for seed in config.seeds]


def run_job(config, job, device, checkpoint=None, report=None):
    def note(word):
        with open(config.log, "a") as log:
            log.write(f"{word} {job['seed']} {os.getpid()}\n")

    def slowly(step):
        note(f"at-{step}")
        time.sleep(config.pause)
        if report:
            report(step / config.steps)

    note("start")
    if config.fail:
        raise RuntimeError(config.fail)
    if config.sleep and job["seed"]:
        shards.GRACE = 2  # here, in the worker, which was started afresh
        note("sleeping")
        time.sleep(config.sleep)
    data = dl.data.load(config.dataset)
    loss = dl.LpLoss(data.X, data.y, 4)
    start = dl.near_zero_init((10, 1, 1), 0.3, dl.seeded(job["seed"]))
    rates = data.X.new_tensor([1e-3, 1e-2, 3.0])
    run, = dl.sweep([dl.Group(loss, start, dl.Adam(rates)), ], config.steps, 40, checkpoint=checkpoint, report=slowly)
    note("end")
    return {"loss": run.loss.numpy(), "diverged": run.diverged_at.numpy()}
