"""A record is verified where one of its jobs gives the same, within what a shake moves, and is left alone where not."""

import json

import pytest
import torch

import deeplinear as dl
from deeplinear import recorded, sources, verification
from deeplinear.__main__ import main
from deeplinear.experiments import EXPERIMENTS

NAME = "regression-depth"
MODULE = EXPERIMENTS[NAME]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    assert main(["run", NAME, "--workers", "1", "--out", str(folder)]) == 0
    return folder


@pytest.fixture
def folder(made, tmp_path):
    for path in made.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def content(folder):
    return json.loads((folder / f"{NAME}.json").read_text())


def test_the_entry_names_source_commit_date_job_and_distance(folder):
    before, arrays = content(folder), next(folder.glob("*.npz")).read_bytes()
    before["provenance"]["source_sha256"] = "0" * 64  # another source made it
    (folder / f"{NAME}.json").write_text(json.dumps(before))
    now = sources.digest(MODULE.__file__)
    assert not recorded.load(NAME, folder=folder).stands_for(now)
    assert main(["verify", NAME, "--job", "1", "--out", str(folder)]) == 0
    record = recorded.load(NAME, folder=folder)
    entry = record.provenance["verified"]
    assert record.stands_for(now) and not record.stands_for("1" * 64)
    assert entry["source_sha256"] == now and entry["job"] == MODULE.jobs(MODULE.SCALES["quick"], "cpu")[1]
    assert entry["commit"] == recorded.origin(MODULE.__file__)["commit"] and entry["distance"] == 0 and entry["date"] > "2026"
    after = content(folder)
    after["provenance"].pop("verified")
    assert after == before and next(folder.glob("*.npz")).read_bytes() == arrays
    assert len(list(folder.iterdir())) == 2


def test_rounding_is_not_a_difference_and_a_changed_source_is(folder, monkeypatch):
    """Data moved by 1e-15 stand for another processor; a rate changed by 1e-9 for a mistake."""
    with dl.data.shaken(1e-15):
        found, _ = verification.verify(MODULE, folder)
    assert 0 < found.distance < found.moved < 1e-9 and found.telling > 0.5
    before = (folder / f"{NAME}.json").read_bytes()
    plain = dl.optimizers.GD
    monkeypatch.setattr(dl.optimizers, "GD", lambda lr: plain(lr * (1 + 1e-9)))
    with pytest.raises(recorded.RecordError, match="'l4 depth .*' at .* today; recorded .*run it again"):
        verification.verify(MODULE, folder)
    assert (folder / f"{NAME}.json").read_bytes() == before


def test_a_shake_moves_every_kind_of_data():
    inputs = {"phase-diagram": lambda module, config: module.problem(config, 10, 0.1, 0)[0],
              "relu-balance": lambda module, config: module.problem(config, 0)[0],
              "two-scales": lambda module, _: module.problem(4, 8).X,
              "doubled-transformer": lambda module, config: module.started(config, "plain", 0).table.weight.detach(),
              "optimisers": lambda module, _: module.problem("least squares", 10)[0].X,
              "pretrained": lambda module, _: module._heads(module.read("made-up")[0], "encoder.layer.", 2, 2, 4)[0]["query"]}
    for name, module in EXPERIMENTS.items():
        if not hasattr(module, "origin_of_data"):
            continue
        config, results = module.SCALES["quick"], []
        for relative in (0.0, 1e-3):
            with dl.data.shaken(relative):
                results.append(inputs[name](module, config))
        assert 1e-4 < (results[0] / results[1] - 1)[results[0] != 0].abs().max() < 1e-2, name
    for name in ("diabetes", "mnist-5k"):
        plain = dl.data.load(name).X
        with dl.data.shaken(1e-3):
            moved = dl.data.load(name).X
        assert plain.dtype == moved.dtype and 1e-3 < ((moved - plain) / plain.abs().clamp(min=1e-9)).abs().max() < 1e-2
        assert torch.equal(dl.data.load(name).X, plain)


