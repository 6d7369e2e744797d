"""More laws of queries and keys where only constant linear maps, rotary positions above all, stand before their scores.

The scores are a bilinear form, q^T R_t^T S_s k at the places t and s. Symmetric matrices M, N with M R_t^T S_s =
R_t^T S_s N for all t and s give the law <M, W_Q W_Q^T + b_Q b_Q^T> - <N, W_K W_K^T + b_K b_K^T>. Of n0 channels that are
not rotated there are n0 (n0 + 1) / 2, and of mu pairs that rotate alike, up to the sense, mu^2: the symmetric matrices that
commute with the rotations. ``degrees`` finds the diagonal ones; here are those between its units, and within one.
"""

import collections
import contextlib
import itertools

import torch

from . import elementwise, operations
from .labels import part_of
from .law import Law, Term
from .reading import hook_on, kind, mutates, name_of, written

LINEAR = {name for part in (elementwise.move, elementwise.alike) for name in operations.NAMES[part].split()} | {
    "getitem", "to", "_to_copy", "cat", "stack", "add", "sub", "mul", "div", "matmul", "view_as_complex", "view_as_real"}
RANDOM = {"rand", "randn", "rand_like", "randn_like", "dropout", "bernoulli", "empty", "empty_like"}
LARGEST = 2**22  # entries of queries for every row of their weight
PLACES = 48  # pairs of places whose scores are looked at
SMALL = 1e-9  # of singular values: rotary frequencies of practice differ by more


class Paths:
    """The constant linear maps in a graph: from which dense layer, and what they make of its output."""

    def __init__(self, program, hooked):
        self.program, self.hooked, self._sources = program, hooked, {}
        self._overwritten = {before for node in program.nodes if node.op == "call_function" and name_of(node) != "detach_"
                             for before in written(node)}

    def source(self, node):
        """The dense layer of which a node is a constant linear map; None of a constant, False of anything else."""
        if node not in self._sources:
            self._sources[node] = False  # until it is known
            self._sources[node] = self._source(node)
        return self._sources[node]

    def _source(self, node):
        if node.op == "placeholder":
            return None if node.name in self.program.constants and node not in self._overwritten else False
        if node.op != "call_function" or node in self._overwritten or hook_on(self.hooked, node) or name_of(node) in RANDOM:
            return False
        if mutates(node) and name_of(node) != "detach_":
            return False
        if name_of(node) == "linear":
            return node if all(part is None or part.name in self.program.names for part in node.args[1:]) else False
        found = [self.source(before) for before in node.all_input_nodes]
        behind = {one for one in found if one is not None}
        if not behind:
            return None if isinstance(node.target, torch._ops.OpOverload) or name_of(node) == "getitem" else False
        first, = behind if len(behind) == 1 else (False,)
        if not first or name_of(node) not in LINEAR:
            return False
        if kind(node) in ("add", "sub", "cat", "stack"):  # a constant summand would make it affine
            tensors = node.args[0] if kind(node) in ("cat", "stack") else node.args[:2]
            return first if all(isinstance(part, torch.fx.Node) and self.source(part) for part in tensors) else False
        if kind(node) in ("mul", "div", "matmul"):
            of = [bool(self.source(part)) if isinstance(part, torch.fx.Node) else False for part in node.args[:2]]
            return first if of == [True, False] or of == [False, True] and kind(node) != "div" else False
        return first

    def value(self, node, output):
        """What a node is where the dense layer's output is ``output``."""
        known = {self.source(node): output}

        def of(part):
            if part not in known:
                known[part] = (self.program.constants[part.name] if part.op == "placeholder" else part.target(
                    *torch.fx.node.map_arg(part.args, of), **torch.fx.node.map_arg(part.kwargs, of)))
            return known[part]
        return of(node)

    def uses(self, source):
        """The inputs (node, what goes into it) of all that is not a constant linear map of a dense layer's output."""
        found, todo = [], [source]
        while todo:
            node = todo.pop()
            for user in node.users:
                if self.source(user) is source:
                    todo.append(user)
                else:
                    found.append((user, node))
        return found


def find(reader, programs, laws):
    """More laws, of every pair of queries and keys whose diagonal laws are among ``laws``, in all graphs alike."""
    found = [_of(Paths(program, reader.hooked), laws, reader.parameters) for program in programs]
    return _laws([one for one in found[0] if all(one in other for other in found[1:])], reader.parameters)


