"""What layers say about degrees: dense, convolutional, embeddings, attention, norms."""

import math

import torch

from . import graph
from .contraction import attend, contract
from .elementwise import add, multiply
from .reading import Value, constants, kind


def linear(reader, node, x, w, bias=None):
    columns = w.map(lambda at: at.t()[None, :, :, None])
    rows = x.map(lambda at: at.reshape(1, -1, at.shape[-1]))
    result = contract(reader, rows, columns).map(lambda at: at.reshape(constants(node).shape))
    return result if bias is None else add(reader, node, result, bias)


def matmul(reader, node, x, y):
    if y.leaf is None and x.leaf:  # (x y)^T = y^T x^T, where the parameter is the second factor
        if len(x.shape) < 2 or len(y.shape) < 2:
            return NotImplemented
        swap = lambda at: at.transpose(-1, -2)
        return _matmul(reader, y.map(swap), x.map(swap), constants(node).map(swap).shape).map(swap)
    return _matmul(reader, x, y, constants(node).shape)


def _matmul(reader, x, y, shape):
    x = x.map(lambda at: at[None]) if len(x.shape) == 1 else x
    y = y.map(lambda at: at[:, None]) if len(y.shape) == 1 else y
    if math.prod(y.shape[:-2]) == 1:
        rows = x.map(lambda at: at.reshape(1, -1, at.shape[-1]))
        columns = y.map(lambda at: at.reshape(1, *at.shape[-2:], 1))
    else:
        batch = torch.broadcast_shapes(x.shape[:-2], y.shape[:-2])
        rows = x.map(lambda at: at.expand(*batch, *at.shape[-2:]).reshape(-1, *at.shape[-2:]))
        columns = y.map(lambda at: at.expand(*batch, *at.shape[-2:]).reshape(-1, *at.shape[-2:])[..., None])
    return contract(reader, rows, columns).map(lambda at: at.reshape(shape))


def addmm(reader, node, bias, x, y, beta=1, alpha=1):
    return add(reader, node, _matmul(reader, x, y, constants(node).shape), bias)


def einsum(reader, node, equation, operands, path=None):
    """Two operands without repeated letters; a parameter of the two is the second factor."""
    if len(operands) != 2 or "." in equation or "->" not in equation:
        return NotImplemented
    inputs, output = equation.replace(" ", "").split("->")
    first, second = inputs.split(",")
    x, y = operands
    if any(len(set(letters)) != len(letters) for letters in (first, second, output)):
        return NotImplemented
    if x.leaf and not y.leaf:
        (first, x), (second, y) = (second, y), (first, x)
    if set(first + second) - set(output) - (set(first) & set(second)):
        return NotImplemented
    sizes = dict(zip(first + second, [*x.shape, *y.shape]))
    batch = [a for a in first if a in second and a in output]
    inner = [a for a in first if a in second and a not in output]
    rows, columns = [a for a in first if a not in second], [a for a in second if a not in first]
    size = lambda letters: math.prod(sizes[a] for a in letters)
    def arrange(value, letters, *parts):
        order = [letters.index(a) for part in parts for a in part]
        return value.map(lambda at: at.permute(order).reshape([size(part) for part in parts]))
    result = contract(reader, arrange(x, first, batch, rows, inner),
                      arrange(y, second, batch, inner, columns).map(lambda at: at[..., None]))
    found = batch + rows + columns
    return result.map(lambda at: at.reshape([sizes[a] for a in found]).permute([found.index(a) for a in output]))


def convolve(reader, node, x, w, bias=None, stride=1, padding=0, dilation=1, groups=1, *, transposed=False):
    """Of one to three dimensions, grouped or not: sums over the channels of a group."""
    x = Value(reader.numbers(x))
    axes = len(w.shape) - 2
    shape = constants(node).shape
    alone = len(x.shape) == axes + 1
    x = x.map(lambda at: (at[None] if alone else at).flatten(2).unflatten(1, (groups, -1)))  # (batch, g, c, places)
    rows = x.map(lambda at: at.permute(1, 0, 3, 2).flatten(1, 2))
    if transposed:
        columns = w.map(lambda at: at.flatten(2).unflatten(0, (groups, -1)))
    else:
        columns = w.map(lambda at: at.flatten(2).unflatten(0, (groups, -1)).transpose(1, 2))
    result = contract(reader, rows, columns)
    result = result.map(lambda at: at[:, 0].flatten())
    numbers = result.map(lambda at: at[(...,) + axes * (None,)]).map(lambda at: at.expand(shape))
    reader.witness(numbers.numbers)
    return numbers if bias is None else add(reader, node, numbers, bias.map(lambda at: at[(...,) + axes * (None,)]))


