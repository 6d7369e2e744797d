"""What may go wrong, one test for each row of the table in book/running.md: nothing recorded is lost, every message says what next."""

import contextlib
import ctypes
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch

import deeplinear as dl
from deeplinear import recorded
from deeplinear.__main__ import main

ROOT = Path(__file__).parents[1]
TESTS = "\n".join(path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_*.py"))
QUICK = "layers-and-rule"
RUN = ("run", QUICK, "--workers", "1", "--out")  # in the process itself, without a second for every worker to start


ASCII = {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def command(*arguments, **environment):
    """``python -m deeplinear`` in a process of its own."""
    return subprocess.run([sys.executable, "-m", "deeplinear", *arguments], capture_output=True, text=True, encoding="utf-8",
                          env={**os.environ, **environment}, timeout=300)


def arrays(folder):
    return recorded.load(QUICK, folder=folder, quiet=True).arrays


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """The quick record as it is made on an ordinary day."""
    folder = tmp_path_factory.mktemp("plain")
    done = command(*RUN, str(folder), OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr
    return arrays(folder)


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[key].nan_to_num(), other[key].nan_to_num()) for key in one)


def test_every_row_of_the_table_has_its_test():
    table = (ROOT / "book/running.md").read_text(encoding="utf-8").partition("## When something goes wrong")[2]
    rows = [line.rsplit("|", 2)[1].strip(" `") for line in table.splitlines() if line.startswith("| ")][1:]
    assert len(rows) >= 16
    for name in rows:
        assert re.search(rf"^def {name}\(", TESTS, re.M), name


@pytest.mark.parametrize("step", ["a job", "the record"])
def test_a_full_disk_keeps_the_old_record(tmp_path, monkeypatch, capsys, step):
    """The disk fills up while a job is kept, or while the record is written: exit status 1, a message, the old record."""
    assert main([*RUN, str(tmp_path)]) == 0
    before, replace, jobs = arrays(tmp_path), os.replace, []

    def full(source, target):
        is_job = Path(target).name.startswith("job-")
        jobs.extend([target] if is_job else [])
        if len(jobs) == 2 if step == "a job" else not is_job:
            raise OSError(28, "No space left on device", str(target))
        replace(source, target)

    monkeypatch.setattr(os, "replace", full)
    assert main([*RUN, str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert "No space left on device" in said and "the same command goes on from there" in said
    assert same(arrays(tmp_path), before) and not list(tmp_path.rglob("*.part"))
    kept = set(tmp_path.rglob("job-?.npz"))
    assert len(kept) == (1 if step == "a job" else len(jobs))
    again = []
    monkeypatch.setattr(os, "replace", lambda source, target: (again.append(target), replace(source, target)))
    assert main([*RUN, str(tmp_path)]) == 0
    assert same(arrays(tmp_path), before) and not kept & set(again)  # no finished job ran again


def test_two_runs_at_once(tmp_path, capsys):
    """The second is told so and touches nothing; once the first is done, or killed, the folder is free again."""
    holder = [sys.executable, "-c", "import time; from deeplinear import recorded\n"
              f"with recorded.held({QUICK!r}, {str(tmp_path)!r}): print(flush=True); time.sleep(60)"]
    with subprocess.Popen(holder, stdout=subprocess.PIPE) as first:
        try:
            first.stdout.readline()
            assert main([*RUN, str(tmp_path)]) == 1
            said = capsys.readouterr().err
            assert f"another run of '{QUICK}' is writing to {tmp_path}; wait for it, or name another folder" in said
            assert not list(tmp_path.glob("*.json"))
        finally:
            first.kill()
    assert main([*RUN, str(tmp_path)]) == 0
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".json", ".npz"]


def in_shell(path):
    """A pattern for a path as a command line names it."""
    return re.escape(shlex.quote(str(path)))


@pytest.mark.parametrize("damage, said", [
    (lambda path, text: path.write_bytes(b"\xff\xfe{"), "is not a readable record"),
    (lambda path, text: path.write_text(text[:200]), "is not a readable record"),
    (lambda path, text: path.write_text("[]"), "is not a readable record"),
    (lambda path, text: path.write_text('{"schema": 1}'), "is not a readable record"),
    (lambda path, text: path.write_text(text.replace('"schema": 1', '"schema": 0')), "has schema 0; expected 1"),
    (lambda path, text: next(path.parent.glob("*.npz")).write_bytes(b"PK"), "is missing or damaged"),
    (lambda path, text: next(path.parent.glob("*.npz")).unlink(), "is missing or damaged")],
    ids=["not text", "cut off", "not a record", "parts missing", "older schema", "damaged arrays", "no arrays"])
def test_a_damaged_or_older_record(tmp_path, damage, said):
    for path in (ROOT / "book" / "results").glob("two-scales.*"):
        shutil.copy(path, tmp_path)
    path = tmp_path / "two-scales.json"
    damage(path, path.read_text())
    again = f"Make it with: python -m deeplinear run two-scales --scale full --out {in_shell(tmp_path)}"
    with pytest.raises(dl.recorded.RecordError, match=f"{said}.*{again}"):
        recorded.load("two-scales", folder=tmp_path)


def test_a_record_of_other_settings_names_the_way_to_another(tmp_path):
    for path in (ROOT / "book" / "results").glob("two-scales.*"):
        shutil.copy(path, tmp_path)
    with pytest.raises(dl.recorded.RecordError, match=f"was made with .*; expected .*Make it with: .* --out {in_shell(tmp_path)}"):
        recorded.load("two-scales", config={"seeds": []}, folder=tmp_path)


def test_a_damaged_checkpoint(tmp_path):
    checkpoint = recorded.Checkpoint(tmp_path / "job-0.part.npz", "job 0")
    checkpoint.save({"w": torch.ones(3)})
    checkpoint.path.write_bytes(checkpoint.path.read_bytes()[:-30])
    with pytest.raises(dl.recorded.RecordError, match="is damaged .* Remove it to start again"):
        checkpoint.load()
    assert checkpoint.path.is_file()


def obey_permissions():
    """Root may write anywhere; without CAP_DAC_OVERRIDE in what it passes on it may not."""
    if os.getuid() == 0:
        assert ctypes.CDLL(None).prctl(24, 1) == 0, "this root may not give up writing everywhere"  # PR_CAPBSET_DROP


@contextlib.contextmanager
def read_only_checkout():
    """A copy of what a run needs, which its owner may not write to."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "checkout")
        for part in ("lib/deeplinear", "book/data", "book/results", "book/claims.yml"):
            (copy / part).parent.mkdir(parents=True, exist_ok=True)
            (shutil.copytree if (ROOT / part).is_dir() else shutil.copy)(ROOT / part, copy / part)
        places = [Path(folder), copy, *copy.rglob("*")]
        for place in places:
            place.chmod(0o555 if place.is_dir() else 0o444)
        try:
            yield copy
        finally:
            for place in places:
                place.chmod(0o755)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux lets root give up writing everywhere")
def test_a_read_only_checkout():
    """Reading, training and drawing work; a run that would write there says so and names the way out."""
    script = ("import deeplinear as dl\n"
              "assert 'checkout' in dl.__file__\n"
              "data = dl.data.load('diabetes'); dl.recorded.load('two-scales', quiet=True); dl.ledger.claims()\n"
              "dl.train(dl.LpLoss(data.X, data.y, 2), [dl.normal(1, 10, generator=dl.seeded(0))], dl.GD(0.1), 5)\n"
              "dl.plots.lines({'': {'a': ([1, 2], [1, 2])}}).svg()\n"
              "from deeplinear.__main__ import main\n"
              f"assert main(['run', '{QUICK}', '--out', dl.data.book_folder('results').__str__()]) == 1\n")
    with read_only_checkout() as copy:
        done = subprocess.run([sys.executable, "-c", script], preexec_fn=obey_permissions, capture_output=True, text=True, cwd="/",
                              env={**os.environ, "PYTHONPATH": str(copy / "lib"), "HOME": "/nonexistent",
                                   "MPLCONFIGDIR": tempfile.gettempdir()})
    assert done.returncode == 0, done.stderr
    assert "error: cannot write to" in done.stderr and "name another folder with --out" in done.stderr


def test_a_path_with_spaces(tmp_path, plain):
    """And other letters, in an encoding that does not know them."""
    folder = tmp_path / "a folder, so to say"
    done = command(*RUN, str(folder / "é"), DEEPLINEAR_DATA=str(folder), **ASCII)
    assert done.returncode == 0, done.stderr
    assert same(arrays(folder / "é"), plain)
    if os.name == "posix":
        assert built(folder / "é, a copy") == f"the book: {(folder / 'é, a copy' / '_build' / 'html' / 'index.html').as_uri()}"


def built(copy):
    """What ``make book`` says in a copy of the checkout whose book is built; first it plans ``make book test`` there."""
    shutil.copytree(ROOT / "book" / "_ext", copy / "book" / "_ext")
    for name in ("Makefile", "requirements.txt", "constraints.txt", "pyproject.toml", "_config.yml", "_toc.yml"):
        shutil.copy(ROOT / name, copy)
    for name in ("lib/empty", ".venv/.ready", "_build/html/.built"):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
    planned = subprocess.run(["make", "-n", "book", "test"], cwd=copy, capture_output=True, text=True)
    assert planned.returncode == 0 and "jupyter-book build ." in planned.stdout, planned.stderr
    (copy / ".venv" / "bin").mkdir()
    (copy / ".venv" / "bin" / "python").symlink_to(sys.executable)
    (copy / ".venv" / ".ready").touch()
    (copy / "_build" / "html" / ".built").touch()
    done = subprocess.run(["make", "--no-print-directory", "book"], cwd=copy, capture_output=True, text=True,
                          env={**os.environ, **ASCII})
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_another_locale(tmp_path, plain):
    """ASCII as the encoding of the system, and no coercion to another: the same arrays, and tables still print."""
    done = command(*RUN, str(tmp_path), **ASCII)
    assert done.returncode == 0, done.stderr
    assert same(arrays(tmp_path), plain)
    done = subprocess.run([sys.executable, "-c", "import deeplinear as dl; dl.recorded.load('two-scales'); dl.ledger.claims();"
                           "dl.table(['a'], [[1.5]], ['.2f'])"], env={**os.environ, **ASCII}, capture_output=True, text=True)
    assert done.returncode == 0 and "1.50" in done.stdout, done.stderr


def test_warnings_as_errors(tmp_path, plain):
    done = command(*RUN, str(tmp_path), PYTHONWARNINGS="error")
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert same(arrays(tmp_path), plain)


def test_two_threads_against_one(tmp_path, plain):
    """Every job takes one thread, whatever is offered, here or in a worker: the same bits."""
    done = command("run", QUICK, "--out", str(tmp_path), OMP_NUM_THREADS="2", MKL_NUM_THREADS="2")
    assert done.returncode == 0, done.stderr
    assert same(arrays(tmp_path), plain)


def test_nothing_unsafe_is_loaded():
    """Tensors only, no pickle, no YAML tags, downloads over TLS with a digest, every dependency with its version.

    One module reads files of tensors, whose digest it knows, by ``torch.load`` with ``weights_only=True``: that refuses
    whatever would execute something."""
    for path in (*ROOT.glob("lib/**/*.py"), *ROOT.glob("tools/*.py"), *ROOT.glob("benchmarks/*.py"), *ROOT.glob("book/_ext/*.py")):
        text = path.read_text(encoding="utf-8")
        if path.name == "pretrained.py":
            assert text.count("torch.load(") == len(re.findall(r"torch\.load\([^\n]*weights_only=True\)", text)) == 1
            text = text.replace("torch.load(", "")
        assert not re.search(r"\bpickle\b|torch\.load|joblib|yaml\.(?:unsafe_|full_)?load\(|allow_pickle=True|(?<!\.)\beval\(", text), path
        assert all("allow_pickle=False" in line for line in text.splitlines() if "np.load(" in line), path
    for name, found in dl.data.SETS.items():
        for file, *_ in found.parts:
            assert re.fullmatch(r"[0-9a-f]{64}", file.sha256), name
            assert not getattr(file, "url", None) or file.url.startswith("https://"), name
    wanted = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if line and line[0] not in "#-"]
    settled = {line.lower().replace("_", "-") for line in (ROOT / "constraints.txt").read_text().splitlines()}
    for line in wanted:
        assert re.fullmatch(r"[\w-]+==[\w.]+", line) and (line.lower().replace("_", "-") in settled or line.startswith("torch==")), line


def test_a_misspelt_name(tmp_path, capsys):
    assert main(["run", "two-scale", "--out", str(tmp_path)]) == 1
    assert "did you mean two-scales" in capsys.readouterr().err and not list(tmp_path.iterdir())
    with pytest.raises(SystemExit):
        main(["run", QUICK, "--scale", "huge"])
    assert "invalid choice: 'huge'" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["run", QUICK, "--workers", "0"])
    assert "'0' is not a number of processes; expected 1, 2, ..." in capsys.readouterr().err
    assert main(["run", QUICK, "--workers", "2", "--dask", "localhost:1"]) == 1
    assert "expected one of them" in capsys.readouterr().err
    path = tmp_path / "file"
    path.write_text(json.dumps({}))
    assert main([*RUN, str(path / "below")]) == 1
    assert "name another folder with --out" in capsys.readouterr().err
