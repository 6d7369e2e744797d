"""Products of linear layers as one layer: those that ``deepen`` made, and those written by hand."""

import math
import random

import numpy as np
import torch
from torch import nn
from torch.nn.utils import parametrize
from torch.utils._pytree import tree_leaves, tree_map

from .deepening import Net, copied, memory_format, own_class, product_of
from .networks.examples import given
from .networks.graph import COMPILED, HOOKS, compiled, random_states_kept, told

KINDS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def fold(net: Net, example: torch.Tensor | tuple | dict | None = None) -> Net:
    """A copy of ``net`` in which products of linear layers are one layer: the same outputs, to rounding.

    Every weight that :func:`deeplinear.deepening.deepen` made a product is one parameter again, so ``fold(deepen(net))`` has the keys
    of ``fold(net)``, and its values to rounding. And in every plain ``nn.Sequential``, nested ones first, layers that follow
    one another with nothing between become one, with their biases: linear ones; and convolutions next to a 1 x 1
    convolution (stride 1, no padding) before or after, in groups too, where that is exact. A bias *before* a convolution
    that pads with zeros is not: it is missing in the padding, and such a pair is left. A ``Sequential`` that is one product
    becomes that layer where it is a part of ``net``; numbered parts are numbered anew.

    Left as they are: layers with hooks, with other parametrisations, of classes of their own, used elsewhere too, or of two
    dtypes or devices; transposed convolutions by hand. Products of narrow layers have fewer parameters than what they fold to.

    Without ``example`` every ``Sequential`` is taken to be called as a whole, and nothing is run: where a forward goes
    through its parts (``for part in self.parts: x = x + part(x).relu()``) or picks one, the outputs change, *silently*.
    With it, a tensor, a tuple of arguments or a dict of keywords, a copy is run in evaluation before and after: a
    ``Sequential`` is folded only if it is seen to be called, and its parts by it alone, and outputs that differ by more
    than rounding (the root of the dtype's, over the largest) are refused. A forward that fails without gradients, as one that
    takes derivatives does, is run with them. ``net`` and all random states stay.

    Raises ``TypeError`` for a ``net`` or an ``example`` of another kind, and ``ValueError`` for parameters on the meta
    device, an example that is empty or not finite, a compiled network with an example, a forward that fails on it, and
    outputs that differ; it names the first ``Sequential`` that makes them.

    >>> net = nn.Sequential(nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)), nn.ReLU())
    >>> fold(net)
    Sequential(
      (0): Linear(in_features=3, out_features=2, bias=True)
      (1): ReLU()
    )
    """
    if not isinstance(net, nn.Module):
        raise TypeError(f"net is a {type(net).__name__}; expected a torch.nn.Module")
    for name, parameter in net.named_parameters():
        if parameter.device.type == "meta":
            raise ValueError(f"{name} is on the meta device; expected parameters with values")
    if example is not None:
        given(example)
        if path := compiled(net):
            raise ValueError(COMPILED.format(path))
    net = copied(net)
    for layer in net.modules():
        if product_of(layer):
            _single(layer)
    if example is None:
        return _folded(net)
    whole, before = _watched(net, example)
    found = _folded(net, whole)
    if not _agree(before, found, example):
        for name in whole:
            if not _agree(before, _folded(net, [name]), example):
                raise ValueError(f"{name or 'the network'}, a Sequential, cannot be folded: on the example the outputs differ, as "
                                 "something beside its own forward uses its parts. Expected one that is called as a whole")
        raise ValueError("the network cannot be folded: on the example the outputs differ by more than rounding")
    return found


def _folded(net, names=None):
    """A copy with the products by hand folded in all Sequentials, or in those of these names alone."""
    net = copied(net)
    _Folder(net, None if names is None else {id(net.get_submodule(name)) for name in names}).fold(net)
    return net


