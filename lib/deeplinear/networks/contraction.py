"""Sums of products over an axis: what a matrix product, a convolution or attention says about degrees."""

import torch

from .reading import Leaf, Value

LARGEST = 2**24  # equations of one product of two tensors that both carry degrees


def contract(reader, x, w):
    """The value (g, r, n) of a sum over c of x (g, r, c) times w (g, c, n, k), for all g; k: entries that stand alike."""
    if w.leaf and x.leaf and len(x.shape) == 3 and x.shape[0] == w.shape[3] == 1 and (product := _product(reader, x, w)):
        return product
    if w.leaf and not w.leaf.known[w.at].any() and len(w.at.unique()) == w.at.numel():
        return _first_use(reader, Value(reader.numbers(x)), w)
    if w.leaf and w.leaf.known[w.at].all() and w.shape[0] == 1 and (again := _used_again(reader, x, w)):
        return again
    return _values(reader, reader.numbers(x), reader.numbers(w))


def _whole(value):
    """Whether a value is a parameter, all of it, that no operation has used yet."""
    return value.leaf and not value.leaf.known.any() and value.at.numel() == len(value.leaf.known) == len(value.at.unique())


def _product(reader, x, w):
    """A product of two parameters stands for one, the same wherever it is computed again; its first use chooses its degrees."""
    rows, columns = x.shape[1], w.shape[2]
    factors = (x, w.map(lambda at: at[..., 0]))
    product = reader.products.get((x.leaf, w.leaf))
    if product and all(torch.equal(one.at, other.at) for one, other in zip(factors, product.leaf.factors)):
        return product
    if not (_whole(x) and _whole(w)):
        return None
    leaf = Leaf(f"{x.leaf.name} {w.leaf.name}", (rows, columns), factors, reader.degrees.fresh(x.shape[2], owner=w.leaf.name))
    reader.products[x.leaf, w.leaf] = Value(leaf=leaf, at=torch.arange(rows * columns).reshape(1, rows, columns))
    return reader.products[x.leaf, w.leaf]


def _first_use(reader, x, w):
    """w is out - in: its columns write new units, its rows read the units of x."""
    numbers = x.numbers
    reader.degrees.equal(numbers, numbers[:, :1], "entries of one unit that differ")
    into = numbers[:, 0, :, None, None].expand(w.shape)
    out = reader.degrees.fresh(w.shape[0], w.shape[2], owner=None if w.leaf.factors else w.leaf.name)
    plus = out[:, None, :, None].expand(w.shape)
    reader.witness(numbers)
    group = torch.arange(len(out))[:, None]
    reader.witness(numbers, group[:, :, None], relative=False)
    reader.witness(out, group, relative=False)
    for part in (into, plus):
        reader.witness(part, w.at)
    reader.choose(w, plus, into)
    result = out[:, None, :].expand(len(out), numbers.shape[1], -1)
    reader.witness(result)
    return Value(result)


def _used_again(reader, x, w):
    """w is known to be f(n) + g(c): then x + g is one number for all c, and what comes out is f and that number."""
    plus, minus = w.leaf.plus[w.at][0, :, :, 0], w.leaf.minus[w.at][0, :, :, 0]  # (c, n)
    if w.shape[3] != 1 and not all((part == part[..., :1]).all() for part in (w.leaf.plus[w.at], w.leaf.minus[w.at])):
        return None
    f, g = [], []
    for sign, part in ((1, plus), (-1, minus)):
        if (part == part[:1]).all():
            f.append((sign, part[0]))
        elif (part == part[:, :1]).all():
            g.append((sign, part[:, 0]))
        else:
            return None
    numbers = reader.numbers(x)
    reader.degrees.equal(numbers, numbers[:, :1], "entries of one unit that differ")
    reader.witness(numbers)
    for sign, part in g:
        if sign == 1:  # the rows of w, which read the units of x, have written some
            reader.both.append((w.leaf.name, reader.degrees.at, part, numbers[0, 0]))
    for part in (w.leaf.plus[w.at], w.leaf.minus[w.at]):
        reader.witness(part, w.at)
    shift = reader.degrees.fresh(1)
    reader.degrees.relation((1, numbers[0, 0]), *g, (-1, shift))
    out = reader.degrees.total(*f, (1, shift.expand(w.shape[2])), bent=False)
    result = out.expand(1, numbers.shape[1], -1)
    reader.witness(result)
    return Value(result)


def _values(reader, x, w):
    """Any two tensors: for each sum all products have one degree."""
    reader.degrees.equal(w, w[..., :1], "entries of one unit that differ")
    w = w[..., 0]
    group = torch.arange(len(x))[:, None, None]
    for numbers in (x, w):
        reader.witness(numbers)
        reader.witness(numbers, group, relative=False)
    if not x.any():
        reader.degrees.equal(w, w[:, :1], "summed with others")
        result = w[:, :1].expand(-1, x.shape[1], -1)
    elif not w.any():
        reader.degrees.equal(x, x[..., :1], "summed with others")
        result = x[..., :1].expand(-1, -1, w.shape[2])
    else:
        result = torch.stack([_sums(reader, one, other) for one, other in zip(x, w)])
    reader.witness(result)
    reader.witness(result, group, relative=False)
    return Value(result)


def _sums(reader, x, w):
    rows, row = x.unique(dim=0, return_inverse=True)
    columns, column = w.unique(dim=1, return_inverse=True)
    if len(rows) * columns.numel() > LARGEST:
        for numbers in (x, w):
            reader.degrees.zero(numbers, "a product of two large tensors")
        return torch.zeros(len(x), w.shape[1], dtype=torch.int64)
    out = reader.degrees.fresh(len(rows), columns.shape[1])
    reader.degrees.bend(out)
    reader.degrees.relation((1, rows[:, :, None]), (1, columns[None]), (-1, out[:, None, :]))
    return out[row][:, column]


def attend(reader, q, k, v):
    """Softmax of q k, times v, over the heads (g, tokens, channels): scores have degree zero."""
    for numbers in (q, k, v):
        reader.degrees.equal(numbers, numbers[:, :1], "tokens that differ")
        reader.witness(numbers)
        reader.witness(numbers, torch.arange(len(numbers))[:, None, None], relative=False)
    reader.degrees.relation((1, q[:, 0]), (1, k[:, 0]))
    result = v[:, :1].expand(-1, q.shape[1], -1)
    reader.witness(result)
    return result
