"""The tensors that a forward keeps: a loss can use them, so that they count as outputs."""

import collections
import contextlib
import dataclasses
import functools
import gc
import types

import torch
from torch import nn

PLAIN = (str, bytes, int, float, complex, type(None), torch.dtype, torch.device, torch.Size, type, types.ModuleType, types.CodeType)


class WithTraces(nn.Module):
    """A network that also returns the tensors which its forward keeps on its modules."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, *args, **kwargs):
        known = {id(tensor) for _, contents in _state(self.net) for tensor in _tensors_in(contents)}
        with as_it_was(self.net):
            output = self.net(*args, **kwargs)
            kept = [tensor for _, contents in _state(self.net) for tensor in _tensors_in(contents)
                    if id(tensor) not in known and tensor.is_floating_point()]
        return output, kept


@contextlib.contextmanager
def as_it_was(net):
    """What the modules hold as before, parameters and buffers apart."""
    before = [(container, contents.copy()) for container, contents in _state(net) if hasattr(contents, "copy")]
    try:
        yield
    finally:
        for container, contents in before:
            _put_back(container, contents)


def _state(net):
    """(object, its contents) of the attributes of all modules and of all that they hold, but not their parameters."""
    todo, found = list(_contents(net)), {}
    while todo:
        container = todo.pop()
        if id(container) in found:
            continue
        contents = _contents(container)
        found[id(container)] = container, contents
        parts = contents.items() if isinstance(contents, dict) else enumerate(contents)
        todo += [part for name, part in parts if not isinstance(part, (torch.Tensor, *PLAIN))
                 and not (isinstance(part, dict) and name in ("_parameters", "_modules"))]
    return list(found.values())


def held(net):
    """The tensors that the modules hold beside their parameters."""
    return [tensor for _, contents in _state(net) for tensor in _tensors_in(contents) if not isinstance(tensor, nn.Parameter)]


def _contents(container):
    """A dict, list, set or deque itself, of an object the values of its attributes and slots, of a function what it
    closes over, of anything else all that it refers to; not classes, Python's modules and globals."""
    if isinstance(container, nn.Module):  # also one that is no submodule, in a list
        return tuple(vars(module) for module in container.modules() if not isinstance(module, nn.RNNBase))
    if isinstance(container, functools.partial):
        return container.func, container.args, container.keywords
    if isinstance(container, types.MethodType):
        return container.__self__, container.__func__
    if isinstance(container, (dict, list, tuple, set, frozenset, collections.deque)):
        return container
    if isinstance(container, types.FunctionType):
        return tuple(cell.cell_contents for cell in container.__closure__ or () if cell != types.CellType())
    if hasattr(container, "__dict__") or _slots(container):
        return {name: getattr(container, name) for name in _slots(container) if hasattr(container, name)} | {
            "__dict__": getattr(container, "__dict__", {})}
    return tuple(gc.get_referents(container))


def _slots(container):
    names = [getattr(kind, "__slots__", ()) for kind in type(container).__mro__]
    return [name for part in names for name in ([part] if isinstance(part, str) else part) if not name.startswith("__")]


def _tensors_in(contents):
    return [part for part in (contents.values() if isinstance(contents, dict) else contents) if isinstance(part, torch.Tensor)]


def _put_back(container, contents):
    if isinstance(container, (list, collections.deque)):
        container.clear()
        container.extend(contents)
    elif isinstance(container, (dict, set)):
        container.clear()
        container.update(contents)
    elif isinstance(contents, dict):
        for name in _slots(container):
            if name in contents:
                if getattr(container, name, None) is not contents[name]:  # of a frozen dataclass none is another
                    setattr(container, name, contents[name])
            elif hasattr(container, name):
                delattr(container, name)


def tensors(value):
    """The tensors in nested lists, tuples, dicts and dataclasses."""
    if isinstance(value, torch.Tensor):
        return [value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = vars(value)
    if isinstance(value, dict):
        value = list(value.values())
    return [one for part in value for one in tensors(part)] if isinstance(value, (list, tuple)) else []
