import dataclasses
import hashlib
import io
import json
import operator
import os
import re
import zipfile

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
                  dataset=dl.data.load("diabetes"), origin=recorded.origin(recorded.__file__), scale="quick",
                  device=recorded.device_name("cpu"), folder=folder)
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


def test_the_build_of_torch_is_recorded_not_its_distribution(monkeypatch):
    """The index's torch for Linux calls itself 2.13.0+cu130, its distribution 2.13.0."""
    monkeypatch.setattr(torch, "__version__", "2.13.0+cu130")
    assert recorded.versions()["torch"] == "2.13.0+cu130"


def test_a_header_that_is_no_python_is_a_record_error(tmp_path):
    """NumPy parses an array's header as Python source, and what that raises is on no list of what a reader raises."""
    content = io.BytesIO()
    header = b"{'descr': (\n"
    with zipfile.ZipFile(content, "w") as file:
        file.writestr("curve.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    (tmp_path / "job.npz").write_bytes(content.getvalue())
    with pytest.raises(recorded.RecordError, match="job.npz is damaged .TokenError.*Remove it to start again"):
        recorded.read_arrays(tmp_path / "job.npz")
    path = write(tmp_path / "records")
    record = json.loads(path.read_text())
    record["provenance"]["arrays_sha256"] = digest = hashlib.sha256(content.getvalue()).hexdigest()
    path.write_text(json.dumps(record))
    path.with_name(f"trial.{digest[:12]}.npz").write_bytes(content.getvalue())
    with pytest.raises(recorded.RecordError, match="trial.*npz holds other things than arrays of numbers.*Make it with"):
        recorded.load("trial", folder=path.parent)


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


def without(*names):
    def damage(content):
        for name in names[:-1]:
            content = content[name]
        del content[names[-1]]
    return damage


@pytest.mark.parametrize("damage", [
    without("metrics"), without("summary"), without("config"), without("config", "seeds"), without("config", "dtype"),
    without("provenance"), without("provenance", "scale"), without("provenance", "dataset"), without("provenance", "finished"),
    without("provenance", "dataset", "name"), without("provenance", "commit"), without("provenance", "source_sha256"),
    lambda c: c.update(config=None), lambda c: c.update(metrics={}), lambda c: c.update(metrics=[1]), lambda c: c.update(summary=[]),
    lambda c: c["config"].update(seeds=3), lambda c: c["provenance"].update(scale="huge"), lambda c: c["provenance"].update(finished=7),
    lambda c: c["provenance"].update(arrays_sha256="../x"), lambda c: c["provenance"].update(arrays_sha256=None),
    lambda c: c["provenance"].update(verified=1), lambda c: c["provenance"].update(verified={"source_sha256": "0" * 64}),
    lambda c: c.update(name=None), without("schema"), lambda c: c.update(schema="1"), lambda c: c.update(schema=None)], ids=range(27))
def test_a_record_of_another_make_is_refused(tmp_path, damage):
    path = write(tmp_path)
    content = json.loads(path.read_text())
    damage(content)
    path.write_text(json.dumps(content))
    with pytest.raises(recorded.RecordError, match="(is not a readable record|has schema) .*Make it with: python -m"):
        recorded.load("trial", folder=tmp_path)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "null", "1", '"x"', '{"schema": NaN}', "{}{}", "\ufeff{}"])
def test_json_that_is_no_record_is_refused(tmp_path, text):
    write(tmp_path).write_text(text)
    with pytest.raises(recorded.RecordError, match="Make it with: python -m"):
        recorded.load("trial", folder=tmp_path)


@pytest.mark.parametrize("content", [
    np.array([{}], dtype=object), np.array(["a"]), np.arange(3.0).astype(">f8"), np.array(["2020-01-01"], dtype="datetime64[D]"),
    np.zeros(2, dtype=[("a", float)]), b"", b"PK\x03\x04", b"\x93NUMPY"], ids=range(8))
