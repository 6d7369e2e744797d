"""Folding of what is written by hand: exact where it is done, and left where it is not."""

import copy
import random
from collections import OrderedDict

import deeplinear as dl
import numpy as np
import pytest
import torch
from deeplinear import folding
from network_step import Net
from products_of_layers import inputs, made
from torch import nn
from torch.nn.utils import parametrizations, prune

Linear, Conv, Seq = nn.Linear, nn.Conv2d, nn.Sequential


class Scaled(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


class Loud(nn.Sequential):
    def forward(self, x):
        return self[1](self[0](x).sin())


def twice(part):
    return {"a": part, "b": part}


def tied():
    net = Seq(Linear(4, 4), Linear(4, 4), nn.ReLU(), Linear(4, 4))
    net[3].weight = net[0].weight
    return net


def again():
    layer = Linear(4, 4)
    return Seq(layer, Linear(4, 4), nn.ReLU(), layer)


def aliased():
    body = Seq(Linear(4, 3), Linear(3, 2))
    return Net(lambda net, x: net.body(x).sum(1) + net.first(x).sum(1), body=body, first=body[0])


def hooked():
    net = Seq(Linear(4, 3), Linear(3, 2))
    net[1].register_forward_hook(lambda module, args, output: 2 * output)
    return net


def patched():
    net = Seq(Linear(4, 3), Linear(3, 2))
    net[0].forward = torch.nn.functional.relu
    net[1] = Linear(4, 2)
    return net


VECTORS, TOKENS, IMAGES = (5, 4), (2, 5, 4), (2, 4, 9, 9)
# A network written by hand, its input, and the layers that are left: (inputs, outputs) of a linear one, with kernel and groups
# of a convolution.
FOLDED = {
    "the row of the report": (lambda: Seq(Seq(Linear(4, 3), Linear(3, 2)), nn.ReLU()), VECTORS, {"0": (4, 2)}),
    "the network itself": (lambda: Seq(Linear(4, 3), Linear(3, 2, bias=False), Linear(2, 5)), TOKENS, {"0": (4, 5)}),
    "a run in the middle": (lambda: Seq(Linear(4, 3), Linear(3, 2), nn.ReLU(), Linear(2, 6), Linear(6, 1)), VECTORS,
                            {"0": (4, 2), "2": (2, 1)}),
    "nested": (lambda: Seq(Seq(Seq(Linear(4, 3), Linear(3, 3)), Linear(3, 2)), Linear(2, 2)), VECTORS, {"0": (4, 2)}),
    "named": (lambda: Seq(OrderedDict(a=Linear(4, 3), b=Linear(3, 2), c=nn.Tanh(), d=Linear(2, 2))), VECTORS,
              {"a": (4, 2), "d": (2, 2)}),
    "1 x 1 behind": (lambda: Seq(Conv(4, 3, 3, stride=2, padding=1), Conv(3, 5, 1)), IMAGES, {"0": (4, 5, 3, 1)}),
    "1 x 1 before, no padding": (lambda: Seq(Conv(4, 3, 1), Conv(3, 5, 3, dilation=2)), IMAGES, {"0": (4, 5, 3, 1)}),
    "1 x 1 before, without bias": (lambda: Seq(Conv(4, 3, 1, bias=False), Conv(3, 5, 3, padding="same")), IMAGES,
                                   {"0": (4, 5, 3, 1)}),
    "1 x 1 before, a padding of values": (lambda: Seq(Conv(4, 3, 1), Conv(3, 5, 3, padding=1, padding_mode="reflect")), IMAGES,
                                          {"0": (4, 5, 3, 1)}),
    "around": (lambda: Seq(Conv(4, 6, 1, bias=False), Conv(6, 6, 3, padding=2, bias=False), Conv(6, 2, 1)), IMAGES,
               {"0": (4, 2, 3, 1)}),
    "groups alike": (lambda: Seq(Conv(4, 6, 3, groups=2), Conv(6, 8, 1, groups=2)), IMAGES, {"0": (4, 8, 3, 2)}),
    "groups, and then all": (lambda: Seq(Conv(4, 8, 3, groups=4), Conv(8, 5, 1)), IMAGES, {"0": (4, 5, 3, 1)}),
    "other groups": (lambda: Seq(Conv(4, 12, 1, groups=4), Conv(12, 6, 3, groups=6)), IMAGES, {"0": (4, 6, 3, 2)}),
    "one dimension": (lambda: Seq(nn.Conv1d(4, 3, 3), nn.Conv1d(3, 2, 1), nn.Conv1d(2, 2, 1)), (2, 4, 9), {"0": (4, 2, 3, 1)}),
    "three dimensions": (lambda: Seq(nn.Conv3d(4, 3, 2), nn.Conv3d(3, 2, 1)), (1, 4, 3, 3, 3), {"0": (4, 2, 2, 1)}),
    "shared products": (lambda: Net(lambda net, x: net.a(x) + net.a(net.b(x)), **twice(Seq(Linear(4, 3), Linear(3, 4)))), VECTORS,
                        {"a": (4, 4), "b": (4, 4)})}
# What is not one layer, or may not be replaced by one.
LEFT = {
    "something between": (lambda: Seq(Linear(4, 3), nn.Identity(), Linear(3, 2)), VECTORS),
    "a bias, and then zeros": (lambda: Seq(Conv(4, 3, 1), Conv(3, 5, 3, padding=1)), IMAGES),
    "a 1 x 1 that pads": (lambda: Seq(Conv(4, 3, 3), Conv(3, 5, 1, padding=1)), IMAGES),
    "a 1 x 1 that strides": (lambda: Seq(Conv(4, 3, 1, stride=2, bias=False), Conv(3, 5, 3)), IMAGES),
    "two kernels": (lambda: Seq(Conv(4, 3, 3), Conv(3, 5, 3)), IMAGES),
    "a layer on rows": (lambda: Seq(Conv(4, 3, 3), Linear(7, 2)), IMAGES),
    "one layer alone": (lambda: Net(lambda net, x: net.a(x), a=Seq(Linear(4, 3))), VECTORS),
    "tied weights": (tied, VECTORS), "a layer used twice": (again, VECTORS),
    "a part used elsewhere": (aliased, VECTORS), "a hook": (hooked, VECTORS),
    "a forward on the layer": (patched, VECTORS),
    "another parametrisation": (lambda: Seq(parametrizations.weight_norm(Linear(4, 3)), Linear(3, 2)), VECTORS),
    "pruned": (lambda: Seq(prune.l1_unstructured(Linear(4, 3), "weight", amount=2), Linear(3, 2)), VECTORS),
    "a class of its own": (lambda: Seq(Scaled(4, 3), Linear(3, 2)), VECTORS),
    "a forward of its own": (lambda: Loud(Linear(4, 3), Linear(3, 2)), VECTORS),
    "no sequence": (lambda: Net(lambda net, x: net.b(net.a(x)), a=Linear(4, 3), b=Linear(3, 2)), VECTORS)}


def sizes(layer):
    if isinstance(layer, Linear):
        return layer.in_features, layer.out_features
    return layer.in_channels, layer.out_channels, layer.kernel_size[0], layer.groups


@pytest.mark.parametrize("name", FOLDED)
def test_products_by_hand_are_one_layer(name):
    make, shape, left = FOLDED[name]
    net, x = made(make), inputs(*shape)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    folded = dl.fold(net)
    layers = {path: part for path, part in folded.named_modules(remove_duplicate=False) if isinstance(part, folding.KINDS)}
    assert {path: sizes(part) for path, part in layers.items()} == left and type(folded) is type(net)
    assert folded(x).shape == net(x).shape and (folded(x) - net(x)).abs().max() < 1e-14
    with torch.no_grad():
        for parameter in folded.parameters():  # control: each counts
            parameter.add_(0.1)
            assert (folded(x) - net(x)).abs().max() > 1e-2
            parameter.sub_(0.1)
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert {key: value.shape for key, value in dl.fold(folded).state_dict().items()} == {
        key: value.shape for key, value in folded.state_dict().items()}


@pytest.mark.parametrize("name", LEFT)
def test_what_is_no_product_is_left(name):
    make, shape = LEFT[name]
    net, x = made(make), inputs(*shape)
    folded = dl.fold(net)
    assert torch.equal(folded(x), net(x)) and folded is not net
    assert list(folded.state_dict()) == list(net.state_dict()) and str(folded) == str(net)


def test_a_sequence_with_a_hook_keeps_it():
    net, x = made(lambda: Seq(Seq(Linear(4, 3), Linear(3, 2)), nn.ReLU())), inputs(*VECTORS)
    net[0].register_forward_hook(lambda module, args, output: output.exp())
    folded = dl.fold(net)
    assert len(folded[0]) == 1 and (folded(x) - net(x)).abs().max() < 1e-14


def test_a_bias_that_zeros_miss_would_be_folded_wrongly():
    """The control of the rule: outputs differ at the border, and nowhere else, by what the padding misses."""
    net, x = made(LEFT["a bias, and then zeros"][0]), inputs(*IMAGES)
    first = copy.deepcopy(net)
    first[0].bias, first[1].bias = None, None
    wrong = dl.fold(first)(x) + (net[1].bias + net[1].weight.sum((2, 3)) @ net[0].bias)[:, None, None]
    gap = (wrong - net(x)).abs().amax((0, 1))
    assert gap[1:-1, 1:-1].max() < 1e-14 and gap[0].min() > 1e-3 and gap[:, -1].min() > 1e-3


def test_dtype_layout_mode_and_frozen_parameters_stay():
    net = Seq(Conv(4, 3, 3, bias=False), Conv(3, 5, 1)).to(memory_format=torch.channels_last).half().eval()
    net[0].weight.requires_grad_(False)
    net[1].weight.requires_grad_(False)
    layer, = dl.fold(net)
    assert layer.weight.dtype is torch.half and not layer.training and not layer.weight.requires_grad and layer.bias.requires_grad
    assert layer.weight.is_contiguous(memory_format=torch.channels_last) and not layer.weight.is_contiguous()
    mixed = Seq(Linear(4, 3), Linear(3, 2).half())
    assert len(dl.fold(mixed)) == 2
    with pytest.raises(ValueError, match=r"0.weight is on the meta device; expected parameters with values"):
        dl.fold(Seq(Linear(4, 3, device="meta")))
    with pytest.raises(TypeError, match="net is a dict; expected a torch.nn.Module"):
        dl.fold({})


def by_parts(net, x):
    for part in net.parts:
        x = x + part(x).relu()
    return net.head(x)


def unseen(net, x):
    return nn.functional.linear(x, net.parts[0].weight, net.parts[0].bias).relu() + net.parts(x)


class Counting(nn.Module):
    """A buffer that evaluation changes too, noise of three generators, and a part that is never called."""

    def __init__(self):
        super().__init__()
        self.body, self.other = Seq(Linear(4, 3), Linear(3, 4)), Seq(Linear(4, 3), Linear(3, 4))
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x, scale):
        self.calls += 1
        return {"y": self.body(x) * scale * random.random() * np.random.random(), "z": torch.rand_like(x), "n": 3}  # noqa: NPY002


