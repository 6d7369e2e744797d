"""From solutions to laws: which parameter entries each law sums, and which units have laws together."""

import collections

import torch

from .degrees import OUTPUT
from .labels import part_of
from .law import Law, Term


def find(reader):
    """The laws that a :class:`Reader` read, and the axes that it refused, ``[(parameters, reason)]``."""
    solution = reader.degrees.solve()
    places = _places(reader, solution.classes)
    bent, digest = reader.degrees.bent(solution.joined), _digests(reader, solution.classes)
    groups, order = {}, {name: k for k, name in enumerate(reader.parameters)}
    for free in solution.free:
        unit = dict(sorted(_unit(free, places).items(), key=lambda part: (order[part[0][0]], -part[0][1])))
        if unit:
            paired = max(map(abs, free.values())) == 1 and not bent & set(free)
            mark = tuple(sorted((int(digest[k]), c) for k, c in free.items())) if paired else None
            shape = tuple((*key, len(entries)) for key, entries in unit.items())
            groups.setdefault(shape, {}).setdefault(mark, []).append(unit)
    laws = [law for shape, marked in groups.items() for law in _laws(shape, marked, reader.parameters)]
    return sorted(laws, key=lambda law: min(order[term.name] for term in law.terms)), _refused(reader, solution)


def _places(reader, classes):
    """For each class the entries of parameters with it: ``{class: [(name, sign, entries)]}``."""
    found = collections.defaultdict(list)
    for name, leaf in reader.leaves.items():
        for sign, numbers in ((1, leaf.plus), (-1, leaf.minus)):
            ordered, entries = classes[numbers].sort(stable=True)
            kinds, counts = ordered.unique_consecutive(return_counts=True)
            for k, part in zip(kinds.tolist(), entries.split(counts.tolist())):
                if k:
                    found[k].append((name, sign, part))
    return found


def _unit(free, places):
    """The entries of a solution: ``{(parameter, coefficient): entries}``, of those whose coefficient is not zero.

    The sign is that of what leaves the units less what enters them."""
    degrees = collections.defaultdict(lambda: collections.defaultdict(list))
    for k, c in free.items():
        for name, sign, entries in places.get(k, ()):
            degrees[name][-sign * c].append(entries)
    unit = {}
    for name, parts in degrees.items():
        if len(parts) == 1 and len(next(iter(parts.values()))) == 1:
            (c, (entries,)), = parts.items()
            unit[name, c] = entries
            continue
        entries = torch.cat([part for found in parts.values() for part in found])
        values = torch.cat([torch.full((len(part),), c) for c, found in parts.items() for part in found])
        entries, inverse = entries.unique(return_inverse=True)
        total = torch.zeros(len(entries), dtype=torch.int64).index_add(0, inverse, values)
        for c in total.unique().tolist():
            if c:
                unit[name, c] = entries[total == c]
    if all(c < 0 for _, c in unit):
        unit = {(name, -c): entries for (name, c), entries in unit.items()}
    return unit


def _digests(reader, classes):
    """For each class a number that two classes share if, in every event, their payloads do."""
    digest = torch.zeros(int(classes.max()) + 1, dtype=torch.int64)
    random = torch.Generator().manual_seed(0)
    salt = torch.randint(-2**62, 2**62, (len(reader.events) + 1,), generator=random)
    for event, (numbers, places, relative) in enumerate(reader.events):
        ordered, order = classes[numbers].flatten().sort(stable=True)
        payload = places.reshape(-1)[order]
        kinds, counts = ordered.unique_consecutive(return_counts=True)
        if kinds[-1] == 0:
            continue
        first = counts.cumsum(0) - counts
        rank = torch.arange(len(ordered)) - first.repeat_interleave(counts)
        base = payload[first].repeat_interleave(counts) if relative else 0
        mixed = _mix(_mix(payload - base + salt[event]) + rank)
        sums = torch.zeros(len(kinds), dtype=torch.int64).index_add(0, torch.arange(len(kinds)).repeat_interleave(counts), mixed)
        digest[kinds] += _mix(sums + salt[event])
    digest[0] = 0
    return digest


def _mix(x):
    """A hash of int64, that of splitmix64."""
    x = (x ^ ((x >> 30) & 0x3FFFFFFFF)) * -0x40A7B892E31B1A47
    x = (x ^ ((x >> 27) & 0x1FFFFFFFFF)) * -0x6B2FB644ECCEEE15
    return x ^ ((x >> 31) & 0x1FFFFFFFF)


def _laws(shape, marked, parameters):
    """Laws of all units that sum the same numbers of entries of the same parameters with the same signs."""
    single, blocks = list(marked.get(None, [])), collections.defaultdict(list)
    for mark, units in marked.items():
        if mark is not None:
            if len(units) > 1 and _parallel(units):
                blocks[len(units)].append(units)
            else:
                single += units
    for _, found in sorted(blocks.items()):
        yield _law(shape, parameters, True, {key: torch.stack([torch.stack([unit[key] for unit in units]) for units in found])
                                             for key in found[0][0]})
    if single:
        yield _law(shape, parameters, False, {key: torch.stack([unit[key] for unit in single]) for key in single[0]})


def _law(shape, parameters, gram, entries):
    found = [(name, c, entries[name, c]) for name, c, _ in shape]
    return Law(tuple(Term(name, c, part, name + part_of(part, parameters[name].shape)) for name, c, part in found), gram)


def _parallel(units):
    """Whether entries of all units lie alike: those of one are those of another, moved, and no entry is of two, as those
    of a matrix are both of whose sides these units are."""
    if any(abs(c) != 1 for _, c in units[0]):
        return False
    for name in {name for name, _ in units[0]}:
        entries = torch.cat([part for unit in units for (other, _), part in unit.items() if other == name])
        if len(entries.unique()) < len(entries):
            return False
    return all(torch.equal(unit[key] - unit[key][0], units[0][key] - units[0][key][0])
               for unit in units for key in units[0])


def _refused(reader, solution):
    """The axes of parameters that no law names although no output shows them: ``[(names, units, reason)]``."""
    axes, found = {}, {}
    both = {int(k): f"{name} both writes and reads these units, {at}: in their difference it cancels, and no scale is free"
            for name, at, wrote, read in reader.both
            for k in solution.joined[wrote][solution.joined[wrote] == solution.joined[read]] if k}
    free = {k for one in solution.free for k in one}
    for owner, first, last in reader.degrees.owners:
        joined = solution.joined[first:last].unique().tolist() if owner else []
        for k in joined:
            if k in both and k not in free or k in solution.why and OUTPUT not in solution.why[k]:
                axes.setdefault(k, {})[owner] = None
    for k, owners in axes.items():
        why = solution.why.get(k, [OUTPUT])
        key = (tuple(owners), both[k] if OUTPUT in why else why[0])
        found[key] = found.get(key, 0) + 1
    return [(names, units, reason) for (names, reason), units in found.items()]
