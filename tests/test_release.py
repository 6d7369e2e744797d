"""A wheel, made from a source distribution, works in an empty folder without the repository."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import version
from pathlib import Path

import nbformat
import pytest
import yaml

ROOT = Path(__file__).parents[1]
KEPT = ("lib", "book/data", "book/results", "book/claims.yml", "benchmarks/results", "pyproject.toml", "setup.py", "MANIFEST.in",
        "README.md", "LICENSE")


def run(*command, cwd, **environment):
    done = subprocess.run([sys.executable, *map(str, command)], cwd=cwd, capture_output=True, text=True, timeout=300,
                          env={**os.environ, "OMP_NUM_THREADS": "1", **environment})
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The folder a wheel was installed to, built from the source distribution, built from a copy of the checkout."""
    folder = tmp_path_factory.mktemp("release")
    checkout = folder / "checkout"
    for name in KEPT:
        source, target = ROOT / name, checkout / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("*.egg-info", "__pycache__", ".*"))
        else:
            shutil.copy(source, target)
    run("-c", "from setuptools import build_meta; build_meta.build_sdist('..')", cwd=checkout)
    (archive,) = folder.glob("*.tar.gz")
    run("-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "--no-index", archive, cwd=folder)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as file:  # a pure wheel is installed by unpacking it
        file.extractall(folder / "site")
    return folder / "site"


def test_the_wheel_holds_the_library_and_its_data_and_nothing_else(installed):
    assert {path.name for path in installed.iterdir()} == {"deeplinear", f"deeplinear-{version('deeplinear')}.dist-info"}
    book = installed / "deeplinear" / "_book"
    for folder in ("data", "results"):
        wanted = {path.name for path in (ROOT / "book" / folder).iterdir() if not path.name.startswith(".")}
        assert {path.name for path in (book / folder).iterdir()} == wanted
    assert {path.name for path in (book / "benchmarks").iterdir()} == {path.name for path in (ROOT / "benchmarks/results").iterdir()}
    assert not list(installed.rglob("test_*.py"))
    assert (installed / "deeplinear" / "py.typed").is_file()


def test_it_works_in_an_empty_folder(installed, tmp_path):
    said = run("-W", "error", "-c", """
import deeplinear as dl, torch
data = dl.data.load("diabetes")
run = dl.train(dl.LpLoss(data.X, data.y, 2), dl.balanced_init((10, 3, 1), dl.seeded(0), std=0.1), dl.GD(0.1), 200)
print(dl.__file__, round(run.loss[-1].item(), 3), len(dl.data.load("mnist-5k").X), len(dl.ledger.read()) > 50)
dl.recorded.load("relu-balance")
assert dl.recorded.benchmark()["rounds"] and dl.shards.execute and len(dl.experiments.EXPERIMENTS) >= 10
""", cwd=tmp_path, PYTHONPATH=str(installed))
    path, loss, digits, ledger = said.splitlines()[0].split()
    assert Path(path).is_relative_to(installed) and float(loss) < 0.6 and digits == "5000" and ledger == "True"
    assert "relu-balance" in run("-m", "deeplinear", "list", cwd=tmp_path, PYTHONPATH=str(installed))


@pytest.mark.parametrize("chapter", ["11-homogeneous", "13-how-many-laws"])
def test_a_downloaded_chapter_runs_without_the_repository(installed, tmp_path, chapter):
    shutil.copy(ROOT / "book" / f"{chapter}.ipynb", tmp_path)
    notebook = nbformat.read(tmp_path / f"{chapter}.ipynb", 4)
    code = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    (tmp_path / "chapter.py").write_text("import deeplinear\nassert '_book' in str(deeplinear.data.book_folder(''))\n" + code)
    said = run("-W", "error", "chapter.py", cwd=tmp_path, PYTHONPATH=str(installed))
    assert said.count("holds  ") >= 5


def test_the_version_is_the_same_everywhere():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert str(citation["version"]) == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f"## {citation['version']}" in (ROOT / "book" / "changelog.md").read_text(encoding="utf-8")


def jobs():
    for path in sorted((ROOT / ".github" / "workflows").glob("*.yml")):
        for name, job in yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"].items():
            yield pytest.param(job, id=f"{path.stem}-{name}")


@pytest.mark.parametrize("job", list(jobs()))
def test_workflows_call_what_exists(job):
    targets = set(re.findall(r"^([.\w/-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    for step in job["steps"]:
        for command in re.findall(r"^make (.*)$", step.get("run", ""), re.M):
            assert {word for word in command.split() if "=" not in word} <= targets, command
        for file in re.findall(r"(?<![\w/.-])(?:tests|tools|book|benchmarks)(?:/[\w./-]+)?(?=\s|$)|\w+\.(?:txt|toml)",
                               step.get("run", "")):
            assert (ROOT / file).exists() or file == "newest.txt", file


@pytest.mark.parametrize("job", list(jobs()))
def test_what_may_write_to_the_repository_runs_nothing_from_it(job):
    """Every action is pinned by commit; a job that checks out keeps no token and may only read."""
    for step in job["steps"]:
        assert re.fullmatch(r"actions/[\w-]+@[0-9a-f]{40}", step.get("uses", "actions/a@" + 40 * "0")), step
    checkouts = [step for step in job["steps"] if step.get("uses", "").startswith("actions/checkout@")]
    assert all(step["with"]["persist-credentials"] is False for step in checkouts)
    assert not checkouts or set(job.get("permissions", {}).values()) <= {"read"}
