"""Every law is tried before it is returned: on a copy, at random parameters of several sizes, inputs and losses."""

import itertools

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from . import graph

SCALES = (0.1, 1.0, 10.0)
DRAWS = 2
NUDGE, STEADY = 1e-12, 1e-6  # a trial tells where a nudge changes gradients by less: elsewhere they are rounding,
FAINT = 1e-10  # and where they are so much smaller than others,
FAINT_SUM = 1e-6  # or, where a sum of gradients must vanish, less smaller: it has the rounding of a saturated softmax
NOISE = 1e-3  # what a nudge changes by more is rounding, and zero
ALLOWED = 1e-5  # of the size that a law's terms could have; rounding gives 1e-13, behind a norm of equal tokens 1e-6


def worst(laws, double, args, kwargs):
    """For each law the largest relative defect of its differential along the gradient; NaN where no trial told."""
    if not laws:
        return []
    found = len(laws) * [torch.nan]
    random = torch.Generator().manual_seed(0)
    for trial, (mode, scale, draw) in enumerate(itertools.product(graph.modes(double), SCALES, range(DRAWS))):
        inputs = (args, kwargs) if draw == 0 else _drawn((args, kwargs), random)
        point = {name: scale * torch.randn(parameter.shape, generator=random, dtype=torch.float64)
                 for name, parameter in double.named_parameters() if parameter.requires_grad}
        with graph.modes_as(double, mode), graph.buffers_as_they_were(double):
            gradients = _gradients(double, inputs, point, trial)
        with graph.modes_as(double, mode), graph.buffers_as_they_were(double):
            near = {name: value * (1 + NUDGE * torch.randn(value.shape, generator=random, dtype=torch.float64))
                    for name, value in point.items()}
            nudged = _gradients(double, inputs, near, trial)
        apart = {name: nudged[name] - gradient for name, gradient in gradients.items()}
        most = max((value.norm() * gradients[name].norm() for name, value in point.items()), default=0.0)
        for k, law in enumerate(laws):
            residual, size = law.defect(point, gradients)
            unsteady, change = law.defect(point, apart)
            if law.linear and unsteady > NOISE * residual:  # sums of gradients that cancel leave their rounding
                residual = torch.zeros_like(residual)
            if torch.isfinite(size) and size > (FAINT_SUM if law.linear else FAINT) * most and change < STEADY * size:
                found[k] = max(residual.item() / size.item(), 0 if found[k] != found[k] else found[k])
    return found


def _gradients(double, inputs, point, seed):
    """Of a random loss of the outputs, at parameters ``point``: ``{name: gradient}``; the seed draws weights and masks."""
    parameters = {name: parameter for name, parameter in double.named_parameters() if name in point}
    for name, parameter in parameters.items():
        parameter.data.copy_(point[name])
    torch.default_generator.manual_seed(seed)
    with sdpa_kernel(SDPBackend.MATH):  # the others compute probabilities twice, which differ where scores are large
        output, kept = graph.run(graph.WithTraces(double), *inputs)
        outputs = [tensor for tensor in graph.tensors([output, kept]) if tensor.requires_grad]
        loss = sum((tensor * torch.randn(tensor.shape, dtype=tensor.dtype)).sum() for tensor in outputs)
        try:
            found = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True) if outputs else len(parameters) * [None]
        except RuntimeError as error:  # such as of what its forward wrote over
            raise ValueError(f"backward raises {graph.told(error)}; expected a network that can be trained") from error
    return {name: torch.zeros_like(parameter) if gradient is None else gradient.to_dense() if gradient.is_sparse else gradient
            for (name, parameter), gradient in zip(parameters.items(), found)}


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
