"""Recorded results: written whole or not at all, with the provenance of every number; loaded with checks.

A record is ``<name>.json`` and, beside it, the arrays it names: ``<name>.<start of their SHA-256>.npz``. The JSON is put
in place last, so at every moment it and its arrays belong together. Only ``python -m deeplinear run`` writes records,
and ``verify`` adds to their provenance that today's source still gives them.
"""

import dataclasses
import datetime
import hashlib
import json
import math
import shlex
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired, TypedDict

import msgspec
import torch

from . import data, storage
from .provenance import device_name, origin, version, versions
from .storage import Checkpoint, RecordError, held, read_arrays, write_arrays

__all__ = ["Checkpoint", "Record", "RecordError", "benchmark", "device_name", "enter", "held", "load", "origin",
           "read_arrays", "version", "versions", "write", "write_arrays"]

SCHEMA = 1
Digest = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]


class _Config(TypedDict):
    seeds: list
    dtype: str


class _Dataset(TypedDict):
    name: str
    sha256: str


class _Verified(TypedDict):
    source_sha256: Digest
    commit: str
    dirty: bool
    date: str
    versions: dict[str, str]
    device: str
    job: dict
    distance: float
    moved: float
    telling: float


class _Provenance(TypedDict):
    commit: str
    dirty: bool
    source_sha256: Digest
    arrays_sha256: Digest
    dataset: _Dataset
    scale: Literal["quick", "full"]
    device: str
    dtype: str
    finished: str
    versions: dict[str, str]
    verified: NotRequired[_Verified]


class _Content(msgspec.Struct):
    """What every record must hold; what else it holds is kept as it is."""

    schema: int
    name: str
    config: _Config
    metrics: list[dict]
    summary: dict
    provenance: _Provenance


class _Bench(TypedDict):
    date: str
    device: str
    threads: int
    versions: dict[str, str]
    data: str
    rounds: int


@dataclasses.dataclass(frozen=True)
class Record:
    """A recorded result: ``config`` (every setting), ``metrics`` (per run), ``summary``, ``arrays``, ``provenance``."""

    name: str
    config: dict[str, Any]
    metrics: list[dict[str, Any]]
    summary: dict[str, Any]
    provenance: dict[str, Any]
    arrays: dict[str, torch.Tensor]

    @property
    def source(self) -> str:
        """One line that says where the numbers come from."""
        p = self.provenance
        seeds = f"{len(self.config['seeds'])} seed{'s' if len(self.config['seeds']) != 1 else ''}"
        scale = "" if p["scale"] == "full" else f", {p['scale']} scale"
        return (f"recorded {p['finished'][:10]}: {p['dataset']['name']}{scale}, {seeds}, "
                f"{p['dtype']}, {p['device']}, commit {p['commit'][:7]}{' with changes' if p['dirty'] else ''}")

    def stands_for(self, digest: str) -> bool:
        """Whether source of this digest gave the record, or was verified to give it."""
        return digest in (self.provenance["source_sha256"], self.provenance.get("verified", {}).get("source_sha256"))


