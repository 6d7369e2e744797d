"""What operations that move, scale, add, multiply and summarise entries say about their degrees."""

from fractions import Fraction

import torch

from . import graph
from .reading import Value, constants, kind, mutates

POOLS = {f"{kind}{n}d": (n, kind.endswith("avg_pool")) for n in (1, 2, 3)
         for kind in ("avg_pool", "max_pool", "adaptive_avg_pool", "adaptive_max_pool")} | {
    f"{kind}{n}d{more}": (n, False) for n in (1, 2, 3) for kind, more in (("max_pool", "_with_indices"),
                                                                     ("fractional_max_pool", ""))} | {
    f"upsample_{kind}": (n, True) for kind, n in (("nearest1d", 1), ("nearest2d", 2), ("nearest3d", 3), ("linear1d", 1),
                                                  ("bilinear2d", 2), ("bicubic2d", 2), ("trilinear3d", 3))}
POWERS = {"square": 2, "sqrt": Fraction(1, 2), "rsqrt": Fraction(-1, 2), "reciprocal": -1}


def move(reader, node, *args, **kwargs):
    """Entries change their places: the operation itself, on the numbers."""
    value = next(argument for argument in args if isinstance(argument, Value))
    plain = lambda argument: torch.empty(argument.shape) if isinstance(argument, Value) else argument
    kwargs = {key: part for key, part in kwargs.items() if key != "memory_format"}
    if any(isinstance(part, torch.dtype) for part in args) or kind(node) == "repeat_interleave" and isinstance(args[1], Value):
        return NotImplemented  # entries taken apart, or places that are not in the graph

    def change(tensor):
        return node.target(*(tensor.contiguous() if argument is value else plain(argument) for argument in args), **kwargs)
    if value.leaf:
        moved = change(value.at)
        give = lambda at: Value(leaf=value.leaf, at=at)
    else:
        moved, give = change(value.numbers), Value
        where = change(torch.arange(value.numbers.numel()).reshape(value.shape))
        for numbers, payload in zip(moved, where) if isinstance(moved, (list, tuple)) else [(moved, where)]:
            reader.witness(numbers, payload)
    return type(moved)(give(part) for part in moved) if isinstance(moved, (list, tuple)) else give(moved)


def getitem(reader, node, values, index):
    return values[index] if isinstance(values, (list, tuple)) else NotImplemented


def join(reader, node, values, dim=0):
    """``cat`` and ``stack``."""
    values = [value for value in values if isinstance(value, Value) and value.shape != (0,)]
    full = [reader.numbers(value) for value in values if not value.nothing]
    parts = iter(full)
    parts = [(full[0].narrow(dim, 0, 1).expand(value.shape) if full else value.numbers) if value.nothing else next(parts)
             for value in values]
    result = node.target(parts, dim)
    step = result.numel()
    where = node.target([torch.arange(part.numel()).reshape(part.shape) + k * step for k, part in enumerate(parts)], dim)
    for part in parts:
        reader.witness(part)
    reader.witness(result, where)
    return Value(result)


def alike(reader, node, value, *args, **kwargs):
    """Every entry is multiplied by one number, or stays."""
    return value if value.leaf else Value(value.numbers)


def convert(reader, node, value, *args, **kwargs):
    return alike(reader, node, value) if node.meta["val"].dtype in (torch.float32, torch.float64) else NotImplemented


def pair(reader, node, value):
    """``view_as_complex``: two entries become one number."""
    numbers = reader.numbers(value)
    reader.degrees.equal(numbers[..., 0], numbers[..., 1], "two parts of one complex number")
    reader.degrees.bend(numbers)
    return Value(numbers[..., 0])


def unpair(reader, node, value):
    numbers = reader.numbers(value)
    return Value(numbers[..., None].expand(*numbers.shape, 2))


def unit_by_unit(reader, node, value, *args, **kwargs):
    numbers = reader.numbers(value)
    reader.degrees.bend(numbers)
    return Value(numbers)


def clamp(reader, node, value, least=None, most=None, **kwargs):
    bounds = (kwargs.get("min", least), kwargs.get("max", most))
    return unit_by_unit(reader, node, value) if bounds in ((0, None), (None, 0)) else NotImplemented


def prelu(reader, node, value, slope):
    reader.degrees.zero(reader.numbers(slope), "a slope of PReLU")
    return unit_by_unit(reader, node, value)


def glu(reader, node, value, dim=-1):
    first, gate = reader.numbers(value).chunk(2, dim)
    reader.degrees.zero(gate, reader.told(node, "the gate of GLU"))
    reader.degrees.bend(first)
    return Value(first)


def add(reader, node, x, y, alpha=1):
    """Summands have one degree."""
    if not isinstance(y, Value) or not isinstance(x, Value):
        value, number = (x, y) if isinstance(x, Value) else (y, x)
        return alike(reader, node, value) if number == 0 else NotImplemented
    a, b = _broadcast(reader, x, y)
    reader.degrees.equal(a, b, reader.told(node, f"joined to what no parameter scales, {kind(node)} at "
                                           f"{' '.join(graph.place(node))}".rstrip()))
    return Value(a)


