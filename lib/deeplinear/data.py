"""Named data sets as standardised float64 tensors: bundled, read from a folder, or downloaded with a checksum."""

import dataclasses
import gzip
import hashlib
import io
import os
from pathlib import Path

import numpy as np
import torch

FOLDER_VARIABLE = "DEEPLINEAR_DATA"

# The 35 nominal ethanol concentrations in ppm. The public copy of the data carries a monotone transform of them.
ETHANOL_PPM = (2.5, 5, 10, 20, 25, 30, 40, 50, 60, 70, 75, 80, 90, 100, 110, 120, 125, 130, 140, 150, 160, 170, 175,
               180, 190, 200, 210, 220, 225, 230, 240, 250, 275, 500, 600)


class DataUnavailable(RuntimeError):
    """A data set was found nowhere; the message names every place that was looked at."""


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Standardised data: ``X`` (n, d) and ``y`` (n,) have columns of mean 0 and variance 1 (divided by n).

    ``y_mean`` and ``y_scale`` give the labels back in their unit; ``sha256`` identifies the file that was read.
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
    source: str
    y_unit: str
    url: str | None = None  # None: bundled


FILES = {
    "diabetes": _File(
        "diabetes.csv", "3b271426c1bd56aebb217e16eb31a4b0f5a5669fe59258d6c6c65411a115cd22",
        "Efron, Hastie, Johnstone and Tibshirani 2004; 442 patients, 10 features, as in scikit-learn 1.9.1",
        "disease progression after one year"),
    "ethanol": _File(
        "uci-ethanol.csv.gz", "bd82bee47199d3952bee30a59739794b26baa742e1da7f7bd42b9a34552321a1",
        "UCI Gas Sensor Array Drift at Different Concentrations, ethanol; 2565 samples, 128 features, CC BY 4.0",
        "ppm", "https://raw.githubusercontent.com/treforevans/uci_datasets/"
        "f0737523712fe66a1640e4b980b927e8490b58eb/uci_datasets/gas/data.csv.gz"),
}


def load(name, download=True):
    """Load a data set by name: ``"diabetes"`` (bundled) or ``"ethanol"``. Returns a :class:`Dataset`.

    A file that is not bundled is looked for in the folder named by the environment variable DEEPLINEAR_DATA, then in
    the user's cache, then, with ``download``, at its address; its SHA-256 must match. Raises ``ValueError`` for an
    unknown name and :class:`DataUnavailable`, naming every place, where it cannot be had.
    """
    if name not in FILES:
        raise ValueError(f"data set {name!r} is unknown; expected one of {', '.join(sorted(FILES))}")
    file = FILES[name]
    path = book_folder("data") / file.name if file.url is None else _find(file, download)
    content = path.read_bytes()
    _check_digest(path, content, file.sha256)
    if name == "diabetes":
        table = np.loadtxt(io.BytesIO(content), delimiter=",", skiprows=1)
        labels = table[:, -1]
    else:
        table = np.loadtxt(io.BytesIO(gzip.decompress(content)), delimiter=",")
        labels = _ethanol_ppm(table[:, -1])
    X, y = torch.from_numpy(table[:, :-1].copy()), torch.from_numpy(labels.copy())
    return Dataset(name, _standardise(X), _standardise(y), y.mean().item(), y.std(correction=0).item(), file.y_unit,
                   file.sha256, file.source)


def book_folder(name):
    """The folder ``book/<name>`` of the checkout this package was installed from, or the copy a wheel carries."""
    packaged = Path(__file__).parent / "_book" / name
    return packaged if packaged.is_dir() else Path(__file__).parents[2] / "book" / name


def _find(file, download):
    import pooch  # here, since it wants a notebook's progress bar as soon as it is imported

    looked = []
    folder = os.environ.get(FOLDER_VARIABLE)
    if folder:
        path = Path(folder) / file.name
        if path.is_file():
            return path
        looked.append(str(path))
    else:
        looked.append(f"the folder in the environment variable {FOLDER_VARIABLE} (not set)")
    cache = Path(pooch.os_cache("deeplinear"))
    path = cache / file.name
    if path.is_file():
        return path
    looked.append(str(path))
    if download:
        try:
            return Path(pooch.retrieve(file.url, known_hash=f"sha256:{file.sha256}", fname=file.name, path=cache))
        except Exception as error:  # no network, a changed file, a read-only cache: one answer for the reader
            looked.append(f"{file.url} ({type(error).__name__}: {error})")
    raise DataUnavailable(f"{file.name} ({file.source}) was not found. Looked at:\n  " + "\n  ".join(looked)
                          + f"\nPut the file in a folder and name that folder in {FOLDER_VARIABLE}.")


def _check_digest(path, content, expected):
    found = hashlib.sha256(content).hexdigest()
    if found != expected:
        raise DataUnavailable(f"{path} has SHA-256 {found}; expected {expected}. The file is not used.")


def _standardise(a):
    return (a - a.mean(0)) / a.std(0, correction=0)


def _ethanol_ppm(transformed):
    levels, index = np.unique(transformed, return_inverse=True)
    if len(levels) != len(ETHANOL_PPM):
        raise DataUnavailable(f"the ethanol labels have {len(levels)} levels; expected {len(ETHANOL_PPM)}")
    return np.array(ETHANOL_PPM)[index]
