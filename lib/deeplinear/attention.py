"""The laws of a transformer's parts, each as a quadratic form of parameters with a small network that keeps it and one that
does not; and how many laws there are of two factors that meet in products, by exact ranks.

A form f is kept by gradient flow, for every loss, exactly if one step of gradient descent of any rate gives f(theta+) =
(1 - lr decay)^2 f(theta) + lr^2 f(gradients): what is left over is the defect, and zero for a law.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import torch
from flint import nmod_mat
from torch.nn import functional as F

from . import chain, conservation, data, transformer

Parameters = dict[str, torch.Tensor]
Form = Callable[[Parameters], torch.Tensor]
WIDTH, HEADS, GROUPS, SIZE, HIDDEN, TIME = 8, 4, 2, 4, 6, 5


@dataclasses.dataclass(frozen=True)
class Case:
    """A law, ``kept``, of what ``net`` computes; ``lost``: what is no law of ``other``, where a hypothesis is ``without``."""

    name: str
    kept: Form
    net: Callable[[Parameters, torch.Tensor], torch.Tensor]
    without: str
    lost: Form
    other: Callable[[Parameters, torch.Tensor], torch.Tensor]


def attend(p: Parameters, x: torch.Tensor, rope: bool = False, eps: float | None = None, gains: bool = True,
           middle: Callable[[torch.Tensor], torch.Tensor] | None = None) -> torch.Tensor:
    """Causal attention, HEADS queries to GROUPS keys and values; ``eps``: of RMS norms of queries and keys; ``middle``: of the
    heads' outputs. x (n, time, WIDTH)."""
    q, k, v = (F.linear(x, p[f"W{name}"], p[f"b{name}"]).unflatten(-1, (-1, SIZE)).transpose(1, 2) for name in "qkv")
    if eps is not None:
        q, k = (F.rms_norm(part, (SIZE,), gain if gains else None, eps) for part, gain in ((q, p["gq"]), (k, p["gk"])))
    if rope:
        q, k = transformer.rotate(q), transformer.rotate(k)
    k, v = (part.repeat_interleave(HEADS // GROUPS, 1) for part in (k, v))
    later = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1)
    y = (q @ k.mT / SIZE**0.5).masked_fill(later, -torch.inf).softmax(-1) @ v
    return F.linear((y if middle is None else middle(y)).transpose(1, 2).flatten(2), p["Wo"], p["bo"])


def feed(p: Parameters, x: torch.Tensor, gate: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """``down`` of the product of ``up`` with a function of ``gate``."""
    return F.linear(gate(F.linear(x, p["gate"], p["bgate"])) * F.linear(x, p["up"], p["bup"]), p["down"])


def normed(p: Parameters, x: torch.Tensor, post: bool = False) -> torch.Tensor:
    """A norm with gain and shift that ``up`` alone reads; with ``post`` the stream goes on behind it."""
    x = F.layer_norm(x, (WIDTH,), p["gain"], p["shift"], 1e-5)
    y = F.gelu(F.linear(x, p["up"], p["bup"]))
    return F.linear(y, p["down"]) + (x if post else 0)


def batched(p: Parameters, x: torch.Tensor, frozen: bool = False) -> torch.Tensor:
    """``up``, a batch norm at epsilon 0, GELU, ``down``; ``frozen``: of the statistics 0 and 1, not those of the batch."""
    z = F.linear(x, p["up"], p["bup"]).flatten(0, 1)
    z = z if frozen else (z - z.mean(0)) / z.var(0, correction=0).sqrt()
    return F.linear(F.gelu(z), p["down"])


def stream(p: Parameters, x: torch.Tensor, start: bool = True, eps: float | None = None, centre: bool = False,
           drop: torch.Tensor | float = 1.0) -> torch.Tensor:
    """A residual block between a stem and a head; ``start``: the stem alone starts the stream, else the data too; ``eps``: of
    RMS norms before both readers, of LayerNorms with ``centre``, None for none; ``drop``: dropout's factors on what is added."""
    centred = (lambda z: z - z.mean(-1, keepdim=True)) if centre else (lambda z: z)
    norm = (lambda z: z) if eps is None else (lambda z: F.rms_norm(centred(z), (WIDTH,), None, eps))
    x = F.linear(x, p["stem"], p["bstem"]) + (0 if start else x)
    x = x + drop * F.linear(F.relu(F.linear(norm(x), p["up"], p["bup"])), p["down"], p["bdown"])
    return F.linear(norm(x), p["head"])


def parameters(seed: int = 0, scale: float = 0.7) -> Parameters:
    """Random parameters of all the networks above, float64: (outputs, inputs) as in PyTorch."""
    shapes: dict[str, tuple[int, ...]] = {
        "Wq": (HEADS * SIZE, WIDTH), "Wk": (GROUPS * SIZE, WIDTH), "Wv": (GROUPS * SIZE, WIDTH), "Wo": (WIDTH, HEADS * SIZE),
        "bq": (HEADS * SIZE,), "bk": (GROUPS * SIZE,), "bv": (GROUPS * SIZE,), "bo": (WIDTH,), "gq": (SIZE,), "gk": (SIZE,),
        "gate": (HIDDEN, WIDTH), "up": (HIDDEN, WIDTH), "down": (WIDTH, HIDDEN), "bgate": (HIDDEN,), "bup": (HIDDEN,),
        "bdown": (WIDTH,), "gain": (WIDTH,), "shift": (WIDTH,), "stem": (WIDTH, WIDTH), "bstem": (WIDTH,), "head": (3, WIDTH)}
    generator = chain.seeded(seed)
    return {name: scale * chain.normal(*shape, generator=generator) for name, shape in shapes.items()}


def defect(net: Callable[[Parameters, torch.Tensor], torch.Tensor], form: Form, seed: int = 0, lr: float = 0.3,
           decay: float = 0.1) -> float:
    """What a step of a random loss leaves over of the form, the largest entry, over the size of the form's terms."""
    p = {name: value.requires_grad_() for name, value in parameters(seed).items()}
    generator = chain.seeded(seed + 1)
    y = net(p, chain.normal(2, TIME, WIDTH, generator=generator))
    a, b = chain.normal(2, *y.shape, generator=generator)
    found = torch.autograd.grad((a * y + b * torch.tanh(y)).sum(), list(p.values()), allow_unused=True, materialize_grads=True)
    size = 1 / max(1.0, *(gradient.abs().max().item() for gradient in found))  # a loss of gradients at most 1
    gradients = {name: size * gradient for name, gradient in zip(p, found)}
    with torch.no_grad():
        after = {name: (1 - lr * decay) * p[name] - lr * gradients[name] for name in p}
        left = form(after) - (1 - lr * decay)**2 * form(p) - lr**2 * form(gradients)
    return left.abs().max().item()


def gram(p: Parameters, name: str, groups: int = GROUPS) -> torch.Tensor:
    """The Gram matrices (groups, SIZE, SIZE) of queries, keys or values, biases included, or of outputs, summed over the
    heads of a group."""
    if name == "o":
        rows = p["Wo"].T
    else:
        rows = torch.cat([p[f"W{name}"], p[f"b{name}"][:, None]], 1)
    return (rows.unflatten(0, (groups, -1, SIZE)) @ rows.unflatten(0, (groups, -1, SIZE)).mT).sum(1)


def unit(p: Parameters, name: str) -> torch.Tensor:
    """The squares that go into each unit of ``up`` or ``gate``, or out of it, ``down``."""
    return p["down"].square().sum(0) if name == "down" else p[name].square().sum(1) + p[f"b{name}"].square()


def pairs(values: torch.Tensor) -> torch.Tensor:
    """Sums over the channels that rotary positions turn together, i and i + SIZE / 2, on the last axis."""
    return values.unflatten(-1, (2, -1)).sum(-2)


def _diagonal(p):
    return pairs((gram(p, "q") - gram(p, "k")).diagonal(dim1=-2, dim2=-1))


def _one_head(p):
    one = gram(p, "q", HEADS)[::HEADS // GROUPS]
    return one - gram(p, "k")


def _streams(p):
    readers = p["up"].T @ p["up"] + p["head"].T @ p["head"]
    return readers - sum(p[name] @ p[name].T + torch.outer(p[f"b{name}"], p[f"b{name}"]) for name in ("stem", "down"))


def _writers(p):
    return sum(p[name].square().sum() for name in ("stem", "bstem", "down", "bdown"))


def _columns(p):
    return torch.cat([p[name].sum(0).flatten() for name in ("stem", "bstem", "down", "bdown")]).square()


def cases() -> list[Case]:
    """The rows of the table of chapter 16, in its order."""
    turned, bare = (lambda p, x: attend(p, x, rope=True)), (lambda p, x: attend(p, x, eps=0.0, gains=False))
    gains, bilinear = (lambda p, x: attend(p, x, eps=1e-2)), (lambda p, x: feed(p, x, lambda z: z))
    query_key, value_output = (lambda p: gram(p, "q") - gram(p, "k")), (lambda p: gram(p, "o") - gram(p, "v"))
    swiglu, reglu = (lambda p, x: feed(p, x, F.silu)), (lambda p, x: feed(p, x, F.relu))
    down_up, down_gate = (lambda p: unit(p, "down") - unit(p, "up")), (lambda p: unit(p, "down") - unit(p, "gate"))
    keys = lambda p: p["bk"].square()
    rms = lambda z: F.rms_norm(z, (SIZE,), None, 1e-5)
    prenorm = lambda p: p["up"].square().sum(0) - p["gain"].square() - p["shift"].square()
    channels = lambda p: p["gq"].square() - p["gk"].square()
    queries = lambda p: gram(p, "q", HEADS).diagonal(dim1=-2, dim2=-1).sum(-1)
    squared, twice = (lambda p, x: feed(p, x, lambda z: F.relu(z).square())), (lambda p: 2 * unit(p, "down") - unit(p, "gate"))
    before = lambda p: torch.stack([unit(p, "up"), p["bup"].square()])
    centred, dropped = (lambda p, x: stream(p, x, eps=1e-5, centre=True)), (lambda p, x: stream(p, x, drop=2 * (p["shift"] > 0)))
    return [
        Case("queries and keys", query_key, attend, "rotary positions", query_key, turned),
        Case("a group's sum", query_key, attend, "the group's other head", _one_head, attend),
        Case("values and outputs", value_output, turned, "a norm between them", value_output, lambda p, x: attend(p, x, middle=rms)),
        Case("RoPE, a pair", _diagonal, turned, "QK-norm, with RoPE", _diagonal, lambda p, x: attend(p, x, rope=True, eps=1e-2)),
        Case("QK-norm's gains", channels, gains, "RoPE, one channel", channels, lambda p, x: attend(p, x, rope=True, eps=1e-2)),
        Case("the same, a RoPE pair", lambda p: pairs(channels(p)), lambda p, x: attend(p, x, rope=True, eps=1e-2),
             "keys' gains in the sum", lambda p: pairs(p["gq"].square()), lambda p, x: attend(p, x, rope=True, eps=1e-2)),
        Case("norm of a query head", queries, bare, "eps = 0", queries, gains),
        Case("key bias", keys, attend, "rotary positions", keys, turned),
        Case("SwiGLU, down - up", down_up, swiglu, "the right factor: gate", down_gate, swiglu),
        Case("ReGLU, down - gate", down_gate, reglu, "gate's bias in the sum", lambda p: down_gate(p | {"bgate": 0 * p["bgate"]}), reglu),
        Case("bilinear, both", lambda p: torch.cat([down_up(p), down_gate(p)]), bilinear, "up's bias in the sum",
             lambda p: down_up(p | {"bup": 0 * p["bup"]}), bilinear),
        Case("squared ReLU, twice down", twice, squared, "down once", down_gate, squared),
        Case("gain before reading", prenorm, normed, "another reader", prenorm, lambda p, x: normed(p, x, post=True)),
        Case("weights before BatchNorm", before, batched, "the batch's statistics", before,
             lambda p, x: batched(p, x, frozen=True)),
        Case("stream, linear readers", _streams, stream, "a stream without data", _streams, lambda p, x: stream(p, x, start=False)),
        Case("the same with dropout", lambda p: _streams(p).diagonal(), dropped, "off the diagonal", _streams, dropped),
        Case("stream, RMS readers", _writers, lambda p, x: stream(p, x, eps=0.0), "eps = 0", _writers,
             lambda p, x: stream(p, x, eps=1e-2)),
        Case("stream, LayerNorm readers", _columns, centred, "a mean taken away", _columns, lambda p, x: stream(p, x, eps=1e-5)),
    ]


def tried(names: Sequence[str] | None = None, seed: int = 0) -> tuple[list[float], dict[str, float]]:
    """The defects of the cases of these names, by default all: of the laws in order, and by name of what is none."""
    known = {case.name: case for case in cases()}
    chosen = [data.named("law", name, known) for name in (known if names is None else names)]
    return [defect(case.net, case.kept, seed) for case in chosen], {
        case.name: defect(case.other, case.lost, seed) for case in chosen}


def rotary(pairs: Sequence[tuple[int, int, int]], still: int = 0) -> list[np.ndarray]:
    """R^0, R^1, R^2 in the prime field of :mod:`deeplinear.conservation`: ``still`` channels that stay and, for every triple
    (a, b, c) with a^2 + b^2 = c^2, a pair that turns by the angle of cosine a/c and sine b/c."""
    size, prime = 2 * len(pairs) + still, conservation.PRIME
    R = np.eye(size, dtype=object)
    for i, (a, b, c) in enumerate(pairs):
        if a * a + b * b != c * c:
            raise ValueError(f"pair {i} is {(a, b, c)}; expected a^2 + b^2 = c^2")
        cos, sin = (part * pow(c, -1, prime) % prime for part in (a, b))
        R[2 * i:2 * i + 2, 2 * i:2 * i + 2] = [[cos, -sin % prime], [sin, cos]]
    return [np.eye(size, dtype=object), R, R @ R % prime]


def rotary_laws(pairs: Sequence[tuple[int, int, int]], still: int = 0) -> tuple[int, conservation.Laws]:
    """The laws of a head of :func:`rotary`, as the formula has them, which takes equal triples for equal angles, and counted by
    exact ranks, for n = h and m = h + 1. :prf:ref:`prop-rotary`."""
    R = rotary(pairs, still)
    formula = still * (still + 1) // 2 + sum(list(pairs).count(pair)**2 for pair in set(pairs))
    return formula, count_laws(R, len(R[0]), len(R[0]) + 1)


def count_laws(T: Sequence[np.ndarray], n: int, m: int, seed: int = 0) -> conservation.Laws:
    """The laws of factors A (h, n) and B (h, m) that meet only in the products A^T T_i B, ``T`` a list of (h, h) matrices of
    integers, read modulo the prime of :mod:`deeplinear.conservation`; as a :class:`deeplinear.conservation.Laws`.

    Known are <M, A A^T> - <N, B B^T>, M and N symmetric with M T_i = T_i N; from above they are bounded by the rank of the
    gradient fields and their brackets. :prf:ref:`thm-pairing`, :prf:ref:`thm-laws-and-brackets`.
    """
    prime, h = conservation.PRIME, len(T[0])
    random, size = np.random.default_rng(seed), h * (n + m)
    draw = lambda *shape: random.integers(1, prime, size=shape, dtype=np.int64).astype(object)
    A, B = draw(h, n), draw(h, m)
    known = [np.concatenate([M @ A, -N @ B], 1).ravel() % prime for M, N in _commuting(T)]
    laws = _rank(known, size)

    def field():
        """A random sum of fields: the matrix S of (A, B) -> (T B E^T, T^T A E) on the flattened (h, n + m)."""
        S = np.zeros((size, size), dtype=object)
        for Ti in T:
            E = draw(n, m)
            swap = np.zeros((n + m, n + m), dtype=object)
            swap[:n, n:] = E  # A from B by T; B from A by T^T
            S = (S + np.kron(Ti, swap) + np.kron(np.array(Ti).T, swap.T)) % prime
        return nmod_mat(size, size, [int(x) for x in S.ravel()], prime)

    point = nmod_mat(size, 1, [int(x) for x in np.concatenate([A, B], 1).ravel()], prime)
    vectors: list = []
    fields = before = -1
    while fields + laws < size and (before < 0 or fields > before or len(vectors) < 2 * size):
        X = field()
        before = fields
        for _ in range(4):
            vectors.append([int(x) for x in (X * point).entries()])
            Y = field()
            X = X * Y - Y * X
        fields = _rank(vectors, size)
    return conservation.Laws(size - fields, size, laws, fields, certified=size - fields == laws)


def _commuting(T):
    """A basis of the pairs of symmetric (M, N) with M T = T N for every T, modulo the prime."""
    prime, h = conservation.PRIME, len(T[0])
    places = [(side, i, j) for side in (0, 1) for i in range(h) for j in range(i, h)]
    columns = []
    for side, i, j in places:
        M = np.zeros((h, h), dtype=object)
        M[i, j] = M[j, i] = 1
        columns.append(np.concatenate([(M @ Ti if side == 0 else -(Ti @ M)).ravel() for Ti in T]) % prime)
    matrix = nmod_mat(len(columns[0]), len(columns), [int(x) for x in np.stack(columns, 1).ravel()], prime)
    basis, nullity = matrix.nullspace()
    found = []
    for k in range(nullity):
        M, N = np.zeros((2, h, h), dtype=object)
        for row, (side, i, j) in enumerate(places):
            (M, N)[side][i, j] = (M, N)[side][j, i] = int(basis[row, k])
        found.append((M, N))
    return found


def _rank(rows, size):
    return nmod_mat(len(rows), size, [int(x) for row in rows for x in row], conservation.PRIME).rank() if rows else 0
