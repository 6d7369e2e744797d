"""What comes in at the door: examples with values, forwards that take derivatives, compiled networks, other contexts."""

import dataclasses
import warnings

import deeplinear as dl
import pytest
import torch
from deeplinear.networks import calls, graph
from network_step import Net, example_of
from torch import nn

Linear, X = nn.Linear, example_of((5, 3))
DERIVES = "forward takes derivatives, by torch.autograd.grad or backward"


def two():
    return Net(lambda net, x, *rest: net.b(torch.relu(net.a(x))), a=Linear(3, 4), b=Linear(4, 2))


def spoiled(value, count=2):
    x = X.clone()
    x.view(-1)[:count] = value
    return x


@dataclasses.dataclass
class Batch:
    x: torch.Tensor


@pytest.mark.parametrize("example, message", [
    (spoiled(torch.nan), r"example, of shape \(5, 3\), has 2 of 15 values that are not finite; expected finite numbers"),
    (spoiled(torch.inf, 3), "has 3 of 15 values"), (spoiled(-torch.inf, 1), "has 1 of 15 values"),
    ((X, spoiled(torch.nan)), r"example\[1\], of shape \(5, 3\), has 2 of 15"), ((X, spoiled(torch.inf)), r"example\[1\], of"),
    ({"x": X, "more": [spoiled(torch.nan)]}, r"example\['more'\]\[0\], of shape"), ((Batch(spoiled(torch.nan)),), r"example\[0\].x, of"),
    (X[:0], r"example is empty, of shape \(0, 3\); expected at least one row"), (X[:, :0], r"example is empty, of shape \(5, 0\)"),
    ((X, X[:0]), r"example\[1\] is empty, of shape \(0, 3\)"), (torch.zeros(0, dtype=torch.int64), r"example is empty, of shape \(0,\)"),
    (X.to(torch.complex64) * complex(torch.nan, 1), "has 15 of 15 values")])
def test_an_example_without_numbers_is_refused_by_what_it_holds(example, message):
    for look in (dl.laws, dl.fold):
        with pytest.raises(ValueError, match=message):
            look(two(), example)


def test_masks_of_minus_infinity_and_empty_caches_pass():
    mask = torch.zeros(5, 5).masked_fill(torch.ones(5, 5).triu(1) == 1, -torch.inf)
    for rest in (mask, torch.zeros(5, 2, 0)):
        assert len(dl.laws(two(), (X, rest))) == 1
        dl.fold(two(), (X, rest))


def derived(net, x):
    """As a physics-informed network does: outputs and their derivatives in the inputs."""
    x = x if x.requires_grad else x.requires_grad_(True)
    u = net.inner(x)
    return u, torch.autograd.grad(u.sum(), x, create_graph=True)[0]


def backward(net, x):
    x = x.detach().clone().requires_grad_(True)
    net.inner(x).sum().backward()
    return x.grad


FORWARDS = {"grad": derived, "backward": backward,
            "jacrev": lambda net, x: torch.func.vmap(torch.func.jacrev(net.inner))(x),
            "of a given input": lambda net, x: torch.autograd.grad(net.inner(x).sum(), x, create_graph=True)[0]}


def physical(name="grad"):
    return Net(FORWARDS[name], inner=nn.Sequential(Linear(3, 4), Linear(4, 4), nn.Tanh(), Linear(4, 2)))


@pytest.mark.parametrize("name", FORWARDS)
def test_a_forward_that_takes_derivatives_says_what_to_read_instead(name):
    net = physical(name)
    (refused,) = dl.laws(net, X.clone().requires_grad_()).refused
    assert str(refused).startswith(f"the network: {DERIVES}") and "pass the part that it differentiates" in refused.reason
    laws = dl.laws(net.inner, X)
    assert [str(law) for law in laws] == ["<1.weight> - <0.weight> - <0.bias>"]


def test_its_errors_name_their_cause_and_are_chained():
    net = physical("of a given input")
    with pytest.raises(graph.Unreadable, match=DERIVES) as caught, graph.undisturbed() as dtype:
        calls.tried(net, X, dtype)
    assert isinstance(caught.value.__cause__, RuntimeError)
    branch = Net(lambda net, x: net.a(x) if x.sum() > 0 else net.a(2 * x), a=Linear(3, 4)).double()
    with pytest.raises(graph.Unreadable, match="forward decides by the values of a tensor, .*; pass a network that goes one way") as caught:
        graph.read(branch, (X.double(),), {})
    assert type(caught.value.__cause__).__name__ == "GuardOnDataDependentSymNode"
    with pytest.raises(ValueError, match="forward takes a derivative in an input that does not require grad; expected") as caught:
        dl.fold(net, X)
    assert isinstance(caught.value.__cause__, RuntimeError)


@pytest.mark.parametrize("name", ["grad", "jacrev", "of a given input"])
def test_a_forward_that_takes_derivatives_is_folded(name):
    net, x = physical(name).double(), X.double().requires_grad_()
    folded = dl.fold(net, x)
    assert len(folded.inner) == 3
    for one, other in zip(graph.tensors(folded(x)), graph.tensors(net(x))):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-14)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_a_context_without_gradients_changes_nothing(context):
    net = nn.Sequential(Linear(3, 4), Linear(4, 2))
    with context():
        made = X * 1
        assert [str(law) for law in dl.laws(net, made)] == ["<1.weight> - <0.weight> - <0.bias>"]
        assert isinstance(dl.fold(nn.Sequential(net, nn.ReLU()), made)[0], Linear)


def test_a_compiled_network_is_not_run_to_be_folded():
    net = nn.Sequential(Linear(3, 4), Linear(4, 2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        traced = torch.jit.trace(net, X)
    for compiled in (torch.compile(net, backend="eager"), traced):
        with pytest.raises(ValueError, match="the network is compiled; pass the module that was compiled"):
            dl.fold(compiled, X)
    assert [one.reason for one in dl.laws(traced, X).refused] == ["the network is compiled; pass the module that was compiled"]


def test_a_module_that_holds_what_is_frozen_is_read():
    @dataclasses.dataclass(frozen=True, slots=True)
    class Config:
        width: int = 4

    net = two()
    net.config = Config()
    assert len(dl.laws(net, X)) == 1 and net.config.width == 4
