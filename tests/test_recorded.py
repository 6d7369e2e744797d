import dataclasses
import json
import os

import numpy as np
import pytest
import torch

import deeplinear as dl
from deeplinear import recorded
from deeplinear.__main__ import main
from deeplinear.experiments import EXPERIMENTS


@dataclasses.dataclass(frozen=True)
class Config:
    seeds: tuple = (0, 1)
    lr: float = 0.1
    dtype: str = "float64"


def write(folder, value=1.0, **changes):
    fields = dict(config=Config(), metrics=[{"gap": value}], summary={"best": value}, arrays={"curve": np.arange(3.0)},
                  dataset=dl.data.load("diabetes"), origin=recorded.origin([recorded.__file__]), scale="quick",
                  device="cpu", folder=folder)
    return recorded.write("trial", **{**fields, **changes})


def test_round_trip_with_provenance(tmp_path, capsys):
    write(tmp_path)
    record = recorded.load("trial", config=Config(), folder=tmp_path)
    assert record.metrics == [{"gap": 1.0}] and record.arrays["curve"].tolist() == [0, 1, 2]
    p = record.provenance
    assert p["dataset"]["sha256"] == dl.data.load("diabetes").sha256 and p["versions"]["torch"] == torch.__version__
    assert {"commit", "dirty", "source_sha256", "device", "dtype", "wall_seconds", "started", "command"} <= p.keys()
    assert capsys.readouterr().out.startswith(
        f"recorded {p['finished'][:10]}: diabetes, quick scale, 2 seeds, float64, CPU")


def test_a_new_record_replaces_the_old_one_and_its_arrays(tmp_path):
    write(tmp_path)
    write(tmp_path, 2.0, arrays={"curve": np.arange(4.0)})
    assert recorded.load("trial", folder=tmp_path).summary == {"best": 2.0}
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("fails_on", ["npz", "json"])
def test_the_old_record_stands_when_writing_fails(tmp_path, monkeypatch, fails_on):
    write(tmp_path)
    replace = os.replace

    def full_disk(source, target):
        if str(target).endswith(fails_on):
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write(tmp_path, 2.0, arrays={"curve": np.arange(9.0)})
    record = recorded.load("trial", folder=tmp_path)
    assert record.summary == {"best": 1.0} and len(record.arrays["curve"]) == 3
    assert not list(tmp_path.glob(".*"))


def test_nan_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"trial.metrics\[0\].gap is nan"):
        write(tmp_path, float("nan"))
    assert not list(tmp_path.iterdir())


def test_bad_records_are_refused(tmp_path):
    with pytest.raises(recorded.RecordError, match="no record 'trial' in .*; there: none. Make it with: python -m"):
        recorded.load("trial", folder=tmp_path)
    path = write(tmp_path)
    with pytest.raises(recorded.RecordError, match="was made with lr = 0.1; expected 0.2"):
        recorded.load("trial", config=Config(lr=0.2), folder=tmp_path)
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "schema": 0}))
    with pytest.raises(recorded.RecordError, match="has schema 0; expected 1"):
        recorded.load("trial", folder=tmp_path)
    path.write_text(json.dumps(content))
    arrays = next(tmp_path.glob("*.npz"))
    arrays.write_bytes(arrays.read_bytes()[:-1])
    with pytest.raises(recorded.RecordError, match="is missing or damaged"):
        recorded.load("trial", folder=tmp_path)
    path.write_text("{")
    with pytest.raises(recorded.RecordError, match="is not a readable record"):
        recorded.load("trial", folder=tmp_path)


def test_command_line(tmp_path, capsys):
    assert main(["list"]) == 0
    assert "regression-depth: " in capsys.readouterr().out
    assert main(["run", "regression-dept"]) == 1
    assert "did you mean regression-depth?" in capsys.readouterr().err
    if not torch.cuda.is_available():
        assert main(["run", "regression-depth", "--device", "cuda"]) == 1
        assert "device cuda was asked for; this machine offers cpu only" in capsys.readouterr().err


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_quick_scale_of_every_experiment(name, tmp_path):
    assert main(["run", name, "--out", str(tmp_path)]) == 0
    record = recorded.load(name, config=EXPERIMENTS[name].SCALES["quick"], folder=tmp_path)
    assert record.provenance["scale"] == "quick" and record.metrics and record.summary


@pytest.mark.parametrize("path", sorted(dl.data.book_folder("results").glob("*.json")), ids=lambda p: p.stem)
def test_committed_records_are_full_scale_and_readable(path, record_property):
    record = recorded.load(path.stem, config=EXPERIMENTS[path.stem].SCALES["full"])
    assert record.provenance["scale"] == "full" and not record.provenance["dirty"]
