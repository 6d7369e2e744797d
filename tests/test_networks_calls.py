"""What one call of forward does not show: other calls, the network's own dtype, what it keeps, and what cannot run."""

import collections
import functools
import warnings

import deeplinear as dl
import pytest
import torch
from network_step import Net, between, example_of
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import prune
from torch.utils.checkpoint import checkpoint

Linear, X = nn.Linear, example_of((5, 3))
UNIT = ["|b.weight|^2 - |a.weight|^2 - |a.bias|^2"]


def two(forward, **parts):
    return Net(forward, a=Linear(3, 4), b=Linear(4, 2), **parts)


def counted(last):
    """ReLU up to a call, then tanh."""
    def forward(net, x):
        net.calls += 1
        return net.b(torch.relu(net.a(x)) if net.calls <= last else torch.tanh(net.a(x)))
    return two(forward, calls=0)


class Started(nn.Module):
    """Scales its inputs by what the first of them were."""

    def __init__(self):
        super().__init__()
        self.scale, self.started = nn.Parameter(torch.ones(4)), False

    def forward(self, x):
        if not self.started:
            self.scale.data.copy_(1 / x.detach().std(0))
            self.started = True
        return self.scale * x


def cached(net, x):
    if net.table is None:
        net.table = torch.arange(4.0).cos()
    return net.b(torch.relu(net.a(x)) * net.table)


def test_a_forward_that_changes_with_its_calls_is_refused():
    assert [str(one) for one in dl.laws(counted(2), X).refused] == ["the network: forward computes something else at a later call"]
    (refused,) = dl.laws(counted(1), X).refused
    assert refused.reason == "tanh at forward Net"  # which all later calls are
    net = counted(10)  # further than the calls that are tried
    assert [str(law) for law in dl.laws(net, X)] == UNIT and net.calls == 0


def test_what_the_first_call_starts_costs_the_laws_until_it_has_run():
    net = nn.Sequential(Linear(3, 4), Started(), nn.ReLU(), Linear(4, 2))
    assert len(dl.laws(net, X)) == 0
    net(X)
    laws = dl.laws(net, X)
    assert laws.count == 8 and not laws.refused


def test_a_table_that_the_first_call_makes_costs_nothing():
    assert [str(law) for law in dl.laws(two(cached, table=None), X)] == UNIT


def test_a_branch_on_the_dtype_is_refused_where_it_counts():
    net = two(lambda net, x: net.b(F.gelu(net.a(x)) if x.dtype == torch.float32 else torch.relu(net.a(x))))
    assert [one.reason for one in dl.laws(net, X).refused] == ["forward computes something else in float32 than in float64"]
    assert [str(law) for law in dl.laws(net.double(), X.double())] == UNIT
    swapped = Net(lambda net, x: net.c((net.a if x.dtype == torch.float32 else net.b)(x)), a=Linear(3, 4), b=Linear(3, 4), c=Linear(4, 2))
    assert len(dl.laws(swapped, X)) == 0
    raised = two(lambda net, x: net.b(torch.relu(net.a(x)).float() if x.dtype == torch.float16 else torch.relu(net.a(x)).to(x.dtype)))
    assert [str(law) for law in dl.laws(raised, X)] == UNIT  # conversions are no other computation


class Slots:
    __slots__ = ("kept",)


class Child(Slots):
    pass


def closing():
    seen = []
    return lambda tensor=None: seen if tensor is None else seen.append(tensor)


def partial():
    return functools.partial(list.append, [])


@pytest.mark.parametrize("make, keep", [
    (collections.deque, lambda kept, h: kept.append(h)), (set, lambda kept, h: kept.add(h)),
    (Slots, lambda kept, h: setattr(kept, "kept", h)), (Child, lambda kept, h: setattr(kept, "kept", {"h": (h,)})),
    (lambda: [collections.deque(maxlen=2)], lambda kept, h: kept[0].appendleft([h])),
    (lambda: [nn.Sequential(nn.ReLU())], lambda kept, h: setattr(kept[0][0], "kept", h)),
    (closing, lambda kept, h: kept(h)), (partial, lambda kept, h: kept(h))])
def test_whatever_holds_a_tensor_on_a_module_makes_it_an_output(make, keep):
    def forward(net, x):
        h = torch.relu(net.a(x))
        keep(net.kept, h)
        return net.b(h)

    net = two(forward, kept=make())
    assert len(dl.laws(net, X)) == 0
    assert make is not closing or not net.kept()
    assert not hasattr(net.kept, "kept") and (not isinstance(net.kept, (set, collections.deque)) or not net.kept)
    assert len(dl.laws(two(lambda net, x: net.b(torch.relu(net.a(x))), kept=make()), X)) == 1