def _watched(net, example):
    """The names of the Sequentials that are called, and whose parts they alone call; the outputs."""
    net, running, called, picked = copied(net), [], set(), set()
    owners = {}
    for module in net.modules():
        for part in module._modules.values():
            owners.setdefault(id(part), []).append(module)

    def begins(module, *_):
        for owner in owners.get(id(module), ()):
            if type(owner) is nn.Sequential and (not running or running[-1] is not owner):
                picked.add(id(owner))
        running.append(module)
        called.add(id(module))

    def ends(*_):
        running.pop()

    for module in net.modules():
        module.register_forward_pre_hook(begins, prepend=True)
        module.register_forward_hook(ends, always_call=True)
    outputs = _outputs(net, example)
    names = [name for name, module in net.named_modules() if type(module) is nn.Sequential and "forward" not in vars(module)
             and id(module) in called - picked]
    return names, outputs


def _agree(before, net, example):
    """Whether the outputs are those of before, up to rounding; a network that fails has others."""
    try:
        after = _outputs(copied(net), example)
    except ValueError:
        return False
    return len(before) == len(after) and all(
        one.shape == other.shape and torch.allclose(one, other, 0.0, torch.finfo(one.dtype).eps ** 0.5 * max(
            1e-30, one[one.isfinite()].abs().max().item() if one.isfinite().any() else 0.0), equal_nan=True)
        for one, other in zip(before, after))


def _outputs(net, example):
    """The tensors of floating point that a network returns in evaluation, which may change: a copy is given."""
    for gradients in (False, True):
        args, kwargs = given(tree_map(_own, example))
        with (random_states_kept(range(torch.cuda.device_count())), torch.inference_mode(False), torch.set_grad_enabled(gradients)):
            torch.manual_seed(0)
            random.seed(0)
            np.random.seed(0)  # noqa: NPY002  a network's forward may draw from it
            try:
                output = net.eval()(*args, **kwargs)
                break
            except Exception as error:  # whatever the network's own code raises
                failed = error
    else:
        if "require grad" in str(failed):
            raise ValueError("forward takes a derivative in an input that does not require grad; expected an example with "
                             "requires_grad_() where it does") from failed
        raise ValueError(f"the network fails on the example with {told(failed)}; expected an example that it takes") from failed
    return [part.detach() for part in tree_leaves(output) if isinstance(part, torch.Tensor) and part.is_floating_point()]


def _own(part):
    return part.detach().clone().requires_grad_(part.requires_grad) if isinstance(part, torch.Tensor) else part


def _single(layer):
    """One parameter again, in its old place among the others."""
    product, factors = product_of(layer), list(layer.parametrizations.weight.parameters())
    value = product(*[factor.detach().to("cpu", torch.float64) for factor in factors])
    weight = nn.Parameter(value.to(factors[0].device, factors[0].dtype).contiguous(
        memory_format=memory_format(layer.weight)), any(factor.requires_grad for factor in factors))
    own_class(layer)
    parametrize.remove_parametrizations(layer, "weight")
    del layer.weight  # a buffer, where the factors were frozen
    others = list(layer._parameters.items())
    layer._parameters.clear()
    layer._parameters.update([("weight", weight), *others])


class _Folder:
    """Folds what is written by hand. ``users``: the modules that hold each module; ``owners``: those of each parameter;
    ``allowed``: the ids of the Sequentials that may be folded, or None for all."""

    def __init__(self, net, allowed=None):
        self.allowed = allowed
        self.users, self.owners, self.done = {}, {}, {}
        self.alive = list(net.modules()), list(net.parameters())  # so that each id stays its own
        for module in net.modules():
            for child in module._modules.values():
                self.users.setdefault(id(child), []).append(id(module))
            for parameter in module._parameters.values():
                self.owners.setdefault(id(parameter), []).append(id(module))

    def fold(self, module):
        """Fold all parts of a module, and the module if it is a Sequential."""
        for name, child in module._modules.items():
            if child is not None:
                module._modules[name] = self.folded(child)
        if type(module) is nn.Sequential and (self.allowed is None or id(module) in self.allowed):
            self.sequential(module)

    def folded(self, child):
        """What takes the place of a module."""
        if id(child) not in self.done:
            self.done[id(child)] = child
            before = len(child._modules)
            self.fold(child)
            if type(child) is nn.Sequential and len(child) == 1 < before and not _hooked(child):
                layer, = child
                self.users[id(layer)] = self.users[id(child)]
                self.done[id(child)] = layer
        return self.done[id(child)]

    def sequential(self, module):
        """Merge neighbours; numbered parts are numbered anew."""
        numbered = all(name == str(k) for k, name in enumerate(module._modules))
        parts = []
        for name, part in module._modules.items():
            before = parts[-1][1] if parts else None
            one = _merged(before, part) if self.free(before, module) and self.free(part, module) else None
            if one is None:
                parts.append((name, part))
            else:
                self.alive[0].append(one)
                self.users[id(one)] = [id(module)]
                parts[-1] = parts[-1][0], one
        module._modules.clear()
        module._modules.update({str(k) if numbered else name: part for k, (name, part) in enumerate(parts)})

    def free(self, layer, module):
        """Whether a layer is plain, with a weight of its own, and used in this module alone."""
        return (type(layer) in KINDS and not _hooked(layer) and type(layer._parameters.get("weight")) is nn.Parameter
                and layer.weight.is_floating_point() and self.users.get(id(layer)) == [id(module)]
                and all(len(self.owners.get(id(parameter), ())) < 2 for parameter in layer.parameters()))


