"""Every law is tried before it is returned: on a copy, at random parameters of several sizes, inputs and losses."""

import torch

from . import graph

SCALES = (0.1, 1.0, 10.0)
DRAWS = 2
ALLOWED = 1e-9  # of the size that a law's terms could have; rounding gives 1e-13


def worst(laws, double, args, kwargs):
    """For each law the largest relative defect of its differential along the gradient; NaN where no trial told."""
    found = [torch.nan] * len(laws)
    random = torch.Generator().manual_seed(0)
    parameters = {name: parameter for name, parameter in double.named_parameters() if parameter.requires_grad}
    for mode in graph.modes(double):
        for scale in SCALES:
            for draw in range(DRAWS):
                for parameter in parameters.values():
                    parameter.data.copy_(scale * torch.randn(parameter.shape, generator=random, dtype=torch.float64))
                inputs = (args, kwargs) if draw == 0 else _drawn((args, kwargs), random)
                with graph.modes_as(double, mode), graph.buffers_as_they_were(double):
                    gradients = _gradients(double, *inputs, parameters, random)
                for k, law in enumerate(laws):
                    residual, size = law.defect({name: p.detach() for name, p in parameters.items()}, gradients)
                    if torch.isfinite(size) and size > 0:
                        found[k] = max((residual / size).item(), 0 if found[k] != found[k] else found[k])
    return found


def _gradients(double, args, kwargs, parameters, random):
    output, kept = graph.run(graph.WithTraces(double), args, kwargs)
    outputs = [tensor for tensor in graph.tensors([output, kept]) if tensor.requires_grad]
    loss = sum((tensor * torch.randn(tensor.shape, generator=random, dtype=tensor.dtype)).sum() for tensor in outputs)
    gradients = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True) if outputs else len(parameters) * [None]
    return {name: torch.zeros_like(parameter) if gradient is None else gradient.to_dense() if gradient.is_sparse else gradient
            for (name, parameter), gradient in zip(parameters.items(), gradients)}


def _drawn(value, random):
    """Other inputs of the same kind: numbers at random, indices within those of the example, masks as they are."""
    if isinstance(value, torch.Tensor):
        if value.is_floating_point() and torch.isfinite(value).all():
            return torch.randn(value.shape, generator=random, dtype=value.dtype)
        if value.dtype == torch.int64 and value.numel() and value.min() >= 0:
            return torch.randint(0, int(value.max()) + 1, value.shape, generator=random)
        return value.clone()
    if isinstance(value, dict):
        return {key: _drawn(part, random) for key, part in value.items()}
    return type(value)(_drawn(part, random) for part in value) if type(value) in (list, tuple) else value
