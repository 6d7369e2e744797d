"""Depth for the linear layers and convolutions of a network: their weights as products of factors, while it trains.

``deepen`` uses PyTorch's parametrisations, so that ``layer.weight`` stays readable for the modules around the layer;
:mod:`deeplinear.folding` makes one layer of each product again.
"""

import copy
import numbers
from collections.abc import Callable, Iterable, Sequence
from typing import Literal, TypeVar

import torch
from torch import nn
from torch.nn.utils import parametrize
from torch.utils._pytree import tree_leaves

from . import chain

Net = TypeVar("Net", bound=nn.Module)
Start = Literal["identity", "balanced", "random"]
Where = str | Iterable[str] | Callable[[str, nn.Module], bool]
STARTS = ("identity", "balanced", "random")
LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
QUANTISED = "torch.ao.nn."  # where PyTorch's quantised layers are


def deepen(net: Net, where: Where | None = None, factors: int = 2, start: Start = "identity",
           generator: torch.Generator | None = None) -> Net:
    """A copy of ``net`` in which the weight W of each chosen layer is a product W_N ... W_1 of N = ``factors`` factors.

    ``where``: None for every ``Linear`` and every convolution, grouped, dilated and transposed ones too; a name or names as in
    ``net.named_modules()``; or a function of name and layer. Other weights, as ``in_proj_weight`` of attention, stay.
    The matrix of a convolution is, a group, (outputs, inputs times kernel): W_1 keeps the kernel, the others are 1 x 1
    convolutions. Hidden widths are min(n, m) of an (n, m) matrix, so the product can be any matrix. ``start``:

    - ``"identity"``: W_1 = W if n <= m, else W_N = W; the others are identities, and outputs are the same to rounding.
    - ``"balanced"``: with W = U S V^T, W_j = Q S^(1/N) Q^T in the middle, Q = U if n <= m, else V; the ends take the other
      frame. Neighbours are balanced, outputs the same to rounding. A zero W gives zero factors, which no gradient moves.
      :prf:ref:`prop-balanced-structure`.
    - ``"random"``: *another function*. Independent normal entries of mean 0, drawn from ``generator`` (``dl.seeded``): the
      factor shaped like the weight with its root mean square, the square ones of variance one over their width, so that
      the entries of the product have mean 0 and that root mean square too.

    Biases, buffers, modes, dtypes, devices and memory formats stay; a frozen weight has frozen factors. The product is
    computed at every use: assign to ``layer.weight``, a change in place is lost. Make the optimiser afterwards, from all
    parameters; save and load by ``state_dict()``, as PyTorch does not save parametrised layers whole. ``ValueError``
    names layers that do not exist or cannot be deepened: lazy, quantised, parametrised, on the meta device, or with a
    weight that is empty, not finite, no parameter, or used elsewhere too. ``TypeError`` for a ``where`` of another kind.

    >>> net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
    >>> deep = deepen(net, start="balanced")
    >>> sum(p.numel() for p in net.parameters()), sum(p.numel() for p in deep.parameters())
    (26, 39)
    >>> list(deep.state_dict())[:3]
    ['0.bias', '0.parametrizations.weight.original0', '0.parametrizations.weight.original1']
    """
    if isinstance(factors, bool) or not isinstance(factors, numbers.Integral) or factors < 1:
        raise ValueError(f"factors is {factors!r}; expected an integer >= 1")
    if start not in STARTS:
        raise ValueError(f"start is {start!r}; expected one of {', '.join(STARTS)}")
    if start == "random" and not isinstance(generator, torch.Generator):
        raise TypeError(f"generator is {generator!r}; expected dl.seeded(...), a torch.Generator, for a random start")
    chosen = _chosen(net, where)
    _refuse(net, chosen)
    net = copied(net)
    for name in chosen if factors > 1 else ():
        _deepen(net.get_submodule(name), int(factors), start, generator)
    return net


