"""Random modules: a grammar of steps on (batch, tokens, channels), of which many keep laws and many do not."""

import random

import torch
from torch import nn
from torch.nn import functional as F

BATCH, LENGTH = 2, 4


class Drawn(nn.Module):
    """A random chain of steps on (batch, tokens, channels); ``text`` names them."""

    def __init__(self, seed):
        super().__init__()
        self.draw, self.steps, self.text, self.width = random.Random(seed), [], [], 0
        torch.manual_seed(seed)
        self.width = self.draw.choice([3, 4, 6])
        self.words = self.draw.random() < 0.2
        if self.words:
            self.table = nn.Embedding(5, self.width)
        self.example = torch.arange(BATCH * LENGTH).reshape(BATCH, LENGTH) % 5 if self.words else torch.randn(
            BATCH, LENGTH, self.width)
        for _ in range(self.draw.randint(3, 6)):
            self._extend(self.draw.choice(STEPS))
        self._extend(self.draw.choice([dense, dense, sigmoid_head, flat_head]))
        del self.draw

    def _extend(self, rule):
        found = rule(self, f"p{len(self.steps)}")
        if found is not None:
            self.steps.append(found)
            self.text.append(rule.__name__)

    def part(self, name, part):
        setattr(self, name, part)
        return part

    def forward(self, x):
        x, shown = self.table(x) if self.words else x, []
        for one in self.steps:
            x = one(self, x, shown)
        return [x, *shown]


def dense(net, name):
    width, net.width = net.width, net.draw.choice([2, 4, 6])
    net.part(name, nn.Linear(width, net.width, bias=net.draw.random() < 0.6))
    return lambda net, x, shown: getattr(net, name)(x)


def sigmoid_head(net, name):
    first = dense(net, name)
    return lambda net, x, shown: torch.sigmoid(first(net, x, shown))


def flat_head(net, name):
    net.part(name, nn.Linear(LENGTH * net.width, 2))
    return lambda net, x, shown: getattr(net, name)(x.reshape(BATCH, -1))


def activation(net, name):
    part = net.draw.choice([nn.ReLU, nn.ReLU, nn.LeakyReLU, nn.PReLU, nn.Tanh, nn.GELU, nn.ReLU6, nn.Dropout, nn.Hardtanh, nn.ELU,
                            nn.Softsign, nn.AlphaDropout])
    net.part(name, part())
    return lambda net, x, shown: getattr(net, name)(x)


def pointwise(net, name):
    vector = torch.arange(1.0, net.width + 1)
    function = net.draw.choice([
        torch.abs, torch.square, torch.neg, lambda x: 0.5 * x, lambda x: x.clamp(min=0), lambda x: x.clamp(min=-0.1), lambda x: x + 1,
        lambda x: torch.where(x > 0, x, 0.1 * x), lambda x: x * (x > 0), lambda x: x * vector.to(x), lambda x: torch.maximum(x, -x),
        lambda x: x / 3, lambda x: x.masked_fill(x < 0, 0.0), lambda x: x.double().to(x.dtype)])
    return lambda net, x, shown: function(x)


def moved(net, name):
    width = net.width
    function = net.draw.choice([
        lambda x: x.flip(-1), lambda x: x.roll(1, -1), lambda x: x + x.roll(1, -1), lambda x: x.flip(1), lambda x: x + x.flip(-1),
        lambda x: x.reshape(BATCH, width, LENGTH).transpose(1, 2), lambda x: torch.stack(x.unbind(-1)[::-1], -1),
        lambda x: x + x.transpose(0, 1).reshape(x.shape), lambda x: torch.cat([x[..., :1], 2 * x[..., 1:]], -1),
        lambda x: torch.cat([x[..., 1:2], x[..., :1], x[..., 2:]], -1) + x, lambda x: x[:, [1, 0, 3, 2]]])
    return lambda net, x, shown: function(x)


def halved(net, name):
    if net.width % 2:
        return None
    net.width //= 2
    function = net.draw.choice([
        lambda x: x[..., ::2], lambda x: x.chunk(2, -1)[1], lambda x: F.glu(x, -1),
        lambda x: torch.relu(x.chunk(2, -1)[0]) * x.chunk(2, -1)[1],
        lambda x: F.silu(x.chunk(2, -1)[0]) * x.chunk(2, -1)[1], lambda x: x.unflatten(-1, (-1, 2)).amax(-1),
        lambda x: x.unflatten(-1, (2, -1)).sum(-2), lambda x: x.unflatten(-1, (-1, 2)).transpose(-1, -2)[..., 0, :]])
    return lambda net, x, shown: function(x)


def joined(net, name):
    net.part(name, nn.Linear(net.width, 2))
    net.width += 2
    return lambda net, x, shown: torch.cat([x, torch.relu(getattr(net, name)(x))], -1)


