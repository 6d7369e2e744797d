"""The balance laws of homogeneous networks, read off a chain of layers. Deprecated: :func:`deeplinear.networks.laws` reads any network.

Scaling everything that enters a unit by c and everything that leaves it by 1/c changes nothing, if what lies between
is homogeneous of degree 1. So gradient flow keeps, for every hidden unit, channel or layer, the squares that leave less
the squares that enter, and one step of gradient descent changes that by the same difference of the gradients' squares
times the squared step (Du, Hu and Lee 2018).
"""

import dataclasses
import warnings

import torch
from torch import fx, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

LINEAR = (nn.Linear, nn.Conv2d)
UNIT_BY_UNIT = {nn.ReLU, nn.LeakyReLU, F.relu, F.leaky_relu, torch.relu, "relu", nn.MaxPool2d, F.max_pool2d, nn.Dropout,
                F.dropout}
ALIKE = {nn.Identity, nn.Flatten, torch.flatten, "flatten", "reshape", "view", "contiguous", nn.AvgPool2d, F.avg_pool2d,
         nn.AdaptiveAvgPool2d, F.adaptive_avg_pool2d}  # one linear map for all units: pairs of units keep their law
FLATTENING = {nn.Flatten, torch.flatten, "flatten", "reshape", "view"}
NEEDS_AN_IMAGE = {nn.MaxPool2d, F.max_pool2d, nn.AvgPool2d, F.avg_pool2d, nn.AdaptiveAvgPool2d, F.adaptive_avg_pool2d,
                  "reshape", "view"}


class NotHomogeneous(ValueError):
    """The network has a part whose balance is not known; the message names it and the reason."""


@dataclasses.dataclass(frozen=True)
class Law:
    """The balance of the units between two layers that follow each other.

    ``first`` and ``second``: the layers' names. ``value()``: what gradient flow keeps, shape (units,), with ``matrix``
    (units, units), where nothing lies between that treats units differently. ``change()``: the same of the gradients:
    one step of gradient descent with rate lr and without weight decay adds exactly ``lr**2 * change()``.
    :prf:ref:`thm-unit-balance`, :prf:ref:`prop-matrix-balance`.
    """

    first: str
    second: str
    before: nn.Module
    after: nn.Module
    matrix: bool

    def value(self) -> torch.Tensor:
        return self._difference(lambda parameter: parameter.detach())

    def change(self) -> torch.Tensor:
        return self._difference(lambda parameter: parameter.grad)

    def _difference(self, take):
        into = take(self.before.weight).flatten(1)
        if self.before.bias is not None:
            into = torch.cat([into, take(self.before.bias)[:, None]], 1)
        out = take(self.after.weight)
        out = out.unflatten(1, (len(into), -1)).transpose(0, 1).flatten(1)  # all that leaves each unit or channel
        if self.matrix:
            return out @ out.mT - into @ into.mT
        return out.square().sum(1) - into.square().sum(1)


def _refuse_what_the_graph_does_not_show(net):
    """Hooks, parametrisations, frozen parameters, and parameters of two layers or of one storage: laws may then be false."""
    storages = {}
    for path, module in net.named_modules():
        if any(getattr(module, hooks) for hooks in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks",
                                                    "_backward_pre_hooks")):
            raise NotHomogeneous(f"{path or 'the network'} has a hook; expected none")
        if parametrize.is_parametrized(module):
            raise NotHomogeneous(f"{path or 'the network'} is parametrised; expected plain weights")
        for own, parameter in module.named_parameters(recurse=False):
            name = f"{path}.{own}".lstrip(".")
            if not parameter.requires_grad:
                raise NotHomogeneous(f"{name} is frozen; expected parameters that are trained")
            if (other := storages.setdefault(parameter.untyped_storage().data_ptr(), name)) != name:
                raise NotHomogeneous(f"{name} shares its storage with {other}; expected one for every parameter")


def _flattening(node, part):
    """Whether a node keeps the first axis and joins all others."""
    if isinstance(part, nn.Flatten):
        return (part.start_dim, part.end_dim) == (1, -1)
    sizes = [*node.args[1:], *node.kwargs.values()]
    return sizes in ([1], [1, -1]) if part in (torch.flatten, "flatten") else sizes[-1:] == [-1] and len(sizes) == 2


