"""What a law calls a parameter that it takes in parts: each print says which entries its term has."""

import deeplinear as dl
import pytest
import torch
from deeplinear.networks import labels
from network_step import Net, example_of, prepared, step
from torch import nn
from torch.nn import functional as F

Linear, Conv = nn.Linear, nn.Conv2d


def unrolled(activation=torch.relu, times=2):
    def forward(net, x):
        h = activation(net.u(x))
        for _ in range(times):
            h = activation(net.r(h) + net.u(x))
        return net.v(h)
    return forward


def recurrent(units, **more):
    return lambda: Net(unrolled(**more), u=Linear(3, units), r=Linear(units, units, bias=False), v=Linear(units, 2))


def by_head(net, x):
    q, k, v = net.qkv(x).unflatten(-1, (2, 3, 4)).transpose(1, 2).unbind(3)
    return net.o(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


HIDDEN = "|v.weight|^2 - |u.weight|^2 - |u.bias|^2"
PRINTED = {
    "recurrent, ReLU": (recurrent(4), (5, 3), [f"|columns of r.weight|^2 + {HIDDEN} - |rows of r.weight|^2"]),
    "of two units": (recurrent(2), (5, 3), [f"|columns of r.weight|^2 + {HIDDEN} - |rows of r.weight|^2"]),
    "linear": (recurrent(4, activation=lambda z: z), (5, 3), [f"|columns of r.weight|^2 + {HIDDEN} - |rows of r.weight|^2"]),
    "convolutions": (lambda: Net(unrolled(), u=Conv(1, 4, 3, padding=1), r=Conv(4, 4, 3, padding=1, bias=False), v=Conv(4, 2, 1)),
                     (2, 1, 6, 6), [f"|axis 1 of r.weight|^2 + {HIDDEN} - |axis 0 of r.weight|^2"]),
    "of degree two": (recurrent(4, activation=lambda z: torch.relu(z) ** 2, times=1), (5, 3), [
        "2 |columns of r.weight off its diagonal|^2 + |diagonal of r.weight|^2 + 2 |v.weight|^2 - |u.weight|^2 - |u.bias|^2 "
        "- |rows of r.weight off its diagonal|^2"]),
    "heads by heads": (lambda: Net(by_head, qkv=Linear(8, 24), o=Linear(8, 8)), (2, 5, 8), [
        "<rows 0:4, 12:16 of qkv.weight> + <entries 0:4, 12:16 of qkv.bias> - <rows 4:8, 16:20 of qkv.weight> "
        "- <entries 4:8, 16:20 of qkv.bias>",
        "<o.weight> - <rows 8:12, 20:24 of qkv.weight> - <entries 8:12, 20:24 of qkv.bias>", "entries 4:8, 16:20 of qkv.bias"])}


@pytest.mark.parametrize("name", PRINTED)
def test_a_parameter_that_occurs_twice_says_which_entries_it_means(name):
    build, shape, printed = PRINTED[name]
    net, example = build(), example_of(shape)
    laws = dl.laws(net, example)
    assert [str(law) for law in laws] == printed
    assert all(text in str(laws) for text in printed)
    assert step(prepared(net, 0.3), laws, example)[0] < 1e-13


def test_columns_are_what_is_read_and_rows_what_is_written():
    """Of each unit, by hand; the other way round it is another number."""
    net = prepared(recurrent(2)())
    (law,) = dl.laws(net, example_of((5, 3)))
    r, u, v = (part.detach().square() for part in (net.r.weight, net.u.weight, net.v.weight))
    rest = v.sum(0) - u.sum(1) - net.u.bias.detach().square()
    assert law.shape == (2,)
    torch.testing.assert_close(law.value().sort().values, (rest + r.sum(0) - r.sum(1)).sort().values, rtol=0, atol=1e-14)
    assert (law.value().sort().values - (rest + r.sum(1) - r.sum(0)).sort().values).abs().max() > 1e-3


def test_every_label_of_a_law_is_another_and_names_its_entries():
    net = Net(lambda net, x: net.v(torch.relu(net.r(torch.relu(net.r(net.e(x)))))), e=Linear(3, 4), r=Linear(4, 4, bias=False),
              v=Linear(4, 2))
    for law in dl.laws(net, example_of((5, 3))):
        names = [term.label for term in law.terms]
        assert len(set(names)) == len(names)
        for term in law.terms:
            said = labels.part_of(term.entries, net.get_parameter(term.name).shape)
            assert " of " in term.label or term.label == term.name + said
