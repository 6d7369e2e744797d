"""Recorded results: written whole or not at all, with the provenance of every number; loaded with checks.

A record is ``<name>.json`` and, beside it, the arrays it names: ``<name>.<start of their SHA-256>.npz``. The JSON is put
in place last, so at every moment it and its arrays belong together. Only ``python -m deeplinear run`` writes records.
"""

import contextlib
import dataclasses
import datetime
import hashlib
import io
import json
import math
import os
import platform
import shlex
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import filelock
import numpy as np
import torch

from . import data

SCHEMA = 1
PACKAGES = ("deeplinear", "numpy", "scipy")


class RecordError(RuntimeError):
    """A record is missing, unreadable, of another schema, or made with other settings than asked for."""


@dataclasses.dataclass(frozen=True)
class Record:
    """A recorded result: ``config`` (every setting), ``metrics`` (per run), ``summary``, ``arrays``, ``provenance``."""

    name: str
    config: dict
    metrics: list
    summary: dict
    provenance: dict
    arrays: dict

    @property
    def source(self):
        """One line that says where the numbers come from."""
        p = self.provenance
        seeds = f"{len(self.config['seeds'])} seed{'s' if len(self.config['seeds']) != 1 else ''}"
        scale = "" if p["scale"] == "full" else f", {p['scale']} scale"
        return (f"recorded {p['finished'][:10]}: {p['dataset']['name']}{scale}, {seeds}, "
                f"{p['dtype']}, {p['device']}, commit {p['commit'][:7]}{' with changes' if p['dirty'] else ''}")


@contextlib.contextmanager
def held(name, folder):
    """The right to record ``name`` in ``folder``, for one command at a time; the system takes it back from a killed one.

    Raises :class:`RecordError` where another has it, or where nothing can be written.
    """
    path = Path(folder) / f".{name}.lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(path, fallback_to_soft=False)
        lock.acquire(timeout=0)
    except filelock.Timeout as error:
        raise RecordError(f"another run of {name!r} is writing to {folder}; wait for it, or name another folder with "
                          "--out") from error
    except OSError as error:
        raise RecordError(f"cannot write to {folder} ({error}); name another folder with --out") from error
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # Windows removes it on release
            path.unlink(missing_ok=True)
        lock.release()


