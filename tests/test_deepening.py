"""Layers as products: the same function where the start says so, the book's gradients, and clear refusals."""

import copy
import doctest
import io
import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrize, parametrizations, prune

import deeplinear as dl
from products_of_layers import factors, inputs, made

# A layer, the shape of its input, and the width of the factors.
LAYERS = {
    "linear, narrowing": (lambda: nn.Linear(7, 4), (5, 7), 4), "linear, widening": (lambda: nn.Linear(3, 6, bias=False), (2, 5, 3), 3),
    "one output": (lambda: nn.Linear(5, 1), (4, 5), 1),
    "Conv1d": (lambda: nn.Conv1d(4, 6, 3, stride=2, padding=1), (2, 4, 9), 6),
    "Conv2d, dilated": (lambda: nn.Conv2d(3, 4, 3, dilation=2, padding=2, padding_mode="circular"), (2, 3, 8, 8), 4),
    "Conv2d, widening": (lambda: nn.Conv2d(1, 12, 3, padding="same"), (2, 1, 6, 6), 9),
    "Conv2d, groups": (lambda: nn.Conv2d(4, 6, (3, 2), groups=2), (2, 4, 6, 6), 3),
    "Conv2d, a channel each": (lambda: nn.Conv2d(4, 8, 3, groups=4), (2, 4, 6, 6), 2),
    "Conv3d": (lambda: nn.Conv3d(2, 3, 2), (2, 2, 4, 4, 4), 3),
    "transposed": (lambda: nn.ConvTranspose2d(6, 2, 3, stride=2, output_padding=1), (2, 6, 5, 5), 6),
    "transposed, narrowing": (lambda: nn.ConvTranspose1d(9, 2, 3), (2, 9, 5), 6),
    "transposed, groups": (lambda: nn.ConvTranspose2d(6, 4, 3, groups=2), (2, 6, 5, 5), 3)}


