"""A conservation law of a network: a signed sum of squares, products or Gram matrices of entries of its parameters, or
entries that keep their value."""

import collections.abc
import dataclasses
from collections.abc import Iterator, Mapping

import numpy as np
import torch
from flint import nmod_mat

from . import labels

PRIME = 2**31 - 1
LARGEST = 2**25  # entries of the matrix whose rank counts the laws


@dataclasses.dataclass(frozen=True)
class Term:
    """``coefficient`` times the squares of ``entries`` of the flattened parameter ``name``: (units, m), of a Gram law
    (blocks, units, m). ``label``: the name, with the part of the parameter where it is not all. ``others``: the entries,
    in the same shape, with which they are multiplied, where these are not squares."""

    name: str
    coefficient: int
    entries: torch.Tensor
    label: str
    others: torch.Tensor | None = None

    def rows(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.reshape(-1)[self.entries.to(tensor.device)]

    def partners(self, tensor: torch.Tensor) -> torch.Tensor:
        return self.rows(tensor) if self.others is None else tensor.reshape(-1)[self.others.to(tensor.device)]


@dataclasses.dataclass(frozen=True)
class Law:
    """What gradient flow keeps, of every loss of the outputs: for each unit the signed sum of squares of the ``terms``,
    with ``gram`` for each pair of units of a block the signed sum of products, a symmetric matrix.

    ``value()``: shape (units,), or (units, units), with a first axis of blocks (heads, groups) where there are several.
    ``change()``: the same of the gradients: one step of gradient descent with rate lr and without weight decay adds
    exactly ``lr**2 * change()``. ``defect()``: what must vanish, half the first-order change per unit of rate, negated.
    ``beside``: of a linear law, the sum of entries whose gradients cancel, the terms whose gradients do not: what the
    size is measured with. A linear law has ``change()`` zero, and weight decay lambda multiplies it by 1 - lr lambda.
    """

    terms: tuple[Term, ...]
    gram: bool
    net: torch.nn.Module = dataclasses.field(default_factory=torch.nn.Module, repr=False, compare=False)
    beside: tuple[Term, ...] = ()

    @property
    def linear(self) -> bool:
        """Whether the law is a sum of entries, not of their squares or products."""
        return bool(self.beside)

    @property
    def parameters(self) -> tuple[str, ...]:
        """The names of the parameters, in the order of the network's."""
        return tuple(dict.fromkeys(term.name for term in self.terms))

    @property
    def shape(self) -> tuple[int, ...]:
        blocks = self.terms[0].entries.shape[:-1]
        if not self.gram:
            return tuple(blocks)
        return tuple(blocks[1:] if blocks[0] == 1 else blocks) + (blocks[-1],)

    @property
    def count(self) -> int:
        """How many independent numbers, at generic parameters."""
        *blocks, _ = self.terms[0].entries.shape
        if not self.gram:
            return blocks[0]
        n, columns = blocks[1], sum(term.entries.shape[-1] for term in self.terms)
        missing = max(0, n - columns)
        return blocks[0] * (n * (n + 1) // 2 - missing * (missing + 1) // 2)

    def value(self, parameters: Mapping[str, torch.Tensor] | None = None) -> torch.Tensor:
        parameters = dict(self.net.named_parameters()) if parameters is None else parameters
        return self._sum({name: parameters[name].detach() for name in self.parameters})

    def change(self) -> torch.Tensor:
        gradients = {}
        parameters = dict(self.net.named_parameters())
        for name in self.parameters:
            gradient = parameters[name].grad
            if gradient is None:
                raise ValueError(f"{name} has no gradient; expected a call of backward() before change()")
            gradients[name] = gradient.to_dense() if gradient.is_sparse else gradient
        return 0 * self._sum(gradients) if self.linear else self._sum(gradients)

    def defect(self, parameters: Mapping[str, torch.Tensor],
               gradients: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """(residual, size): the part that must vanish, and the size that its terms could have."""
        norm = lambda term, tensors: term.rows(tensors[term.name]).norm()
        size = sum(abs(term.coefficient) * norm(term, parameters) * norm(term, gradients) for term in self.beside or self.terms)
        if self.linear:
            return self._sum(gradients).abs().max() * sum(norm(term, parameters) for term in self.beside), size
        return self._sum(parameters, gradients).abs().max(), size

    def _sum(self, left, right=None):
        total = 0
        for term in self.terms:
            a = term.rows(left[term.name])
            b = term.partners((left if right is None else right)[term.name])
            if self.linear:
                product = a.sum(-1)
            elif self.gram:
                product = a @ b.mT
                product = (product + product.mT) / 2 if right is not None else product
            else:
                product = (a * b).sum(-1)
                if term.others is not None and right is not None:
                    product = (product + (term.rows(right[term.name]) * term.partners(left[term.name])).sum(-1)) / 2
            total = total + term.coefficient * product
        return total[0] if self.gram and len(total) == 1 else total

    def differentials(self, parameters: Mapping[str, np.ndarray]) -> Iterator[dict]:
        """(column, value) arrays of the differentials of all independent entries modulo the prime, one pair a row; columns
        are (name, entry)."""
        for index in np.ndindex(*self.terms[0].entries.shape[:-1]):
            for other in range(index[-1], self.terms[0].entries.shape[-2]) if self.gram else [index[-1]]:
                row: dict = {}
                for term in self.terms:
                    a, b = (part[(*index[:-1], unit)].numpy() for part, unit in (
                        (term.entries, index[-1]), (term.entries if term.others is None else term.others, other)))
                    if self.linear:
                        row |= {(term.name, entry): term.coefficient for entry in a.tolist()}
                    for here, there in ((a, b), (b, a)) if not self.linear else ():
                        for entry, factor in zip(here.tolist(), parameters[term.name][there].tolist()):
                            key = (term.name, entry)
                            row[key] = (row.get(key, 0) + term.coefficient * factor) % PRIME
                yield row

    def __str__(self):
        return " ".join(_signed(term.coefficient, k) + (term.label if self.linear else _square(term, self.gram))
                        for k, term in enumerate(self._ordered()))

    def _ordered(self):
        return sorted(self.terms, key=lambda term: term.coefficient < 0)


def _signed(coefficient, k):
    size = "" if abs(coefficient) == 1 else f"{abs(coefficient)} "
    return ("- " if coefficient < 0 else "+ " if k else "") + size


def _square(term, gram):
    return f"<{term.label}>" if gram or term.others is not None else f"|{term.label}|^2"


@dataclasses.dataclass(frozen=True)
class Refused:
    """``parameters`` with an axis of ``units`` hidden units that no law names, and the ``reason``."""

    parameters: tuple[str, ...]
    units: int
    reason: str

    def __str__(self):
        return f"{', '.join(self.parameters) or 'the network'}: {self.reason}"


class Laws(collections.abc.Sequence):
    """The laws of a network, a sequence of :class:`Law`; ``refused``: a list of :class:`Refused`. ``print`` shows both."""

    def __init__(self, laws: list[Law], refused: list[Refused], net: torch.nn.Module) -> None:
        shapes = {name: parameter.shape for name, parameter in net.named_parameters()} if laws else {}
        self._laws = [dataclasses.replace(law, net=net, terms=tuple(
            dataclasses.replace(term, label=label) for term, label in zip(law.terms, labels.apart(law.terms, shapes)))) for law in laws]
        self.refused, self.net = refused, net

    def __getitem__(self, index):
        return self._laws[index]

    def __len__(self):
        return len(self._laws)

    @property
    def count(self) -> int:  # type: ignore[override]  # of numbers kept, not of equal laws
        """How many independent numbers all laws keep: the rank of their differentials at random parameters, modulo a
        prime, where a rank can only be too small. Raises ``ValueError`` where that matrix is too large."""
        if not self._laws:
            return 0
        random = np.random.default_rng(0)
        sizes = {name: parameter.numel() for name, parameter in self.net.named_parameters()}
        point = {name: random.integers(1, PRIME, size, dtype=np.int64) for name, size in sizes.items()}
        columns = sum(sizes[name] for name in {name for law in self._laws for name in law.parameters})
        number = sum(_entries(law) for law in self._laws)
        if number * columns > LARGEST:
            raise ValueError(f"the laws have {number} numbers and {columns} parameters; expected a product of at most {LARGEST} "
                             f"to count what is independent; the laws one by one keep {sum(law.count for law in self._laws)}")
        rows = [row for law in self._laws for row in law.differentials(point)]
        place: dict = {}
        for row in rows:
            for key in row:
                place.setdefault(key, len(place))
        matrix = np.zeros((len(rows), len(place)), dtype=np.int64)
        for k, row in enumerate(rows):
            matrix[k, [place[key] for key in row]] = list(row.values())
        return nmod_mat(*matrix.shape, matrix.ravel().tolist(), PRIME).rank()

    def drift(self, before: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """For each law the norm of its value now less that with the parameters of ``before``: a state dict of the network
        whose tensors were cloned before it moved."""
        if not isinstance(before, collections.abc.Mapping):
            raise TypeError(f"before is a {type(before).__name__}; expected a state dict of the network, with its tensors cloned")
        if missing := [name for law in self._laws for name in law.parameters if name not in before]:
            raise ValueError(f"before has no {missing[0]}, but {', '.join(map(str, list(before)[:3])) or 'nothing'}; "
                             "expected a state dict with the names of net.named_parameters()")
        if not self._laws:
            return torch.zeros(0)
        return torch.stack([torch.linalg.vector_norm(law.value() - law.value(before)) for law in self._laws])

    def __str__(self):
        head = ["shape", "numbers", "norm now", "law"]  # the law last, since it may be long
        rows = [["x".join(map(str, law.shape)), str(law.count), f"{torch.linalg.vector_norm(law.value()).item():.3g}", str(law)]
                for law in self._laws]
        widths = [max(len(row[c]) for row in [head, *rows]) for c in range(3)]
        lines = ["  ".join([*(cell.rjust(width) for cell, width in zip(row, widths)), row[3]])
                 for row in [head, [width * "-" for width in [*widths, 3]], *rows]]
        return "\n".join([line.rstrip() for line in lines] + [f"refused  {one}" for one in self.refused])


def _entries(law):
    *blocks, _ = law.terms[0].entries.shape
    return blocks[0] * blocks[1] * (blocks[1] + 1) // 2 if law.gram else blocks[0]
