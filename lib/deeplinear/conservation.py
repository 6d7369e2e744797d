"""How many conservation laws does a network's gradient flow have? Exact ranks, two-sided, modulo a large prime.

A function of the weights is conserved for every loss and all data exactly if its gradient is orthogonal to the gradient
fields of all losses, and then to all their Lie brackets. So the laws number at most the parameters less the rank of the
brackets at a generic point, and at least the rank of the gradients of the balances we know. Both ranks are computed at
a random point of a prime field, where a rank can only be too small, never too large: where the two counts meet, both
are exact.
"""

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from flint import fmpz_mat, nmod_mat
from scipy.integrate import quad

from . import chain
from .annotations import Numbers

PRIME = 2**31 - 1  # products of two residues fit into 64 bits
DEEPEST = 7  # brackets of more fields are not tried
LARGEST = 2**34  # bytes of the gradients of the balances


@dataclasses.dataclass(frozen=True)
class Laws:
    """``count`` laws of a network with ``parameters`` weights, ``balances`` of them balances; ``fields``: the rank of all
    gradient fields and their brackets. ``certified``: the two-sided count is closed, so ``count`` is a theorem; otherwise
    it is an upper bound."""

    count: int
    parameters: int
    balances: int
    fields: int
    certified: bool


def count_laws(dims: Sequence[int], activation: Literal["linear", "relu"] = "linear", bias: bool = False,
               seed: int = 0) -> Laws:
    """The number of independent conservation laws of gradient flow common to all losses and data, as a :class:`Laws`.

    ``dims``: the widths ``(n_0, ..., n_N)``. ``activation``: ``"linear"``, or ``"relu"``, whose count is for data that
    can switch every unit on and off by itself (with two inputs, or biases, such data exist for one hidden layer).
    ``bias``: every layer has one. The known laws are the entries of ``W_{j+1}^T W_{j+1} - W_j W_j^T - b_j b_j^T`` at
    every hidden layer, for ``"relu"`` their diagonals; and, in a linear network without biases, all laws of a piece that
    leads from a layer of one unit to another. Raises ``ValueError`` for a network whose ranks do not fit into 16 GiB.
    Marcotte, Gribonval and Peyre 2023; :prf:ref:`thm-certificate`.
    """
    dims = tuple(map(int, chain._check_dims(dims)))
    if activation not in ("linear", "relu"):
        raise ValueError(f"activation is {activation!r}; expected 'linear' or 'relu'")
    net = _Net(dims, activation, bias, np.random.default_rng(seed))
    needed = 2 * np.dtype(np.int64).itemsize * net.size**2  # the point and its directions, side by side
    if needed > LARGEST:
        raise ValueError(f"dims is {dims!r}, {net.size} weights: exact ranks would need {needed / 2**30:.0f} GiB; expected "
                         f"at most {math.isqrt(LARGEST // 16)} weights (the laws of wider layers of the same kind follow "
                         "the same formula)")
    known = net.balance_gradients()
    balances = laws = _rank(known)
    if activation == "linear" and not bias:
        laws = _rank(np.concatenate([known, net.piece_gradients()]))
    vectors, fields = np.zeros((0, net.size), dtype=np.int64), 0
    for depth in range(1, DEEPEST + 1):
        vectors = np.concatenate([vectors, net.brackets(depth, net.size - laws - fields + 2)])
        before, fields = fields, _rank(vectors)
        if fields + laws == net.size or depth > 1 and fields == before:
            break
    count = net.size - fields
    return Laws(count, net.size, balances, fields, certified=count == laws)


def exact_rank(matrices: Sequence[Numbers], modulo: int | None = None) -> int:
    """The rank of matrices of integers as vectors, or of the rows of one: exact, or modulo a prime.

    ``matrices``: of one size, any shape. Modulo a prime a rank can only be smaller: :prf:ref:`thm-certificate`.
    """
    rows = [np.ravel(matrix).astype(int).tolist() for matrix in matrices]
    if modulo is None:
        return fmpz_mat(rows).rank()
    return _rank(np.array(rows), modulo)


def missing_laws(layers: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor, np.ndarray]:
    """The laws of a network of widths 1, n, n, 1 that are no balances, along a path of its layers.

    ``layers``: W_1 (T, n, 1), W_2 (T, n, n), W_3 (T, 1, n), float64, with the balances of their first point all along.
    Returns the singular values of W_2 and the ``c_i``, both (T, n), and ``F`` (n, T): the integrals from the first point on
    with the powers k = 0, ..., n - 1, of which all but the last are laws. Raises ``ValueError`` for other shapes.
    :prf:ref:`prop-missing-laws`.
    """
    n = layers[0].shape[-2] if len(layers) == 3 else 0
    if not n or [tuple(W.shape[-2:]) for W in layers] != [(n, 1), (n, n), (1, n)] or any(W.ndim != 3 for W in layers):
        raise ValueError(f"layers have shapes {[tuple(W.shape) for W in layers]}; expected (T, n, 1), (T, n, n), (T, 1, n)")
    U, sigma, Vh = torch.linalg.svd(layers[1])
    c = ((layers[2] @ U).mT * (Vh @ layers[0]))[..., 0]
    first, second = chain.imbalance([W[0] for W in layers])
    roots = torch.cat([torch.linalg.eigvalsh(D) for D in (first, -second)]).numpy()
    slope = lambda s, k: s ** (2 * k) / np.sqrt(np.prod(s**2 - roots))
    F = [[[quad(slope, low, high, k)[0] for low, high in zip(sigma[0], at)] for at in sigma] for k in range(n)]
    return sigma, c, np.array(F) @ (c[0].sign().numpy() * (-1.0) ** np.arange(n))


class _Net:
    """A network at a random point of the prime field, with its gradient fields and their brackets.

    Numbers are jets: arrays ``(2^e, batch, rows, columns)`` of the coefficients of products of ``e`` nilpotent
    infinitesimals, so that a derivative in a direction is a coefficient. A bias is a last column, behind a constant
    unit.
    """

    def __init__(self, dims, activation, bias, rng):
        self.dims, self.relu, self.bias, self.rng = dims, activation == "relu", int(bias), rng
        self.shapes = [(rows, columns + self.bias) for columns, rows in zip(dims, dims[1:])]
        self.ends = np.cumsum([0, *(rows * columns for rows, columns in self.shapes)])
        self.size = int(self.ends[-1])
        self.point = self._random(self.size)

    def _random(self, *shape):
        return self.rng.integers(1, PRIME, size=shape, dtype=np.int64)

    def brackets(self, depth, count):
        """``count`` random left-normed brackets of ``depth`` gradient fields at the point, (count, size)."""
        losses = [self._loss(count) for _ in range(depth)]
        return self._bracket(losses, np.broadcast_to(self.point, (1, count, self.size)))[0]

    def _loss(self, batch):
        """The gradient of a random loss at the output, and for ReLU random weights of the units, which switch."""
        gradient = self._random(batch, self.dims[-1], self.dims[0] + self.bias)
        ones = lambda *shape: np.ones(shape, dtype=np.int64)
        return gradient, [(self._random if self.relu else ones)(batch, n, 1) for n in self.dims[1:-1]]

    def _bracket(self, losses, theta):
        """[...[[X_1, X_2], X_3]..., X_m] at the jets ``theta``, (2^e, batch, size)."""
        if len(losses) == 1:
            return self._field(losses[0], theta)
        inner, outer = losses[:-1], losses[-1:]
        return (self._along(outer, theta, self._bracket(inner, theta))
                - self._along(inner, theta, self._bracket(outer, theta))) % PRIME

    def _along(self, losses, theta, direction):
        """The derivative of a bracket in a direction: the coefficient of a new infinitesimal."""
        return self._bracket(losses, np.concatenate([theta, direction]))[len(theta):]

    def _field(self, loss, theta):
        """The gradient of <C, network> in all weights; ``theta`` (2^e, batch, size)."""
        G, masks = loss
        layers = self._layers(theta)
        below = [self._constant(np.eye(self.dims[0] + self.bias, dtype=np.int64), theta)]  # from input to each layer
        for W, mask in zip(layers[:-1], masks):
            below.append(self._with_constant_unit(_times(W, below[-1]) * mask % PRIME))
        above = self._constant(G, theta)  # from the output's gradient down to each layer
        parts = []
        for j in reversed(range(len(layers))):
            parts.append(_times(above, below[j].swapaxes(-1, -2)))
            if j:
                above = _times(layers[j].swapaxes(-1, -2), above)[..., :self.dims[j], :] * masks[j - 1] % PRIME
        return np.concatenate([part.reshape(*part.shape[:2], -1) for part in reversed(parts)], axis=-1)

    def _layers(self, theta):
        return [part.reshape(*theta.shape[:2], *shape) for part, shape in
                zip(np.split(theta, self.ends[1:-1], axis=-1), self.shapes)]

    def _constant(self, matrix, theta):
        jets = np.zeros((len(theta), theta.shape[1], *matrix.shape[-2:]), dtype=np.int64)
        jets[0] = matrix
        return jets

    def _with_constant_unit(self, jets):
        if not self.bias:
            return jets
        row = np.zeros((*jets.shape[:2], 1, jets.shape[-1]), dtype=np.int64)
        row[0, ..., -1] = 1
        return np.concatenate([jets, row], axis=-2)

    def balance_gradients(self):
        """The gradients of the known laws at the point, (laws, size)."""
        theta = np.stack([np.broadcast_to(self.point, (self.size, self.size)), np.eye(self.size, dtype=np.int64)])
        layers = self._layers(theta)
        laws = []
        for W, V, n in zip(layers, layers[1:], self.dims[1:]):
            inner = V[..., :n]
            D = _times(inner.swapaxes(-1, -2), inner) - _times(W, W.swapaxes(-1, -2))
            entries = [(i, i) for i in range(n)] if self.relu else itertools.combinations_with_replacement(range(n), 2)
            laws += [D[1, :, i, j] % PRIME for i, j in entries]
        return np.array(laws, dtype=np.int64).reshape(-1, self.size)

    def piece_gradients(self):
        """The gradients of all laws of the pieces between layers of one unit, (laws, size): a piece computes a number from
        a number, so its fields are multiples of one, and what is orthogonal to that one are its laws."""
        ones = [j for j, n in enumerate(self.dims) if n == 1]
        laws = [np.zeros((0, self.size), dtype=np.int64)]
        for low, high in zip(ones, ones[1:]):
            piece = _Net(self.dims[low:high + 1], "linear", False, self.rng)
            start, end = self.ends[low], self.ends[high]
            piece.point = self.point[start:end]
            field = piece.brackets(1, 1)[0]
            rows = np.zeros((piece.size - 1, self.size), dtype=np.int64)
            rows[:, start] = -field[1:] % PRIME
            rows[:, start + 1:end] = np.eye(piece.size - 1, dtype=np.int64) * field[0]
            laws.append(rows)
        return np.concatenate(laws)


def _times(A, B):
    """The product of jets of matrices modulo the prime: (A + e A') (B + e B') = A B + e (A B' + A' B) for e^2 = 0, the three
    products side by side in the batch."""
    if len(A) == 1:
        return sum(A[..., :, k, None] * B[..., None, k, :] % PRIME for k in range(A.shape[-1])) % PRIME
    half = len(A) // 2
    products = _times(np.concatenate([A[:half], A[:half], A[half:]], axis=1),
                      np.concatenate([B[:half], B[half:], B[:half]], axis=1))
    without, first, second = np.split(products, 3, axis=1)
    return np.concatenate([without, (first + second) % PRIME])


def _rank(matrix, prime=PRIME):
    """The rank modulo the prime."""
    return nmod_mat(*matrix.shape, matrix.ravel().tolist(), prime).rank()