def convolve_transposed(reader, node, x, w, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1):
    return convolve(reader, node, x, w, bias, groups=groups, transposed=True)


def embed(reader, node, w, index, padding_idx=-1, scale_grad_by_freq=False, sparse=False):
    """Rows of a table: the same units for every word."""
    if scale_grad_by_freq or padding_idx >= 0:
        return NotImplemented
    shape = constants(node).shape
    if w.leaf and not w.leaf.known[w.at].any():
        units = reader.degrees.fresh(w.shape[1], owner=w.leaf.name)
        reader.choose(w, units.expand(w.shape), torch.zeros(w.shape, dtype=torch.int64))
    numbers = reader.numbers(w)
    reader.degrees.equal(numbers, numbers[:1], "words that differ")
    result = numbers[0].expand(shape)
    reader.witness(result)
    return Value(result)


def attention(reader, node, q, k, v, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False):
    q, k, v = (reader.numbers(value) for value in (q, k, v))
    if attn_mask is not None:
        reader.degrees.zero(reader.numbers(attn_mask), "a mask of attention")
    if enable_gqa:
        k, v = (part.repeat_interleave(q.shape[-3] // part.shape[-3], -3) for part in (k, v))
    batch = torch.broadcast_shapes(q.shape[:-2], k.shape[:-2], v.shape[:-2])
    heads = [part.expand(*batch, *part.shape[-2:]).reshape(-1, *part.shape[-2:]) for part in (q, k, v)]
    return Value(attend(reader, *heads).reshape(constants(node).shape))


def normalise(reader, node, value, shape, weight=None, bias=None, eps=1e-5, *args):
    """Layer and RMS norm."""
    return _gain(reader, node, value, list(range(-len(shape), 0)), eps, weight, bias)


def rms_normalise(reader, node, value, shape, weight=None, eps=None):
    return _gain(reader, node, value, list(range(-len(shape), 0)), eps, weight, None)


def batch_normalise(reader, node, value, weight, bias, mean, variance, training, momentum, eps, *args):
    axes = len(value.shape) - 2
    lift = lambda part: None if part is None else part.map(lambda at: at[(...,) + axes * (None,)])
    return _gain(reader, node, value, None, eps, lift(weight), lift(bias))


def group_normalise(reader, node, value, groups, weight=None, bias=None, eps=1e-5, *args):
    axes = len(value.shape) - 2
    lift = lambda part: None if part is None else part.map(lambda at: at[(...,) + axes * (None,)])
    return _gain(reader, node, value, None, eps, lift(weight), lift(bias))


def _gain(reader, node, value, dims, eps, weight, bias):
    """What is normalised has degree zero before the gain; at eps = 0 what comes in may have any one degree."""
    numbers = reader.numbers(value)
    if eps == 0 and dims:
        first = numbers
        for axis in dims:
            first = first.narrow(axis, 0, 1)
        reader.degrees.equal(numbers, first, "normalised with others")
        reader.degrees.bend(numbers)  # each by a norm of its own
    else:
        why = f"whose eps is {eps}, not 0" if eps != 0 else "which normalises a group of entries together"
        why += "" if kind(node) == "rms_norm" else "; what is kept of shifts that it takes away, at any eps, is not read"
        reader.degrees.zero(numbers, reader.told(node, f"{kind(node)} at {' '.join(graph.place(node))}, {why}"))
    result = Value(torch.zeros_like(numbers))
    if weight is not None:
        result = multiply(reader, node, result, weight)
    return result if bias is None else add(reader, node, result, bias)
