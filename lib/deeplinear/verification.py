"""Does today's source still give a record? One of its jobs is run again and compared with what was recorded.

The same to the last bit or two of the largest entry is verified. Otherwise the job runs once more with its data shaken,
every entry of the features moved by a share of 1e-13 (1e-6 in float32): the recorded numbers must lie within ten times
what that moves, each of them or the array's median, with rounding added. Numbers that the shake moves by a thousandth of
themselves, as late in a chaotic run, tell nothing; of every array at least a quarter must tell.
"""

import dataclasses
import math
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from . import data, provenance, recorded, sources
from .annotations import Numbers
from .experiments import data_of

SHAKES = {"float64": 1e-13, "float32": 1e-6}
WIDTH = 10
TELLING = 1e-3
SHARE = 0.25
Pairs = dict[str, tuple[Numbers, Numbers]]


@dataclasses.dataclass(frozen=True)
class Comparison:
    """``distance``: the largest ``|today - recorded|`` among the numbers that tell; ``moved``: the most that the shake moves
    one of them, both as shares of the largest entry of the array; ``telling``: their share, in the worst array."""

    distance: float
    moved: float = 0.0
    telling: float = 1.0


def verify(module: Any, folder: str | Path, device: str = "cpu",
           index: int | None = None) -> tuple[Comparison, dict[str, Any]]:
    """Run one job of the record of an experiment again and enter the comparison into the record's provenance.

    ``module``: the experiment's; ``index``: which of its ``jobs``, by default the first of the smallest size. Returns the
    :class:`Comparison` and the job. Raises :class:`deeplinear.recorded.RecordError` where the record cannot be had, was
    made from other data, or differs, and ``ValueError`` for an index that is none.
    """
    scale = recorded.load(module.NAME, folder=folder, quiet=True).provenance["scale"]
    config = module.SCALES[scale]
    record = recorded.load(module.NAME, config, folder, quiet=True)
    found, made = data_of(module, config).sha256, record.provenance["dataset"]["sha256"]
    if found != made:
        raise recorded.RecordError(f"{module.NAME} was recorded with data of SHA-256 {made}; here they have {found}")
    jobs = module.jobs(config, device)
    if index is None:
        index = min(range(len(jobs)), key=lambda i: jobs[i]["size"])
    if not 0 <= index < len(jobs):
        raise ValueError(f"job is {index}; expected 0 to {len(jobs) - 1}, the jobs of {module.NAME}")
    entry = {**provenance.commit(), "source_sha256": sources.digest(module.__file__), "date": provenance.now(),
             "versions": provenance.versions(), "device": provenance.device_name(device), "job": jobs[index]}
    comparison = _compared(module, record, config, jobs[index], device)
    recorded.enter(module.NAME, folder, {**entry, **dataclasses.asdict(comparison)})
    return comparison, jobs[index]


def compare(pairs: Pairs, shaken: Pairs | None = None, dtype: str = "float64") -> Comparison | None:
    """The :class:`Comparison` of what a record holds of a job with what the job gives today, or None without ``shaken``
    where a shake is needed.

    ``pairs``: name to (recorded, today), the first axis the records of a run, of length 1 for numbers of its end;
    ``shaken``: the same from shaken data. ``dtype``: in which the job computes; what it
    stores may be finer, and no better. Raises :class:`deeplinear.recorded.RecordError` where they differ.
    """
    both = {name: (torch.as_tensor(stored), torch.as_tensor(today)) for name, (stored, today) in pairs.items()}
    if not any(stored.isfinite().any() for stored, _ in both.values()):
        raise recorded.RecordError("the record holds no number of this job; name another with --job")
    for name, (stored, today) in both.items():
        if tuple(stored.shape) != tuple(today.shape):
            raise recorded.RecordError(f"{name!r} has the shape {tuple(today.shape)} today; recorded {tuple(stored.shape)}")
    apart = [(_apart(*pair).max().item() if pair[0].numel() else 0.0, *_scale(pair[0], dtype)) for pair in both.values()]
    if all(largest <= 2 * rounding for largest, _, rounding in apart):
        return Comparison(max(largest / scale for largest, scale, _ in apart))
    if shaken is None:
        return None
    found = [_within(name, *both[name], torch.as_tensor(shaken[name][1]), dtype) for name in both]
    return Comparison(max(each.distance for each in found), max(each.moved for each in found),
                      min(each.telling for each in found))


def _compared(module, record, config, job, device):
    pairs = _pairs(module, record, config, job, device, "today's source")
    comparison = compare(pairs, dtype=config.dtype)
    if comparison is None:
        with data.shaken(SHAKES[config.dtype]):
            shaken = _pairs(module, record, config, job, device, "shaken data")
        comparison = compare(pairs, shaken, config.dtype)
    return comparison


def _pairs(module, record, config, job, device, what):
    torch.set_num_threads(1)
    with tqdm(total=job["size"], desc=what, unit=" config-steps", unit_scale=True, disable=None) as bar:
        result = module.run_job(config, job, device, None, lambda share: bar.update(share * job["size"] - bar.n))
    if hasattr(module, "pairs"):
        return module.pairs(config, job, result, record)
    alone = module.collect(config, [job], [result])[2]
    return {name: (record.arrays[name], array) for name, array in alone.items()}


def _within(name, stored, today, shaken, dtype):
    """The :class:`Comparison` of one array."""
    scale, rounding = _scale(stored, dtype)
    apart, moved = _apart(stored, today), _apart(today, shaken)
    if moved.ndim and moved.numel():
        moved = moved.cummax(0).values  # what is lost in a run stays lost
    size = torch.where(stored.isfinite(), stored.double().abs(), 0.0)
    telling = (moved <= TELLING * size) | (moved <= rounding)
    share = telling.double().mean().item() if telling.numel() else 1.0
    if share < SHARE:
        raise recorded.RecordError(f"of {name!r} only a share of {share:.2f} tells anything, the rest a shake moves by a "
                                   f"thousandth; expected {SHARE} at least. Name another job with --job")
    typical = moved[telling & (moved > 0)].median() if (telling & (moved > 0)).any() else torch.zeros(())
    wrong = telling & (apart > WIDTH * (moved.clamp(min=typical.item()) + rounding))
    if wrong.any():
        worst = tuple(wrong.nonzero()[0].tolist())
        raise recorded.RecordError(
            f"{name!r} at {worst} is {today[worst].item()!r} today; recorded {stored[worst].item()!r}, "
            f"and a shake moves it by {moved[worst].item():.1e}. The source has changed what it computes: run it again")
    largest = lambda values: (values[telling & values.isfinite()].max().item() if (telling & values.isfinite()).any() else 0.0)
    return Comparison(largest(apart) / scale, largest(moved) / scale, share)


def _scale(stored, dtype):
    """The largest entry of an array, 1 where there is none, and what rounding makes of it, in the coarser of its own type
    and ``dtype``."""
    finite = stored[stored.isfinite()].abs()
    scale = (finite.max().item() if finite.numel() else 0.0) or 1.0
    own = stored.dtype if stored.is_floating_point() else torch.float64
    return scale, scale * max(torch.finfo(own).eps, torch.finfo(getattr(torch, dtype)).eps)


def _apart(a, b):
    """|a - b|, 0 where both are the same infinity or NaN, infinity where one of them is."""
    a, b = a.double(), b.double()
    same = (a == b) | (a.isnan() & b.isnan())
    return torch.where(same, 0.0, (a - b).abs().nan_to_num(nan=math.inf, posinf=math.inf))
