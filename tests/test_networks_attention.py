"""The laws of transformers: attention, rotary positions, norms, gates, tied weights; and what is not kept."""

import deeplinear as dl
import pytest
import torch
from network_step import Net, prepared, step, texts
from torch import nn
from torch.nn import functional as F

WIDTH, HEADS, GROUPS, HEAD, LENGTH = 8, 4, 2, 4, 5
X = dl.normal(2, LENGTH, WIDTH, generator=dl.seeded(1)).float()
WORDS = torch.arange(10).reshape(2, LENGTH) % 7


def rotate(x):
    """Rotary positions, with two frequencies for a head of four."""
    half = x.shape[-1] // 2
    angle = torch.arange(x.shape[-2])[:, None] * 10.0 ** -torch.arange(half)
    cos, sin = (torch.cat([part, part], -1) for part in (angle.cos(), angle.sin()))
    return x * cos + torch.cat([-x[..., half:], x[..., :half]], -1) * sin


class Attention(nn.Module):
    """Grouped queries; ``eps``: of norms of queries and keys; ``middle``: a function of what the heads give."""

    def __init__(self, rope=False, eps=None, middle=None, groups=GROUPS, bias=True):
        super().__init__()
        self.q, self.k = nn.Linear(WIDTH, HEADS * HEAD, bias), nn.Linear(WIDTH, groups * HEAD, bias)
        self.v, self.o = nn.Linear(WIDTH, groups * HEAD, bias), nn.Linear(HEADS * HEAD, WIDTH, bias)
        self.nq, self.nk = (nn.Identity() if eps is None else nn.RMSNorm(HEAD, eps) for _ in range(2))
        self.rope, self.middle = rope, middle

    def forward(self, x):
        q, k, v = (layer(x).unflatten(-1, (-1, HEAD)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        q, k = self.nq(q), self.nk(k)
        if self.rope:
            q, k = rotate(q), rotate(k)
        k, v = (part.repeat_interleave(HEADS // part.shape[1], 1) for part in (k, v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        y = y if self.middle is None else self.middle(x, y)
        return self.o(y.transpose(1, 2).flatten(2))


class Native(Attention):
    """Groups left to PyTorch."""

    def forward(self, x):
        q, k, v = (layer(x).unflatten(-1, (-1, HEAD)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        return self.o(F.scaled_dot_product_attention(q, k, v, enable_gqa=True).transpose(1, 2).flatten(2))


class ByHand(nn.Module):
    """Weights one matrix a head, products by ``einsum``."""

    def __init__(self):
        super().__init__()
        self.q, self.k, self.v = (nn.Parameter(torch.empty(HEADS, WIDTH, HEAD)) for _ in range(3))
        self.o = nn.Parameter(torch.empty(HEADS, HEAD, WIDTH))

    def forward(self, x):
        q, k, v = (torch.einsum("bte,hed->bhtd", x, weight) for weight in (self.q, self.k, self.v))
        scores = torch.einsum("bhid,bhjd->bhij", q, k) / 2
        mask = torch.ones(LENGTH, LENGTH, dtype=torch.bool).tril()
        scores = scores.masked_fill(~mask, -torch.inf).softmax(-1)
        return torch.einsum("bhtd,hde->bte", scores @ v, self.o)


class GPT(nn.Module):
    """A block with grouped queries and SwiGLU between an embedding and a head; ``tied``: they share their table."""

    def __init__(self, eps=1e-5, tied=False):
        super().__init__()
        linear = lambda n, m: nn.Linear(n, m, bias=False)
        self.table, self.place = nn.Embedding(7, WIDTH), nn.Parameter(torch.zeros(LENGTH, WIDTH))
        self.attend = Attention(rope=True, bias=False)
        self.n1, self.n2, self.n3 = (nn.RMSNorm(WIDTH, eps) for _ in range(3))
        self.gate, self.up, self.down, self.head = linear(WIDTH, 6), linear(WIDTH, 6), linear(6, WIDTH), linear(WIDTH, 7)
        if tied:
            self.head.weight = self.table.weight

    def forward(self, words):
        x = self.table(words) + self.place
        x = x + self.attend(self.n1(x))
        y = self.n2(x)
        x = x + self.down(F.silu(self.gate(y)) * self.up(y))
        return self.head(self.n3(x))


def gated(**parts):
    return {name: nn.Linear(*(part if isinstance(part, tuple) else (WIDTH, part))) for name, part in parts.items()}


HEADS_QK = ("<q.weight> + <q.bias> - <k.weight> - <k.bias>", (GROUPS, HEAD, HEAD), 20)
HEADS_VO = ("<o.weight> - <v.weight> - <v.bias>", (GROUPS, HEAD, HEAD), 20)
KEYS = ("k.bias", (8,), 8)  # softmax does not see it
MHA = [("in_proj_bias[8:16]", (8,), 8),
       ("<in_proj_weight[:8]> + <in_proj_bias[:8]> - <in_proj_weight[8:16]> - <in_proj_bias[8:16]>", (2, 4, 4), 20),
       ("<out_proj.weight> - <in_proj_weight[16:24]> - <in_proj_bias[16:24]>", (2, 4, 4), 20)]
INSIDE = [(text.replace("in_proj", "self_attn.in_proj").replace("out_proj", "self_attn.out_proj"), *more) for text, *more in MHA]
FEED = ("|linear2.weight|^2 - |linear1.weight|^2 - |linear1.bias|^2", (6,), 6)
BLOCK = [("<attend.o.weight> - <attend.v.weight>", (GROUPS, HEAD, HEAD), 20), ("|down.weight|^2 - |up.weight|^2", (6,), 6),
         ("|attend.q.weight|^2 - |attend.k.weight|^2", (4,), 4),
         ("|gate.weight|^2 + |up.weight|^2 - |n2.weight|^2", (8,), 8),
         ("|attend.q.weight|^2 + |attend.k.weight|^2 + |attend.v.weight|^2 - |n1.weight|^2", (8,), 8)]
STREAM = ("|place|^2 + |table.weight|^2 + |attend.o.weight|^2 + |down.weight|^2", (1,), 1)
READING = ("|head.weight|^2 - |n3.weight|^2", (8,), 8)

LINEAR_ATTENTION = [("|q.weight|^2 + |q.bias|^2 - |k.weight|^2 - |k.bias|^2", (3,), 3),
                    ("|o.weight|^2 - |v.weight|^2 - |v.bias|^2", (3,), 3),
                    ("|o.weight|^2 - |q.weight|^2 - |q.bias|^2", (1,), 1)]  # this one sums over all units

KEPT = {
    "grouped queries": (Attention, X, [HEADS_QK, HEADS_VO, KEYS]),
    "groups left to PyTorch": (Native, X, [HEADS_QK, HEADS_VO, KEYS]),
    "one matrix a head": (ByHand, X, [("<q> - <k>", (4, 4, 4), 40), ("<o> - <v>", (4, 4, 4), 40)]),
    "rotary positions": (lambda: Attention(rope=True), X, [
        ("|q.weight|^2 + |q.bias|^2 - |k.weight|^2 - |k.bias|^2", (4,), 4), HEADS_VO]),
    "norms of queries and keys": (lambda: Attention(eps=1e-6), X, [HEADS_VO, ("|nq.weight|^2 - |nk.weight|^2", (4,), 4)]),
    "such norms and rotary positions": (lambda: Attention(eps=1e-6, rope=True), X, [
        HEADS_VO, ("|nq.weight|^2 - |nk.weight|^2", (2,), 2)]),
    "such norms without eps": (lambda: Attention(eps=0.0), X, [
        ("|q.weight|^2 + |q.bias|^2", (4,), 4), ("|k.weight|^2 + |k.bias|^2", (2,), 2), HEADS_VO,
        ("|nq.weight|^2 - |nk.weight|^2", (4,), 4)]),
    "a gate on the heads": (lambda: Attention(middle=lambda x, y: y * torch.sigmoid(x[:, None, :, :HEAD])), X, [
        HEADS_QK, KEYS, ("|o.weight|^2 - |v.weight|^2 - |v.bias|^2", (8,), 8)]),
    "a norm on the heads": (lambda: Attention(middle=lambda x, y: F.layer_norm(y, (HEAD,))), X, [HEADS_QK, KEYS]),
    "MultiheadAttention": (lambda: nn.MultiheadAttention(8, 2, batch_first=True), (X, X, X), MHA),
    "an encoder layer": (lambda: nn.TransformerEncoderLayer(8, 2, 6, batch_first=True), X, [*INSIDE, FEED]),
    "an encoder layer, norms first": (
        lambda: nn.TransformerEncoderLayer(8, 2, 6, batch_first=True, norm_first=True), X, [
            *INSIDE, FEED, ("|self_attn.in_proj_weight|^2 - |norm1.weight|^2 - |norm1.bias|^2", (8,), 8),
            ("|linear1.weight|^2 - |norm2.weight|^2 - |norm2.bias|^2", (8,), 8)]),
    "SwiGLU": (lambda: Net(lambda net, x: net.down(F.silu(net.gate(x)) * net.up(x)), **gated(gate=5, up=5, down=(5, 3))), X, [
        ("|down.weight|^2 - |up.weight|^2 - |up.bias|^2", (5,), 5)]),
    "ReGLU": (lambda: Net(lambda net, x: net.down(F.relu(net.gate(x)) * net.up(x)), **gated(gate=5, up=5, down=(5, 3))), X, [
        ("|down.weight|^2 - |gate.weight|^2 - |gate.bias|^2", (5,), 5),
        ("|down.weight|^2 - |up.weight|^2 - |up.bias|^2", (5,), 5)]),
    "bilinear": (lambda: Net(lambda net, x: net.down(net.gate(x) * net.up(x)), **gated(gate=5, up=5, down=(5, 3))), X, [
        ("|down.weight|^2 - |gate.weight|^2 - |gate.bias|^2", (5,), 5),
        ("|down.weight|^2 - |up.weight|^2 - |up.bias|^2", (5,), 5)]),
    "GLU": (lambda: nn.Sequential(nn.Linear(8, 6), nn.GLU(), nn.Linear(3, 2)), X, [
        ("|2.weight|^2 - |0.weight[:3]|^2 - |0.bias[:3]|^2", (3,), 3)]),
    "GELU": (lambda: nn.Sequential(nn.Linear(8, 6), nn.GELU(), nn.Linear(6, 2)), X, []),
    "linear attention": (lambda: Net(lambda net, x: net.o(net.q(x) @ (net.k(x).mT @ net.v(x))), **gated(q=3, k=3, v=3, o=(3, 2))),
                         X, LINEAR_ATTENTION),
    "a norm by hand": (
        lambda: Net(lambda net, x: net.o(net.e(x) * torch.rsqrt(net.e(x).pow(2).mean(-1, keepdim=True) + 1e-6) * net.g),
                    **gated(e=6, o=(6, 2)), g=nn.Parameter(torch.ones(6))), X, [("|o.weight|^2 - |g|^2", (6,), 6)]),
    "a block": (GPT, WORDS, [*BLOCK, READING]),
    "a block without eps": (lambda: GPT(eps=0.0), WORDS, [STREAM, *BLOCK, READING]),
    "a block with its table tied": (lambda: GPT(tied=True), WORDS, BLOCK),
}


@pytest.mark.parametrize("name", KEPT)
def test_laws_of_transformers_are_kept_by_every_step(name):
    build, example, expected = KEPT[name]
    net = build()
    laws = dl.laws(net, example)
    assert sorted(texts(laws)) == sorted(expected)
    assert laws.count == sum(law.count for law in laws)
    for scale in (0.3, 1.0):
        defect, change = step(prepared(net, scale), laws, example)
        assert defect < 1e-14 and (change > 1e-15 or not expected)
    assert all("misread" not in one.reason and "its defect is" not in one.reason for one in laws.refused)


@pytest.mark.parametrize("rope, reason", [(True, "rms_norm at n"), (False, "rms_norm at n")])
def test_norms_of_queries_and_keys_refuse_their_weights_by_name(rope, reason):
    laws = dl.laws(Attention(rope=rope, eps=1e-6), X)
    assert {one.parameters for one in laws.refused if one.reason.startswith(reason)} == {("q.weight", "q.bias"), ("k.weight", "k.bias")}
