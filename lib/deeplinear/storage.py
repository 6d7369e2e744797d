"""Files that are written whole or not at all: named arrays, and the checkpoint of an unfinished run."""

import contextlib
import errno
import io
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import filelock
import numpy as np


class RecordError(RuntimeError):
    """A record is missing, unreadable, of another schema, or made with other settings than asked for."""


@contextlib.contextmanager
def held(name, folder):
    """The right to record ``name`` in ``folder``, for one command at a time; the system takes it back from a killed one.

    Raises :class:`RecordError` where another has it, or where nothing can be written or locked.
    """
    path = Path(folder) / f".{name}.lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(path, fallback_to_soft=False)
        lock.acquire(timeout=0)
    except filelock.Timeout as error:
        raise RecordError(f"another run of {name!r} is writing to {folder}; wait for it, or name another folder with "
                          "--out") from error
    except (OSError, NotImplementedError) as error:
        if isinstance(error, NotImplementedError) or error.errno in (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP):
            raise RecordError(f"{folder} lies on a file system without locks ({error}), such as some network drives; name "
                              "a local folder with --out and copy the record") from error
        raise RecordError(f"cannot write to {folder} ({error}); name another folder with --out") from error
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # Windows removes it on release
            path.unlink(missing_ok=True)
        lock.release()


class Checkpoint:
    """The file of an unfinished run: written whole or not at all, read back only by the same run.

    ``run``: a text that names the run and everything its result depends on. ``seconds``: the least time between two
    savings on the way. ``settings``: a digest of what the run starts from, which :meth:`of` adds. :meth:`load` raises
    :class:`RecordError` for the file of another run or of other settings, or a damaged one.
    """

    def __init__(self, path: str | Path, run: str, seconds: float = 60.0, settings: str | None = None) -> None:
        self.path, self.run, self.seconds, self.settings = Path(path), run, seconds, settings
        self.saved = time.monotonic()

    def of(self, settings: str) -> "Checkpoint":
        """The same file, for a run that starts from these settings only."""
        return Checkpoint(self.path, self.run, self.seconds, settings)

    def part(self, name: str) -> "Checkpoint":
        """Another file beside this one, for a part of the same run that starts from settings of its own."""
        return Checkpoint(self.path.with_name(f"{self.path.stem}.{name}{self.path.suffix}"), f"{self.run}, {name}", self.seconds)

    def load(self) -> dict[str, np.ndarray] | None:
        """The saved arrays by name, or None where nothing was saved."""
        if not self.path.is_file():
            return None
        arrays = read_arrays(self.path)
        found = str(arrays.pop("run", "another run"))
        if found != self.run:
            raise RecordError(f"{self.path} belongs to {found}; expected {self.run}. Remove it to start again")
        settings = str(arrays.pop("settings", None))
        if self.settings not in (None, settings):
            raise RecordError(f"{self.path} belongs to {self.run} with other starts, data, rates or steps (their digest is "
                              f"{settings}; expected {self.settings}). Remove it to start again")
        return arrays

    def save(self, arrays: dict[str, Any]) -> None:
        settings = {} if self.settings is None else {"settings": np.array(self.settings)}
        write_arrays(self.path, {"run": np.array(self.run), **settings, **arrays})
        self.saved = time.monotonic()

    def save_now_and_then(self, make: Callable[[], dict[str, Any]]) -> None:
        """Save what ``make()`` gives, if enough time has passed."""
        if time.monotonic() - self.saved >= self.seconds:
            self.save(make())

    def remove(self) -> None:
        """Forget the run, which is finished."""
        self.path.unlink(missing_ok=True)


def write_arrays(path, arrays):
    """Write named arrays to an ``.npz`` file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    replace(path, packed(arrays))


def read_arrays(path):
    """Read what :func:`write_arrays` wrote; :class:`RecordError` for a damaged file."""
    try:
        return unpacked(path.read_bytes())
    except Exception as error:  # whatever the readers of foreign bytes raise, a TokenError of a header among it
        raise RecordError(f"{path} is damaged ({type(error).__name__}: {error}). Remove it to start again") from error


def packed(arrays):
    """Named arrays as the bytes of an ``.npz`` file."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **{key: np.asarray(value) for key, value in arrays.items()})
    return buffer.getvalue()


def unpacked(content):
    """The arrays that :func:`packed` made bytes of."""
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        return {key: file[key] for key in file.files}


def replace(path, content):
    """Put these bytes at ``path``, whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
