"""From a graph to equations: what each operation says about the degrees of the entries that go in and come out.

An operation that is listed says what it needs (``operations``); any other says that all that goes in has degree zero,
and then all that comes out has. So what is not understood costs laws, and never makes a false one.
"""

import dataclasses
import math

import torch

from . import graph
from .degrees import OUTPUT, Degrees

UNSEEN = "used only where no gradient goes: torch.no_grad, or a checkpoint with use_reentrant=True"


class Leaf:
    """A parameter: the degree of each entry is ``plus - minus``, chosen when an operation first uses it.

    ``factors``: the two (1, rows, inner) and (1, inner, columns) values of which this one is the product, whose degrees
    are then chosen with it; ``inner``: the unknowns between them.
    """

    def __init__(self, name, shape, factors=None, inner=None):
        self.name, self.factors, self.inner = name, factors, inner
        self.width, count = (shape or (1,))[-1], math.prod(shape)
        self.plus, self.minus = torch.zeros(2, count, dtype=torch.int64)
        self.known = torch.zeros(count, dtype=torch.bool)


@dataclasses.dataclass(frozen=True)
class Value:
    """A tensor in the graph: the numbers of its entries' degrees, or, of a parameter, which entries ``at`` it are;
    ``nothing``: zeros that are only joined to others."""

    numbers: torch.Tensor | None = None
    leaf: Leaf | None = None
    at: torch.Tensor | None = None
    nothing: bool = False

    @property
    def shape(self):
        return (self.at if self.leaf else self.numbers).shape

    def map(self, change):
        """The value with its entries moved about by ``change``, a function of tensors."""
        return Value(leaf=self.leaf, at=change(self.at)) if self.leaf else Value(change(self.numbers))


