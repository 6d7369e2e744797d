"""The records of the book: whole, at full scale, and what today's source gives."""

from pathlib import Path

import pytest

import deeplinear as dl
from deeplinear import recorded, sources
from deeplinear.experiments import EXPERIMENTS

RECORDS = sorted(dl.data.book_folder("results").glob("*.json"))


@pytest.mark.parametrize("path", RECORDS, ids=lambda p: p.stem)
def test_committed_records_are_full_scale_and_readable(path):
    record = recorded.load(path.stem, config=EXPERIMENTS[path.stem].SCALES["full"])
    assert record.provenance["scale"] == "full" and not record.provenance["dirty"]


@pytest.mark.parametrize("path", RECORDS, ids=lambda p: p.stem)
def test_every_record_stands_for_todays_source(path):
    """Made with it, or one of its jobs run again with it and found the same; both from a commit."""
    record = recorded.load(path.stem, quiet=True)
    now = sources.digest(EXPERIMENTS[path.stem].__file__)
    assert record.stands_for(now), f"source is now {now[:8]}: python -m deeplinear verify {path.stem}, or run it again"
    assert not record.provenance.get("verified", {}).get("dirty")


def test_the_command_of_a_record_names_no_folder_of_one_machine(monkeypatch, tmp_path):
    monkeypatch.setattr("sys.argv", ["x", "run", "two-scales", "--out", str(tmp_path / "out"), f"--out={tmp_path / 'a'}", "book/results"])
    command = recorded.origin(recorded.__file__)["command"]
    assert command == "python -m deeplinear run two-scales --out out --out=a book/results"
    for path in dl.data.book_folder("results").glob("*.json"):
        words = recorded.load(path.stem, quiet=True).provenance["command"].split()
        assert not any(Path(word.rpartition("=")[2]).is_absolute() for word in words), path.name
