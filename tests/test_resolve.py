import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import resolve
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_constraints_pin_every_direct_requirement_once_and_for_every_python():
    """What requirements.txt names and what make installs on demand, with one version for all; nothing that torch pins."""
    pinned = {}
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            requirement = Requirement(line)
            assert canonicalize_name(requirement.name) not in pinned, line
            pinned[canonicalize_name(requirement.name)] = requirement
    for wanted in map(Requirement, resolve.direct()):
        found = pinned[canonicalize_name(wanted.name)]
        assert found.marker is None and found.specifier & wanted.specifier == found.specifier, (wanted, found)
    for wanted in map(Requirement, sum(PROJECT["optional-dependencies"].values(), PROJECT["dependencies"])):
        assert [bound.operator for bound in wanted.specifier] == [">="], wanted  # the lowest that make lowest tries
        (version,) = pinned[canonicalize_name(wanted.name)].specifier
        assert wanted.specifier.contains(version.version), wanted
    assert all(re.fullmatch(r"==[\w.]+", str(line.specifier)) and not line.url for line in pinned.values())
    assert not [name for name in pinned if resolve.OF_TORCH.match(name)]


def test_every_pair_is_resolved_and_a_bad_one_named(monkeypatch, capsys):
    assert resolve.PYTHONS[0].startswith(PROJECT["requires-python"].removeprefix(">="))
    asked = []

    def compiled(command, **_):
        asked.append(command[command.index("--python-version") + 1:][:3:2])
        missing = asked[-1] == ["3.13", resolve.SYSTEMS["Windows"]]
        extra = "stray==1.0\nnvidia-cublas==13.1\n" if asked[-1][0] == "3.14" else ""
        return subprocess.CompletedProcess(command, int(missing), "torch==2.13.0\n" + extra, "no wheel for torch")

    monkeypatch.setattr(resolve.subprocess, "run", compiled)
    with pytest.raises(SystemExit) as ended:
        resolve.main([])
    said = capsys.readouterr().out
    assert ended.value.code == 1 and len(asked) == len(resolve.PYTHONS) * len(resolve.SYSTEMS)
    assert said.count("no line pins stray==1.0\n") == len(resolve.SYSTEMS) and said.count("no wheel for torch") == 1
    assert said.count("resolves") == len(asked) - len(resolve.SYSTEMS) - 1
