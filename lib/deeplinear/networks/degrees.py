"""Degrees of the entries of a network's tensors under a rescaling of its parameters, as unknowns of linear equations.

A rescaling multiplies parameter entry i by ``c ** s_i``; every other entry that is a monomial in those is multiplied by c
to the power of its degree. What the network does to the entries gives linear equations between degrees; degree zero is
the number 0. Every solution is a symmetry, and so a conservation law.
"""

import collections
import dataclasses
import math
import statistics
from fractions import Fraction

import torch
from flint import fmpq, fmpq_mat
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

OUTPUT = "an output shows it"


@dataclasses.dataclass(frozen=True)
class Solution:
    """What all equations leave free. ``classes``: for each number the class of numbers that must be equal to it, class 0
    those that must be 0. ``free``: the basis, one dict ``{class: coefficient}`` a solution. ``joined``: the classes before
    any was put to 0, ``why``: for each of them that was, the reasons."""

    classes: torch.Tensor
    free: list
    joined: torch.Tensor
    why: dict


class Degrees:
    """Numbers of unknown degrees in int64 tensors (0: degree zero), and the equations that were said about them."""

    def __init__(self):
        self.size, self.owners = 1, []  # (owner, first number, the number behind the last)
        self._equal, self._zero, self._relations, self._bent = [], [], [], []
        self.at = "an operation"  # that is being read, in words

    def fresh(self, *shape, owner=None):
        """A tensor of new unknowns; ``owner``: the parameter whose axis they are."""
        count = torch.Size(shape).numel()
        numbers = torch.arange(self.size, self.size + count).reshape(shape)
        self.owners.append((owner, self.size, self.size + count))
        self.size += count
        return numbers

    def equal(self, a, b, reason):
        a, b = torch.broadcast_tensors(a, b)
        differ = a != b
        pairs = torch.stack([a[differ], b[differ]], 1).unique(dim=0)
        against_zero = (pairs == 0).any(1)
        self._zero.append((pairs[against_zero].max(1).values if against_zero.any() else pairs[:0, 0], reason))
        self._equal.append(pairs[~against_zero])

    def zero(self, a, reason):
        self._zero.append((a[a != 0].unique(), reason))

    def bend(self, a):
        """Units behind these numbers are treated one by one: no law for pairs of them."""
        self._bent.append(a[a != 0].unique())

    def relation(self, *terms):
        """The sum of coefficient times degree, over the (coefficient, numbers) given, is zero, entry by entry."""
        coefficients = [Fraction(coefficient) for coefficient, _ in terms]
        rows = torch.stack([a.reshape(-1) for a in torch.broadcast_tensors(*(a for _, a in terms))], 1).unique(dim=0)
        self._relations.append((coefficients, rows, self.at))

    def total(self, *terms, bent=True):
        """Numbers whose degree is the sum of coefficient times degree, over the (coefficient, numbers) given."""
        arrays = torch.broadcast_tensors(*(a for _, a in terms))
        present = [k for k, a in enumerate(arrays) if a.any()]
        if not present:
            return arrays[0]
        if len(present) == 1 and terms[present[0]][0] == 1:
            return arrays[present[0]]
        rows, inverse = torch.stack([a.reshape(-1) for a in arrays], 1).unique(dim=0, return_inverse=True)
        numbers = self.fresh(len(rows))
        numbers[(rows == 0).all(1)] = 0
        self.relation((-1, numbers), *((terms[k][0], rows[:, k]) for k in range(len(terms))))
        if bent:
            self.bend(numbers)
        return numbers[inverse].reshape(arrays[0].shape)

    def solve(self):
        pairs = torch.cat([torch.zeros(0, 2, dtype=torch.int64), *self._equal])
        links = coo_matrix((len(pairs) * [1], pairs.T.numpy()), shape=(self.size, self.size))
        joined = torch.from_numpy(connected_components(links, directed=False)[1]).long()  # number 0 is alone in class 0
        why = {}
        for numbers, reason in self._zero:
            for k in joined[numbers].unique().tolist():
                why.setdefault(k, {})[reason] = None
        rows, before = self._rows(joined), None
        while before != len(why):
            before = len(why)
            for row, at in rows:
                left = [k for k in row if k not in why]
                if len(left) == 1:
                    why[left[0]] = {r: None for k in row if k in why for r in why[k]} or {f"only one scale fits its uses, {at}": None}
        rows = [left for row, _ in rows if (left := {k: c for k, c in row.items() if k not in why})]
        gone = torch.zeros(int(joined.max()) + 1, dtype=torch.bool)
        gone[list(why)] = True
        of_parameters = torch.zeros_like(gone)
        for owner, first, last in self.owners:
            of_parameters[joined[first:last]] |= owner is not None
        left = sorted((k for k in range(1, len(gone)) if not gone[k]), key=lambda k: bool(of_parameters[k]))
        free = _free(rows, left)
        return Solution(torch.where(gone[joined], 0, joined), free, joined, {k: list(found) for k, found in why.items()})

    def bent(self, classes):
        """The classes with a number that was bent, or with two numbers of one axis."""
        found = set(classes[torch.cat([torch.zeros(0, dtype=torch.int64), *self._bent])].tolist())
        for _, first, last in self.owners:
            inside, counts = classes[first:last].unique(return_counts=True)
            found |= set(inside[counts > 1].tolist())
        return found

    def _rows(self, classes):
        rows = {}
        for coefficients, numbers, at in self._relations:
            for line in classes[numbers].unique(dim=0).tolist():
                row = collections.defaultdict(Fraction)
                for coefficient, k in zip(coefficients, line):
                    row[k] += coefficient
                row = {k: c for k, c in row.items() if k and c}
                if row:
                    rows.setdefault(tuple(sorted(row.items())), (row, at))
        return list(rows.values())