def pair(stored, today, shaken):
    stored, today, shaken = (torch.tensor(values, dtype=torch.float64) for values in (stored, today, shaken))
    return verification.compare({"a": (stored, today)}, {"a": (stored, shaken)})


NAN, INF = float("nan"), float("inf")


def test_what_counts_as_the_same():
    assert pair([1.0, NAN, INF], [1.0, NAN, INF], [1.1, NAN, INF]).distance == 0
    assert pair([1.0, 2.0], [1.0, 2.0 + 1e-9], [1.0, 2.0]).distance == pytest.approx(5e-10)
    late = pair([1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0 + 1e-9, 0.3], [1.0, 1.0, 1.0 + 2e-9, 0.9])  # the last is lost in chaos
    assert late.telling == 0.75 and late.distance < 1e-8


def test_what_was_computed_in_single_precision_is_compared_in_it():
    """Stored in double: 12.868405 and its neighbour in float32, which no shake moves."""
    stored, today = torch.tensor([188.0, 12.868404388427734]).double(), torch.tensor([188.0, 12.86840534210205]).double()
    assert verification.compare({"a": (stored, today)}, dtype="float32").distance < 1e-8
    with pytest.raises(recorded.RecordError, match="changed what it computes"):
        verification.compare({"a": (stored, today)}, {"a": (stored, today)})
    with pytest.raises(recorded.RecordError, match="changed what it computes"):  # a thousand times that is no rounding
        verification.compare({"a": (stored, stored * (1 + 1e-4))}, {"a": (stored, stored * (1 + 1e-4))}, "float32")


@pytest.mark.parametrize("stored, today, shaken, said", [
    ([1.0, 2.0], [1.0, 2.0 + 1e-8], [1.0, 2.0 + 1.01e-8], r"'a' at \(1,\) is 2.00000001 today; recorded 2.0"),
    ([1.0, NAN], [1.0, 2.0], [1.0, 2.0], "is 2.0 today; recorded nan"),
    ([1.0, 2.0], [1.0, NAN], [1.0, NAN], "is nan today; recorded 2.0"),
    ([5.0, INF], [5.0, 7.0], [5.0, 7.0], "is 7.0 today; recorded inf"),
    ([1.0, 1.0, 1.0, 1.0, 1.0], [0.9] * 5, [0.7] * 5, "only a share of 0.00 tells"),
    ([NAN, NAN], [NAN, NAN], [NAN, NAN], "holds no number of this job"),
    ([1.0, 1.0], [1.0], [1.0], "has the shape")], ids=["a step", "no NaN", "NaN", "infinity", "chaos", "empty", "shape"])
def test_what_counts_as_different(stored, today, shaken, said):
    with pytest.raises(recorded.RecordError, match=said):
        pair(stored, today, shaken)


def test_what_cannot_be_verified_is_named(folder, tmp_path, capsys, monkeypatch):
    assert main(["verify", NAME, "--job", "7", "--out", str(folder)]) == 1
    assert "job is 7; expected 0 to 1, the jobs of regression-depth" in capsys.readouterr().err
    assert main(["verify", NAME, "--out", str(tmp_path / "none")]) == 1
    assert "no record 'regression-depth'" in capsys.readouterr().err and not (tmp_path / "none").exists()
    assert main(["verify", "regression-dept", "--out", str(folder)]) == 1
    assert "did you mean regression-depth" in capsys.readouterr().err
    changed = content(folder)
    changed["provenance"]["dataset"]["sha256"] = "1" * 64
    (folder / f"{NAME}.json").write_text(json.dumps(changed))
    assert main(["verify", NAME, "--out", str(folder)]) == 1
    assert f"was recorded with data of SHA-256 {'1' * 64}; here they have 3b27" in capsys.readouterr().err
    monkeypatch.setattr(verification, "verify", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    assert main(["verify", NAME, "--out", str(folder)]) == 130
    assert "stopping, nothing is kept; the same command starts again" in capsys.readouterr().err
