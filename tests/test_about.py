"""What a reader whose number differs is asked for: complete, without paths, and said even where parts are missing."""

import tomllib
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from packaging.requirements import Requirement

from deeplinear import about, data
from deeplinear.__main__ import main

ROOT = Path(__file__).parents[1]


def facts(capsys):
    assert main(["about"]) == 0
    return dict(line.split(":", 1) for line in capsys.readouterr().out.splitlines())


def test_versions_processor_threads_and_data_are_said(capsys):
    found = facts(capsys)
    assert {"deeplinear", "python", "system", "processor", "GPU", "torch runs", "numpy runs", "variables"} <= set(found)
    assert {*about.PACKAGES, *data.SETS} <= set(found)
    assert found["torch"].strip() == metadata.version("torch") and "SHA-256 3b271426c1bd" in found["diabetes"]
    assert f"{torch.get_num_threads()} threads" in found["torch runs"] and "not found" not in found["torch runs"]
    assert "BLAS" in found["numpy runs"] and "cores" in found["processor"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = [Requirement(line).name for line in (*project["dependencies"], *sum(project["optional-dependencies"].values(), []))]
    assert set(named) <= set(about.PACKAGES)


def test_nothing_that_is_missing_or_broken_ends_it_and_no_path_is_said(capsys, monkeypatch, tmp_path):
    def broken(*_, **__):
        raise RuntimeError(f"at {tmp_path}")

    monkeypatch.setattr(metadata, "version", broken)
    monkeypatch.setattr(np, "show_config", broken)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", broken)
    monkeypatch.setattr(torch.__config__, "show", lambda: "")
    monkeypatch.setattr(about.provenance, "commit", broken)
    monkeypatch.setattr(data, "book_folder", lambda name: tmp_path / name)
    monkeypatch.setenv("DEEPLINEAR_DATA", str(tmp_path))
    monkeypatch.setattr("pooch.os_cache", lambda project: tmp_path / project)
    found = facts(capsys)
    for name in ("deeplinear", "pandas", "torch runs", "numpy runs", "diabetes", "ethanol"):
        assert found[name].strip().startswith("not found ("), name
    assert str(tmp_path) not in "".join(found.values()) and found["python"].strip()


@pytest.mark.parametrize("name", ["text", "number"])
def test_issue_forms_are_forms(name):
    form = yaml.safe_load((ROOT / ".github" / "ISSUE_TEMPLATE" / f"{name}.yml").read_text(encoding="utf-8"))
    assert form["name"] and form["description"] and len({item["id"] for item in form["body"] if "id" in item}) > 1
    for item in form["body"]:
        assert item["type"] in ("markdown", "input", "textarea", "dropdown") and (item["type"] == "markdown" or item["id"])
        assert item["attributes"]["value" if item["type"] == "markdown" else "label"]
    asked = [item for item in form["body"] if item.get("id") == "about"]
    assert "python -m deeplinear about" in asked[0]["attributes"]["description"] and asked[0]["attributes"]["render"]