# A network whose forward goes through the parts of "parts", or picks one of them; "head" is called as a whole.
PICKED = {"iterated": by_parts, "indexed": lambda net, x: net.head(net.parts[1](x)),
          "called and picked": lambda net, x: net.head(net.parts(x) + net.parts[0](x)),
          "its forward around the call": lambda net, x: net.head(net.parts.forward(x))}


@pytest.mark.parametrize("name", PICKED)
def test_with_an_example_a_sequence_that_is_picked_from_is_left(name):
    net = made(lambda: Net(PICKED[name], parts=Seq(Linear(4, 4), Linear(4, 4), nn.Tanh()), head=Seq(Linear(4, 3), Linear(3, 2))))
    x = inputs(*VECTORS)
    folded = dl.fold(net, x)
    assert len(folded.parts) == 3 and isinstance(folded.head, Linear) and (folded(x) - net(x)).abs().max() < 1e-14
    if name == "iterated":  # the control: without an example outputs change
        assert (dl.fold(net)(x) - net(x)).abs().max() > 1e-2


def test_with_an_example_outputs_that_would_change_are_refused_by_name():
    net = made(lambda: Net(unseen, head=Seq(Linear(4, 3), Linear(3, 2)), parts=Seq(Linear(4, 4), Linear(4, 4))))
    with pytest.raises(ValueError, match="^parts, a Sequential, cannot be folded: on the example the outputs differ"):
        dl.fold(net, inputs(*VECTORS))