def multiply(reader, node, x, y, rounding_mode=None, sign=1):
    """Factors' degrees add up; of a quotient they are subtracted."""
    if rounding_mode is not None:
        return NotImplemented
    if not isinstance(y, Value):
        return alike(reader, node, x)
    if not isinstance(x, Value):
        return power(reader, node, y, -1) if sign == -1 else alike(reader, node, y)
    if mutates(node) and reader.numbers(y).any():
        return NotImplemented
    sizes = [value.shape for value in (x, y)]
    a, b = _broadcast(reader, x, y)
    for numbers, other in ((a, sizes[1]), (b, sizes[0])):
        if not _constant_along(numbers, other):
            reader.degrees.bend(numbers)
    if a.any() and b.any():
        for numbers in (a, b):
            reader.degrees.bend(numbers)
    return Value(reader.degrees.total((1, a), (sign, b)))


def divide(reader, node, x, y, rounding_mode=None):
    return multiply(reader, node, x, y, rounding_mode, sign=-1)


def power(reader, node, value, exponent):
    if isinstance(exponent, Value) or not isinstance(value, Value) or exponent == 0:
        return NotImplemented
    numbers, exponent = reader.numbers(value), Fraction(exponent)
    if not numbers.any() or exponent == 1:
        return unit_by_unit(reader, node, value)
    reader.degrees.bend(numbers)
    return Value(reader.degrees.total((exponent, numbers)))


def known_power(reader, node, value):
    return power(reader, node, value, POWERS[kind(node)])


def _broadcast(reader, x, y):
    a, b = reader.numbers(x), reader.numbers(y)
    shape = torch.broadcast_shapes(a.shape, b.shape)
    for numbers in (a, b):
        where = torch.arange(numbers.numel()).reshape(numbers.shape)
        if numbers.shape != shape:
            reader.witness(numbers.expand(shape), where.expand(shape))
    return a.expand(shape), b.expand(shape)


def _constant_along(numbers, other):
    """Whether numbers stay the same along all axes along which a tensor of shape ``other`` does not."""
    other = (numbers.ndim - len(other)) * (1,) + tuple(other)
    return all(size == 1 or (numbers == numbers.narrow(axis, 0, 1)).all() for axis, size in enumerate(other))


def pool(reader, node, value, *args, **kwargs):
    """One operation for all channels on the last axes, linear or a maximum."""
    axes, linear = POOLS[kind(node)]
    return _along_last(reader, node, value, axes, linear)


def pad(reader, node, value, sizes, mode="constant", fill=None):
    if isinstance(fill, Value) or isinstance(mode, (int, float)) and mode or fill:
        return NotImplemented
    return _along_last(reader, node, value, len(sizes) // 2, True)


def _along_last(reader, node, value, axes, linear):
    numbers = reader.numbers(value)
    first = numbers
    for axis in range(-axes, 0):
        first = first.narrow(axis, 0, 1)
    reader.degrees.equal(numbers, first, "neighbours that differ")
    results = constants(node)
    several = isinstance(results, (list, tuple))
    result = first.expand((results[0] if several else results).shape)
    reader.witness(numbers)
    reader.witness(result)
    if not linear:
        reader.degrees.bend(result)
    return type(results)([Value(result), *results[1:]]) if several else Value(result)


def reduce(reader, node, value, dims=None, *args, **kwargs):
    """Sums, means and maxima over axes."""
    numbers = reader.numbers(value)
    dims = [dims] if isinstance(dims, int) else list(dims or range(numbers.ndim))
    first = numbers
    for axis in dims:
        first = first.narrow(axis, 0, 1)
    reader.degrees.equal(numbers, first, "summed with others")
    results = constants(node)
    several = isinstance(results, (list, tuple))
    result = first.reshape((results[0] if several else results).shape)
    reader.witness(numbers)
    reader.witness(result)
    if kind(node) not in ("sum", "mean"):
        reader.degrees.bend(result)
    return type(results)([Value(result), *results[1:]]) if several else Value(result)


def choose(reader, node, condition, x, y):
    """``where``: the condition has degree zero, what it chooses from has one degree."""
    if not isinstance(x, Value) or not isinstance(y, Value):
        return NotImplemented
    a, b = _broadcast(reader, x, y)
    reader.degrees.equal(a, b, "chosen from what no parameter scales")
    reader.degrees.bend(a)
    return Value(a.expand(constants(node).shape))


def mask(reader, node, value, where, fill):
    return unit_by_unit(reader, node, value) if fill == 0 and value.shape == constants(node).shape else NotImplemented


def detached(reader, node, value):
    """No gradient goes back: constants, whatever they were."""
    return constants(node)


def without_gradient(reader, node, enabled, *args):
    if enabled or mutates(node):
        return NotImplemented
    reader.unseen |= {value.leaf.name for value in args if getattr(value, "leaf", None)}
    return constants(node)


def zeros(reader, node, *args, **kwargs):
    """Zeros that are only joined to others have the degrees of the others."""
    return Value(constants(node).numbers, nothing=all(kind(user) in ("cat", "concat") for user in node.users))


def made(reader, node, *args, **kwargs):
    """New constants; of tensors these operations read shapes alone."""
    return constants(node)