def test_arrays_that_are_none_are_refused(tmp_path, content):
    """With a digest that fits: somebody wrote them so."""
    path = write(tmp_path)
    if not isinstance(content, bytes):
        np.savez(tmp_path / "odd.npz", a=content)
        content = (tmp_path / "odd.npz").read_bytes()
    record = json.loads(path.read_text())
    record["provenance"]["arrays_sha256"] = sha256 = hashlib.sha256(content).hexdigest()
    path.write_text(json.dumps(record))
    (tmp_path / f"trial.{sha256[:12]}.npz").write_bytes(content)
    with pytest.raises(recorded.RecordError, match="holds other things than arrays of numbers .*Make it with: python -m"):
        recorded.load("trial", folder=tmp_path)


def test_a_damaged_benchmark_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(dl.data, "book_folder", lambda name: tmp_path)
    for text in ("[]", "{", '{"date": 3}', '{"date": "2026"}'):
        (tmp_path / "cpu.json").write_text(text)
        with pytest.raises(recorded.RecordError, match="is not a readable record .*Make it with: make bench"):
            recorded.benchmark()


def test_the_command_of_a_record_reads_the_same_in_every_locale(monkeypatch):
    monkeypatch.setattr("sys.argv", ["x", "run", "--out", os.fsdecode(b"\xc3\xa9"), "\udcff"])
    command = recorded.origin(recorded.__file__)["command"]
    assert command.startswith("python -m deeplinear run --out") and "\ufffd" in command and command.encode()



@pytest.mark.parametrize("error, said", [
    (OSError(38, "Function not implemented"), "lies on a file system without locks"),
    (OSError(37, "No locks available"), "lies on a file system without locks"),
    (OSError(30, "Read-only file system"), "cannot write to")])
def test_a_file_system_without_locks_is_named(tmp_path, monkeypatch, error, said):
    monkeypatch.setattr("fcntl.flock", lambda *_: (_ for _ in ()).throw(error))
    with pytest.raises(recorded.RecordError, match=f"{said}.*name .*with --out"):
        with recorded.held("trial", tmp_path):
            pass


def test_everything_the_library_page_names_is_there():
    page = (dl.data.book_folder("").parent / "book" / "api.md").read_text(encoding="utf-8")
    for module, options in re.findall(r"\.\. automodule:: deeplinear\.([\w.]+)\n((?:   :.*\n)*)", page):
        found = operator.attrgetter(module)(dl)
        for name in re.findall(r"\w+", options.partition(":members:")[2]):
            assert hasattr(found, name), f"{module}.{name}"


def test_command_line(capsys):
    assert main(["list"]) == 0
    assert "regression-depth: " in capsys.readouterr().out
    assert main(["run", "regression-dept"]) == 1
    assert "did you mean regression-depth" in capsys.readouterr().err
    if not torch.cuda.is_available():
        assert main(["run", "regression-depth", "--device", "cuda"]) == 1
        assert "device cuda was asked for; this machine offers cpu only" in capsys.readouterr().err


