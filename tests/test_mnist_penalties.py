"""The runs of the ConvNet's penalty: an interrupted job goes on, and what is summarised is what the batches say."""

import dataclasses
import shutil

import numpy as np
import pytest
import torch

import deeplinear as dl
from deeplinear import convnet
from deeplinear.__main__ import main
from deeplinear.experiments import mnist_conventions, mnist_one_pass, mnist_penalties, mnist_stds


def small(**changes):
    case = mnist_penalties.Case
    cases = case("deep", "deep", lr=0.1), case("original", "original", lr=0.1)
    return dataclasses.replace(mnist_penalties.SCALES["quick"], cases=cases, **changes)


def test_an_interrupted_job_goes_on_bit_for_bit(tmp_path):
    config = small(steps=80)
    job = mnist_penalties.jobs(config, "cpu")[0]
    whole = mnist_penalties.run_job(config, job, "cpu")
    checkpoint = dl.recorded.Checkpoint(tmp_path / "job.npz", "job 0")

    def stop(share):
        if share == 0.5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        mnist_penalties.run_job(config, job, "cpu", checkpoint, stop)
    assert checkpoint.load()["step"] == 40
    resumed = mnist_penalties.run_job(config, job, "cpu", checkpoint)
    for key in ("data", "penalty", "validation"):
        assert np.array_equal(whole[key], resumed[key]), key


def test_a_run_goes_on_from_finished_jobs_of_another_day(tmp_path, capsys):
    """The folder of finished jobs is all that has to be carried to another place; they are taken as they are."""
    module, config = mnist_penalties, mnist_penalties.SCALES["quick"]
    inputs = (f"{dl.sources.digest(module.__file__)} {dl.data.load(config.dataset).sha256} torch {torch.__version__}")
    there = dl.shards.Work(module.__name__, config, "cpu", inputs, tmp_path / "there")
    result = dl.shards.run_job(there, 1)
    marked = {**result, "data": result["data"] + np.float32(7)}  # to be told from what the job would give again
    dl.recorded.write_arrays(there.finished(1), marked)
    shutil.copytree(there.folder, tmp_path / "here" / there.folder.name)
    assert main(["run", module.NAME, "--device", "cpu", "--workers", "1", "--out", str(tmp_path / "here")]) == 0
    record = dl.recorded.load(module.NAME, folder=tmp_path / "here", quiet=True)
    assert np.array_equal(record.arrays["original"][:, 0], marked["data"])
    assert record.arrays["original"][:, 1].max() < 7 and not (tmp_path / "here" / there.folder.name).exists()
    assert "recorded: " in capsys.readouterr().out


def test_the_job_is_the_run_it_names():
    config = small()
    result = mnist_penalties.run_job(config, {"case": 0, "seed": 1}, "cpu")
    digits = dl.data.load("mnist-5k")
    kept = torch.arange(5000) % 10 > 0
    net = convnet.build("deep", dl.seeded(1), **convnet.SMALL)
    run = convnet.train(net, digits.X[kept], digits.y[kept], 0.1, 60, penalise="product", seed=1)
    assert np.array_equal(result["data"], run.data.float()) and np.array_equal(result["penalty"], run.penalty.float())
    assert result["validation"][1] == np.float32(convnet.evaluate(net, digits.X[~kept], digits.y[~kept])[1])


def test_the_summary_says_what_the_batches_say():
    config = small(looks=(0, 40), data_levels=(0.8,), total_levels=(1.5,))
    jobs = mnist_penalties.jobs(config, "cpu")
    results = []
    for job in jobs:
        batches = np.linspace(2, 0.1 * (1 + job["case"]), 60, dtype=np.float32) + np.float32(job["seed"]) / 100
        results.append({"data": batches, "penalty": np.array([1, 0.5, 0.25], dtype=np.float32), "seconds": 6.0,
                        "validation": np.array([0.1, 0.02], dtype=np.float32)})
    results[1]["data"][30:], results[1]["penalty"][2:] = np.nan, np.nan  # the original's first seed
    metrics, summary, arrays = mnist_penalties.collect(config, jobs, results)
    assert arrays["deep"].shape == (60, 2) and arrays["deep penalty"].shape == (3, 2)
    total = results[0]["data"] + np.repeat([1, 0.5, 0.25], 20).astype(np.float32)
    assert torch.equal(mnist_penalties.totals(arrays["deep"], arrays["deep penalty"])[:, 0], torch.from_numpy(total))
    deep, original = summary["deep"], summary["original"]
    late = np.sort(np.concatenate([results[0]["data"][40:], results[2]["data"][40:]]))
    assert deep["looks"][1]["data"] == [late[4], late[20], late[36]]  # 40 batches: 0.1, 0.5 and 0.9 of 39, rounded up
    assert deep["looks"][1]["penalty"] == [0.25] * 3 and deep["looks"][0]["penalty"] == [1.0] * 3
    assert deep["failed"] == [] and original["failed"] == [0] and original["looks"][1]["total"][1:] == [None, None]
    assert deep["data_steps"] == [[convnet.steps_to(arrays["deep"][:, s], 0.8) for s in (0, 1)]]
    assert original["data_steps"][0][0] is None and original["data_steps"][0][1] > deep["data_steps"][0][1]
    assert deep["total_steps"][0][0] == convnet.steps_to(torch.from_numpy(total), 1.5) < deep["data_steps"][0][0]
    assert deep["milliseconds_a_step"] == 100 and len(metrics) == 4
    row = next(row for row in metrics if (row["case"], row["seed"]) == ("original", 0))
    assert row["total"] is None and row["validation_error"] == np.float32(0.02)


@pytest.mark.parametrize("module", [mnist_penalties, mnist_conventions, mnist_stds, mnist_one_pass])
def test_the_full_runs_have_the_tutorials_settings(module):
    config = module.SCALES["full"]
    assert (config.batch, config.momentum, config.decay, config.order) == (64, 0.9, 0.95, "tutorial")
    assert config.seeds == (0, 1, 2, 3, 4) and config.dataset == "mnist" and config.net == "tutorial"
    assert max(config.looks) + config.window <= config.steps and len({case.name for case in config.cases}) == len(config.cases)
    jobs = module.jobs(config, "cpu")
    assert [job["seed"] for job in jobs[:len(config.cases) + 1]] == [0] * len(config.cases) + [1]


def test_the_long_run_is_ten_passes_at_the_tutorials_rate_and_the_others_are_parts_of_it():
    long = mnist_penalties.SCALES["full"]
    assert long.steps == 10 * 55_000 // 64 and {(c.lr, c.std, c.penalise) for c in long.cases} == {(0.01, 0.1, "product")}
    assert mnist_conventions.SCALES["full"].steps == mnist_stds.SCALES["full"].steps == 2000
    assert {c.penalise for c in mnist_conventions.SCALES["full"].cases} == {"both", "old", "new", "none"}
    assert {c.std for c in mnist_stds.SCALES["full"].cases} | {0.1} == {0.001, 0.005, 0.01, 0.05, 0.1, 0.5}
    once = mnist_one_pass.SCALES["full"]
    assert once.steps == 859 and len({c.lr for c in once.cases}) == 5 and len(once.cases) == 10
