"""Where a number comes from: the commit and the source, the versions, the device, the command line."""

import datetime
import os
import platform
import shlex
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from . import sources

PACKAGES = ("deeplinear", "numpy", "scipy")


def origin(file: str | Path) -> dict[str, Any]:
    """Where a run comes from, to be taken before it starts: commit, digest, time, command line.

    ``file``: the experiment's module, whose imports the digest follows (:func:`deeplinear.sources.digest`).
    """
    words = [_anywhere(os.fsencode(word).decode(errors="replace")) for word in sys.argv[1:]]  # the same in every locale
    return {**commit(), "source_sha256": sources.digest(file), "started": now(),
            "command": shlex.join(["python", "-m", "deeplinear", *words])}


def _anywhere(word):
    """A word of a command line, of a folder's whole path the last part alone: the others are those of one machine."""
    option, equals, path = word.rpartition("=")
    return option + equals + Path(path).name if Path(path).is_absolute() else word


def now():
    """The time, as records write it."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def version(package):
    """The version of an installed package, or of this library as a checkout on the path that is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        checkout = Path(__file__).parents[2] / "pyproject.toml"
        if package != "deeplinear" or not checkout.is_file():
            raise
        return tomllib.loads(checkout.read_text(encoding="utf-8"))["project"]["version"]


def versions():
    """The versions that numbers depend on, by package."""
    return {"python": platform.python_version(), "torch": str(torch.__version__), **{name: version(name) for name in PACKAGES}}


def device_name(device: str | torch.device) -> str:
    """The device in words, with the driver on a GPU."""
    if torch.device(device).type == "cuda":
        driver = _run("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
        return f"{torch.cuda.get_device_name(device)}, driver {(driver or 'unknown').splitlines()[0]}"
    names = [line.split(":", 1)[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    return f"CPU {names[0] if names else platform.machine()}"


def commit():
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


def _lines(path):
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []
