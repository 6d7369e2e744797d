"""What a network is looked at with: a tensor, a tuple of arguments or a dict of keywords, with numbers in them."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import torch


def given(example: Any) -> tuple[tuple, dict]:
    """(args, kwargs) of an example. ``TypeError`` of what is none, and ``ValueError`` of one with no values, that is on the
    meta device or empty, or with values that are not finite; a mask beside other tensors may hold minus infinity."""
    if not isinstance(example, (torch.Tensor, tuple, dict)):
        raise TypeError(f"example is a {type(example).__name__}; expected a tensor, a tuple of arguments or a dict of keywords")
    found = list(_named(example, "example"))
    for name, tensor in found:
        if tensor.is_meta:
            raise ValueError(f"a tensor of example is on the meta device, {name}; expected one with values")
    for name, tensor in found:
        alone = all(not other.numel() for _, other in found)
        if not tensor.numel() and (alone or tensor.ndim > 1 and not len(tensor)):  # an empty cache has its batch
            raise ValueError(f"{name} is empty, of shape {tuple(tensor.shape)}; expected at least one row, with entries")
        if bad := _not_finite(tensor, len(found) > 1):
            raise ValueError(f"{name}, of shape {tuple(tensor.shape)}, has {bad} of {tensor.numel()} values that are not finite; "
                             "expected finite numbers")
    return ((), example) if isinstance(example, dict) else (example if isinstance(example, tuple) else (example,), {})


def _named(value: Any, name: str) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors in nested lists, tuples, dicts and dataclasses, with the expressions that give them."""
    if isinstance(value, torch.Tensor):
        yield name, value
    elif isinstance(value, (dict, list, tuple)):
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _named(part, f"{name}[{key!r}]")
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for key, part in vars(value).items():
            yield from _named(part, f"{name}.{key}")


def _not_finite(tensor, beside):
    """How many values are not finite, of a tensor that is no mask: of those minus infinity is beside others, none above 0."""
    if tensor.layout is not torch.strided or not (tensor.is_floating_point() or tensor.is_complex()):
        return 0
    finite = torch.isfinite(tensor.detach())
    if beside and tensor.is_floating_point() and (tensor.detach() <= 0).all():  # never of NaN
        return 0
    return int((~finite).sum())
