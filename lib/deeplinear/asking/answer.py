"""What the race says, in one sentence, and the answer as a text, a table and a figure."""

import dataclasses
import functools
import math
import textwrap
from typing import Literal

import torch

from .. import plots, tuning
from .conditions import FASTER, Conditions, Prediction
from .racing import DEPTHS, LEAST, NAMES, SEEDS, Race

Outcome = Literal["faster", "ahead", "level", "behind", "not settled"]
DRAWN = 1e-8  # of the first gap: curves end there
WIDTH, LABEL = 80, 12  # letters of a line of what is printed, and of the label before it
SHOWN = 20  # names of features


@dataclasses.dataclass(frozen=True)
class Judgement:
    """``outcome``: of the better of depths 2 and 3 against depth 1; ``verdict``: the same as a sentence."""

    outcome: Outcome
    verdict: str


@dataclasses.dataclass(frozen=True)
class Answer:
    """The answer of :func:`deeplinear.asking.ask`; ``print`` shows all of it.

    ``verdict``: a sentence; ``outcome``: ``"faster"`` (ahead by a factor of two or more), ``"ahead"``, ``"level"``,
    ``"behind"`` or ``"not settled"``, of the better of depths 2 and 3 against depth 1. ``prediction``: what the
    ``conditions`` let one expect. ``race``: its ``runners`` by name. ``rows``, ``features``: how many, of the table as it was
    used, and ``names`` of the features in order; ``dropped``: the columns left out, with the reason; ``notes``: what else was
    done; ``warnings``: what may be wrong with the table. ``figure``: the gaps along the race.
    """

    target: str
    power: int
    rows: int
    features: int
    names: tuple[str, ...]
    dropped: dict[str, str]
    notes: list[str]
    warnings: list[str]
    conditions: Conditions
    prediction: Prediction
    race: Race
    outcome: Outcome
    verdict: str

    @functools.cached_property
    def figure(self) -> plots.Figure:
        """The median gap of every model along the race, with the range over the starts."""
        steps = torch.tensor(self.race.records)
        curves = {}
        for name, runner in self.race.runners.items():
            middle = tuning.median(runner.curve)
            end = (steps > 0) & (torch.cumsum(middle <= DRAWN, 0) <= 1)
            parts = [each.clamp(min=DRAWN)[end].numpy() for each in (middle, runner.curve.amin(-1), runner.curve.amax(-1))]
            curves[name] = steps[end].numpy(), *parts
        return plots.lines({f"{self.target}, power {self.power}": curves}, x="gradients", y="gap over the first gap")

    def __str__(self):
        found, race, why = self.conditions, self.race, {}
        for name, reason in self.dropped.items():
            why.setdefault(reason, []).append(name)
        fewer = f" of the {self.features} features, the others follow from them" if found.rank < self.features else ""
        lines = [*_block("table", [f"{self.rows} rows, {self.features} features, target {self.target}, power {self.power}; columns "
                                   "standardised"]),
                 *_block("features", [_shortened(self.names)]),
                 *_block("left out", [f"{', '.join(names)}: {reason}" for reason, names in why.items()]),
                 *_block("done", self.notes), "",
                 f"conditioning                    {found.conditioning:.3g}, in {found.rank} directions{fewer}",
                 f"noise over signal               {found.noise:.2f}",
                 f"signal in the weak directions   {100 * found.weak:.1f} %, in the strongest {100 * found.first:.0f} %",
                 *_block("prediction", [str(self.prediction)]), "",
                 *_block("race", [f"{race.steps} gradients each, {len(SEEDS)} starts, on {_of(race.rows, self.rows)}"]),
                 *self._table(), "", *_block("verdict", [self.verdict])]
        if self.outcome != "not settled":
            lines += _block("", [f"{'as' if self.prediction.faster == (self.outcome == 'faster') else 'against what was'} predicted"])
        return "\n".join(lines + _block("warning", self.warnings))

    def _table(self):
        rows = [["", "rate", "gap at end", f"gradients to {self.race.goal:g}", "over depth 1", "95 % interval"]]
        for name, runner in self.race.runners.items():
            versus, compared = runner.versus, ["", ""]
            if versus and _is_rounding(self.race, runner.name):
                compared = ["gap: rounding", ""]
            elif versus:
                compared = [f"{versus.paired.mean:.3g} {versus.measure}", f"{versus.paired.low:.3g} to {versus.paired.high:.3g}"]
            rate, gap = "" if runner.rate is None else f"{runner.rate:.1e}", f"{runner.gap:.1e}"
            rows.append([name, rate, gap if runner.gap >= LEAST else f"below {LEAST:g}",
                         "not reached" if math.isinf(runner.steps) else f"{runner.steps:.0f}", *compared])
        widths = [max(map(len, column)) for column in zip(*rows)]
        lines = ["  ".join(cell.ljust(width) if not place else cell.rjust(width)
                           for place, (cell, width) in enumerate(zip(row, widths))).rstrip() for row in rows]
        late = [name for name in NAMES if name not in self.race.runners]
        return lines + ([f"not through in {self.race.seconds:g} s: {', '.join(late)}"] if late else [])