@pytest.mark.parametrize("net, example, error, message", [
    (torch.relu, X, TypeError, "net is a builtin_function_or_method; expected a torch.nn.Module"),
    (Linear, X, TypeError, "net is the class Linear; expected a torch.nn.Module"),
    (Linear(3, 2, device="meta"), X, ValueError, "weight is on the meta device; expected parameters and buffers with values"),
    (Linear(3, 2), X.to("meta"), ValueError, "a tensor of example is on the meta device"),
    (Linear(4, 2), X, ValueError, "forward raises RuntimeError: .*shapes cannot be multiplied.*; expected an example"),
    (Linear(3, 2), {"y": X}, ValueError, "forward raises TypeError: .*unexpected keyword argument 'y'"),
    (between(nn.BatchNorm1d(4))(), X[:1], ValueError, "in training mode forward raises ValueError: Expected more than 1 value per channel"),
    (between(nn.BatchNorm1d(4))().eval(), X[:1], ValueError, "in training mode forward raises"),
    (two(lambda net, x: net.b(net.a(x).relu_().mul_(2))), X, ValueError, "backward raises RuntimeError: one of the variables")])
def test_what_cannot_run_says_why(net, example, error, message):
    with pytest.raises(error, match=message):
        dl.laws(net, example)


def recurrent(net, x):
    h = torch.zeros(5, 4)
    for _ in range(2):
        h = torch.relu(net.a(x) + net.w(h))
    return net.b(h)


def hooked(change, *arguments):
    net = between(nn.ReLU())()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        change(net[0], *arguments)
    return net


def norm(part):
    return nn.Sequential(nn.Conv1d(4, 4, 1), part, nn.Conv1d(4, 2, 1))


SHIFTS = "which normalises a group of entries together; what is kept of shifts that it takes away, at any eps, is not read"
UNSEEN = "used only where no gradient goes: torch.no_grad, or a checkpoint with use_reentrant=True"


@pytest.mark.parametrize("net, example, expected", [
    (two(lambda net, x: checkpoint(lambda x: net.b(torch.relu(net.a(x))), x, use_reentrant=True)), X,
     {("a.weight", "a.bias", "b.weight", "b.bias"): UNSEEN}),
    (Net(lambda net, x: x @ torch.kron(net.a, net.b).T, a=nn.Parameter(torch.ones(2, 3)), b=nn.Parameter(torch.ones(2, 1))), X,
     {("a",): "kron at forward Net", ("b",): "kron at forward Net"}),
    (norm(nn.GroupNorm(2, 4, eps=0.0)), example_of((2, 4, 5)),
     {("0.weight", "0.bias"): f"group_norm at 1 GroupNorm, {SHIFTS}"}),
    (norm(nn.InstanceNorm1d(4, eps=0.0)), example_of((2, 4, 5)),
     {("0.weight", "0.bias"): f"instance_norm at 1 InstanceNorm1d, {SHIFTS}"}),
    (two(recurrent, w=Linear(4, 4, bias=False)), X,
     {("a.weight", "a.bias", "w.weight"): "only one scale fits its uses, linear at w Linear"}),
    (hooked(nn.utils.weight_norm), X, {("0.bias",): "a hook on 0", ("0.weight_g", "0.weight_v"): "a hook on 0"}),
    (hooked(prune.l1_unstructured, "weight", 0.5), X, {("0.bias",): "a hook on 0", ("0.weight_orig",): "a hook on 0"})])
def test_what_no_law_names_is_named_with_its_reason(net, example, expected):
    laws = dl.laws(net, example)
    assert {one.parameters: one.reason for one in laws.refused} == expected
    assert not any({*law.parameters} & {name for names in expected for name in names} for law in laws)


def test_a_compiled_network_asks_for_what_was_compiled():
    compiled = torch.compile(Linear(3, 2), backend="eager")
    for net, name in ((compiled, "the network"), (nn.Sequential(compiled), "0")):
        assert [one.reason for one in dl.laws(net, X).refused] == [f"{name} is compiled; pass the module that was compiled"]


def test_a_network_that_cannot_be_copied_is_refused():
    net = two(lambda net, x: net.b(torch.relu(net.a(x))), lines=(line for line in "ab"))
    assert [one.reason for one in dl.laws(net, X).refused] == ["copy.deepcopy raises TypeError: cannot pickle 'generator' object"]