class Product(nn.Module):
    """The parametrisation that :func:`deepen` puts on a weight: the product of its factors.

    Each factor is the weight of a layer that one could write by hand, the first acts first: of a linear layer (n_j,
    n_{j-1}); of a convolution the first has the kernel, of a transposed one the last; the others are 1 x 1 convolutions of
    as many groups. A value assigned to the layer's weight becomes factors by ``start``, "identity" or "balanced".
    """

    def __init__(self, layer: nn.Module, depth: int, start: Start) -> None:
        super().__init__()
        self.shape = tuple(layer.get_parameter("weight").shape)
        self.groups, self.transposed = getattr(layer, "groups", 1), getattr(layer, "transposed", False)
        self.depth, self.start = depth, start

    def forward(self, *factors: torch.Tensor) -> torch.Tensor:
        """The weight, of the shape that the layer had: the product of its ``factors``, the first of which acts first."""
        matrices = [self._matrix(factor) for factor in factors]
        product = chain.end_to_end(matrices[::-1] if self.transposed else matrices).reshape(self.shape)
        layout = memory_format(factors[-1 if self.transposed else 0])
        return product if layout is torch.contiguous_format else product.contiguous(memory_format=layout)

    def right_inverse(self, weight: torch.Tensor) -> list[torch.Tensor]:
        """Factors whose product is ``weight``."""
        layers = (_balanced if self.start == "balanced" else _identity)(self._acting(weight), self.depth)
        return self.factors(layers, weight)

    def drawn(self, weight: torch.Tensor, generator: torch.Generator) -> list[torch.Tensor]:
        """Factors of a random start, as :func:`deepen` says."""
        matrix = self._acting(weight)
        layers = [chain.normal(*layer.shape, generator=generator) for layer in _identity(matrix, self.depth)]
        deviations = [matrix.square().mean().sqrt() if j == _place(matrix, self.depth) else layer.shape[-1] ** -0.5
                      for j, layer in enumerate(layers)]
        return self.factors([layer * deviation for layer, deviation in zip(layers, deviations)], weight)

    def factors(self, layers: Sequence[torch.Tensor], weight: torch.Tensor) -> list[torch.Tensor]:
        """Matrices W_j, (n_j, n_{j-1}) or (groups, n_j, n_{j-1}), in the shapes of weights, with all else like ``weight``."""
        found, kernel = [], self.depth - 1 if self.transposed else 0
        for j, layer in enumerate(layers):
            rows = self._turned(layer).flatten(0, -2)
            shape = self.shape[1:] if j == kernel else (rows.shape[1], *[1] * (len(self.shape) - 2))
            factor = rows.reshape(-1, *shape).to(weight.device, weight.dtype, copy=True)
            found.append(factor.contiguous(memory_format=memory_format(weight)))
        return found

    def extra_repr(self) -> str:
        return f"factors={self.depth}, start={self.start!r}"

    def _acting(self, weight):
        """The matrix that acts on columns, in float64 on the CPU."""
        return self._turned(self._matrix(weight.detach().to("cpu", torch.float64)))

    def _matrix(self, weight):
        rows = weight.flatten(1)
        return rows if self.groups == 1 else rows.unflatten(0, (self.groups, -1))

    def _turned(self, matrix):
        """The weight of a transposed convolution has its inputs first."""
        return matrix.mT if self.transposed else matrix


def product_of(layer: nn.Module) -> Product | None:
    """The :class:`Product` that ``deepen`` put on the weight of a layer, or None."""
    if not parametrize.is_parametrized(layer, "weight"):
        return None
    parts = list(layer.parametrizations["weight"])  # type: ignore[index]
    return parts[0] if len(parts) == 1 and isinstance(parts[0], Product) else None


def copied(net: Net) -> Net:
    """A deep copy; tensors with a history that a forward left on its modules are copied without it."""
    kept = {id(tensor): tensor.detach().clone() for module in net.modules() for tensor in tree_leaves(vars(module))
            if isinstance(tensor, torch.Tensor) and not tensor.is_leaf}
    return copy.deepcopy(net, kept)


def memory_format(tensor: torch.Tensor) -> torch.memory_format:
    """Channels-last where a tensor is that and not contiguous."""
    layout = {4: torch.channels_last, 5: torch.channels_last_3d}.get(tensor.ndim)
    last = layout and tensor.is_contiguous(memory_format=layout) and not tensor.is_contiguous()
    return layout if layout and last else torch.contiguous_format


def own_class(layer: nn.Module) -> None:
    """A class of its own for a parametrised layer: PyTorch keeps the properties there, and copies share it."""
    if parametrize.is_parametrized(layer):
        kind = type(layer)
        layer.__class__ = type(kind.__name__, kind.__bases__, dict(vars(kind)))


def _place(matrix, depth):
    """Which factor has the shape of the matrix; the others are square on its smaller side."""
    return 0 if matrix.shape[-2] <= matrix.shape[-1] else depth - 1


def _identity(matrix, depth):
    unit = torch.eye(min(matrix.shape[-2:]), dtype=matrix.dtype).expand(*matrix.shape[:-2], -1, -1)
    return [matrix if j == _place(matrix, depth) else unit for j in range(depth)]


