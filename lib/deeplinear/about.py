"""What a number may hang on: versions, processor, threads, data. ``python -m deeplinear about`` prints it for a report."""

import os
import platform
import re
from collections.abc import Callable, Iterator

import numpy as np
import torch

from . import data, provenance

PACKAGES = ("torch", "numpy", "scipy", "sympy", "python-flint", "matplotlib", "pooch", "PyYAML", "filelock", "msgspec", "tqdm",
            "distributed", "pandas", "jupyter-book", "ipykernel", "nbval", "pytest")
VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "ATEN_CPU_CAPABILITY", "MKL_CBWR",
             "OPENBLAS_CORETYPE", "ONEDNN_MAX_CPU_ISA", "NPY_DISABLE_CPU_FEATURES")


def about() -> str:
    """Lines of what was found, a name and a fact each. What is missing is said to be; no path and no name of a user."""
    return "\n".join(f"{name + ':':17}{fact}" for name, fact in _facts())


def _facts() -> Iterator[tuple[str, str]]:
    yield "deeplinear", _said(lambda: f"{provenance.version('deeplinear')}, {_commit()}")
    yield "python", _said(lambda: f"{platform.python_version()} {platform.python_implementation()}")
    yield "system", _said(platform.platform)
    yield "processor", _said(lambda: f"{provenance.device_name('cpu')}, {os.cpu_count()} cores")
    yield "GPU", _said(lambda: provenance.device_name("cuda") if torch.cuda.is_available() else "none that PyTorch can use")
    for name in PACKAGES:
        yield name, _said(provenance.version, name)
    yield "torch runs", _said(_torch_runs)
    yield "numpy runs", _said(lambda: "on BLAS {name} {version}".format(**np.show_config("dicts")["Build Dependencies"]["blas"]))
    yield "variables", " ".join(f"{name}={os.environ[name]}" for name in VARIABLES if name in os.environ) or "none set"
    for name in data.SETS:
        yield name, _said(_found, name)


def _said(fact: Callable[..., str], *arguments: str) -> str:
    """The fact, or that it could not be had: a report must not fail for want of a part."""
    try:
        return fact(*arguments)
    except Exception as error:  # whatever a package that is missing or odd raises; its message may hold a path
        return f"not found ({type(error).__name__})"


def _commit() -> str:
    found = provenance.commit()
    return f"commit {found['commit'][:12]}{' with changes' if found['dirty'] else ''}"


def _torch_runs() -> str:
    blas = re.findall("BLAS_INFO=([^,]+)", torch.__config__.show())[0]
    return f"on {torch.get_num_threads()} threads, capability {torch.backends.cpu.get_cpu_capability()}, BLAS {blas}"


def _found(name: str) -> str:
    return f"data of SHA-256 {data.load(name, download=False).sha256[:12]}..."