def test_data_on_the_command_line(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(dl.data, "SETS", {name: dl.data.SETS[name] for name in ("diabetes", "ethanol")})
    monkeypatch.setenv(dl.data.FOLDER_VARIABLE, str(tmp_path))
    monkeypatch.setattr("pooch.os_cache", lambda project: tmp_path)
    assert main(["data", "status"]) == 0
    out = capsys.readouterr().out
    assert "diabetes: there, 442 rows, SHA-256 3b271426c1bd..." in out
    assert "ethanol: uci-ethanol.csv.gz (UCI Gas" in out and str(tmp_path / "uci-ethanol.csv.gz") in out
    monkeypatch.setattr("pooch.retrieve", lambda *_, **__: (_ for _ in ()).throw(OSError("no network")))
    assert main(["data", "fetch"]) == 1
    assert "(OSError: no network)" in capsys.readouterr().out


def test_a_grid_without_a_stable_rate_says_so():
    module = EXPERIMENTS["regression-depth"]
    config = dataclasses.replace(module.SCALES["quick"], rates=(50.0, 500.0), powers=(4,), steps=100)
    jobs = module.jobs(config, "cpu")
    metrics, summary, arrays = module.collect(config, jobs, [module.run_job(config, job, "cpu") for job in jobs])
    for depth in config.depths:
        assert summary["l4"][f"depth {depth}"] == {
            "best_rate": None, "median_gap": None, "note": "at every rate of the grid a seed diverged"}
        assert len(arrays[f"l4 depth {depth}"]) == 0
    assert all(row["gap"] is None and row["diverged_at"] > 0 for row in metrics)
    recorded._refuse_nan({"metrics": metrics, "summary": summary}, "record")


def test_parts_of_a_grid_are_put_back_in_their_places(monkeypatch):
    """The same losses whether the runs are trained as one job or as many."""
    module = EXPERIMENTS["regression-depth"]
    config = dataclasses.replace(module.SCALES["quick"], powers=(4,), steps=60)

    def whole():
        jobs = module.jobs(config, "cpu")
        return len(jobs), module.collect(config, jobs, [module.run_job(config, job, "cpu") for job in jobs])

    (one, (metrics, _, arrays)), _ = whole(), monkeypatch.setattr(module, "AT_ONCE", {"cpu": 5})
    many, (others, _, parts) = whole()
    assert (one, many) == (1, 5)
    for row, other in zip(metrics, others, strict=True):
        assert {**row, "gap": 0} == {**other, "gap": 0} and (
            row["gap"] == other["gap"] if row["gap"] is None else row["gap"] == pytest.approx(other["gap"], rel=1e-9))
    for name, array in arrays.items():
        torch.testing.assert_close(array, parts[name], rtol=1e-9, atol=0, equal_nan=True)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_quick_scale_of_every_experiment(name, tmp_path, monkeypatch, capsys):
    assert main(["run", name, "--workers", "1", "--out", str(tmp_path)]) == 0
    record = recorded.load(name, config=EXPERIMENTS[name].SCALES["quick"], folder=tmp_path)
    assert record.provenance["scale"] == "quick" and record.metrics and record.summary
    quick, full = (dataclasses.asdict(EXPERIMENTS[name].SCALES[scale]) for scale in ("quick", "full"))
    assert quick.keys() == full.keys() and [p.suffix for p in sorted(tmp_path.iterdir())] == [".npz", ".json"]
    verify_and_refuse(EXPERIMENTS[name], tmp_path, monkeypatch, capsys)


def verify_and_refuse(module, folder, monkeypatch, capsys):
    """One job of a fresh record is as recorded; were any of its numbers a thousandth larger, it would be refused."""
    assert main(["verify", module.NAME, "--out", str(folder)]) == 0
    said = capsys.readouterr().out
    assert "bit for bit as recorded" in said or "mnist" in module.NAME and "e-08 from the record\n" in said, said
    before = {path: path.read_bytes() for path in folder.iterdir()}
    jobs, run_job, results = module.jobs(module.SCALES["quick"], "cpu"), module.run_job, {}

    def larger(config, job, *rest):
        if key not in results:
            results[key] = run_job(config, job, *rest)
        return {**results[key], key: results[key][key] * 1.002}

    index = min(range(len(jobs)), key=lambda i: jobs[i]["size"])
    results = dict.fromkeys(COMPARED[module.NAME], run_job(module.SCALES["quick"], jobs[index], "cpu"))
    monkeypatch.setattr(module, "run_job", larger)
    for key in COMPARED[module.NAME]:
        assert main(["verify", module.NAME, "--out", str(folder)]) == 1, key
        assert "The source has changed what it computes: run it again" in capsys.readouterr().err, key
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


COMPARED = {  # every array of a job that the record keeps something of
    "layers-and-rule": ("depth 2 width 1 layers", "depth 2 width 3 end-to-end"), "l4-tries": ("gaps",), "l4-printed": ("gaps", "limit"),
    **dict.fromkeys(("regression-edges", "l4-optimisers", "l4-adam", "l4-deeper"), ("paper loss", "fine loss")),
    "regression-depth": ("depth 1 loss", "depth 2 loss", "depth 3 loss"), "relu-balance": ("squares",),
    "regression-models": ("gd depth 1", "gd depth 4 identity", "adam-tensorflow1 depth 2"), "optimisers": ("steps",),
    "phase-diagram": ("steps_to_goal",), "two-scales": ("steps_to_goal",), "pretrained": ("cosines", "grown", "biases"),
    **dict.fromkeys(("mnist-" + name for name in ("convnet", "tutorial", "penalties", "conventions", "one-pass", "stds")),
                    ("data", "penalty")),
    "mnist-balance": ("start", "drift", "moved"), "train-and-fold": ("rates", "grid", "curve", "ends"),
    "doubled-transformer": ("rates", "steps", "ends", "curve", "rough")}
