"""The deprecated reader of chains: exact over one step wherever it reads, refused by name elsewhere, and the same as ``dl.laws``."""

import pytest
import torch
from torch import nn

import deeplinear as dl
from deeplinear import convnet, homogeneous

pytestmark = pytest.mark.filterwarnings("ignore:homogeneous.laws is deprecated:DeprecationWarning")


def seeded(build):
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        return build().double()


def leaky(*sizes):
    layers = [part for a, b in zip(sizes, sizes[1:]) for part in (nn.Linear(a, b), nn.LeakyReLU(0.2))]
    return nn.Sequential(*layers[:-1])


SMALL = {"channels": (2, 3), "kernel": 3, "hidden": 6, "side": 12, "classes": 3}
IMAGES = {
    "conv, pools, dense": lambda: nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(3, 4, 3, stride=2), nn.ReLU(),
        nn.AvgPool2d(2), nn.Flatten(), nn.Linear(4, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 3)),
    "the ConvNet": lambda: convnet.build("original", dl.seeded(0), **SMALL),
    "the deep ConvNet": lambda: convnet.build("deep", dl.seeded(0), **SMALL),
    "dense ReLU": lambda: nn.Sequential(
        nn.Flatten(), nn.Linear(144, 7), nn.ReLU(), nn.Linear(7, 6), nn.ReLU(), nn.Linear(6, 3)),
    "leaky": lambda: nn.Sequential(nn.Flatten(), *leaky(144, 5, 4, 3)),
    "linear, dropout": lambda: nn.Sequential(nn.Flatten(), nn.Linear(144, 7), nn.Dropout(0.5), nn.Linear(7, 3)),
    "conv, conv, average, dense": lambda: nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.Conv2d(3, 4, 3, stride=2), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(16, 3)),
    "linear, no bias": lambda: nn.Sequential(nn.Flatten(), nn.Linear(144, 5, bias=False), nn.Linear(5, 3, bias=False)),
}


def step(net, laws, lr=0.05):
    """The largest defect of the identity of one step of gradient descent, and the largest change without it."""
    X, y = dl.normal(8, 144, generator=dl.seeded(1)), torch.arange(8) % 3
    X = X if isinstance(net, convnet.ConvNet) else X.reshape(8, 1, 12, 12)
    with torch.random.fork_rng([]):
        torch.manual_seed(1)
        loss = nn.functional.cross_entropy(net(X), y)
    net.zero_grad()
    loss.backward()
    before, change = [law.value() for law in laws], [law.change() for law in laws]
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.sub_(lr * parameter.grad)
    after = [law.value() for law in laws]
    defects = [(b - a - lr**2 * c).abs().max().item() for a, b, c in zip(before, after, change)]
    return max(defects), max((b - a).abs().max().item() for a, b in zip(before, after))


@pytest.mark.parametrize("name", IMAGES)
def test_one_step_changes_the_balance_by_the_identity(name):
    net = seeded(IMAGES[name])
    laws = homogeneous.laws(net)
    defect, change = step(net, laws)
    assert defect < 1e-13 and change > 1e-8  # it does change, at second order
    weights = [module for module in net.modules() if isinstance(module, homogeneous.LINEAR)]
    assert len(laws) == len(weights) - 1
    for law, first, second in zip(laws, weights, weights[1:]):
        assert (law.before, law.after) == (first, second)
        assert law.value().shape == (len(first.weight),) * (2 if law.matrix else 1)


@pytest.mark.parametrize("name", IMAGES)
def test_the_new_laws_are_the_same(name):
    net = seeded(IMAGES[name])
    example = torch.ones(2, 144) if isinstance(net, convnet.ConvNet) else torch.ones(2, 1, 12, 12)
    old, new = homogeneous.laws(net), dl.laws(net, example)
    step(net, old)
    assert len(old) == len(new)
    for one, other in zip(old, new):
        assert one.matrix == other.gram
        for what in ("value", "change"):
            torch.testing.assert_close(getattr(other, what)(), getattr(one, what)(), rtol=1e-12, atol=1e-12)


@pytest.mark.filterwarnings("default::DeprecationWarning")
def test_it_says_that_it_is_deprecated_and_what_to_use():
    with pytest.warns(DeprecationWarning, match=r"use dl.laws\(net, example\)") as caught:
        homogeneous.laws(seeded(IMAGES["dense ReLU"]))
    assert caught[0].filename == __file__


def test_the_matrix_law_stands_exactly_where_nothing_lies_between():
    assert [law.matrix for law in homogeneous.laws(seeded(IMAGES["linear, no bias"]))] == [True]
    deep = homogeneous.laws(seeded(IMAGES["the deep ConvNet"]))
    assert [law.matrix for law in deep] == [False, False, True, False, True]
    assert [law.matrix for law in homogeneous.laws(seeded(IMAGES["linear, dropout"]))] == [False]  # a mask for each unit
    assert [law.matrix for law in homogeneous.laws(seeded(IMAGES["conv, conv, average, dense"]))] == [True, True]
    net = seeded(IMAGES["dense ReLU"])  # the control: across ReLU the matrix law fails off the diagonal
    across = [homogeneous.Law(law.first, law.second, law.before, law.after, True) for law in homogeneous.laws(net)]
    assert step(net, across)[0] > 1e-5


def test_the_law_of_a_linear_chain_is_the_imbalance():
    net = seeded(IMAGES["linear, no bias"])
    (law,) = homogeneous.laws(net)
    assert torch.equal(law.value(), dl.imbalance([net[1].weight.detach(), net[2].weight.detach()])[0])


def test_the_bias_belongs_to_what_enters():
    class Forgetful(homogeneous.Law):
        def _difference(self, take):
            return super()._difference(take) + take(self.before.bias) ** 2

    net = seeded(IMAGES["dense ReLU"])
    forgetful = [Forgetful(law.first, law.second, law.before, law.after, law.matrix) for law in homogeneous.laws(net)]
    assert step(net, forgetful)[0] > 1e-5


@pytest.mark.parametrize("part", [nn.Tanh(), nn.GELU(), nn.Sigmoid(), nn.BatchNorm1d(7)])
def test_what_breaks_the_law_is_refused_and_does_break_it(part):
    net = seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(144, 7), part, nn.Linear(7, 3)))
    with pytest.raises(homogeneous.NotHomogeneous, match=f"2 is {type(part).__name__}; expected layers, ReLU"):
        homogeneous.laws(net)
    assert step(net, homogeneous.laws(net, strict=False))[0] > 1e-5


def test_other_shapes_of_network_are_refused():
    shared = nn.Linear(4, 4)
    with pytest.raises(homogeneous.NotHomogeneous, match="the weight of 0 is used twice"):
        homogeneous.laws(nn.Sequential(shared, nn.ReLU(), shared))

    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            return self.b(torch.relu(x + self.a(x)))

    with pytest.raises(homogeneous.NotHomogeneous, match="joins or leaves a branch"):
        homogeneous.laws(Residual())
    with pytest.raises(homogeneous.NotHomogeneous, match="grouped convolution"):
        homogeneous.laws(nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3, groups=2)))
    for behind in (nn.MaxPool2d(3, 1, 1), nn.Conv2d(2, 2, 3)):  # an image made of the units of a dense layer
        net = nn.Sequential(nn.Linear(4, 8), nn.Unflatten(1, (2, 2, 2)), behind, nn.Flatten(), nn.Linear(8, 2))
        with pytest.raises(homogeneous.NotHomogeneous, match="takes the units of 0, a dense layer, for an image"):
            homogeneous.laws(net, strict=False)
    assert len(homogeneous.laws(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2), nn.Identity()))) == 1


def test_kinks_and_ties_do_no_harm():
    """Weights and inputs in {-1, 0, 1}: most pre-activations are exactly zero, and pools are tied."""
    net = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(108, 3)).double()
    with torch.no_grad():
        net[0].weight.copy_(dl.normal(3, 1, 3, 3, generator=dl.seeded(0)).round().clamp(-1, 1))
        net[0].bias.zero_()
        net[4].weight.copy_(dl.normal(3, 108, generator=dl.seeded(1)))
    X = (dl.normal(8, 1, 12, 12, generator=dl.seeded(2)) > 1).double()
    assert (net[0](X) == 0).double().mean() > 0.2
    nn.functional.cross_entropy(net(X), torch.arange(8) % 3).backward()
    (law,) = homogeneous.laws(net)
    before, change = law.value(), law.change()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.sub_(0.1 * parameter.grad)
    assert (law.value() - before - 0.01 * change).abs().max() < 1e-13 and change.abs().max() > 1e-4


class Shown(nn.Module):
    """A network whose loss may use a hidden activation."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x):
        hidden = torch.relu(self.a(x))
        return self.b(hidden), hidden


def changed(change):
    net = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    change(net)
    return net


@pytest.mark.parametrize("build, words", [
    (lambda: nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Flatten(), nn.Linear(20, 2)), "3 takes 20 numbers of 0, which gives 4"),
    (lambda: nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Linear(6, 2)), "2 is dense along the rows of an image of 0"),
    (lambda: nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(2), nn.Linear(36, 2)), "2 joins other axes than"),
    (Shown, r"the output is \(b, relu\)"),
    (lambda: changed(lambda net: setattr(net[2], "bias", net[0].bias)), "2.bias shares its storage with 0.bias"),
    (lambda: changed(lambda net: setattr(net[2], "weight", nn.Parameter(net[0].weight.data))), "2.weight shares its storage with"),
    (lambda: changed(lambda net: net[1].register_forward_hook(lambda module, inputs, output: output + 1)), "1 has a hook"),
    (lambda: changed(lambda net: nn.utils.parametrizations.weight_norm(net[2])), "2 is parametrised"),
    (lambda: changed(lambda net: nn.utils.parametrizations.spectral_norm(net[0])), "0 is parametrised"),
    (lambda: changed(lambda net: net[2].requires_grad_(False)), "2.weight is frozen")])
def test_laws_that_would_be_false_are_refused(build, words):
    with pytest.raises(homogeneous.NotHomogeneous, match=words):
        homogeneous.laws(build())
