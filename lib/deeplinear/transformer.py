"""A small GPT that reads characters, a text of number words that it learns to count from, and a trainer of a few lines.

Tokens are integers, shape (n, time); outputs are logits, shape (n, time, characters). Everything is float64 by default, so
that ten digits of a short run stand on every processor, and every draw comes from a generator of the caller's.
"""

from typing import Any, Protocol

import torch
from torch import nn
from torch.nn import functional as F

from . import chain

SMALL = ("zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
         "eighteen nineteen").split()
TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()


class Optimizer(Protocol):
    """What :func:`train` asks of an optimiser: any of ``torch.optim``, or one that moves the parameters by several."""

    def zero_grad(self) -> None: ...

    def step(self) -> Any: ...


def number(n: int) -> str:
    """The name of a number from 0 to 999, as in "three hundred and forty-two"."""
    if not 0 <= n <= 999:
        raise ValueError(f"n is {n!r}; expected an integer from 0 to 999")
    if n >= 100:
        return f"{SMALL[n // 100]} hundred" + (f" and {number(n % 100)}" if n % 100 else "")
    return SMALL[n] if n < 20 else TENS[n // 10 - 2] + (f"-{SMALL[n % 10]}" if n % 10 else "")


def text(last: int = 999) -> str:
    """All numbers from 0 to ``last`` in words, in order: 26 kB of a text that nobody owns."""
    return ", ".join(number(n) for n in range(last + 1)) + "."


def encode(words: str, alphabet: str | None = None) -> torch.Tensor:
    """The characters of ``words`` as integers, their places in ``alphabet``: by default its own characters, sorted."""
    alphabet = "".join(sorted(set(words))) if alphabet is None else alphabet
    if strange := set(words) - set(alphabet):
        raise ValueError(f"words have the characters {sorted(strange)!r}; expected those of the alphabet {alphabet!r}")
    return torch.tensor([alphabet.index(character) for character in words])


def rotate(x: torch.Tensor) -> torch.Tensor:
    """Rotary positions: channel i of a head of ``2 m`` turns with channel i + m, by ``time * 10000^(-i / m)``;
    x (..., time, 2 m)."""
    half = x.shape[-1] // 2
    times, channels = (torch.arange(n, dtype=x.dtype, device=x.device) for n in (x.shape[-2], half))
    angle = times[:, None] * 10000.0 ** -(channels / half)
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()], -1)


class Attention(nn.Module):
    """Causal attention with ``heads`` queries that share ``groups`` keys and values; ``rope``: rotary positions;
    ``qk_norm``: the epsilon of an RMS norm on the queries and keys of each head, None for no norm. x (n, time, width)."""

    def __init__(self, width: int, heads: int, groups: int, bias: bool = True, rope: bool = False,
                 qk_norm: float | None = None) -> None:
        super().__init__()
        if width % heads or heads % groups or rope and width // heads % 2:
            raise ValueError(f"width is {width}, heads {heads}, groups {groups}; expected heads that divide the width, groups "
                             "that divide the heads, and with rope an even number of channels in a head")
        self.size, self.rope = width // heads, rope
        self.q, self.o = nn.Linear(width, width, bias), nn.Linear(width, width, bias)
        self.k, self.v = (nn.Linear(width, groups * self.size, bias) for _ in range(2))
        self.nq, self.nk = (nn.Identity() if qk_norm is None else nn.RMSNorm(self.size, qk_norm) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (layer(x).unflatten(-1, (-1, self.size)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        q, k = self.nq(q), self.nk(k)
        if self.rope:
            q, k = rotate(q), rotate(k)
        k, v = (part.repeat_interleave(q.shape[1] // k.shape[1], 1) for part in (k, v))
        scores = q @ k.mT / self.size**0.5
        later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=x.device).triu(1)
        return self.o((scores.masked_fill(later, -torch.inf).softmax(-1) @ v).transpose(1, 2).flatten(2))


class Feed(nn.Module):
    """``up``, GELU, ``down``; with ``swiglu`` the product of ``up`` with the SiLU of ``gate``, then ``down``."""

    def __init__(self, width: int, hidden: int, bias: bool = True, swiglu: bool = False) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(width, hidden, bias), nn.Linear(hidden, width, bias)
        self.gate = nn.Linear(width, hidden, bias) if swiglu else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(F.gelu(self.up(x)) if self.gate is None else F.silu(self.gate(x)) * self.up(x))


class Block(nn.Module):
    """Attention and a feed-forward layer, each behind an RMS norm, each added to the stream."""

    def __init__(self, width: int, heads: int, groups: int, hidden: int, bias: bool, rope: bool, qk_norm: float | None,
                 swiglu: bool) -> None:
        super().__init__()
        self.n1, self.n2 = nn.RMSNorm(width, 1e-5), nn.RMSNorm(width, 1e-5)
        self.attend, self.feed = Attention(width, heads, groups, bias, rope, qk_norm), Feed(width, hidden, bias, swiglu)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attend(self.n1(x))
        return x + self.feed(self.n2(x))


class GPT(nn.Module):
    """``blocks`` between a table of ``characters`` (and of ``length`` places, without ``rope``) and a head, tied to nothing.

    ``groups``: of keys and values, by default one for each head. ``hidden``: by default twice the width.
    """

    def __init__(self, characters: int, width: int = 32, heads: int = 4, blocks: int = 2, length: int = 32,
                 hidden: int | None = None, groups: int | None = None, bias: bool = True, rope: bool = False,
                 qk_norm: float | None = None, swiglu: bool = False) -> None:
        super().__init__()
        self.length, self.table = length, nn.Embedding(characters, width)
        self.place = None if rope else nn.Parameter(torch.zeros(length, width))
        self.blocks = nn.ModuleList(Block(width, heads, groups or heads, hidden or 2 * width, bias, rope, qk_norm, swiglu)
                                    for _ in range(blocks))
        self.norm, self.head = nn.RMSNorm(width, 1e-5), nn.Linear(width, characters, bias)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """The logits of the next character, shape (batch, length, characters), of ``tokens``, integers (batch, length)."""
        x = self.table(tokens)
        if self.place is not None:
            x = x + self.place[:tokens.shape[1]]
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


def build(characters: int, generator: torch.Generator, dtype: torch.dtype = torch.float64, **architecture: Any) -> GPT:
    """A :class:`GPT` at a start from ``generator``: matrices normal with variance one over their inputs, the tables with
    standard deviation 0.1, biases 0, gains 1. ``architecture``: the keywords of :class:`GPT`."""
    with chain.forked(0):  # PyTorch's own draws, replaced here
        net = GPT(characters, **architecture).to(dtype)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if parameter.ndim == 2:
                std = 0.1 if name in ("table.weight", "place") else parameter.shape[1] ** -0.5
                parameter.copy_(std * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
            elif name.endswith("bias"):
                parameter.zero_()
    return net


def windows(tokens: torch.Tensor, length: int, count: int, generator: torch.Generator) -> torch.Tensor:
    """``count`` pieces of ``length`` tokens each, from places drawn at random; (count, length)."""
    if length > len(tokens):
        raise ValueError(f"length is {length}; expected at most the {len(tokens)} tokens of the text")
    first = torch.randint(len(tokens) - length + 1, (count, 1), generator=generator)
    return tokens[first + torch.arange(length)]


def loss(net: nn.Module, pieces: torch.Tensor) -> torch.Tensor:
    """The mean cross-entropy, in nats a character, of each next token; ``pieces`` (n, time + 1)."""
    return F.cross_entropy(net(pieces[:, :-1]).flatten(0, 1), pieces[:, 1:].flatten())


def train(net: nn.Module, optimizer: Optimizer, tokens: torch.Tensor, steps: int, generator: torch.Generator,
          length: int = 32, batch: int = 16) -> torch.Tensor:
    """The losses (steps,) of ``steps`` steps of the caller's optimiser, each on a batch of pieces of the text, before the
    step; the network is trained in place."""
    losses = torch.empty(steps, dtype=torch.float64)
    for step in range(steps):
        optimizer.zero_grad()
        value = loss(net, windows(tokens, length + 1, batch, generator))
        value.backward()
        optimizer.step()
        losses[step] = value.detach()
    return losses