def _free(rows, unknowns):
    """A basis of the solutions, of integers; the first unknowns follow from the last."""
    place = {k: i for i, k in enumerate(unknowns)}
    links = [(place[first], place[k]) for row in rows for first in [next(iter(row))] for k in row]
    a, b = zip(*links) if links else ((), ())
    parts = connected_components(coo_matrix((len(a) * [1], (a, b)), shape=2 * (len(place),)), directed=False)[1]
    members, belonging = collections.defaultdict(list), collections.defaultdict(list)
    for k in unknowns:
        members[parts[place[k]]].append(k)
    for row in rows:
        belonging[parts[place[next(iter(row))]]].append(row)
    return [solution for part, inside in members.items() for solution in _basis(belonging[part], inside)]


def _basis(rows, unknowns):
    if not rows:
        return [{k: 1} for k in unknowns]
    matrix, rank = fmpq_mat(len(rows), len(unknowns), [
        fmpq(c.numerator, c.denominator) for row in rows for c in (row.get(k, Fraction(0)) for k in unknowns)]).rref()
    pivots = [next(j for j in range(len(unknowns)) if matrix[i, j] != 0) for i in range(rank)]
    found = []
    for j in sorted(set(range(len(unknowns))) - set(pivots)):
        solution = {unknowns[j]: fmpq(1)} | {unknowns[p]: -matrix[i, j] for i, p in enumerate(pivots) if matrix[i, j] != 0}
        scale = math.lcm(*(int(c.q) for c in solution.values()))
        found.append({k: int((c * scale).p) for k, c in solution.items()})
    return _shortened(found)


def _shortened(solutions):
    """The same span, with the long ones less the short ones where that makes them shorter."""
    typical = statistics.median_low(map(len, solutions)) if solutions else 0
    for i in range(len(solutions)):
        solution = solutions[i]
        for other in solutions[:i] + solutions[i + 1:] if len(solution) > typical else []:
            for sign in (1, -1):
                mixed = {k: c for k in solution.keys() | other.keys() if (c := solution.get(k, 0) + sign * other.get(k, 0))}
                solution = min(solution, mixed, key=len)
        solutions[i] = dict(sorted(solution.items()))
    return solutions