def _block(label, items):
    """The items in lines of at most ``WIDTH`` letters, behind a label; what belongs to an item is further in."""
    wrapper = textwrap.TextWrapper(WIDTH, " " * LABEL, " " * (LABEL + 2 * (len(items) > 1)), break_long_words=False,
                                   break_on_hyphens=False)
    lines = [line.replace("\xa0", " ") for item in items for line in wrapper.wrap(item.replace(" %", "\xa0%"))]
    return [label + lines[0][len(label):], *lines[1:]] if lines else []


def _shortened(names):
    """The names, of many the first ones, and how many more there are."""
    return ", ".join(names) if len(names) <= SHOWN else f"{', '.join(names[:SHOWN - 2])} and {len(names) - SHOWN + 2} more"


def judge(race: Race, power: int) -> Judgement:
    """The :class:`Judgement` of a race: what depth does to gradient descent on these rows, in so many steps.

    Ahead and behind are what :func:`deeplinear.tuning.compare` calls so. Not settled where a depth was not through in
    time, where at no rate all starts of a model survived, and where the medians at the rates best by the median, which may
    leave failed starts out, say the opposite. Level where the gaps are compared and both medians are below ``LEAST``: such
    gaps are rounding, and no ratio of them is taken.
    """
    said = f"At power {power} it is not settled"
    depths = [race.runners[name] for name in (f"depth {depth}" for depth in DEPTHS) if name in race.runners]
    if len(depths) < len(DEPTHS):
        return Judgement("not settled", f"{said}: the {race.seconds:g} s were over before every depth had made its "
                         f"{race.steps} steps; more seconds settle it.")
    deeper = [(runner.name, runner.versus) for runner in depths if runner.versus and math.isfinite(runner.versus.paired.mean)]
    if not deeper:
        return Judgement("not settled", f"{said}: at no rate all {len(SEEDS)} starts of two depths came through.")
    name, versus = min(deeper, key=lambda pair: (not pair[1].paired.ahead, pair[1].measure != "steps", pair[1].paired.mean))
    if versus.measure == "gap" and all(race.runners[each].gap < LEAST for each in ("depth 1", name)):
        return Judgement("level", f"At power {power} {_at_the_minimum(depths)}.")
    found, medians = versus.paired, versus.medians
    to_goal, at_end = f"the steps to {race.goal:g} of the first gap", f"the gap after {race.steps} steps"
    measured = (f"{found.mean:.3g} times {to_goal if versus.measure == 'steps' else at_end} (95 % interval {found.low:.3g} to "
                f"{found.high:.3g} over {len(SEEDS)} starts)")
    if _is_rounding(race, name):
        measured = (f"{_middle(race, name, 'gap')} in the median after {race.steps} steps, and depth 1 "
                    f"{_middle(race, 'depth 1', 'gap')}")
    if (found.ahead and medians > 1) or (found.behind and medians < 1):
        return Judgement("not settled", f"{said}: {name} has {measured}, but the opposite is true at rates that some starts do "
                         "not survive.")
    outcome: Outcome = ("faster" if FASTER * found.mean <= 1 else "ahead") if found.ahead else "behind" if found.behind else "level"
    little = ", by less than a factor of two" if 1 / FASTER < found.mean < FASTER else ""
    words = {"faster": f"{name} makes gradient descent faster on this table:",
             "ahead": f"{name} is ahead of one layer on this table{little}:",
             "level": f"more layers are not shown to help on this table: {name}, {_middle(race, name, versus.measure)} in the "
                      f"median against {_middle(race, 'depth 1', versus.measure)}, has",
             "behind": f"more layers put gradient descent behind on this table{little}: {name} has"}[outcome]
    return Judgement(outcome, f"At power {power} {words} {measured}.")


def _is_rounding(race, name):
    """Whether a ratio of gaps would have rounding above or below its line: a median gap below ``LEAST``."""
    return race.runners[name].versus.measure == "gap" and min(race.runners[each].gap for each in ("depth 1", name)) < LEAST


def _at_the_minimum(depths):
    """Who has a median gap that is rounding, and how many of the starts have not."""
    there = [runner.name for runner in depths if runner.gap < LEAST]
    away = [f"{int((~(runner.curve[-1] < LEAST)).sum())} of {runner.name}" for runner in depths
            if not (runner.curve[-1] < LEAST).all()]
    who = "every depth is" if len(there) == len(depths) else f"{' and '.join(there)} are"
    return f"{who} at the minimum, within rounding{', in the median' if away else ''}" + (
        f"; of {len(SEEDS)} starts, {', '.join(away)} did not get there" if away else "")


def _middle(race, name, measure):
    runner = race.runners[name]
    return f"{runner.steps:.0f} steps" if measure == "steps" else f"a gap {_in_words(runner.gap)}"


def _in_words(gap):
    """``of 0.12``, or ``below 1e-09``, where a gap is rounding and may be negative."""
    return f"of {gap:.2g}" if gap >= LEAST else f"below {LEAST:g}"


def _of(rows, all_rows):
    return f"all {rows} rows" if rows == all_rows else f"{rows} of the {all_rows} rows, drawn with seed 0"