def test_an_example_changes_nothing_and_what_it_does_not_call_is_left():
    net, x = made(Counting), inputs(*VECTORS)
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    for example in ((x, 2.0), {"x": x, "scale": 2.0}):
        folded = dl.fold(net, example)
        assert isinstance(folded.body, Linear) and len(folded.other) == 2 and folded.training and folded.calls == net.calls == 0
        assert not any(module._forward_hooks or module._forward_pre_hooks for part in (net, folded) for module in part.modules())
    assert torch.equal(states[0], torch.get_rng_state()) and states[1] == random.getstate()
    assert (states[2] == np.random.get_state()[1]).all()  # noqa: NPY002


@pytest.mark.parametrize("name", FOLDED)
def test_with_an_example_as_much_is_folded(name):
    make, shape, _ = FOLDED[name]
    net, x = made(make).float(), inputs(*shape).float()
    assert str(dl.fold(net, x)) == str(dl.fold(net)) and str(dl.fold(dl.deepen(net), x)) == str(dl.fold(net))


def test_examples_that_do_not_fit_are_named():
    net = Seq(Linear(4, 3), Linear(3, 2))
    with pytest.raises(ValueError, match="the network fails on the example with RuntimeError: mat1 and mat2"):
        dl.fold(net, torch.ones(2, 3))
    with pytest.raises(TypeError, match="example is a list; expected a tensor, a tuple of arguments or a dict of keywords"):
        dl.fold(net, [torch.ones(2, 4)])
