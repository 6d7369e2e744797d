"""What the tests of ``deeplinear.networks`` share: modules in a line, and one step of gradient descent by hand."""

import deeplinear as dl
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel


class Net(nn.Module):
    """Named parts, and a forward that is a function of the module and its inputs."""

    def __init__(self, forward, **parts):
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)
        self.by = forward

    def forward(self, *inputs):
        return self.by(self, *inputs)


def texts(laws):
    """What each law says, with its shape and how many numbers it keeps."""
    return [(str(law), law.shape, law.count) for law in laws]


def prepared(net, scale=1.0, seed=0):
    """The network in float64 at random parameters, so that nothing of its own start is left."""
    random = dl.seeded(seed)
    with torch.no_grad():
        for parameter in net.double().parameters():
            if parameter.requires_grad:
                parameter.copy_(scale * torch.randn(parameter.shape, generator=random, dtype=torch.float64))
    return net


def step(net, laws, example, rate=1e-3, seed=0, more=None):
    """What is not ``value + rate^2 change`` after a step of gradient descent, and how much the values change, both at most
    and relative to the law's terms; NaN where gradients are. ``more()``: tensors that the loss uses beside the outputs."""
    random = dl.seeded(seed)
    net.zero_grad()
    weights = lambda tensor: torch.randn(tensor.shape, generator=random, dtype=tensor.dtype)
    with sdpa_kernel(SDPBackend.MATH):  # the other kernels compute probabilities twice, which differ where scores are large
        outputs = _tensors([net(*_arguments(example)), more() if more else []])
        sum((weights(tensor) * tensor + weights(tensor) * torch.tanh(tensor)).sum()
            for tensor in outputs if tensor.requires_grad).backward()
    parameters = {name: parameter for name, parameter in net.named_parameters() if parameter.requires_grad}
    for parameter in parameters.values():
        gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        parameter.grad = gradient.to_dense() if gradient.is_sparse else gradient
    rate = rate / max(1e-100, *(parameter.grad.abs().max().item() for parameter in parameters.values()))
    before, change = [law.value() for law in laws], [law.change() for law in laws]
    sizes = [sum(term.rows(parameters[term.name].detach()).square().sum() for term in law.terms) for law in laws]
    with torch.no_grad():
        for parameter in parameters.values():
            parameter.sub_(rate * parameter.grad)
    moved = [law.value() - a for law, a in zip(laws, before)]
    defects = [((m - rate**2 * c).abs().max() / size).item() for m, c, size in zip(moved, change, sizes)]
    return max(defects, default=0.0), max([(m.abs().max() / size).item() for m, size in zip(moved, sizes)], default=0.0)


def _arguments(example):
    example = example if isinstance(example, tuple) else (example,)
    return [tensor.double() if tensor.is_floating_point() else tensor for tensor in example]


def _tensors(value):
    if isinstance(value, torch.Tensor):
        return [value]
    value = list(value.values()) if isinstance(value, dict) else value
    return [one for part in value for one in _tensors(part)] if isinstance(value, (list, tuple)) else []


def example_of(shape):
    return dl.normal(*shape, generator=dl.seeded(3)).float() if isinstance(shape, tuple) else shape


def frozen(bias):
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 4, bias=bias), nn.Linear(4, 2))
    net[2].requires_grad_(False)
    return net


def between(part, width=4):
    return lambda: nn.Sequential(nn.Linear(3, 4), part, nn.Linear(width, 2))