def residual(net, name):
    part = net.draw.choice([nn.ReLU, nn.Tanh, nn.Identity])()
    norm = net.draw.choice([nn.Identity(), nn.LayerNorm(net.width), nn.RMSNorm(net.width, eps=0.0)])
    net.part(name, nn.Sequential(norm, nn.Linear(net.width, 5), part, nn.Linear(5, net.width)))
    return lambda net, x, shown: x + getattr(net, name)(x)


def norm(net, name):
    part = net.draw.choice([nn.LayerNorm, lambda n: nn.RMSNorm(n, eps=0.0), lambda n: nn.RMSNorm(n, eps=1e-3),
                            lambda n: nn.LayerNorm(n, bias=False), lambda n: nn.LayerNorm(n, elementwise_affine=False)])
    net.part(name, part(net.width))
    return lambda net, x, shown: getattr(net, name)(x)


def batch_norm(net, name):
    net.part(name, net.draw.choice([nn.BatchNorm1d, nn.InstanceNorm1d])(net.width, affine=True))
    return lambda net, x, shown: getattr(net, name)(x.transpose(1, 2)).transpose(1, 2)


def convolution(net, name):
    groups = 2 if net.width % 2 == 0 and net.draw.random() < 0.5 else 1
    width, net.width = net.width, 4
    part = net.draw.choice([nn.Conv1d, nn.ConvTranspose1d])
    net.part(name, part(width, 4, 3, padding=1, groups=groups))
    return lambda net, x, shown: getattr(net, name)(x.transpose(1, 2)).transpose(1, 2)


def attention(net, name):
    if net.width % 2:
        return None
    net.part(name, nn.MultiheadAttention(net.width, 2, batch_first=True, bias=net.draw.random() < 0.5))
    return lambda net, x, shown: getattr(net, name)(x, x, x, need_weights=False)[0]


def grouped(net, name):
    width, values = net.width, net.draw.random() < 0.3
    net.part(name, nn.ModuleList([nn.Linear(width, 8), nn.Linear(width, 4), nn.Linear(width, 4)]))
    net.width = 8

    def forward(net, x, shown):
        q, k, v = (layer(x).unflatten(-1, (-1, 2)).transpose(1, 2) for layer in getattr(net, name))
        y = F.scaled_dot_product_attention(q, k, v.tanh() if values else v, enable_gqa=True)
        return y.transpose(1, 2).flatten(2)

    return forward


def rotary(net, name):
    """Rotary positions of two frequencies, equal or not, on all channels of a head or on half; scores by hand or not."""
    width, by_hand, angles = net.width, net.draw.random() < 0.5, torch.tensor(net.draw.choice([[1.0, 1.0], [1.0, 0.3], [1.0], [0.5, 0.0]]))
    net.part(name, nn.ModuleList([nn.Linear(width, 8), nn.Linear(width, 4 * (2 if by_hand else 1)), nn.Linear(width, 4)]))
    net.width = 4
    turns = [torch.arange(LENGTH)[:, None] * angles]

    def turned(x):
        half, (cos, sin) = len(angles), (function(turns[0].to(x)) for function in (torch.cos, torch.sin))
        a, b = x[..., :half], x[..., half:2 * half]
        return torch.cat([a * cos - b * sin, a * sin + b * cos, x[..., 2 * half:]], -1)

    def forward(net, x, shown):
        q, k = (turned(layer(x).unflatten(-1, (-1, 4)).transpose(1, 2)) for layer in getattr(net, name)[:2])
        v = getattr(net, name)[2](x)[:, None]
        weights = (q @ k.transpose(-1, -2) / 2).softmax(-1) if by_hand else None
        y = weights @ v if by_hand else F.scaled_dot_product_attention(q, k, v, enable_gqa=True)
        return y.mean(1)

    return forward


def plain_heads(net, name):
    """Scores by hand, whose keys' bias softmax does not see; or are they squared, masked, joined to others, summed elsewhere?"""
    net.part(name, nn.ModuleList([nn.Linear(net.width, 3), nn.Linear(net.width, 3), nn.Linear(net.width, 4)]))
    net.width = 4
    change = net.draw.choice([lambda s: s, lambda s: s / 3, lambda s: s.square(), lambda s: s.transpose(-1, -2),
                              lambda s: s.masked_fill(torch.ones_like(s).tril() == 0, -torch.inf), lambda s: F.pad(s, (0, 1)),
                              lambda s: s.masked_fill(torch.ones_like(s).tril() == 0, -1.0), lambda s: s + torch.ones(LENGTH).to(s)])
    keys = net.draw.choice([lambda k: k, lambda k: k.relu(), lambda k: k * torch.arange(LENGTH).to(k)[:, None], lambda k: 2 * k,
                            lambda k: torch.cat([k, 2 * k], 1)[:, 2:2 + LENGTH]])
    again = net.draw.random() < 0.1

    def forward(net, x, shown):
        q, k, v = (layer(x) for layer in getattr(net, name))
        y = change(q @ keys(k).transpose(-1, -2)).softmax(-1)[..., :LENGTH] @ v
        return y + k.sum() if again else y

    return forward


def earlier(net, fits):
    """The name of a linear layer that is there already and fits, or None."""
    kept = [key for key, part in net._modules.items() if isinstance(part, nn.Linear) and fits(part)]
    return net.draw.choice(kept) if kept else None


def used_again(net, name):
    if (other := earlier(net, lambda part: part.in_features == net.width)) is None:
        return None
    net.width = getattr(net, other).out_features
    return lambda net, x, shown: getattr(net, other)(x)


def transposed(net, name):
    if (other := earlier(net, lambda part: part.out_features == net.width)) is None:
        return None
    net.width = getattr(net, other).in_features
    return lambda net, x, shown: x @ getattr(net, other).weight


def tied_bias(net, name):
    if (kept := earlier(net, lambda part: part.bias is not None)) is None:
        return None
    other = getattr(net, kept)
    width, net.width = net.width, other.out_features
    net.part(name, nn.Linear(width, net.width)).bias = other.bias
    return lambda net, x, shown: getattr(net, name)(x)


def product(net, name):
    net.part(name, nn.Linear(net.width, 3, bias=False))
    net.part(name + "b", nn.Linear(3, 4))
    net.width = 4
    return lambda net, x, shown: F.linear(x, getattr(net, name + "b").weight @ getattr(net, name).weight, getattr(net, name + "b").bias)


def adapter(net, name):
    net.part(name, nn.ParameterList([torch.ones(4, net.width), torch.ones(2, net.width), torch.ones(4, 2)]))
    net.width = 4
    return lambda net, x, shown: F.linear(x, getattr(net, name)[0] + 0.5 * getattr(net, name)[2] @ getattr(net, name)[1])


def gain(net, name):
    net.part(name, nn.ParameterList([torch.ones(net.draw.choice([1, net.width])), torch.ones(net.width)]))
    return net.draw.choice([lambda net, x, shown: x * getattr(net, name)[0],
                            lambda net, x, shown: x * getattr(net, name)[0] + getattr(net, name)[1],
                            lambda net, x, shown: x / getattr(net, name)[1], lambda net, x, shown: x + getattr(net, name)[1]])


def by_token(net, name):
    net.part(name, nn.ParameterList([torch.ones(LENGTH, net.width, 4)]))
    net.width = 4
    return lambda net, x, shown: torch.einsum("bti,tio->bto", x, getattr(net, name)[0])


def frozen(net, name):
    first = dense(net, name)
    getattr(net, name).requires_grad_(False)
    return first


def shown_too(net, name):
    part = net.draw.choice([lambda x: x, lambda x: x[..., :1], lambda x: x.sum(1), lambda x: x.detach()])

    def forward(net, x, shown):
        shown.append(part(x))
        return x

    return forward


def detached(net, name):
    return net.draw.choice([lambda net, x, shown: x * x.detach(), lambda net, x, shown: x + x.detach().relu(),
                            lambda net, x, shown: x.detach() - x])


def in_place(net, name):
    def scale(net, x, shown):
        x = x.clone()
        x[..., :2].mul_(2)
        return x

    def write(net, x, shown):
        buffer = torch.zeros_like(x)
        buffer[..., 1:] = x[..., 1:]
        return buffer

    def shared(net, x, shown):
        x = 1 * x
        x.detach().mul_(torch.arange(x.shape[-1]).to(x))
        return x

    return net.draw.choice([lambda net, x, shown: (1 * x).relu_(), lambda net, x, shown: (1 * x).add_(x.roll(1, -1)), scale, write, shared,
                            lambda net, x, shown: (1 * x).sigmoid_()])


def mixed_tokens(net, name):
    net.part(name, nn.Linear(LENGTH, LENGTH, bias=False))
    return net.draw.choice([lambda net, x, shown: getattr(net, name)(x.transpose(1, 2)).transpose(1, 2),
                            lambda net, x, shown: (x @ x.transpose(1, 2)) @ x, lambda net, x, shown: x.softmax(1) * x,
                            lambda net, x, shown: x - x.mean(1, keepdim=True), lambda net, x, shown: x.cumsum(1)])


STEPS = [dense, dense, dense, activation, activation, pointwise, moved, halved, joined, residual, residual, norm, batch_norm, convolution,
         attention, grouped, rotary, plain_heads, used_again, transposed, tied_bias, product, adapter, gain, by_token, frozen, shown_too,
         detached, in_place, mixed_tokens]