def matrices(layer):
    """The factors as matrices that act on columns, the first first: (groups, n_j, n_{j-1}), by hand."""
    groups = getattr(layer, "groups", 1)
    found = [factor.detach().reshape(groups, len(factor) // groups, -1) for factor in factors(layer)]
    return [W.mT for W in found] if isinstance(layer, nn.modules.conv._ConvTransposeNd) else found


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("depth", [2, 3])
@pytest.mark.parametrize("start", ["identity", "balanced"])
def test_the_function_stays_and_the_factors_are_as_said(kind, depth, start):
    make, shape, width = LAYERS[kind]
    layer, x = made(make), inputs(*shape)
    deep = dl.deepen(layer, factors=depth, start=start)
    assert (deep(x) - layer(x)).abs().max() < 1e-14
    found = matrices(deep)
    assert len(found) == depth and {W.shape[-1] for W in found[1:]} == {width}
    if start == "balanced":
        assert all(D.abs().max() < 1e-14 for D in dl.imbalance(found))
    else:  # one is the weight bit for bit, and the others are identities
        units = [W for W in found if W.shape[-2:] == (width, width) and torch.equal(W, torch.eye(width).double().expand_as(W))]
        assert len(units) == depth - 1 and torch.equal(deep.weight, layer.weight)
        assert any(torch.equal(W.flatten(), weight.flatten()) for W in factors(deep) for weight in [layer.weight])
    with torch.no_grad():  # control: every factor acts
        for factor in factors(deep):
            before = factor.clone()
            factor.mul_(2)
            assert (deep(x) - layer(x)).abs().max() > 1e-2
            factor.copy_(before)


@pytest.mark.parametrize("kind", ["Conv1d", "Conv2d, dilated", "Conv2d, widening", "Conv2d, groups", "Conv3d"])
def test_factors_are_the_weights_of_layers_that_one_could_write(kind):
    make, shape, _ = LAYERS[kind]
    layer, x = made(make), inputs(*shape)
    deep = dl.deepen(layer, factors=3, start="random", generator=dl.seeded(3))
    first, *others = factors(deep)
    kind = {3: F.conv1d, 4: F.conv2d, 5: F.conv3d}[layer.weight.ndim]
    written = copy.deepcopy(layer)
    written.out_channels, written.weight, written.bias = len(first), nn.Parameter(first), None
    y = written(x)
    for factor in others:
        y = kind(y, factor, groups=layer.groups)
    y = y + layer.bias.reshape(-1, *[1] * (layer.weight.ndim - 2))
    assert (deep(x) - y).abs().max() < 1e-14 and (deep(x) - layer(x)).abs().max() > 1e-2


def test_balanced_factors_are_roots_and_hang_on_no_sign_of_the_svd():
    layer = made(lambda: nn.Linear(5, 3))
    _, W2 = matrices(dl.deepen(layer, start="balanced"))
    assert (W2 - W2.mT).abs().max() < 1e-14 and torch.linalg.eigvalsh(W2).min() > 0
    assert (W2 @ W2 @ W2 @ W2 - layer.weight @ layer.weight.mT).abs().max() < 1e-14
    with torch.no_grad():  # of rank one
        layer.weight.copy_(torch.ones(3, 1) * torch.arange(5.0))
    for W in matrices(dl.deepen(layer, start="balanced")):
        assert torch.linalg.svdvals(W[0])[1] < 1e-14


@pytest.mark.parametrize("shape", [(40, 60), (60, 40)])
def test_a_random_start_has_the_distribution_that_is_told(shape):
    layer = nn.Linear(*shape, bias=False).double()
    with torch.no_grad():
        layer.weight.copy_(0.3 * inputs(*layer.weight.shape))
    found, products = [], []
    for seed in range(20):
        deep = dl.deepen(layer, factors=3, start="random", generator=dl.seeded(seed))
        products.append(deep.weight.detach())
        found.append([W.detach() for W in factors(deep)])
    whole = 0 if shape[0] > shape[1] else 2
    for j in range(3):
        draws = torch.stack([layers[j] for layers in found])
        size = 0.3 if j == whole else 40 ** -0.5
        assert tuple(draws.shape[1:]) == (tuple(layer.weight.shape) if j == whole else (40, 40))
        assert abs(draws.std() / size - 1) < 0.03 and abs(draws.mean() / size) < 0.03
    assert abs(torch.stack(products).std() / 0.3 - 1) < 0.06
    again = dl.deepen(layer, factors=3, start="random", generator=dl.seeded(0))
    assert torch.equal(again.weight, products[0]) and not torch.equal(products[0], products[1])


@pytest.mark.parametrize("start", ["identity", "balanced", "random"])
@pytest.mark.parametrize("shape", [(6, 3), (3, 6)])
def test_gradient_descent_is_that_of_the_books_chain(start, shape):
    """Gradients of all factors, and twenty steps of torch's SGD, decay included, against layer_gradients and dl.train."""
    d, k = shape
    X, y = inputs(20, d), inputs(20, k, seed=2)
    deep = dl.deepen(made(lambda: nn.Linear(d, k, bias=False)), factors=3, start=start, generator=dl.seeded(5))
    loss, weights = dl.LpLoss(X, y, 2), [W.detach().clone() for W in factors(deep)]
    optimiser = torch.optim.SGD(deep.parameters(), lr=0.05, weight_decay=0.01)
    for step in range(20):
        optimiser.zero_grad()
        (deep(X) - y).square().sum(1).mean().backward()
        if step == 0:
            for own, G in zip(factors(deep), dl.layer_gradients(weights, loss.gradient(dl.end_to_end(weights)))):
                assert (own.grad - G).abs().max() < 1e-13
        optimiser.step()
    run = dl.train(loss, weights, dl.GD(0.05, weight_decay=0.01), 20)
    for own, W, before in zip(factors(deep), run.weights, weights):
        assert (own - W).abs().max() < 1e-13 and (own - before).abs().max() > 1e-2


def test_balanced_factors_move_the_product_by_the_end_to_end_rule():
    """One small step, to its first order: the preconditioner of the book, for a convolution's matrix too."""
    layer, x = made(lambda: nn.Conv2d(2, 3, 3)), inputs(4, 2, 6, 6)
    moved = {}
    for start in ("balanced", "identity"):
        deep = dl.deepen(layer, factors=3, start=start)
        deep(x).square().sum().backward()
        velocities = [W.grad.flatten(1) for W in factors(deep)]
        moved[start] = dl.chain.product_velocity([W.detach().flatten(1) for W in factors(deep)], velocities)
    layer(x).square().sum().backward()
    expected = dl.preconditioner.apply(layer.weight.detach().flatten(1), layer.weight.grad.flatten(1), 3)
    assert (moved["balanced"] - expected).norm() < 1e-12 * expected.norm()
    assert (moved["identity"] - expected).norm() > 0.1 * expected.norm()  # control


TINY = {"channels": (2, 3), "kernel": 3, "hidden": 16, "dropout": 0.0, "side": 16}


@pytest.mark.parametrize("variant", ["identity", "deep"])
def test_it_is_the_convnet_that_the_paper_deepens(variant):
    """The same function, and after training the same weights, as the two layers that ``convnet`` writes out."""
    pixels, labels = inputs(40, 256), torch.arange(40) % 10
    written = dl.convnet.build(variant, dl.seeded(3), **TINY).double()
    deep = dl.deepen(dl.convnet.build("original", dl.seeded(3), **TINY).double(), ["dense", "output"])
    if variant == "deep":  # from the same draws
        with torch.no_grad():
            for name in ("dense", "output"):
                for own, layer in zip(factors(getattr(deep, name)), getattr(written, name)):
                    own.copy_(layer.weight)
    assert (deep(pixels) - written(pixels)).abs().max() < 1e-14
    before = dl.fold(written)
    for net in (deep, written):
        dl.convnet.train(net, pixels, labels, 0.05, 10, batch=8, penalise="none", penalty=0.0)
    one, other, start = (dict(dl.fold(net).named_parameters()) for net in (deep, written, before))
    assert one.keys() == other.keys()
    for name in one:
        assert (one[name] - other[name]).abs().max() < 1e-12 and (one[name] - start[name]).abs().max() > 1e-5


def test_a_value_assigned_to_the_weight_becomes_factors():
    for start in ("identity", "balanced", "random"):
        deep = dl.deepen(made(lambda: nn.Linear(4, 3)), start=start, generator=dl.seeded(0))
        value = inputs(3, 4)
        deep.weight = value
        assert (deep.weight - value).abs().max() < 1e-14
        value[0, 0] += 1  # a copy
        assert (deep.weight - value).abs().max() > 0.9


def test_where_chooses_by_name_and_by_predicate():
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Sequential(nn.Linear(4, 4), nn.Conv1d(4, 2, 1)))
    chosen = lambda where, **other: [name for name, module in dl.deepen(net, where, **other).named_modules()
                                     if parametrize.is_parametrized(module)]
    assert chosen(None) == ["0", "2.0", "2.1"] == chosen(None, factors=torch.tensor(3).numpy()[()])
    assert chosen("2.0") == ["2.0"] and chosen(("2.1", "0", "0")) == ["0", "2.1"]
    assert chosen(lambda name, layer: isinstance(layer, nn.Conv1d) or name == "0") == ["0", "2.1"]
    assert chosen(None, factors=1) == [] and not parametrize.is_parametrized(net[0])


def test_docstrings_hold():
    for module in (dl.deepening, dl.folding):
        result = doctest.testmod(module)
        assert result.attempted >= 2 and not result.failed


def tied():
    net = nn.ModuleDict({"a": nn.Embedding(5, 4), "b": nn.Linear(4, 5)})
    net["b"].weight = net["a"].weight
    return net


def pruned():
    return prune.l1_unstructured(nn.Linear(4, 4), "weight", amount=2)


def viewed():
    net, flat = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), torch.zeros(8)
    net[0].weight, net[1].weight = (nn.Parameter(part.reshape(2, 2)) for part in flat.split(4))
    return net


REFUSED = [
    (lambda: nn.LazyLinear(3), {}, "the network is lazy: run the network once before"),
    (lambda: nn.Sequential(nn.Linear(2, 2, device="meta")), {}, "0 is on the meta device"),
    (tied, {}, "b shares its weight with a.weight"), (viewed, {}, "0 shares its weight with 1.weight.*; 1 shares"),
    (pruned, {}, "the network has a weight that is no plain Parameter"),
    (lambda: nn.Sequential(parametrizations.spectral_norm(nn.Linear(3, 3))), {}, "0 is parametrised by _SpectralNorm"),
    (lambda: dl.deepen(nn.Sequential(nn.Linear(3, 3))), {}, "0 is deepened already: fold the network first"),
    (lambda: nn.Linear(2, 2, dtype=torch.complex64), {}, "is quantised or not real"),
    (lambda: nn.Sequential(torch.ao.nn.quantized.dynamic.Linear(2, 2)), {}, "0 is quantised or not real"),
    (lambda: nn.Sequential(nn.ReLU()), {}, "no layer is chosen of a Sequential .* convolutions none"),
    (lambda: nn.Linear(3, 3), {"where": lambda name, layer: False}, "no layer is chosen"),
    (lambda: nn.Linear(3, 3), {"where": []}, "no layer is chosen"),
    (lambda: nn.Sequential(nn.Linear(3, 3)), {"where": ["fc"]}, "where names 'fc'; expected names .* here 0"),
    (lambda: nn.Sequential(nn.Linear(3, 3), nn.ReLU()), {"where": "1"}, "where names '1', a ReLU; expected"),
    (lambda: nn.Sequential(nn.Sequential(nn.Linear(3, 3))), {"where": "0"}, r"a Sequential; .* here 0.0; .*: name.startswith\('0.'\)"),
    (lambda: nn.Sequential(nn.Linear(3, 3)), {"where": "*"}, r"where=lambda name, layer: fnmatch.fnmatch\(name, '\*'\)$"),
    (lambda: nn.Linear(3, 3), {"where": [nn.Linear]}, r"where=lambda name, layer: isinstance\(layer, torch.nn.Linear\)$"),
    (lambda: nn.Linear(0, 3), {}, r"the network has an empty weight, of shape \(3, 0\)"),
    (lambda: nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 0)), {"start": "balanced"}, r"^1 has an empty weight, of shape \(0, 2\)"),
    *[(lambda: nn.Linear(3, 3), {"factors": n}, f"factors is {n!r}; expected an integer >= 1") for n in (0, -1, 1.5, True, "2")],
    (lambda: nn.Linear(3, 3), {"start": "zero"}, "start is 'zero'; expected one of identity, balanced, random")]


