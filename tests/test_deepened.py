"""Networks that are deepened, trained, copied, exported, read for laws, and folded again."""

import copy

import deeplinear as dl
import pytest
import torch
from network_step import Net
from products_of_layers import inputs, made
from torch import nn
from torch.nn.utils import parametrize

Linear, Conv, Seq = nn.Linear, nn.Conv2d, nn.Sequential


def cnn():
    return Seq(Conv(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), Conv(4, 8, 3, groups=2, stride=2), nn.ReLU(),
               nn.ConvTranspose2d(8, 3, 2), nn.Flatten(), Linear(3 * 25, 5))


def encoder():
    return nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)


REAL = {"cnn": (cnn, (6, 1, 10, 10)), "encoder": (encoder, (3, 5, 8))}


@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize("start", ["identity", "balanced", "random"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_deepened_trained_and_folded(name, start, dtype):
    make, shape = REAL[name]
    net, x = made(make).to(dtype), inputs(*shape).to(dtype)
    small = {torch.float64: 1e-13, torch.float32: 1e-5}[dtype]
    deep = dl.deepen(net, factors=3, start=start, generator=dl.seeded(2))
    back = dl.fold(deep)
    assert list(back.state_dict()) == list(net.state_dict()) and [n for n, _ in back.named_parameters()] == [
        n for n, _ in net.named_parameters()]
    gap = max((one - other).abs().max() for one, other in zip(back.parameters(), net.parameters()))
    assert (gap > 1e-2 if start == "random" else gap == 0 if start == "identity" else gap < small)
    before = {key: value.clone() for key, value in deep.named_parameters()}
    optimiser = torch.optim.Adam(deep.parameters(), lr=0.01)
    for _ in range(3):
        optimiser.zero_grad()
        (deep(x) - 1).square().mean().backward()
        optimiser.step()
    moved = [key for key, value in deep.named_parameters() if not torch.equal(value, before[key])]
    assert moved == list(before) and sum("original" in key for key in moved) == 3 * sum(
        isinstance(part, dl.deepening.LAYERS) for part in net.modules())
    for mode in (True, False):
        folded = dl.fold(deep.train(mode))
        assert (folded(x) - deep(x)).abs().max() < small and (folded(x) - net.train(mode)(x)).abs().max() > 1e-3
    assert list(folded.state_dict()) == list(net.state_dict()) and not any(map(parametrize.is_parametrized, folded.modules()))
    net.load_state_dict(folded.state_dict())


def test_the_fast_path_of_the_encoder_reads_the_products(monkeypatch):
    net, x = made(encoder).eval(), inputs(3, 5, 8)
    deep = dl.deepen(nn.TransformerEncoder(net, 2), start="balanced").eval()
    plain = nn.TransformerEncoder(net, 2).eval()
    calls, fast = [], torch._transformer_encoder_layer_fwd
    monkeypatch.setattr(torch, "_transformer_encoder_layer_fwd", lambda *args: calls.append(1) or fast(*args))
    slow = deep(x)
    assert not calls
    with torch.no_grad():
        assert (deep(x) - slow).abs().max() < 1e-13 and len(calls) == 2
        assert (deep(x) - plain(x)).abs().max() < 1e-13


def test_a_copy_lives_on_its_own():
    """PyTorch keeps the properties of parametrised layers on a class that copies share."""
    deep, x = dl.deepen(made(cnn).eval(), start="balanced"), inputs(6, 1, 10, 10)
    twin, expected = copy.deepcopy(deep), deep(x)
    assert torch.equal(twin(x), expected)
    for _ in range(2):
        assert (dl.fold(deep)(x) - expected).abs().max() < 1e-13
        assert torch.equal(deep(x), expected) and torch.equal(twin(x), expected)
    with torch.no_grad():
        twin[0].parametrizations.weight.original0.add_(1)
    assert torch.equal(deep(x), expected) and not torch.equal(twin(x), expected)


def test_what_a_forward_left_on_the_modules_is_no_obstacle():
    def forward(net, x):
        net.trace = [net.a(x)]
        return net.trace[0]

    net, x = made(lambda: Net(forward, a=Linear(4, 3))), inputs(5, 4)
    net(x)
    assert net.trace[0].grad_fn is not None
    assert torch.equal(dl.fold(dl.deepen(net))(x), net(x))


def test_other_parametrisations_and_buffers_stay():
    class Positive(nn.Module):
        def forward(self, bias):
            return bias.exp()

    net = Seq(Linear(4, 3), nn.BatchNorm1d(3)).double().eval()
    parametrize.register_parametrization(net[0], "bias", Positive())
    net[1].running_mean.add_(2)
    net[1].train()
    x, keys = inputs(5, 4), list(net.state_dict())
    deep = dl.deepen(net)
    assert [part.training for part in deep[0].modules()] == [False] * len(list(deep[0].modules())) and deep[1].training
    assert torch.equal(deep(x), net(x)) and sorted(dl.fold(deep).state_dict()) == sorted(keys) == sorted(net.state_dict())
    assert torch.equal(dl.fold(deep)(x), net(x)) and torch.equal(deep(x), net(x))


def test_frozen_layers_stay_frozen_and_layouts_stay():
    net = made(cnn).to(memory_format=torch.channels_last)
    net[3].weight.requires_grad_(False)
    deep = dl.deepen(net, start="random", generator=dl.seeded(0))
    assert [value.requires_grad for value in deep[3].parameters()] == [True, False, False]
    assert deep[3].weight.is_contiguous(memory_format=torch.channels_last) and not deep[3].weight.is_contiguous()
    folded = dl.fold(deep)
    assert [value.requires_grad for value in folded.parameters()] == [value.requires_grad for value in net.parameters()]
    layouts = lambda net: [(value.is_contiguous(), value.ndim == 4 and value.is_contiguous(memory_format=torch.channels_last))
                           for value in net.parameters()]
    assert layouts(folded) == layouts(net)
    assert len(list(folded.buffers())) == len(list(net.buffers()))


@pytest.mark.parametrize("name", REAL)
def test_it_is_exported_moved_called_functionally_and_cached(name):
    make, shape = REAL[name]
    deep, x = dl.deepen(made(make), start="balanced").eval(), inputs(*shape)
    expected = deep(x)
    assert (torch.export.export(deep, (x,)).module()(x) - expected).abs().max() < 1e-14
    assert torch.equal(torch.func.functional_call(deep, dict(deep.named_parameters()), (x,)), expected)
    with parametrize.cached():
        assert torch.equal(deep(x), expected)
    half = deep.to(torch.bfloat16)
    assert (half(x.bfloat16()) - expected).abs().max() < 0.2
    assert {value.dtype for value in dl.fold(half).parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("depth", [2, 3])
def test_the_laws_of_a_deepened_network_have_the_balance_of_its_factors(depth):
    net = made(lambda: Seq(Conv(2, 4, 3), nn.ReLU(), nn.Flatten(), Linear(16, 3)))
    deep = dl.deepen(net, factors=depth, start="balanced")
    found = {str(law): law for law in dl.laws(deep, inputs(2, 2, 4, 4))}
    for layer in ("0", "3"):
        name = f"{layer}.parametrizations.weight.original"
        for j in range(depth - 1):
            law = found[f"<{name}{j + 1}> - <{name}{j}>"]
            assert law.value().abs().max() < 1e-14
    assert len(found) == 1 + 2 * (depth - 1)  # and the law of the hidden units, between the last factor and the first
    law = found[f"|3.parametrizations.weight.original0|^2 - |0.bias|^2 - |0.parametrizations.weight.original{depth - 1}|^2"]
    assert law.count == 4
    other = dl.deepen(net, factors=depth)  # control: identities are not balanced with the weight
    assert max(law.value().abs().max() for law in dl.laws(other, inputs(2, 2, 4, 4)) if law.gram) > 0.1


def test_the_products_are_read_alike_in_training_and_evaluation():
    """Their graphs differ, and an encoder's reads weights more than once."""
    for net, example in ((Seq(Linear(4, 6), nn.ReLU(), nn.Dropout(0.3), Linear(6, 3)), inputs(5, 4)),
                         (nn.TransformerEncoderLayer(4, 2, 6, batch_first=True), inputs(2, 3, 4))):
        chosen = [name for name, layer in net.named_modules() if isinstance(layer, Linear)]
        laws, found = dl.laws(net, example), dl.laws(dl.deepen(net), example)
        assert len(found) == len(laws) + len(chosen) and found.count == laws.count + sum(
            n * (n + 1) // 2 for n in (min(net.get_submodule(name).weight.shape) for name in chosen))
        for factor in (f"{name}.parametrizations.weight.original" for name in chosen):
            assert f"<{factor}1> - <{factor}0>" in set(map(str, found))


def test_laws_refuse_other_parametrisations_next_to_products():
    net = Seq(Linear(4, 3), nn.ReLU(), Linear(3, 2))
    parametrize.register_parametrization(net[0], "bias", nn.Softplus())
    laws = dl.laws(dl.deepen(net), torch.ones(5, 4))
    assert {"0.parametrizations.weight.original0: parametrised by Softplus"} <= set(map(str, laws.refused))