def _balanced(matrix, depth):
    U, s, Vh = torch.linalg.svd(matrix, full_matrices=False)
    cut = max(matrix.shape[-2:]) * torch.finfo(s.dtype).eps
    root = torch.where(s > cut * s[..., :1], s, 0) ** (1 / depth)
    Q = U if _place(matrix, depth) == 0 else Vh.mT
    frames = [Vh.mT, *[Q] * (depth - 1), U]
    return [(after * root[..., None, :]) @ before.mT for before, after in zip(frames, frames[1:])]


def _deepen(layer, depth, start, generator):
    own_class(layer)
    weight = layer.weight
    product = Product(layer, depth, "identity" if start == "random" else start)
    parametrize.register_parametrization(layer, "weight", product)
    layer.parametrizations.train(layer.training)
    if start == "random":
        with torch.no_grad():
            for factor, value in zip(layer.parametrizations.weight.parameters(), product.drawn(weight, generator)):
                factor.copy_(value)


def _chosen(net, where):
    """The names of the layers to deepen."""
    if not isinstance(net, nn.Module):
        raise TypeError(f"net is a {type(net).__name__}; expected a torch.nn.Module")
    layers = {name: module for name, module in net.named_modules()
              if isinstance(module, LAYERS) or type(module).__module__.startswith(QUANTISED)}
    first = {id(module): name for name, module in layers.items()}
    suggested = "a function chooses others, such as where=lambda name, layer: {}"
    if not (where is None or isinstance(where, str | Iterable | Callable)) or isinstance(where, type | nn.Module):
        raise TypeError(f"where is {where!r}; expected None, names or a function of name and layer: "
                        + suggested.format("isinstance(layer, torch.nn.Linear)"))
    if callable(where):
        chosen = [name for name, layer in layers.items() if where(name, layer)]
    elif where is None:
        chosen = list(layers)
    else:
        modules = dict(net.named_modules(remove_duplicate=False))
        names = [where] if isinstance(where, str) else list(where)
        for name in names:
            if id(modules.get(name)) not in first:
                what = f", a {type(modules[name]).__name__}" if name in modules else ""
                raise ValueError(f"where names {name!r}{what}; expected names of linear layers and convolutions, here "
                                 f"{', '.join(layers) or 'none'}; " + suggested.format(_suggestion(name)))
        chosen = list(dict.fromkeys(first[id(modules[name])] for name in names))
    if not chosen:
        raise ValueError(f"no layer is chosen of a {type(net).__name__} with the linear layers and convolutions "
                         f"{', '.join(layers) or 'none'}; expected at least one")
    return chosen


def _suggestion(name):
    """The condition that may be meant by what is no name of a layer."""
    if not isinstance(name, str):
        return "isinstance(layer, torch.nn.Linear)"
    if set("*?[") & set(name):
        return f"fnmatch.fnmatch(name, {name!r})"
    return f"name.startswith({name + '.'!r})"


def _refuse(net, chosen):
    """Raise where a chosen layer cannot be deepened."""
    owners = {}
    for path, module in net.named_modules():
        for own, tensor in [*module._parameters.items(), *module._buffers.items()]:
            if type(tensor) in (torch.Tensor, nn.Parameter) and tensor.device.type != "meta" and tensor.untyped_storage().nbytes():
                owners.setdefault(tensor.untyped_storage().data_ptr(), []).append(f"{path}.{own}".lstrip("."))
    reasons = {name: _reason(net.get_submodule(name), f"{name}.weight".lstrip("."), owners) for name in chosen}
    bad = [f"{name or 'the network'} {reason}" for name, reason in reasons.items() if reason]
    if bad:
        raise ValueError(f"{'; '.join(bad)}. Expected layers with a weight of their own; where chooses others")


def _reason(layer, name, owners):
    """Why a layer cannot be deepened, or None."""
    weight = layer._parameters.get("weight")
    if product_of(layer):
        return "is deepened already: fold the network first"
    if parametrize.is_parametrized(layer, "weight"):
        return f"is parametrised by {', '.join(type(part).__name__ for part in layer.parametrizations.weight)}"
    if weight is not None and nn.parameter.is_lazy(weight):
        return "is lazy: run the network once before"
    if type(layer).__module__.startswith(QUANTISED) or weight is not None and not weight.is_floating_point():
        return f"is quantised or not real: a {type(layer).__module__}.{type(layer).__name__}"
    if type(weight) is not nn.Parameter:
        return "has a weight that is no plain Parameter: weight norm, pruning or the like make it"
    if weight.device.type == "meta":
        return "is on the meta device, without values"
    if not weight.numel():
        return f"has an empty weight, of shape {tuple(weight.shape)}"
    if not weight.isfinite().all():
        return "has a weight that is not finite"
    shared = [other for other in owners.get(weight.untyped_storage().data_ptr(), []) if other != name]
    return f"shares its weight with {', '.join(shared)}, from which a product would untie it" if shared else None
