"""Biases that no output sees: the key bias of softmax attention, whose gradient is zero, so that it keeps its value.

A shift adds a number to every entry of a bias. It moves the keys of a head alike, then each query's scores by one number,
and softmax does not see that. As with degrees, every operation that is not listed says that shifts going in are zero.
"""

import collections
import contextlib
from fractions import Fraction

import torch

from . import elementwise, operations
from .degrees import Degrees
from .graph import place
from .labels import part_of
from .law import Law, Term
from .reading import hook_on, kind, mutates, name_of, written

MOVES = set(operations.NAMES[elementwise.move].split())
SHAPES = {name for made in (elementwise.made, elementwise.zeros) for name in operations.NAMES[made].split()}  # these read shapes alone
ATTENTION = {"scaled_dot_product_attention", "softmax", "_softmax"}

JOINED = "keys joined to others"
QUERIES, VALUES = "they move queries", "they move queries, values or masks"


class Rows(dict):
    """Scores: ``{axis: numbers}``, shifts that are the same all along the axis."""


class Shifts:
    """Reads the graphs of one network. ``own``: the numbers of each bias; ``beside``: for numbers the weight that is used
    with them; ``seen``: those that a softmax took away; ``keys``: biases of layers that give keys."""

    def __init__(self, reader):
        self.leaves, self.hooked, self.degrees = reader.leaves, reader.hooked, Degrees()
        self.own, self.beside, self.seen, self.keys = {}, {}, [], {}

    def read(self, program):
        self.values, self.names = {}, program.names
        for node in program.nodes:
            if node.op == "placeholder":
                self.values[node] = self._bias(self.names.get(node.name))
            elif node.op == "output":
                self._kill(node, "an output shows it")
            elif node.op == "call_function":
                self.values[node] = self._call(node)

    def _call(self, node):
        name = name_of(node)
        if name in ATTENTION:
            self._note_keys(node, name)
        if name == "linear":
            return self._linear(node, *node.args, **node.kwargs)
        if mutates(node) or hook_on(self.hooked, node):
            return self._kill(node, f"{name} in place" if mutates(node) else "a hook")
        if name in SHAPES or all(self._of(before) is None for before in node.all_input_nodes):
            return None
        read = {"getitem": self._item, "scaled_dot_product_attention": self._attention, "softmax": self._softmax,
                "_softmax": self._softmax, "cat": self._join, "stack": self._join, "add": self._add, "sub": self._add,
                "mul": self._scale, "div": self._scale, "matmul": self._product, "bmm": self._product, "masked_fill": self._mask,
                "baddbmm": self._product_and_sum, "einsum": self._einsum, "to": self._same, "_to_copy": self._same,
                "type_as": self._same, "contiguous": self._same, "clone": self._same}
        found = NotImplemented
        with contextlib.suppress(Exception):  # arguments that are not expected; what was said already only costs laws
            if name in read:
                found = read[name](node, *node.args, **node.kwargs)
            elif name in MOVES and isinstance(self._of(node.args[0]), torch.Tensor):
                found = node.target(self._of(node.args[0]).contiguous(), *node.args[1:], **node.kwargs)
        return self._kill(node) if found is NotImplemented else found

    def _of(self, node):
        return self.values.get(node) if isinstance(node, torch.fx.Node) else None

    def _kill(self, node, reason=None):
        for before in [*node.all_input_nodes, *written(node)]:
            self._dead(self._of(before), reason or f"{name_of(node)} at {' '.join(place(node))}".rstrip())

    def _dead(self, value, reason):
        for part in value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else [value]:
            if part is not None:
                self.degrees.zero(part, reason)

    def _bias(self, name):
        leaf = self.leaves.get(name)
        if leaf is None or leaf.width != len(leaf.plus):
            return None
        if name not in self.own:
            self.own[name] = self.degrees.fresh(leaf.width, owner=name)
        return self.own[name]

    def _linear(self, node, x, w, bias=None):
        for before in (x, w):
            self._dead(self._of(before), "linear")
        behind = w
        while behind.op == "call_function" and behind.all_input_nodes:
            behind = behind.all_input_nodes[0]
        shift = self._of(bias)
        if shift is None or hook_on(self.hooked, node) or self.names.get(behind.name) not in self.leaves:
            return self._dead(shift, "linear")
        self.beside |= dict.fromkeys(shift.tolist(), self.names[behind.name])
        return shift.expand(node.meta["val"].shape)

    def _item(self, node, values, index):
        found = self._of(values)
        return found[index] if isinstance(found, (list, tuple)) else NotImplemented

    def _same(self, node, x, *args, **kwargs):
        return self._of(x) if node.meta["val"].is_floating_point() else NotImplemented

    def _join(self, node, tensors, dim=0):
        if any(isinstance(self._of(tensor), Rows) for tensor in tensors):
            return NotImplemented
        parts = [torch.zeros(tensor.meta["val"].shape, dtype=torch.int64) if self._of(tensor) is None else self._of(tensor)
                 for tensor in tensors]
        return node.target(parts, dim)

    def _add(self, node, x, y, alpha=1):
        a, b = self._of(x), self._of(y)
        shape = node.meta["val"].shape
        if a is None and kind(node) == "sub" or a is not None and b is not None:
            return NotImplemented
        value = b if a is None else a
        if isinstance(value, Rows):
            return value if (x if b is None else y).meta["val"].shape == shape else NotImplemented
        return value.expand(shape) if alpha == 1 or b is None else NotImplemented

    def _scale(self, node, x, y, **kwargs):
        a, b = self._of(x), self._of(y)
        if kwargs or a is None and kind(node) == "div" or a is not None and b is not None:
            return NotImplemented
        value, other = (a, y) if b is None else (b, x)
        if isinstance(value, Rows):  # each query's scores times one number
            size = torch.Size(()) if not isinstance(other, torch.fx.Node) else other.meta["val"].shape
            rank = len(node.meta["val"].shape)
            alone = all(rank - axis > len(size) or size[axis - rank] == 1 for axis in value)
            return value if alone and (x if b is None else y).meta["val"].shape == node.meta["val"].shape else NotImplemented
        if isinstance(other, torch.fx.Node) or other == 0:
            return NotImplemented
        return self.degrees.total((1 / Fraction(other) if kind(node) == "div" else Fraction(other), value))

    def _mask(self, node, x, where, fill):
        good = isinstance(self._of(x), Rows) and fill == -float("inf") and x.meta["val"].shape == node.meta["val"].shape
        return self._of(x) if good else NotImplemented

    def _product(self, node, x, y):
        a, b, rank = self._of(x), self._of(y), len(node.meta["val"].shape)
        if isinstance(a, Rows) or isinstance(b, Rows) or min(len(part.meta["val"].shape) for part in (x, y)) < 2:
            return NotImplemented
        return self._rows([(b, -1, rank - 1), (a, -2, rank - 2)])

    def _product_and_sum(self, node, added, x, y, beta=1, alpha=1):
        return NotImplemented if self._of(added) is not None else self._product(node, x, y)

    def _einsum(self, node, equation, operands, path=None):
        if len(operands) != 2 or "." in equation or "->" not in equation:
            return NotImplemented
        inputs, output = equation.replace(" ", "").split("->")
        first, second = inputs.split(",")
        values = [self._of(operand) for operand in operands]
        if any(isinstance(value, Rows) for value in values) or any(len(set(part)) < len(part) for part in (first, second, output)):
            return NotImplemented
        if set(first + second) - set(output) - (set(first) & set(second)):
            return NotImplemented
        found = []
        for value, letters, others in ((values[0], first, second), (values[1], second, first)):
            own = [letter for letter in letters if letter not in others]
            if value is not None and len(own) != 1:
                return NotImplemented
            found += [(value, letters.index(own[0]), output.index(own[0]))] if value is not None else []
        return self._rows(found)

    def _rows(self, parts):
        """What moves along an axis of a factor by one number moves scores along the axis that it becomes by one."""
        rows = Rows()
        for value, axis, to in parts:
            if value is not None:
                self.degrees.equal(value, value.narrow(axis, 0, 1), JOINED)
                rows[to] = value.unique()
        return rows

    def _softmax(self, node, x, dim, *args, **kwargs):
        value = self._of(x)
        if not isinstance(value, Rows):
            return NotImplemented
        dim %= len(node.meta["val"].shape)
        for axis, numbers in value.items():
            if axis == dim:
                self.seen.append(numbers)
            else:
                self.degrees.zero(numbers, QUERIES)
        return None

    def _attention(self, node, q, k, v, attn_mask=None, *args, **kwargs):
        for other in (q, v, attn_mask):
            self._dead(self._of(other), VALUES)
        keys = self._of(k)
        if isinstance(keys, Rows):
            return NotImplemented
        if keys is not None:
            self.degrees.equal(keys, keys.narrow(-2, 0, 1), JOINED)
            self.seen.append(keys.unique())
        return None

    def _note_keys(self, node, name):
        """The biases of the layers behind the keys of an attention, for what is refused."""
        if name == "scaled_dot_product_attention":
            todo = [node.args[1]]
        else:
            scores = [node]
            while scores and name_of(scores[-1]) not in ("matmul", "bmm", "baddbmm", "einsum"):
                scores.append(next((before for before in scores[-1].all_input_nodes if before.op == "call_function"), None))
                if scores[-1] is None:
                    return
            todo = scores[-1].all_input_nodes[-1:]
        seen = set()
        while todo:
            before = todo.pop()
            if before in seen or before.op != "call_function":
                continue
            seen.add(before)
            if name_of(before) != "linear":
                todo += before.all_input_nodes
            elif len(before.args) == 3:
                bias = before.args[2]
                while bias.op == "call_function" and bias.all_input_nodes:
                    bias = bias.all_input_nodes[0]
                if self.names.get(bias.name) in self.own:
                    self.keys[self.names[bias.name]] = None

    def find(self, parameters):
        """The laws and what was refused, as :func:`pairs.find` gives them."""
        solution = self.degrees.solve()
        seen = set(solution.classes[torch.cat([torch.zeros(0, dtype=torch.int64), *self.seen])].unique().tolist())
        units, laws, named = collections.defaultdict(list), [], set()
        for free in solution.free:
            found = [(name, free[k], entry, self.beside.get(int(self.own[name][entry])))
                     for name, numbers in self.own.items() for entry, k in enumerate(solution.classes[numbers].tolist()) if k in free]
            if set(free) & seen and any(weight for *_, weight in found):
                units[tuple((name, c, weight) for name, c, _, weight in found)].append([entry for _, _, entry, _ in found])
        for shape, found in units.items():
            terms = [Term(name, c, part, name + part_of(part, parameters[name].shape))
                     for (name, c, _), part in zip(shape, torch.tensor(found).T[:, :, None])]
            weights = sorted({weight for *_, weight in shape if weight})
            beside = [Term(name, 1, torch.arange(parameters[name].numel())[None], name) for name in weights]
            laws.append(Law(tuple(terms), False, beside=tuple(beside)))
            named |= {name for name, *_ in shape}
        refused = []
        for name in self.keys.keys() - named:
            reasons = [reason for k in solution.joined[self.own[name]].unique().tolist() for reason in solution.why.get(k, [])]
            reason = min(reasons, key=lambda reason: (reason != JOINED, reason in (QUERIES, VALUES)))
            refused.append(((name,), len(self.own[name]), f"does not move all keys of attention alike: {reason}"))
        return laws, refused
