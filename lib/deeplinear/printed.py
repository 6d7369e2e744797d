"""What the paper prints: values read off Figure 3 of Arora, Cohen and Hazan 2018, good to a few per cent, beside our records."""

from collections.abc import Sequence

import numpy as np
import torch

from .annotations import Numbers
from .recorded import Record

STEPS = (10_000, 100_000, 200_000, 400_000, 1_000_000)
FIGURE_3 = {  # the loss above its minimum at these steps: by the power of the loss, then by the depth
    2: {1: (0.025, 0.011, 0.0081, 0.0055, 0.0027), 2: (0.058, 0.020, 0.0139, 0.0088, 0.0035),
        3: (0.30, 0.029, 0.0184, 0.0114, 0.0041)},
    4: {1: (0.32, 0.144, 0.103, 0.071, 0.037), 2: (0.64, 0.178, 0.111, 0.060, 0.017),
        3: (1.05, 0.188, 0.105, 0.045, 0.0064)}}
PAPER = {f"paper, depth {depth}": f"depth {depth}" for depth in (1, 2, 3)}  # the points, and the curves whose colours they take


def curve(record: Record, power: int, depth: int, rate: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Of the record ``regression-depth`` the median gap at one rate of its grid: recorded steps and gaps, both (records,).

    Raises ``ValueError`` for a rate that is not on the grid."""
    rates = record.config["rates"]
    if rate not in rates:
        raise ValueError(f"rate is {rate!r}; expected one of the record's grid: {rates}")
    return record.arrays["steps"], record.arrays[f"l{power} depth {depth} grid"][:, rates.index(rate)]


def read_off(steps: Numbers, gaps: Numbers, at: Sequence[float] = STEPS) -> np.ndarray:
    """The curve's values at the steps ``at``, by interpolation of its logarithms; steps of 0 do not count.

    ``steps``, ``gaps``: shape (records,); the result has the length of ``at``.
    """
    across, up = np.asarray(steps, dtype=float), np.asarray(gaps, dtype=float)
    moved = across > 0
    return np.exp(np.interp(np.log(at), np.log(across[moved]), np.log(up[moved])))


def beside(record: Record, power: int, chosen: Sequence[float], after: int = 300) -> dict[str, tuple[Numbers, Numbers]]:
    """A panel for :func:`deeplinear.plots.lines`: our curves of depths 1, 2 and 3 and the paper's points, ``PAPER``.

    ``record``, ``power``: as for :func:`curve`; ``chosen``: a rate for each depth. The curves begin after ``after`` steps.
    """
    panel: dict[str, tuple[Numbers, Numbers]] = {}
    for depth, rate in enumerate(chosen, 1):
        steps, gaps = curve(record, power, depth, rate)
        panel[f"depth {depth}"] = steps[steps > after], gaps[steps > after]
    return panel | {f"paper, depth {depth}": (STEPS, values) for depth, values in FIGURE_3[power].items()}


def clocked(record: Record, after: float = 0.3) -> dict[str, dict[str, tuple[Numbers, Numbers]]]:
    """Two panels over rate times steps from the record ``l4-printed``: the flow and heavy ball, medians over the starts from
    the time ``after`` on, each with the paper's points."""
    panels: dict[str, dict[str, tuple[Numbers, Numbers]]] = {"gradient flow": {}, "heavy ball": {}}
    for depth, rate in enumerate(record.config["rates"], 1):
        flow, ball = f"flow depth {depth}", f"heavy ball depth {depth}"
        runs = {"gradient flow": (record.arrays[f"{flow} times"], record.arrays[f"{flow} gaps"]),
                "heavy ball": (rate * record.arrays["steps"], record.arrays[ball].nan_to_num(9e9))}
        for name, (times, gaps) in runs.items():
            shown = times > after
            panels[name][f"depth {depth}"] = times[shown], gaps.median(1).values[shown]
            panels[name][f"paper, depth {depth}"] = rate * np.array(STEPS), FIGURE_3[4][depth]
    return panels