def _merged(first, second):
    """The layer that does what ``first`` and then ``second`` do, or None where no layer of their kind does."""
    if type(first) is not type(second) or len({(p.dtype, p.device) for p in (*first.parameters(), *second.parameters())}) > 1:
        return None
    if isinstance(first, nn.Linear):
        layer = nn.Linear(first.in_features, second.out_features, device="meta")
        return _filled(layer, first, second, 1)
    if _pointwise(second):
        shape = first
    elif _pointwise(first) and (first.bias is None or not _pads_zeros(second)):
        shape = second
    else:
        return None
    groups = math.gcd(first.groups, second.groups)
    layer = type(first)(first.in_channels, second.out_channels, shape.kernel_size, shape.stride, shape.padding, shape.dilation,
                        groups, padding_mode=shape.padding_mode, device="meta")
    return _filled(layer, first, second, groups)


def _filled(layer, first, second, groups):
    """``layer`` with the weight and bias of the product, computed in float64."""
    A, B = (_blocks(part, groups) for part in (first, second))
    weight = torch.einsum("gohk,ghil->goikl", B, A).reshape(layer.weight.shape)
    bias = None if second.bias is None else second.bias.detach().to("cpu", torch.float64)
    if first.bias is not None:
        moved = torch.einsum("gohk,gh->go", B, first.bias.detach().to(B).reshape(groups, -1)).flatten()
        bias = moved if bias is None else moved + bias
    layout = max((memory_format(part.weight) for part in (first, second)), key=lambda layout: layout != torch.contiguous_format)
    for name, value in (("weight", weight.contiguous(memory_format=layout)), ("bias", bias)):
        trained = any(part.requires_grad for part in (getattr(first, name), getattr(second, name)) if part is not None)
        layer.register_parameter(name, None if value is None else nn.Parameter(value.to(second.weight), trained))
    return layer.train(second.training)


def _blocks(layer, groups):
    """The weight as (groups, outputs, inputs, kernel) in float64: coarser groups are block diagonal."""
    rows, inputs, *kernel = layer.weight.shape
    fine = getattr(layer, "groups", 1) // groups
    weight = layer.weight.detach().to("cpu", torch.float64).reshape(
        groups, fine, rows // (groups * fine), inputs, math.prod(kernel))
    unit = torch.eye(fine, dtype=weight.dtype)
    return torch.einsum("gaoik,ab->gaobik", weight, unit).flatten(3, 4).flatten(1, 2)


def _pointwise(layer):
    return set(layer.kernel_size) == {1} and set(layer.stride) == {1} and not _pads(layer)


def _pads(layer):
    if isinstance(layer.padding, str):
        return layer.padding == "same" and set(layer.kernel_size) != {1}
    return any(layer.padding)


def _pads_zeros(layer):
    return _pads(layer) and layer.padding_mode == "zeros"


def _hooked(module):
    return any(getattr(module, hooks) for hooks in HOOKS) or "forward" in vars(module)