@pytest.mark.parametrize("make, arguments, words", REFUSED, ids=[words[:40] for *_, words in REFUSED])
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")
def test_what_cannot_be_deepened_is_refused_by_name(make, arguments, words):
    with pytest.raises(ValueError, match=words):
        dl.deepen(make(), **arguments)


def test_other_arguments_are_refused():
    with pytest.raises(TypeError, match="net is a list; expected a torch.nn.Module"):
        dl.deepen([])
    for where in (nn.Linear, nn.Linear(2, 2), 3):
        with pytest.raises(TypeError, match=r"^where is .*; expected None, names or a function .*isinstance\(layer, torch.nn.Linear\)$"):
            dl.deepen(nn.Linear(2, 2), where=where)
    with pytest.raises(TypeError, match="generator is None; expected dl.seeded"):
        dl.deepen(nn.Linear(2, 2), start="random")
    layer = nn.Linear(2, 2)
    with torch.no_grad():
        layer.weight[0, 0] = torch.nan
    with pytest.raises(ValueError, match="not finite"):
        dl.deepen(layer)


def test_it_is_saved_by_its_state_and_refuses_to_be_pickled_whole(tmp_path):
    deep = dl.deepen(made(lambda: nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))), start="balanced")
    with torch.no_grad():
        factors(deep[0])[1].add_(1)
    torch.save(deep.state_dict(), tmp_path / "net.pt")
    other = dl.deepen(made(lambda: nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)), seed=7))
    x = inputs(5, 4)
    assert (other(x) - deep(x)).abs().max() > 1e-2
    other.load_state_dict(torch.load(tmp_path / "net.pt", weights_only=True))
    assert torch.equal(other(x), deep(x))
    for save in (pickle.dumps, lambda net: torch.save(net, io.BytesIO())):
        with pytest.raises(RuntimeError, match="only supported through state_dict"):
            save(deep)