def write(name: str, *, config: Any, metrics: list[dict[str, Any]], summary: dict[str, Any], arrays: dict[str, Any],
          dataset: data.Dataset, origin: dict[str, Any], scale: Literal["quick", "full"], device: str,
          folder: str | Path) -> Path:
    """Write a record to ``folder``; a record already there is replaced only once the new one is complete on disk.

    ``config``: a dataclass; ``metrics``: a list of flat dicts; ``arrays``: name to array; ``dataset``: the
    :class:`deeplinear.data.Dataset` used; ``origin``: what :func:`origin` gave before the run; ``device``: the device in
    words (:func:`device_name`). Raises ``ValueError``
    for a NaN or infinity in ``metrics`` or ``summary``. Returns the path of the JSON.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    packed = storage.packed(arrays)
    arrays_sha256 = hashlib.sha256(packed).hexdigest()
    finished = datetime.datetime.now(datetime.UTC)
    record = {
        "schema": SCHEMA, "name": name, "config": dataclasses.asdict(config), "metrics": metrics, "summary": summary,
        "provenance": {
            **origin, "scale": scale, "dataset": {"name": dataset.name, "sha256": dataset.sha256},
            "arrays_sha256": arrays_sha256, "versions": versions(),
            "device": device, "dtype": config.dtype, "threads": torch.get_num_threads(),
            "finished": finished.isoformat(timespec="seconds"),
            "wall_seconds": round((finished - datetime.datetime.fromisoformat(origin["started"])).total_seconds()),
        },
    }
    _refuse_nan({"metrics": metrics, "summary": summary}, name)
    arrays_path = _arrays_path(folder, name, arrays_sha256)
    storage.replace(arrays_path, packed)
    _write_json(folder / f"{name}.json", record)
    for stale in set(folder.glob(f"{name}.*.npz")) - {arrays_path}:
        stale.unlink()
    return folder / f"{name}.json"


def enter(name, folder, verified):
    """Enter into the provenance of the record ``name`` that one of its jobs was run again; the arrays stay untouched.

    ``verified``: what :func:`deeplinear.verification.verify` found. Returns the path of the JSON.
    """
    path = Path(folder) / f"{name}.json"
    content = _read(path, f"Make it with: python -m deeplinear run {name} --scale full --out {shlex.quote(str(folder))}")
    content["provenance"]["verified"] = msgspec.convert(verified, _Verified)
    _write_json(path, content)
    return path


def load(name: str, config: Any = None, folder: str | Path | None = None, quiet: bool = False) -> Record:
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
    content = _read(path, again)
    if config is not None:
        wanted = config if isinstance(config, dict) else dataclasses.asdict(config)
        _refuse_mismatch(json.loads(json.dumps(wanted)), content["config"], path, again)
    arrays_sha256 = content["provenance"]["arrays_sha256"]
    arrays_path = _arrays_path(folder, name, arrays_sha256)
    packed = arrays_path.read_bytes() if arrays_path.is_file() else b""
    if hashlib.sha256(packed).hexdigest() != arrays_sha256:
        raise RecordError(f"{arrays_path} is missing or damaged; its SHA-256 differs from the one in {path.name}. {again}")
    try:
        arrays = {key: torch.from_numpy(array) for key, array in storage.unpacked(packed).items()}
    except Exception as error:  # whatever the readers of foreign bytes raise
        raise RecordError(f"{arrays_path} holds other things than arrays of numbers ({error}). {again}") from error
    record = Record(name, content["config"], content["metrics"], content["summary"], content["provenance"], arrays)
    if not quiet:
        print(record.source)
    return record


def benchmark(device: str = "cpu") -> dict[str, Any]:
    """What ``make bench`` measured on this kind of device, ``"cpu"`` or ``"cuda"``, and prints its source, one line.

    Returns a dict; :class:`RecordError` where there is none, or a damaged one.
    """
    packaged = data.book_folder("benchmarks")  # in a wheel; a checkout has them beside the book
    path = (packaged if packaged.is_dir() else packaged.parents[1] / "benchmarks" / "results") / f"{device}.json"
    if not path.is_file():
        raise RecordError(f"no benchmark for {device!r} at {path}. Make it with: make bench")
    found = _parsed(path, "Make it with: make bench", _Bench)
    print(f"measured {found['date'][:10]}: {found['device']}, {found['threads']} thread, torch {found['versions']['torch']}, "
          f"{found['data']}, median of {found['rounds']} rounds")
    return found


def _read(path, again):
    """The content of a record's JSON, once it is seen to be one."""
    content = _parsed(path, again, dict)
    if "schema" in content and content["schema"] != SCHEMA:
        raise RecordError(f"{path} has schema {content['schema']!r}; expected {SCHEMA}. {again}")
    return _parsed(path, again, _Content)


def _parsed(path, again, kind):
    """The JSON at ``path`` as plain dicts and lists, if it is of this kind."""
    try:
        content = msgspec.json.decode(path.read_bytes())
        msgspec.convert(content, kind)
    except Exception as error:  # whatever the readers of foreign bytes raise
        raise RecordError(f"{path} is not a readable record ({type(error).__name__}: {error}). {again}") from error
    return content


def _write_json(path, content):
    storage.replace(path, (json.dumps(content, indent=1, sort_keys=True, allow_nan=False) + "\n").encode())


def _arrays_path(folder, name, sha256):
    return folder / f"{name}.{sha256[:12]}.npz"


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