class Reader:
    """Reads graphs of one network into ``degrees``, ``leaves`` and ``events``.

    ``events``: (numbers, payload, relative) arrays of one shape. Two units have a law together only if, in every event,
    their payloads in order are the same, relative to the first of each if so marked: then every operation treats them
    in the same way. ``frozen``: {name: reason} of the parameters that no law may name. ``both``: (parameter, operation,
    numbers written, numbers read) where the entries of a parameter that wrote some units read units.
    """

    def __init__(self, double, frozen, hooked):
        self.parameters, self.frozen, self.hooked = dict(double.named_parameters()), frozen, hooked
        self.unseen = set()  # parameters that are used where no gradient goes
        self.both, self.degrees, self.events, self.products = [], Degrees(), [], {}  # {(leaf, leaf): the value of their product}
        self.leaves = {name: Leaf(name, tuple(parameter.shape)) for name, parameter in self.parameters.items()
                       if parameter.requires_grad and name not in frozen}

    def read(self, program, operations):
        """Follow one graph; ``operations``: ``{name of an aten operation: function(reader, node, *arguments)}``."""
        self.values, self.names = {}, program.names
        self.last = _last_use(program)
        for node in program.nodes:
            if node.op == "placeholder":
                self.values[node] = self._placeholder(node)
            elif node.op == "output":
                for value in self._tensors(node):
                    self.degrees.zero(self.numbers(value), OUTPUT)
            elif node.op == "call_function":
                self.values[node] = self._call(node, operations)

    def _placeholder(self, node):
        meta = node.meta.get("val")
        if not isinstance(meta, torch.Tensor):
            return meta
        leaf = self.leaves.get(self.names.get(node.name))
        if leaf:
            return Value(leaf=leaf, at=torch.arange(meta.numel()).reshape(meta.shape))
        return Value(torch.zeros(meta.shape, dtype=torch.int64))

    def _call(self, node, operations):
        handler = operations.get(name_of(node))
        self.degrees.at = f"{name_of(node)} at {' '.join(graph.place(node))}".rstrip()
        if hook := hook_on(self.hooked, node):
            return self.refuse(node, hook)
        if handler is None or self._writes_behind_a_detach(node):
            return self.refuse(node)
        try:
            found = handler(self, node, *self._resolve(node.args), **self._resolve(node.kwargs))
        except Exception as error:  # arguments that the function does not expect; what it said already only costs laws
            return self.refuse(node, f"{name_of(node)} is misread: {type(error).__name__}: {error}")
        return self.refuse(node) if found is NotImplemented else found

    def unread(self):
        """Parameters of which no graph says how gradients reach them, ``[(names, 0, reason)]``."""
        found = {}
        for name, leaf in self.leaves.items():
            path = name.rpartition(".")[0]
            if not leaf.known.any() and name in self.unseen:
                found.setdefault(UNSEEN, []).append(name)
            elif not leaf.known.any() and path in self.hooked:
                found.setdefault(f"a hook on {path or 'the network'}", []).append(name)
        return [(tuple(names), 0, reason) for reason, names in found.items()]

    def _resolve(self, argument):
        return torch.fx.node.map_arg(argument, self.values.get)

    def _tensors(self, node):
        return [value for before in node.all_input_nodes for value in _flat(self.values.get(before))]

    def refuse(self, node, reason=None):
        """All that goes into an operation has degree zero, what it writes into too, and so has what comes out."""
        reason = reason or f"{name_of(node)} at {' '.join(graph.place(node))}".rstrip()
        matrices = {value.leaf for value in self._tensors(node) if value.leaf and value.leaf.width < len(value.leaf.plus)}
        several = len(matrices) > 1  # units may be hidden between them
        for value in self._tensors(node):
            self.degrees.zero(self.numbers(value), reason if several else self.told(node, reason))
        for before in written(node):
            for value in _flat(self.values.get(before)):
                self.degrees.zero(self.numbers(value), reason)
        return constants(node)

    def told(self, node, reason):
        """The reason, or that an output shows it where no parameter is used behind the operation, or in it."""
        return OUTPUT if node not in self.last and isinstance(node.target, torch._ops.OpOverload) else reason

    def _writes_behind_a_detach(self, node):
        return mutates(node) and any(before.op == "call_function" and name_of(before) in (
            "detach", "wrap_with_set_grad_enabled") for before in written(node))

    def numbers(self, value):
        """The numbers of a value; a parameter whose degrees nobody chose yet gets one for each entry."""
        if not value.leaf:
            return value.numbers
        leaf, entries = value.leaf, value.at.unique()
        new = entries[~leaf.known[entries]]
        if leaf.factors:
            if len(new):
                all_of_it = torch.arange(len(leaf.known))
                columns = self.degrees.fresh(leaf.factors[1].shape[2])
                self.choose(Value(leaf=leaf, at=all_of_it), columns[all_of_it % len(columns)], torch.zeros_like(all_of_it))
        elif len(new):
            rows = (new // leaf.width).unique_consecutive(return_counts=True)[1].tolist()  # each an axis of its own
            fresh = torch.cat([self.degrees.fresh(count, owner=leaf.name) for count in rows])
            self.choose(value.map(lambda at: new), fresh, torch.zeros_like(new))
        numbers = self.degrees.total((1, leaf.plus[value.at]), (-1, leaf.minus[value.at]))
        self.events.append((numbers, value.at, True))
        return numbers

    def choose(self, value, plus, minus):
        """Let the degrees of a parameter's entries be ``plus - minus``, those that are known too; its factors' follow."""
        leaf, at = value.leaf, value.at
        known = leaf.known[at]
        if known.any():
            self.degrees.relation((1, leaf.plus[at][known]), (-1, leaf.minus[at][known]), (-1, plus[known]), (1, minus[known]))
        leaf.plus[at[~known]], leaf.minus[at[~known]], leaf.known[at] = plus[~known], minus[~known], True
        if not leaf.factors:
            return
        left, right = leaf.factors
        plus, minus = (part.reshape(left.shape[1], right.shape[2]) for part in (leaf.plus, leaf.minus))
        inner = leaf.inner
        if _same(plus, 0) and _same(minus, 1):  # written along the columns
            self._follow(left, inner[None, None, :], minus[None, :, :1])
            self._follow(right, plus[:1][None], inner[None, :, None])
        else:
            self._follow(left, plus[None, :, :1], inner[None, None, :])
            self._follow(right, inner[None, :, None], minus[:1][None])

    def _follow(self, factor, plus, minus):
        plus, minus = (part.expand(factor.shape) for part in (plus, minus))
        self.choose(factor, plus, minus)
        self.witness(plus, factor.at)
        self.witness(minus, factor.at)

    def witness(self, numbers, payload=None, relative=True):
        """Record in which places the units are, for the laws of pairs of units."""
        if numbers.any():
            payload = torch.arange(numbers.numel()).reshape(numbers.shape) if payload is None else payload
            self.events.append((numbers, payload.expand(numbers.shape), relative))


def hook_on(hooked, node):
    """In words, the first hook on a module that a node belongs to; None without one."""
    where = node.meta.get("nn_module_stack") or {}
    paths = hooked & {path.removeprefix("net").lstrip(".") for path, _ in where.values()}
    return f"a hook on {sorted(paths)[0] or 'the network'}" if paths else None


def _same(matrix, axis):
    return bool((matrix == matrix.narrow(axis, 0, 1)).all())


def _flat(value):
    if isinstance(value, Value):
        return [value]
    return [one for part in value for one in _flat(part)] if isinstance(value, (list, tuple)) else []


def name_of(node):
    """The operation's name in PyTorch, without its overload: ``relu_``."""
    target = node.target
    name = target.name() if isinstance(target, torch._ops.OpOverload) else getattr(target, "__name__", str(target))
    return name.removeprefix("aten::").split(".")[0]


def kind(node):
    """The operation, in place or not: ``relu``."""
    return name_of(node).removesuffix("_")


def mutates(node):
    """Whether an operation, or one of the graph that it runs, writes into its inputs."""
    if isinstance(node.target, torch._ops.OpOverload):
        return node.target._schema.is_mutable
    inner = [getattr(node.graph.owning_module, before.target) for before in node.all_input_nodes if before.op == "get_attr"]
    return any(mutates(part) for module in inner if isinstance(module, torch.fx.GraphModule)
               for part in module.graph.nodes if part.op == "call_function")


def written(node):
    """The nodes that an operation in place writes into: its inputs and all of which they are views."""
    found, todo = [], list(node.all_input_nodes) if mutates(node) else []
    while todo:
        before = todo.pop()
        if before not in found:
            found.append(before)
            if before.op == "call_function" and not _gives_new_tensors(before):
                todo += before.all_input_nodes
    return found


def _gives_new_tensors(node):
    return isinstance(node.target, torch._ops.OpOverload) and all(
        result.alias_info is None for result in node.target._schema.returns)


def constants(node):
    """Values of degree zero in the shapes of what a node gives."""
    def one(meta):
        if isinstance(meta, torch.Tensor):
            return Value(torch.zeros(meta.shape, dtype=torch.int64))
        return type(meta)(one(part) for part in meta) if isinstance(meta, (list, tuple)) else meta
    return one(node.meta.get("val"))


def _last_use(program):
    """The nodes behind which a parameter is used."""
    found = set()
    for node in reversed(program.nodes):
        if any(user in found or any(before.name in program.names for before in user.all_input_nodes)
               for user in node.users):
            found.add(node)
    return found