def _of(paths, laws, parameters):
    found = []
    for node in paths.program.nodes:
        if node.op == "call_function" and name_of(node) in ("scaled_dot_product_attention", "matmul"):
            ends = node.args[:2]
            sources = [paths.source(end) if isinstance(end, torch.fx.Node) else None for end in ends]
            if all(sources):
                sides = [Side(paths, source, end, node) for source, end in zip(sources, ends)]
                with contextlib.suppress(RuntimeError, TypeError, KeyError):  # what cannot be run again only costs laws
                    found += list(_between(sides, node, laws, parameters))
    return found


class Side:
    """Queries or keys: the layer that gives them, and what each row of its weight makes of them."""

    def __init__(self, paths, source, end, node):
        self.paths, self.source, self.end, self.node = paths, source, end, node
        self.names = [paths.program.names[part.name] for part in source.args[1:] if part is not None]
        self.shape = source.meta["val"].shape

    def rows(self, entries, parameters):
        """Which rows the entries of one unit are: all of them, of the weight and of the bias."""
        width = parameters[self.names[0]].shape[1]
        rows = (entries[self.names[0]] // width).unique()
        whole = len(rows) * width == entries[self.names[0]].numel()
        return rows.tolist() if whole and all(torch.equal(entries[name].sort().values, rows) for name in self.names[1:]) else None

    def response(self, row):
        output = torch.zeros(self.shape)
        output[..., row] = 1
        return self.paths.value(self.end, output)

    def alone(self, rows):
        """Whether these rows go nowhere else."""
        output = torch.zeros(self.shape)
        output[..., rows] = torch.rand(*self.shape[:-1], len(rows), generator=torch.Generator().manual_seed(0)) + 1
        return all(end is self.end and user is self.node
                   or isinstance(end.meta["val"], torch.Tensor) and not self.paths.value(end, output).any()
                   for user, end in self.paths.uses(self.source))


def _units(sides, laws, parameters):
    """[(rows of the queries' weight, rows of the keys', law)] of the units that have a law between the two."""
    found = []
    wanted = {(name, sign) for side, sign in zip(sides, (1, -1)) for name in side.names}
    for law in laws:
        signs = {(term.name, term.coefficient) for term in law.terms}
        swapped = {(name, -c) for name, c in signs}
        if wanted not in (signs, swapped) or law.linear:
            continue
        for place in itertools.product(*map(range, law.terms[0].entries.shape[:-1])):
            sign = 1 if wanted == signs else -1
            entries = [{term.name: term.entries[place] for term in law.terms if term.coefficient == sign * c} for c in (1, -1)]
            rows = [side.rows(part, parameters) for side, part in zip(sides, entries)]
            if all(rows):
                found.append((*rows, (id(law), place[:-1] if law.gram else place)))
    return found


def _between(sides, node, laws, parameters):
    units = _units(sides, laws, parameters)
    rows = [sorted({row for unit in units for row in unit[k]}) for k in (0, 1)]
    sizes = [side.end.meta["val"].numel() for side in sides]
    if not units or sum(len(part) * size for part, size in zip(rows, sizes)) > LARGEST:
        return
    if not all(side.alone(part) for side, part in zip(sides, rows)):
        return
    scores = _scores(sides, node, rows)
    if scores is None:
        return
    blocks = collections.defaultdict(list)
    reach = (scores != 0).any(-1)  # (rows of queries, rows of keys, heads)
    for unit in units:
        at = [[rows[k].index(row) for row in unit[k]] for k in (0, 1)]
        blocks[tuple(reach[at[0]][:, at[1]].any(0).any(0).nonzero().flatten().tolist())].append((*at, unit[2]))
    if any(reach[u[0]][:, v[1]].any() for inside in blocks.values() for u, v in itertools.permutations(inside, 2)):
        return
    for inside in blocks.values():
        for u, v in itertools.combinations_with_replacement(inside, 2):
            if u is v or u[2] != v[2]:  # a Gram law has those between its own units
                for solution in _solutions(scores, reach, u, v):
                    yield [(side.names, [(rows[k][i], rows[k][j], (1, -1)[k] * c) for (side_k, i, j), c in solution.items() if side_k == k])
                           for k, side in enumerate(sides)]


def _scores(sides, node, rows):
    """(rows of queries, rows of keys, heads, pairs of places): the bilinear form of the scores."""
    parts = [torch.stack([side.response(row) for row in part]) for side, part in zip(sides, rows)]
    q, k = parts
    if name_of(node) == "matmul":
        k = k.mT if k.ndim > 2 else k
    elif q.ndim > 3 and q.shape[-3] != k.shape[-3] and k.shape[-3] != 1:
        k = k.repeat_interleave(q.shape[-3] // k.shape[-3], -3)
    if q.ndim < 3 or q.ndim != k.ndim or q.is_complex() or k.is_complex():
        return None
    lead = torch.broadcast_shapes(q.shape[1:-2], k.shape[1:-2])
    q, k = (part.expand(len(part), *lead, *part.shape[-2:]).flatten(1, -3) if lead else part[:, None] for part in (q, k))
    random = torch.Generator().manual_seed(0)
    t, s = (torch.randint(part.shape[2], (PLACES,), generator=random) for part in (q, k))
    return torch.einsum("ihtc,jhtc->ijht", q[:, :, t], k[:, :, s])


def _solutions(scores, reach, u, v):
    """Bases of the M (q rows of u, of v) and N (k rows of u, of v), less the law that u has: ``[{(side, i, j): c}]``."""
    (qu, ku, _), (qv, kv, _) = u, v
    heads = reach.any(1)
    unknown = [(1, i, j) for i, j in itertools.product(ku, kv) if u is not v or i <= j]
    unknown += [(0, i, j) for i, j in itertools.product(qu, qv) if (u is not v or i <= j) and torch.equal(heads[i], heads[j])]
    columns, rows, keys = [], sorted({*qu, *qv}), sorted({*ku, *kv})
    for side, i, j in unknown:
        form = torch.zeros(scores.shape)
        for a, b in {(i, j), (j, i)}:  # the first order of B(M q, k) - B(q, N k)
            if side == 0:
                form[b] += scores[a]
            else:
                form[:, b] -= scores[:, a]
        columns.append(form[rows][:, keys].flatten())
    _, values, basis = torch.linalg.svd(torch.stack(columns, 1), full_matrices=False)
    null = basis[values < SMALL * values.max()]
    if u is v:  # less the sum of squares, which is a law already
        known = torch.tensor([float(i == j) for _, i, j in unknown])
        null = null - null[:, :1] * known
    return [{unknown[k]: c for k, c in enumerate(row) if c} for row in _reduced(null)]


def _reduced(rows):
    """A basis in echelon form, of integers; nothing where it is of other numbers."""
    rows, found = rows.clone(), []
    for column in range(rows.shape[1]):
        pivot = rows[:, column].abs().argmax() if len(rows) else 0
        if not len(rows) or rows[pivot, column].abs() < 1e-6:
            continue
        row = rows[pivot] / rows[pivot, column]
        rows = torch.cat([rows[:pivot], rows[pivot + 1:]])
        rows = rows - rows[:, column:column + 1] * row
        found = [one - one[column] * row for one in found] + [row]
    whole = [row.round() for row in found]
    good = all((row - one).abs().max() < 1e-6 for row, one in zip(found, whole))
    return [[int(c) for c in one] for one in whole] if good else []


def _laws(found, parameters):
    groups = collections.defaultdict(list)
    for solution in found:
        unit = collections.defaultdict(lambda: ([], []))
        for names, products in solution:
            for i, j, c in products:
                for name in names:
                    width = parameters[name].numel() // len(parameters[name])
                    for part, row in zip(unit[name, c * (1 if i == j else 2)], (i, j)):
                        part.append(torch.arange(row * width, (row + 1) * width))
        unit = {key: tuple(map(torch.cat, parts)) for key, parts in unit.items()}
        least = min(abs(c) for _, c in unit)
        unit = {(name, c // least if all(k % least == 0 for _, k in unit) else c): parts for (name, c), parts in unit.items()}
        groups[tuple((*key, len(parts[0])) for key, parts in unit.items())].append(unit)
    laws = []
    for shape, units in groups.items():
        terms = []
        for name, c, _ in shape:
            entries, others = (torch.stack([unit[name, c][k] for unit in units]) for k in (0, 1))
            label = f"{name}{part_of(entries, parameters[name].shape)}, {name}{part_of(others, parameters[name].shape)}"
            terms.append(Term(name, c, entries, label, others))
        laws.append(Law(tuple(terms), False))
    return laws