def origin(source_files):
    """Where a run comes from, to be taken before it starts: commit, digest of ``source_files``, time, command line."""
    return {**_commit(), "source_sha256": source_digest(source_files),
            "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "command": shlex.join(["python", "-m", "deeplinear", *sys.argv[1:]])}


def versions():
    """The versions that numbers depend on; torch's own names its build, 2.13.0+cu130, where the distribution's may not."""
    return {"python": platform.python_version(), "torch": str(torch.__version__), **{name: version(name) for name in PACKAGES}}


def write(name, *, config, metrics, summary, arrays, dataset, origin, scale, device, folder):
    """Write a record to ``folder``; a record already there is replaced only once the new one is complete on disk.

    ``config``: a dataclass; ``metrics``: a list of flat dicts; ``arrays``: name to array; ``dataset``: the
    :class:`deeplinear.data.Dataset` used; ``origin``: what :func:`origin` gave before the run; ``device``: the device in
    words (:func:`device_name`). Raises ``ValueError``
    for a NaN or infinity in ``metrics`` or ``summary``. Returns the path of the JSON.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    packed = _packed(arrays)
    arrays_sha256 = hashlib.sha256(packed).hexdigest()
    finished = datetime.datetime.now(datetime.UTC)
    record = {
        "schema": SCHEMA, "name": name, "config": dataclasses.asdict(config), "metrics": metrics, "summary": summary,
        "provenance": {
            **origin, "scale": scale, "dataset": {"name": dataset.name, "sha256": dataset.sha256},
            "arrays_sha256": arrays_sha256,
            "versions": versions(),
            "device": device, "dtype": config.dtype, "threads": torch.get_num_threads(),
            "finished": finished.isoformat(timespec="seconds"),
            "wall_seconds": round((finished - datetime.datetime.fromisoformat(origin["started"])).total_seconds()),
        },
    }
    _refuse_nan({"metrics": metrics, "summary": summary}, name)
    text = json.dumps(record, indent=1, sort_keys=True, allow_nan=False) + "\n"
    arrays_path = _arrays_path(folder, name, arrays_sha256)
    _replace(arrays_path, packed)
    _replace(folder / f"{name}.json", text.encode())
    for stale in set(folder.glob(f"{name}.*.npz")) - {arrays_path}:
        stale.unlink()
    return folder / f"{name}.json"


def load(name, config=None, folder=None, quiet=False):
    """Load the record ``name`` and print its one-line source.

    ``config``: a dataclass or dict the record must have been made with. ``folder``: default ``book/results``. Raises
    :class:`RecordError` where the record is missing, damaged, of another schema or made with another configuration.
    """
    folder = Path(folder) if folder is not None else data.book_folder("results")
    path = folder / f"{name}.json"
    again = f"Make it with: python -m deeplinear run {name} --scale full --out {shlex.quote(str(folder))}"
    if not path.is_file():
        there = ", ".join(sorted(p.stem for p in folder.glob("*.json"))) or "none"
        raise RecordError(f"no record {name!r} in {folder}; there: {there}. {again}")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        schema, made_with, arrays_sha256 = content["schema"], content["config"], content["provenance"]["arrays_sha256"]
    except (json.JSONDecodeError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise RecordError(f"{path} is not a readable record ({type(error).__name__}: {error}). {again}") from error
    if schema != SCHEMA:
        raise RecordError(f"{path} has schema {schema!r}; expected {SCHEMA}. {again}")
    if config is not None:
        wanted = config if isinstance(config, dict) else dataclasses.asdict(config)
        _refuse_mismatch(json.loads(json.dumps(wanted)), made_with, path, again)
    arrays_path = _arrays_path(folder, name, arrays_sha256)
    packed = arrays_path.read_bytes() if arrays_path.is_file() else b""
    if hashlib.sha256(packed).hexdigest() != arrays_sha256:
        raise RecordError(f"{arrays_path} is missing or damaged; its SHA-256 differs from the one in {path.name}. {again}")
    try:
        arrays = {key: torch.from_numpy(array) for key, array in _unpacked(packed).items()}
    except Exception as error:  # whatever the readers raise, as in read_arrays
        raise RecordError(f"{arrays_path} holds other things than arrays of numbers ({error}). {again}") from error
    record = Record(name, made_with, content["metrics"], content["summary"], content["provenance"], arrays)
    if not quiet:
        print(record.source)
    return record


def benchmark(device="cpu"):
    """What ``make bench`` measured on this kind of device, ``"cpu"`` or ``"cuda"``, and prints its source, one line.

    Returns a dict; :class:`RecordError` where there is none.
    """
    path = data.book_folder("").parents[0] / "benchmarks" / "results" / f"{device}.json"
    if not path.is_file():
        raise RecordError(f"no benchmark for {device!r} at {path}. Make it with: make bench")
    found = json.loads(path.read_text(encoding="utf-8"))
    print(f"measured {found['date'][:10]}: {found['device']}, {found['threads']} thread, torch {found['versions']['torch']}, "
          f"{found['data']}, median of {found['rounds']} rounds")
    return found


class Checkpoint:
    """The file of an unfinished run: written whole or not at all, read back only by the same run.

    ``run``: a text that names the run and everything its result depends on. ``seconds``: the least time between two
    savings on the way. :meth:`load` raises :class:`RecordError` for the file of another run, or a damaged one.
    """

    def __init__(self, path, run, seconds=60.0):
        self.path, self.run, self.seconds = Path(path), run, seconds
        self.saved = time.monotonic()

    def load(self):
        """The saved arrays by name, or None where nothing was saved."""
        if not self.path.is_file():
            return None
        arrays = read_arrays(self.path)
        found = str(arrays.pop("run", "another run"))
        if found != self.run:
            raise RecordError(f"{self.path} belongs to {found}; expected {self.run}. Remove it to start again")
        return arrays

    def save(self, arrays):
        """Put the arrays in place of what was saved before."""
        write_arrays(self.path, {"run": np.array(self.run), **arrays})
        self.saved = time.monotonic()

    def save_now_and_then(self, make):
        """Save what ``make()`` gives, if enough time has passed."""
        if time.monotonic() - self.saved >= self.seconds:
            self.save(make())

    def remove(self):
        """Forget the run, which is finished."""
        self.path.unlink(missing_ok=True)


def write_arrays(path, arrays):
    """Write named arrays to an ``.npz`` file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _replace(path, _packed(arrays))


def read_arrays(path):
    """Read what :func:`write_arrays` wrote; :class:`RecordError` for a damaged file."""
    try:
        return _unpacked(path.read_bytes())
    except Exception as error:  # a header is parsed as Python source: what that raises differs between Pythons
        raise RecordError(f"{path} is damaged ({type(error).__name__}: {error}). Remove it to start again") from error


def source_digest(files):
    """The SHA-256 of some source files, by name and content."""
    digest = hashlib.sha256()
    for file in sorted(map(Path, files)):
        digest.update(file.name.encode() + b"\0" + file.read_bytes().replace(b"\r\n", b"\n"))
    return digest.hexdigest()


def device_name(device):
    """The device in words, with the driver on a GPU."""
    if torch.device(device).type == "cuda":
        driver = _run("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
        return f"{torch.cuda.get_device_name(device)}, driver {(driver or 'unknown').splitlines()[0]}"
    names = [line.split(":", 1)[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    return f"CPU {names[0] if names else platform.machine()}"


def _commit():
    """The commit of this very file, if it is under version control, and whether sources differ from it."""
    here = Path(__file__)
    git = ("git", "-C", str(here.parent))
    head = _run(*git, "ls-files", "--error-unmatch", here.name) and _run(*git, "rev-parse", "HEAD")
    if not head:
        return {"commit": "unknown", "dirty": True}
    status = _run(*git, "status", "--porcelain", "--untracked-files=no", "--", ":/", ":!/book")
    return {"commit": head.strip(), "dirty": status is None or bool(status.strip())}


def _run(*command):
    """What a command prints, or None where it fails or does not exist."""
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError:
        return None
    return done.stdout if done.returncode == 0 else None


def _arrays_path(folder, name, sha256):
    return folder / f"{name}.{sha256[:12]}.npz"


def _packed(arrays):
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **{key: np.asarray(value) for key, value in arrays.items()})
    return buffer.getvalue()


def _unpacked(packed):
    with np.load(io.BytesIO(packed), allow_pickle=False) as file:
        return {key: file[key] for key in file.files}


def _replace(path, content):
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _refuse_nan(value, where):
    if isinstance(value, dict):
        for key, entry in value.items():
            _refuse_nan(entry, f"{where}.{key}")
    elif isinstance(value, (list, tuple)):
        for index, entry in enumerate(value):
            _refuse_nan(entry, f"{where}[{index}]")
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{where} is {value}; expected finite numbers, or null where there is none")


def _refuse_mismatch(wanted, found, path, again):
    for key in sorted(wanted.keys() | found.keys()):
        if wanted.get(key) != found.get(key):
            raise RecordError(f"{path} was made with {key} = {found.get(key)!r}; expected {wanted.get(key)!r}. {again}")


def _lines(path):
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []
