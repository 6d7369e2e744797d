"""The layers: end-to-end matrix, layer gradients from the end-to-end gradient, starts, imbalance.

``weights[j]`` is the layer W_{j+1} of the text, of shape ``(..., n_{j+1}, n_j)``; leading axes are a batch. Only ``@``,
``.mT``, ``+`` and ``-`` touch the layers, so end_to_end, layer_gradients and imbalance also take NumPy arrays of exact
rationals or of symbols: what is proved in the text is checked on the very code that trains.
"""

import contextlib
import math
import numbers
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from . import data
from .annotations import Array, Numbers


def end_to_end(weights: Sequence[Array]) -> Array:
    """The end-to-end matrix ``W_N ... W_1``.

    ``weights``: list of N arrays, ``weights[j]`` of shape ``(..., n_{j+1}, n_j)``. Returns shape ``(..., n_N, n_0)``.
    Raises ``ValueError`` for an empty list or layers that do not fit. :prf:ref:`def-linear-network`.
    """
    _check_layers(weights)
    outwards = weights if weights[0].shape[-1] < weights[-1].shape[-2] else weights[::-1]
    product = outwards[0]
    for W in outwards[1:]:  # from the thinner end, so that no product is larger than it needs to be
        product = _product(W, product) if outwards is weights else _product(product, W)
    return product


@torch.no_grad()
def layer_gradients(weights: Sequence[Array], G: Array) -> list[Array]:
    """The gradient of the loss with respect to each layer, from its gradient ``G`` at the end-to-end matrix.

    The j-th is ``(W_N ... W_{j+1})^T G (W_{j-1} ... W_1)^T``, of the shape of that layer; no computation graph is
    built. ``G`` has the shape ``(..., n_N, n_0)`` of the end-to-end matrix. Raises ``ValueError`` where shapes do not
    fit. :prf:ref:`lem-layer-gradients`.
    """
    _check_layers(weights)
    expected = (weights[-1].shape[-2], weights[0].shape[-1])
    if tuple(G.shape[-2:]) != expected:
        raise ValueError(f"G has shape {tuple(G.shape)}; expected (..., {expected[0]}, {expected[1]}) "
                         "like the end-to-end matrix")
    if expected[0] > expected[1]:  # work from the thinner end: the transposed chain has the transposed gradients
        return [g.mT for g in layer_gradients([W.mT for W in reversed(weights)], G.mT)][::-1]
    above: list[Any] = [None]  # W_N ... W_{j+1} from the top; None stands for the empty product, the identity
    for W in reversed(weights[1:]):
        above.append(W if above[-1] is None else _product(above[-1], W))
    gradients = []
    for W, A in zip(weights, reversed(above)):
        gradients.append(G if A is None else _product(A.mT, G))
        if A is not None:
            G = _product(G, W.mT)  # G (W_j ... W_1)^T, for the next layer
    return gradients


def product_velocity(weights: Sequence[Array], velocities: Sequence[Array]) -> Array:
    """How fast the end-to-end matrix moves when each layer moves at its velocity: the product rule.

    ``velocities``: like ``weights``. Returns ``sum_j W_N ... W_{j+1} V_j W_{j-1} ... W_1``, shape ``(..., n_N, n_0)``.
    """
    terms: list[Any] = []
    for j, V in enumerate(velocities):
        replaced = list(weights)
        replaced[j] = V
        terms.append(end_to_end(replaced))
    return sum(terms)


def imbalance(weights: Sequence[Array]) -> list[Array]:
    """The imbalance ``D_j = W_{j+1}^T W_{j+1} - W_j W_j^T`` of each hidden layer, j = 1..N-1.

    Returns a list of N-1 symmetric arrays of shape ``(..., n_j, n_j)``; all are zero for balanced layers.
    :prf:ref:`def-balanced`; Arora, Cohen and Hazan 2018, Theorem 1; Du, Hu and Lee 2018, Theorem 2.2.
    """
    _check_layers(weights)
    return [above.mT @ above - below @ below.mT for below, above in zip(weights[:-1], weights[1:])]


def relative_imbalance(weights: Sequence[Numbers]) -> torch.Tensor:
    """The largest ``|D_j|`` over the largest ``|W_j|^2`` in spectral norm, shape ``(...)``: 0 for balanced layers."""
    layers = [data.tensor(W) for W in weights]
    sizes = torch.stack([torch.linalg.matrix_norm(W, 2) for W in layers]).amax(0) ** 2
    if len(layers) == 1:
        return torch.zeros_like(sizes)
    gaps = torch.stack([torch.linalg.matrix_norm(D, 2) for D in imbalance(layers)]).amax(0)
    return torch.where(sizes > 0, gaps / sizes, torch.zeros_like(sizes))


def seeded(seed: int) -> torch.Generator:
    """A ``torch.Generator`` with this seed. Randomness is an argument everywhere in this library."""
    return torch.Generator().manual_seed(int(seed))


@contextlib.contextmanager
def forked(seed: int, device: str | torch.device = "cpu") -> Iterator[None]:
    """Within it PyTorch's global generator starts at ``seed``; afterwards it is as it was.

    For what insists on the global one: dropout, and the starts of modules. The same holds of the generator of ``device``,
    where that is a GPU. Beside it only what runs a network of yours,
    ``dl.laws`` and ``dl.fold``, touches global generators, and puts them back.
    """
    device = torch.device(device)
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def normal(*shape: int, generator: torch.Generator) -> torch.Tensor:
    """Independent standard normal entries, float64."""
    return torch.randn(*shape, generator=_generator(generator), dtype=torch.float64)


def uniform(low: float, high: float, *shape: int, generator: torch.Generator) -> torch.Tensor:
    """Independent entries, uniform from ``low`` to ``high``, float64."""
    return low + (high - low) * torch.rand(*shape, generator=_generator(generator), dtype=torch.float64)


def integers(low: int, high: int, *shape: int, generator: torch.Generator) -> np.ndarray:
    """Independent integers from ``low`` to ``high``, both included, as a NumPy array: material for exact rationals."""
    return np.floor(uniform(low, high + 1, *shape, generator=generator).numpy()).astype(int)


def truncated_normal(*shape: int, std: float, generator: torch.Generator) -> torch.Tensor:
    """Independent normal entries of standard deviation ``std`` before they are cut at two of them, float64.

    The inverse of the distribution function at uniform numbers, which releases of PyTorch leave alone; what
    ``nn.init.trunc_normal_`` draws has changed between them.
    """
    edge = math.erf(math.sqrt(2))
    return std * math.sqrt(2) * torch.erfinv(uniform(-edge, edge, *shape, generator=generator))


def near_zero_init(dims: Sequence[int], std: float, generator: torch.Generator,
                   batch: Sequence[int] = ()) -> list[torch.Tensor]:
    """Independent Gaussian layers of mean 0 and standard deviation ``std``, float64.

    ``dims = (n_0, ..., n_N)``, inputs first; ``generator`` as from :func:`seeded`; ``batch`` the leading axes. Such
    layers are *not* balanced: :prf:ref:`prop-starts`.
    """
    dims = _check_dims(dims)
    if not (isinstance(std, numbers.Real) and 0 <= std < float("inf")):
        raise ValueError(f"std is {std!r}; expected a finite number >= 0")
    return [std * normal(*batch, rows, columns, generator=generator) for columns, rows in zip(dims, dims[1:])]


def identity_init(dims: Sequence[int]) -> list[torch.Tensor]:
    """Each layer 1 on the diagonal and 0 elsewhere, square or not, float64; ``dims = (n_0, ..., n_N)``.

    Balanced exactly if ``min(n_{j-1}, n_j) = min(n_j, n_{j+1})`` at every hidden layer: :prf:ref:`prop-starts`.
    """
    dims = _check_dims(dims)
    return [torch.eye(rows, columns, dtype=torch.float64) for columns, rows in zip(dims, dims[1:])]


def balanced_init(dims: Sequence[int], generator: torch.Generator, W: Numbers | None = None,
                  std: float = 1.0) -> list[torch.Tensor]:
    """Exactly balanced layers ``W_j = Q_j S^{1/N} Q_{j-1}^T`` with orthonormal ``Q_j``, float64.

    ``dims = (n_0, ..., n_N)``. The end-to-end matrix is ``W`` of shape ``(n_N, n_0)`` if given (``ValueError`` if its
    rank exceeds the narrowest width), else Gaussian of standard deviation ``std``, cut to the rank the widths allow.
    The hidden ``Q_j`` are random. :prf:ref:`prop-balanced-structure`; Arora, Cohen, Golowich and Hu 2019.
    """
    dims = _check_dims(dims)
    depth, width = len(dims) - 1, min(dims)
    given = W is not None
    W = torch.as_tensor(W, dtype=torch.float64) if given else std * normal(dims[-1], dims[0], generator=generator)
    if tuple(W.shape) != (dims[-1], dims[0]):
        raise ValueError(f"W has shape {tuple(W.shape)}; expected {(dims[-1], dims[0])} for dims {dims}")
    U, s, Vh = torch.linalg.svd(W, full_matrices=False)
    rank = int((s > s[0] * max(W.shape) * torch.finfo(W.dtype).eps).sum())
    if given and rank > width:
        raise ValueError(f"W has rank {rank}; layers of widths {dims} reach rank {width} at most")
    rank = min(rank, width)
    frames = [Vh[:rank].mT]
    frames += [torch.linalg.qr(normal(n, rank, generator=generator)).Q for n in dims[1:-1]]
    frames += [U[:, :rank]]
    root = s[:rank] ** (1 / depth)
    return [(after * root) @ before.mT for before, after in zip(frames, frames[1:])]


def _generator(generator):
    if not isinstance(generator, torch.Generator):
        raise TypeError(f"generator is {generator!r}; expected dl.seeded(...), a torch.Generator")
    return generator


def _product(A, B):
    """``A @ B``; with a single inner index this is an outer product, many times faster as one multiplication."""
    return A * B if A.shape[-1] == 1 else A @ B


def _check_layers(weights):
    if len(weights) == 0:
        raise ValueError("weights is empty; expected a list of at least one layer")
    for j, W in enumerate(weights, start=1):
        if W.ndim < 2:
            raise ValueError(f"W_{j} has shape {tuple(W.shape)}; expected (..., n_{j}, n_{j - 1})")
        if j > 1 and W.shape[-1] != weights[j - 2].shape[-2]:
            raise ValueError(f"W_{j} has shape {tuple(W.shape)}; expected (*, {weights[j - 2].shape[-2]}) "
                             f"to follow W_{j - 1} of shape {tuple(weights[j - 2].shape)}")


def _check_dims(dims):
    dims = tuple(dims)
    if len(dims) < 2 or not all(isinstance(n, numbers.Integral) and n >= 1 for n in dims):
        raise ValueError(f"dims is {dims!r}; expected at least two positive integers (n_0, ..., n_N)")
    return dims
