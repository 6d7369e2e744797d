"""What a term of a law is called: its parameter, and which part of it where that is not all, or not the only one."""

import collections
import itertools

import torch

AXES = "rows", "columns"


def part_of(entries, shape):
    """The ranges of the indices of some entries of a parameter, as Python slices; nothing for all of it."""
    ranges = []
    for index, size in zip(torch.unravel_index(entries.flatten(), shape), shape):
        first, last = int(index.min()), int(index.max()) + 1
        ranges.append(":" if last - first == size else f"{first}" if last - first == 1 else f"{first or ''}:{last}")
    while ranges and ranges[-1] == ":":
        ranges.pop()
    return f"[{', '.join(ranges)}]" if ranges else ""


def apart(terms, shapes):
    """The labels of the terms of a law: ranges where they say all; else, as where several terms take entries of one
    parameter, by which of its axes each takes: "rows of W" and "columns of W". ``shapes``: of the parameters."""
    labels = [term.label for term in terms]
    places = collections.defaultdict(list)
    for k, term in enumerate(terms):
        places[term.name].append(k)
    orders = [{_order(index[:, 0]) for index in _indices(term, shapes) if (index == index[:, :1]).all()} for term in terms]
    for name, where in places.items():
        mine, shape = [terms[k] for k in where], tuple(shapes[name])
        alike = len({term.label for term in mine}) < len(mine)
        if alike or any(term.others is None and not _fills(term.entries, shape) for term in mine):
            beside = set().union(*(order for k, order in enumerate(orders) if k not in where))
            for k, label in zip(where, _lines(mine, shape, beside) or _parts(mine, shape)):
                labels[k] = label
    return labels


def _indices(term, shapes):
    """Of the entries of each unit, (units, m), the index on each axis of the parameter."""
    return torch.unravel_index(term.entries.flatten(0, -2), tuple(shapes[term.name]))


def _order(index):
    """In which order the units take their places on an axis."""
    return tuple(index.argsort(stable=True).tolist())


def _fills(entries, shape):
    """Whether the entries of all units are all that their ranges name."""
    indices = torch.unravel_index(entries.flatten(), shape)
    return len(entries.unique()) == torch.Size(int(index.max() - index.min()) + 1 for index in indices).numel()


def _lines(terms, shape, beside):
    """Labels by whole rows and columns whose signed sum is the law's: what two of them share may be missing in the terms.
    ``beside``: the orders in which units stand in other parameters, by which a row and a column of equal entries differ."""
    if any(term.others is not None for term in terms):
        return None
    actual = [(term.coefficient, term.entries.flatten(0, -2)) for term in terms]
    found = []
    for axes in itertools.product(*(_axes(entries, shape) for _, entries in actual)):
        whole = [(c, _line(entries, axis, shape)) for (c, entries), axis in zip(actual, axes)]
        if _vanishes([*whole, *((-c, entries) for c, entries in actual)], torch.Size(shape).numel()):
            orders = [_order(torch.unravel_index(entries, shape)[axis][:, 0]) for (_, entries), axis in zip(actual, axes)]
            found.append((sum(order not in beside for order in orders), axes))
    return [_told(term.name, entries, axis, shape) for term, (_, entries), axis in zip(terms, actual, min(found)[1])] if found else None


def _axes(entries, shape):
    """The axes on which each unit has one index."""
    return [axis for axis, index in enumerate(torch.unravel_index(entries, shape)) if (index == index[:, :1]).all()]


def _line(entries, axis, shape):
    index = torch.unravel_index(entries, shape)[axis][:, 0]
    return torch.arange(torch.Size(shape).numel()).reshape(shape).movedim(axis, 0).reshape(shape[axis], -1)[index]


def _vanishes(parts, size):
    """Whether the signed counts of all entries are zero, unit by unit; ``parts``: (coefficient, (units, m) entries)."""
    keys = torch.cat([(entries + size * torch.arange(len(entries))[:, None]).flatten() for _, entries in parts])
    signs = torch.cat([torch.full((entries.numel(),), c) for c, entries in parts])
    found, place = keys.unique(return_inverse=True)
    return not torch.zeros(len(found), dtype=torch.int64).index_add(0, place, signs).any()


def _told(name, entries, axis, shape, more=""):
    """Such as "rows 0:4, 8:12 of W"."""
    index = torch.unravel_index(entries, shape)[axis].unique()
    steps = (index.diff() > 1).nonzero().flatten() + 1
    runs = [f"{int(run[0])}:{int(run[-1]) + 1}" for run in index.tensor_split(steps)]
    kind = {1: "entries", 2: AXES[min(axis, 1)]}.get(len(shape), f"axis {axis}")
    which = "" if len(index) == shape[axis] else f" {', '.join(runs)}" if len(runs) < 4 else f" ({len(index)} of them)"
    return f"{kind}{which} of {name}{more}"


def _parts(terms, shape):
    """Labels of any other entries: rows and columns without what lies on the diagonal, the diagonal, else how many they are
    and the first of them."""
    labels = []
    for term in terms:
        entries = term.entries.flatten(0, -2)
        if term.others is not None or _fills(entries, shape):
            labels.append(term.label)
            continue
        indices = torch.unravel_index(entries, shape)
        diagonal = (indices[0] == indices[1]) if len(shape) > 1 else torch.zeros(entries.shape, dtype=torch.bool)
        axes = [axis for axis in _axes(entries, shape) if not diagonal.any() and axis < 2]
        full = [axis for axis in axes if _line(entries, axis, shape).shape[1] in (
            entries.shape[1], entries.shape[1] + entries.shape[1] // max(1, shape[1 - axis] - 1))]
        if diagonal.all():
            labels.append(f"diagonal of {term.name}")
        elif full:
            labels.append(_told(term.name, entries, full[0], shape, " off its diagonal"))
        else:
            labels.append(f"{len(entries.unique())} entries of {term.name}")
    counts = collections.Counter(labels)
    first = [[int(index) for index in torch.unravel_index(term.entries.flatten()[0], shape)] for term in terms]
    return [label if counts[label] == 1 else f"{label} from {index} on" for label, index in zip(labels, first)]
