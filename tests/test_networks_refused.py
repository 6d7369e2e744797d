"""What the reading of a network does not understand is refused by name, and what an output shows is not hidden."""

import warnings

import deeplinear as dl
import pytest
import torch
from network_step import Net, between, example_of, frozen
from torch import nn
from torch.nn.utils import parametrizations, parametrize

Linear, Conv = nn.Linear, nn.Conv2d
TOKENS, IMAGES = (2, 5, 3), (2, 1, 8, 8)


def hooked():
    net = nn.Sequential(Linear(3, 4), nn.ReLU(), Linear(4, 4), nn.ReLU(), Linear(4, 2))
    net[1].register_forward_hook(lambda module, inputs, output: 2 * output + 1)
    return net


def gradient_hook():
    net = nn.Sequential(Linear(3, 4), nn.ReLU(), Linear(4, 2))
    net[0].weight.register_hook(lambda gradient: 2 * gradient)
    return net


def shared_storage():
    net = nn.Sequential(Linear(4, 4), nn.ReLU(), Linear(4, 4), nn.ReLU(), Linear(4, 2))
    net[2].weight = nn.Parameter(net[0].weight.data)
    return net


class Reversed(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return -gradient


class Halved(nn.Module):
    def forward(self, weight):
        return weight / 2 + 1


def parametrised():
    net = nn.Sequential(Linear(3, 4), nn.ReLU(), Linear(4, 2))
    parametrize.register_parametrization(net[0], "weight", Halved())
    return net


def old_weight_norm():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return nn.Sequential(nn.utils.weight_norm(Linear(3, 4)), nn.ReLU(), Linear(4, 2))


def decayed(net, x):
    with torch.no_grad():
        net.a.weight.mul_(0.9)
    return net.b(torch.relu(net.a(x)))


def aside(net, x):
    net.aside[0] = torch.relu(net.a(x))
    return net.b(net.aside[0])


REFUSED = {
    "tanh": (between(nn.Tanh()), (5, 3), 0, "tanh at 1 Tanh"), "GELU": (between(nn.GELU()), (5, 3), 0, "gelu at 1 GELU"),
    "ReLU6": (between(nn.ReLU6()), (5, 3), 0, "hardtanh at 1 ReLU6"),
    "alpha dropout": (between(nn.AlphaDropout()), (5, 3), 0, "alpha_dropout at 1 AlphaDropout"),
    "softmax": (between(nn.Softmax(-1)), (5, 3), 0, "softmax at 1 Softmax"),
    "layer norm": (between(nn.LayerNorm(4, elementwise_affine=False)), (5, 3), 0, "layer_norm at 1 LayerNorm, whose eps is 1e-05, not 0"),
    "LSTM": (lambda: Net(lambda net, x: net.b(net.a(x)[0]), a=nn.LSTM(3, 4), b=Linear(4, 2)), TOKENS, 0, "lstm at a LSTM"),
    "GRU": (lambda: Net(lambda net, x: net.b(net.a(net.e(x))[0]), e=Linear(3, 3), a=nn.GRU(3, 4), b=Linear(4, 2)), TOKENS, 0,
            "gru at a GRU"),
    "a hook": (hooked, (5, 3), 1, "a hook on 1"), "a hook on a gradient": (gradient_hook, (5, 3), 0, "a hook on its gradient"),
    "storage shared": (shared_storage, (5, 4), 0, "shares its storage with 2.weight"),
    "a frozen bias": (lambda: frozen(bias=True), (5, 3), 0, "joined to what no parameter scales, linear at 2 Linear"),
    "spectral norm": (lambda: parametrizations.spectral_norm(Linear(3, 4)), (5, 3), 0, "parametrised by _SpectralNorm"),
    "weight norm": (lambda: parametrizations.weight_norm(Linear(3, 4)), (5, 3), 0, "parametrised by _WeightNorm"),
    "weight norm by a hook": (old_weight_norm, (5, 3), 0, "a hook on 0"),
    "a weight written into": (lambda: Net(decayed, a=Linear(3, 4), b=Linear(4, 2)), (5, 3), 0, "wrap_with_set_grad_enabled at"),
    "places that are not read": (
        lambda: Net(lambda net, x: net.b(torch.relu(net.a(x))[:, torch.tensor([1, 0, 2, 3])]), a=Linear(3, 4), b=Linear(4, 2)),
        (5, 3), 0, "index at forward Net"),
    "a mode": (lambda: Net(lambda net, x: net.b(torch.relu(net.a(x)) if net.training else torch.tanh(net.a(x))), a=Linear(3, 4),
                           b=Linear(4, 2)), (5, 3), 0, "tanh at forward Net"),
    "a parametrisation": (parametrised, (5, 3), 0, "parametrised by Halved"),
    "padding": (lambda: nn.Sequential(nn.Embedding(10, 4, padding_idx=0), Linear(4, 2)), torch.arange(10), 0,
                "embedding at 0 Embedding"),
    "max_norm": (lambda: nn.Sequential(nn.Embedding(10, 4, max_norm=1.0), Linear(4, 2)), torch.arange(10), 0,
                 "embedding_renorm_ at 0 Embedding"),
    "words counted": (lambda: nn.Sequential(nn.Embedding(10, 4, scale_grad_by_freq=True), Linear(4, 2)), torch.arange(10), 0,
                      "embedding at 0 Embedding"),
    "another backward": (
        lambda: Net(lambda net, x: net.b(torch.relu(Reversed.apply(net.a(x)))), a=Linear(3, 4), b=Linear(4, 2)), (5, 3), 0,
        "its gradient passes through Reversed, an autograd function"),
    "a branch on a value": (lambda: Net(lambda net, x: net.a(x) if x.sum() > 0 else net.a(2 * x), a=Linear(3, 4)), (5, 3), 0,
                            "forward decides by the values of a tensor"),
    "a shape that values settle": (
        lambda: Net(lambda net, x: net.b(torch.relu(net.a(x[x[:, 0] > 0]))), a=Linear(3, 4), b=Linear(4, 2)), (5, 3), 0,
        "a shape in forward depends on the values of a tensor"),
    "a decoder that is its encoder": (
        lambda: Net(lambda net, x: torch.relu(net.a(x)) @ net.a.weight, a=Linear(3, 4)), (5, 3), 0,
        "a.weight both writes and reads these units, matmul at forward Net: in their difference it cancels"),
    "such a decoder, transposed": (
        lambda: Net(lambda net, x: nn.functional.linear(torch.relu(net.a(x)), net.a.weight.T, net.c), a=Linear(3, 4),
                    c=nn.Parameter(torch.ones(3))), (5, 3), 0, "a.weight both writes and reads these units, linear at forward Net"),
    "such a decoder, a convolution": (
        lambda: Net(lambda net, x: nn.functional.conv_transpose2d(torch.relu(net.a(x)), net.a.weight), a=Conv(1, 4, 3)), IMAGES, 0,
        "a.weight both writes and reads these units, conv_transpose2d at forward Net"),
    "such a decoder within another": (
        lambda: Net(lambda net, x: torch.relu(torch.relu(net.b(torch.relu(net.a(x)))) @ net.b.weight) @ net.a.weight,
                    a=Linear(3, 4), b=Linear(4, 2)), (5, 3), 1, "b.weight both writes and reads these units, matmul at forward Net"),
    "a table that is also the head": (
        lambda: Net(lambda net, words: torch.relu(net.a(words)) @ net.a.weight.T, a=nn.Embedding(10, 4)), torch.arange(10), 0,
        "a.weight both writes and reads these units, matmul at forward Net"),
    "what its own code raises": (lambda: Net(lambda net, x: net.a(x.float()), a=Linear(3, 4)), (5, 3), 0,
                                 "on a float64 copy its forward raises RuntimeError"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_understood_is_refused_by_name(name, capfd):
    build, shape, left, reason = REFUSED[name]
    laws = dl.laws(build(), example_of(shape))
    assert len(laws) == left
    assert any(one.reason.startswith(reason) for one in laws.refused), laws.refused
    assert all("misread" not in one.reason and "its defect is" not in one.reason for one in laws.refused)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("forward", [
    lambda net, x: (lambda h: (net.b(h), h))(torch.relu(net.a(x))),
    lambda net, x: (lambda h: {"y": net.b(h), "more": [h[:1]]})(torch.relu(net.a(x))), aside,
    lambda net, x: (lambda h: (net.b(h), h) if net.training else net.b(h))(torch.relu(net.a(x))),
    lambda net, x: net.b(torch.relu(net.a(x))) + net.a.bias.sum() + net.a.weight.square().sum()])
def test_an_axis_that_an_output_shows_is_not_hidden(forward):
    net = Net(forward, a=Linear(3, 4), b=Linear(4, 2), aside=[None])
    laws = dl.laws(net, example_of((5, 3)))
    assert len(laws) == laws.count == len(laws.refused) == 0
    assert net.aside == [None]  # what forward keeps is put back


def test_what_a_forward_keeps_on_a_module_counts_as_an_output():
    class Keeps(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = Linear(3, 4), Linear(4, 2)

        def forward(self, x):
            self.kept = torch.relu(self.a(x))
            return self.b(self.kept)

    net, x = Keeps(), example_of((5, 3))
    assert len(dl.laws(net, x)) == 0 and not hasattr(net, "kept")
    net(x)  # a tensor with a history, which deepcopy refuses
    assert len(dl.laws(net, x)) == 0 and net.kept.grad_fn is not None
