"""What a kernel does for tools/shake.py: it multiplies every input by 1 + eps n and notes rounding errors near their thresholds.

Installed at the start of the kernel, from outside the library, by the environment: ``SHAKE_EPS`` (0: nothing is multiplied),
``SHAKE_SEED``, ``SHAKE_LOG`` (a file; one rounding error a line).
"""

import dataclasses
import functools
import os

import numpy as np
import torch
from torch import nn

import deeplinear as dl
import watch
from deeplinear import checks

NEAR = 10  # a rounding error within this factor of its threshold is reported


def install(shell):
    """Wrap the library's sources of numbers; the cells of ``shell`` are watched as always."""
    eps, seed = float(os.environ["SHAKE_EPS"]), int(os.environ["SHAKE_SEED"])
    if eps:
        _wrap_sources(functools.partial(_shaken, np.random.default_rng(seed), eps))
    checks.check = dl.check = _reporting(checks.check)
    watch.install(shell)


def _wrap_sources(shaken):
    def data(found):
        if not found.y.is_floating_point():  # an image: the pixel is multiplied, so that black stays black
            return dataclasses.replace(found, X=shaken(found.X + 0.5) - 0.5)
        return dataclasses.replace(found, X=shaken(found.X), y=shaken(found.y))

    dl.data.load = _after(dl.data.load, data)
    dl.recorded.load = _after(dl.recorded.load, lambda found: dataclasses.replace(
        found, arrays={name: shaken(array) for name, array in found.arrays.items()}))
    for name in ("normal", "uniform"):  # everything else that the library draws is made of these two
        wrapped = _after(getattr(dl.chain, name), shaken)
        setattr(dl.chain, name, wrapped)
        setattr(dl, name, wrapped)
    for kind in (nn.Linear, nn.modules.conv._ConvNd):
        kind.reset_parameters = _redrawn(kind.reset_parameters, shaken)


def _shaken(rng, eps, values):
    """``values`` times 1 + eps n, n standard normal; a relative 1e-7 at least for single precision, integers as they are."""
    tensor = torch.as_tensor(values)
    if not tensor.is_floating_point():
        return values
    factor = 1 + (eps if tensor.dtype == torch.float64 else max(eps, 1e-7)) * torch.from_numpy(rng.standard_normal(tensor.shape))
    moved = (tensor.double() * factor).to(tensor.dtype)
    return moved if isinstance(values, torch.Tensor) else moved.numpy()


def _after(function, change):
    @functools.wraps(function)
    def wrapped(*arguments, **keywords):
        return change(function(*arguments, **keywords))
    return wrapped


def _redrawn(reset, shaken):
    def reset_parameters(module):
        reset(module)
        with torch.no_grad():
            for parameter in module.parameters(recurse=False):
                if not parameter.is_meta:  # a layer without numbers yet
                    parameter.copy_(shaken(parameter))
    return reset_parameters


def _reporting(check):
    @functools.wraps(check)
    def wrapped(label, value, below=None, *rest, **keywords):
        check(label, value, below, *rest, **keywords)
        if below is not None and below <= checks.ROUNDING and checks.worst(value) * NEAR > below:
            with open(os.environ["SHAKE_LOG"], "a", encoding="utf-8") as file:
                file.write(f"{label}: {checks.worst(value):.0e}, below {below:g}\n")
    return wrapped