def _refuse_mixed_units(first, before, second, after, moved):
    """Entries of several units of ``before`` in one input of ``after``; ``moved``: what lies between and joins axes."""
    if isinstance(after, nn.Linear) and isinstance(before, nn.Conv2d) and not moved:
        raise NotHomogeneous(f"{second} is dense along the rows of an image of {first}; expected flatten(1) between")
    if isinstance(after, nn.Linear) and isinstance(before, nn.Linear) and after.in_features != before.out_features:
        raise NotHomogeneous(f"{second} takes {after.in_features} numbers of {first}, which gives {before.out_features}; expected "
                             "no tokens flattened between")
    if moved and moved is not True:
        raise NotHomogeneous(f"{moved} joins other axes than flatten(1) does; expected flatten(1)")


def laws(net: nn.Module, strict: bool = True) -> list[Law]:
    """The balance laws of a chain of dense and convolutional layers, a list of :class:`Law`, input first.

    Deprecated, and warns so: :func:`deeplinear.networks.laws` reads these networks and all others, and tries what it returns.
    Between them: ReLU, leaky ReLU, max and average pooling, dropout, flattening. Biases are counted with what enters
    their unit. The network is read with ``torch.fx``. Raises :class:`NotHomogeneous` for anything else (other
    activations, batch normalisation, branches, a weight used twice, images made of the units of a dense layer), naming
    it; also hooks, parametrisations, frozen parameters, and a flattening that puts several units into one input. With
    ``strict=False`` activations and normalisations that break the law are passed over, as a control needs.
    """
    warnings.warn("homogeneous.laws is deprecated; use dl.laws(net, example), which reads any network", DeprecationWarning, stacklevel=2)
    _refuse_what_the_graph_does_not_show(net)
    modules, graph = dict(net.named_modules()), fx.symbolic_trace(net).graph
    layers: list[tuple[str, nn.Module]]
    found, alike, image, flat, layers, previous = [], True, None, None, [], None
    for node in graph.nodes:
        if node.op == "output" and node.args[0] is not previous:
            raise NotHomogeneous(f"the output is {node.args[0]}; expected the last layer's alone")
        if node.op in ("placeholder", "output", "get_attr"):
            continue
        inputs = [argument for argument in node.all_input_nodes if argument.op != "get_attr"]
        if len(inputs) != 1 or previous is not None and inputs[0] is not previous:
            raise NotHomogeneous(f"{node.name} joins or leaves a branch; expected one chain of layers")
        previous, part = node, modules[node.target] if node.op == "call_module" else node.target
        kind = type(part) if isinstance(part, nn.Module) else part
        if layers and isinstance(layers[-1][1], nn.Linear) and (kind in NEEDS_AN_IMAGE or isinstance(part, nn.Conv2d)):
            image = str(node.target)
        if isinstance(part, LINEAR):
            if any(part.weight is layer.weight for _, layer in layers):
                raise NotHomogeneous(f"the weight of {node.target} is used twice; expected one for every layer")
            if image:
                raise NotHomogeneous(f"{image} takes the units of {layers[-1][0]}, a dense layer, for an image; expected "
                                     "none behind a dense layer")
            if getattr(part, "groups", 1) != 1:
                raise NotHomogeneous(f"{node.target} is a grouped convolution; expected groups=1")
            if layers:
                _refuse_mixed_units(*layers[-1], str(node.target), part, flat)
                found.append(Law(layers[-1][0], str(node.target), layers[-1][1], part, alike))
            layers.append((str(node.target), part))
            alike, flat = True, None
        elif kind in UNIT_BY_UNIT:
            alike = False
        elif kind in FLATTENING:
            flat = flat or _flattening(node, part) or str(node.target)
        elif kind not in ALIKE:
            if strict:
                raise NotHomogeneous(f"{node.target} is {getattr(kind, '__name__', kind)}; expected layers, ReLU, leaky "
                                     "ReLU, pooling, dropout and flattening only, homogeneous of degree 1")
            alike = False
    return found
