"""Key biases that softmax does not see, and the laws of queries and keys under rotary positions: all there are, and no more."""

import itertools

import deeplinear as dl
import pytest
import torch
from network_step import prepared, step, texts
from torch import nn
from torch.nn import functional as F

WIDTH, LENGTH = 5, 6
X = dl.normal(2, LENGTH, WIDTH, generator=dl.seeded(1)).float()


class Heads(nn.Module):
    """One layer of softmax attention; ``queries``, ``keys`` and ``scores`` are functions of these, ``joined`` of keys and values."""

    def __init__(self, head, heads=2, groups=2, turn=lambda x: x, scores=None, keys=lambda k: k, bias=True):
        super().__init__()
        self.q, self.k = nn.Linear(WIDTH, heads * head, bias), nn.Linear(WIDTH, groups * head, bias)
        self.v, self.o = nn.Linear(WIDTH, groups * head), nn.Linear(heads * head, 3)
        self.head, self.repeats, self.turn, self.scores, self.keys = head, heads // groups, turn, scores, keys

    def forward(self, x):
        q, k, v = (layer(x).unflatten(-1, (-1, self.head)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        q, k = self.turn(q), self.keys(self.turn(k))
        k, v = (part.repeat_interleave(self.repeats, 1) for part in (k, v))
        if self.scores is None:
            y = F.scaled_dot_product_attention(q, k, v)
        else:
            y = self.scores(q @ k.transpose(-1, -2) / 2) @ v
        return self.o(y.transpose(1, 2).flatten(2))


def turned(frequencies, style="halves"):
    """Rotary positions on the first channels of a head, in three of the ways in which they are written."""
    pairs = len(frequencies)

    def turn(x):
        angles = torch.arange(x.shape[-2])[:, None] * torch.tensor(frequencies).to(x)
        part, rest = x[..., :2 * pairs], x[..., 2 * pairs:]
        if style == "complex":
            part = torch.view_as_complex(part.unflatten(-1, (-1, 2)).contiguous()) * torch.polar(torch.ones_like(angles), angles)
            part = torch.view_as_real(part).flatten(-2)
        elif style == "neighbours":
            a, b = part[..., ::2], part[..., 1::2]
            part = torch.stack([a * angles.cos() - b * angles.sin(), a * angles.sin() + b * angles.cos()], -1).flatten(-2)
        else:
            cos, sin = (torch.cat([table, table], -1) for table in (angles.cos(), angles.sin()))
            part = part * cos + torch.cat([-part[..., pairs:], part[..., :pairs]], -1) * sin
        return torch.cat([part, rest], -1)
    return turn


def expected(frequencies, plain):
    """n0 (n0 + 1) / 2 laws of what is not rotated, mu^2 of mu pairs that rotate alike, up to the sign."""
    still = plain + 2 * sum(f == 0 for f in frequencies)
    turning = [abs(f) for f in frequencies if f]
    return still * (still + 1) // 2 + sum(turning.count(f) ** 2 for f in set(turning))


def measured(net, head):
    """How many pairs of symmetric matrices M, N have <M W_Q, dW_Q> = <N W_K, dW_K> for all weights and losses: one head."""
    pairs, rows = list(itertools.combinations_with_replacement(range(head), 2)), []
    for draw in range(2 * len(pairs) + 8):
        prepared(net, seed=draw)
        net.zero_grad()
        (net(X.double()) * dl.normal(2, LENGTH, 3, generator=dl.seeded(draw))).sum().backward()
        products = [torch.cat([part.weight, part.bias[:, None]], 1).detach() @ torch.cat([part.weight.grad, part.bias.grad[:, None]], 1).T
                    for part in (net.q, net.k)]
        row = torch.tensor([sign * (product[i, j] + product[j, i]) for product, sign in zip(products, (1, -1)) for i, j in pairs])
        rows.append(row / row.norm())
    values = torch.linalg.svdvals(torch.stack(rows))
    count = int((values < 1e-9).sum())
    assert len(values) == count or values[-count - 1] > 1e-7  # a gap
    return count


@pytest.mark.parametrize("style", ["halves", "neighbours", "complex"])
@pytest.mark.parametrize("frequencies, plain", [
    ([1.0, 0.3], 0), ([1.0, 1.0], 0), ([1.0, -1.0], 0), ([1.0], 2), ([1.0, 0.0], 1), ([0.5, 0.5, 0.5], 0), ([0.5, 1.0, 0.5], 1)])
def test_the_laws_of_rotary_positions_are_all_that_commutes_with_them(frequencies, plain, style):
    head = 2 * len(frequencies) + plain
    net = Heads(head, turn=turned(frequencies, style))
    laws = dl.laws(net, X)
    ours = [law for law in laws if "q.weight" in law.parameters]
    number = 2 * expected(frequencies, plain)
    assert sum(law.count for law in ours) == number
    assert laws.count == sum(law.count for law in laws)  # by exact ranks, they are independent
    for scale in (0.3, 1.0):
        defect, change = step(prepared(net, scale), laws, X)
        assert defect < 1e-14 and change > 1e-12
    if style == "halves":
        one = Heads(head, 1, 1, turn=turned(frequencies))
        assert measured(one, head) == number // 2
    assert not any("its defect is" in one.reason for one in laws.refused)


def test_grouped_queries_share_the_laws_of_their_rotation():
    net = Heads(4, heads=4, groups=2, turn=turned([1.0, 1.0]))
    laws = dl.laws(net, X)
    assert [(law.shape, law.count) for law in laws if "q.weight" in law.parameters] == [((4,), 4), ((2,), 2), ((2,), 2)]
    assert step(prepared(net), laws, X)[0] < 1e-14


def test_a_product_of_two_rows_that_turn_apart_is_no_law():
    net, other = (Heads(4, 1, 1, turn=turned(frequencies)) for frequencies in ([1.0, 1.0], [1.0, 0.3]))
    laws = [law for law in dl.laws(net, X) if any(term.others is not None for term in law.terms)]
    assert len(laws) == 2
    for law in laws:
        assert step(prepared(net), [law], X, rate=1e-3)[0] < 1e-14
        assert step(prepared(other), [dl.networks.Law(law.terms, False, other)], X, rate=1e-3)[0] > 1e-8


@pytest.mark.parametrize("use", [
    lambda q: q.square().sum(1, keepdim=True).mean(), lambda q: q[..., :1].relu().sum(), lambda q: (q[..., 0] / q[..., 1]).sum()])
def test_queries_that_are_read_elsewhere_keep_less(use):
    class Read(Heads):
        def forward(self, x):
            q = self.q(x).unflatten(-1, (-1, self.head))
            return super().forward(x) + use(q)

    net = Read(4, 1, 1, turn=turned([1.0, 1.0]))
    laws = dl.laws(net, X)
    assert step(prepared(net, 0.5), laws, X)[0] < 1e-13
    assert sum(law.count for law in laws if "q.weight" in law.parameters) < 4


KEYS = ("k.bias", (4,), 4)
BY_HAND = {"softmax": lambda s: s.softmax(-1),
           "causal": lambda s: s.masked_fill(torch.ones(LENGTH, LENGTH).tril() == 0, -torch.inf).softmax(-1),
           "an added mask": lambda s: (s + torch.ones(LENGTH, LENGTH).to(s).triu() / 3).softmax(-1),
           "another precision": lambda s: s.softmax(-1, dtype=torch.float64).type_as(s)}


@pytest.mark.parametrize("name", ["PyTorch's", *BY_HAND])
def test_a_key_bias_keeps_its_value(name):
    net = Heads(2, scores=BY_HAND.get(name))
    laws = dl.laws(net, X)
    law, = [law for law in laws if law.linear]
    assert texts([law]) == [KEYS] and not any("keys of attention" in one.reason for one in laws.refused)
    net = prepared(net)
    net(X.double()).square().sum().backward()
    assert net.k.bias.grad.abs().max() < 1e-13 * net.q.bias.grad.abs().max()
    assert torch.equal(law.value(), net.k.bias) and torch.equal(law.change(), torch.zeros(4, dtype=torch.float64))
    before = law.value()
    with torch.no_grad():  # decay, that multiplies squares by (1 - lr lambda)^2, multiplies a value once
        for parameter in net.parameters():
            parameter.mul_(1 - 0.1 * 0.3).sub_(0.1 * parameter.grad)
    assert (law.value() - 0.97 * before).abs().max() < 1e-12


SEEN = {
    "rotary positions": ({"turn": turned([1.0])}, "mul at forward Heads"),
    "a norm of keys": ({"keys": lambda k: F.rms_norm(k, (2,))}, "rms_norm at forward Heads"),
    "a joined key": ({"keys": lambda k: torch.cat([k, torch.zeros_like(k[..., :1, :])], 2)[:, :, 1:]}, "keys joined to others"),
    "keys scaled one by one": ({"keys": lambda k: k * torch.arange(LENGTH).to(k)[:, None]}, "mul at forward Heads"),
    "a sigmoid": ({"scores": torch.sigmoid}, None),
    "softmax over queries": ({"scores": lambda s: s.softmax(-2)}, None),
    "a finite mask": ({"scores": lambda s: s.masked_fill(torch.ones(LENGTH, LENGTH).tril() == 0, -9.0).softmax(-1)},
                      "masked_fill at forward Heads"),
    "scores squared": ({"scores": lambda s: s.square().softmax(-1)}, "square at forward Heads")}


@pytest.mark.parametrize("name", SEEN)
def test_a_key_bias_that_is_seen_is_refused_and_does_move(name):
    changes, reason = SEEN[name]
    net = Heads(2, **changes)
    laws = dl.laws(net, X)
    assert "k.bias" not in [name for law in laws if law.linear for name in law.parameters]
    told = [one.reason for one in laws.refused if one.parameters == ("k.bias",) and "keys of attention" in one.reason]
    assert reason is None or told == [f"does not move all keys of attention alike: {reason}"]
    prepared(net)(X.double()).square().sum().backward()
    assert net.k.bias.grad.abs().max() > 1e-3 * net.q.bias.grad.abs().max()


@pytest.mark.parametrize("kind, linear, told", [
    ({}, ["in_proj_bias[4:8]"], []), ({"add_bias_kv": True}, ["in_proj_bias[4:8] + bias_k"], []),  # each of the two moves
    ({"add_zero_attn": True}, [], ["does not move all keys of attention alike: keys joined to others"])])
def test_the_key_bias_of_multihead_attention(kind, linear, told):
    net, inputs = nn.MultiheadAttention(4, 2, batch_first=True, **kind), 3 * (X[..., :4],)
    laws = dl.laws(net, inputs)
    assert [str(law) for law in laws if law.linear] == linear
    assert [one.reason for one in laws.refused if one.parameters == ("in_proj_bias",)] == told
    assert [law.shape for law in laws if law.gram] == [(2, 2, 2), (2, 2, 2)]  # those of heads stay
    assert step(prepared(net), laws, inputs)[0] < 1e-14
    prepared(net)(*(x.double() for x in inputs))[0].square().sum().backward()
    moved = net.in_proj_bias.grad[4:8].abs().max().item() > 1e-4 * net.in_proj_bias.grad.abs().max().item()
    assert moved is bool(kind)
