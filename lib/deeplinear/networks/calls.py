"""Which graphs a network needs: in each mode, at the first call of its forward and at later ones, and in its own dtype.

``torch.export`` follows one call; Python's branches on a counter, on the mode or on the dtype are not in its graph.
"""

import random

import numpy as np
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from . import graph
from .traces import as_it_was

CALLS = 4
DERIVATIVES = {torch.autograd.grad, torch.autograd.backward, torch.Tensor.backward}
CONVERSIONS = {"to", "type", "type_as", "float", "double", "half", "bfloat16", "contiguous"}


class Record(TorchDispatchMode):
    """What is called on which tensors, in order: two runs that are recorded alike computed alike."""

    def __init__(self):
        super().__init__()
        self.calls, self._seen = [], {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        self.calls.append((function, torch.is_grad_enabled(), self._named([args, kwargs]), self._named(result)))
        return result

    def returned(self, output):
        self.calls.append(self._named(graph.tensors(output)))
        return tuple(self.calls)

    def _named(self, value):
        """The call that made a tensor, or the order in which a parameter or an input was first met."""
        if isinstance(value, torch.Tensor):
            return self._seen.setdefault(id(value), (len(self._seen), value))[0]
        if isinstance(value, dict):
            return tuple((key, self._named(part)) for key, part in value.items())
        return tuple(map(self._named, value)) if isinstance(value, (list, tuple)) else repr(value)


class Named(TorchFunctionMode):
    """Which functions of PyTorch are called, with which parameters and whole numbers, whatever the dtype; ``derives``:
    whether derivatives are taken."""

    def __init__(self, net):
        super().__init__()
        self.calls, self._names = [], {id(parameter): (name, parameter) for name, parameter in net.named_parameters()}
        self.derives = False

    def __torch_function__(self, function, types, args=(), kwargs=None):
        self.derives |= function in DERIVATIVES
        result, name = function(*args, **(kwargs or {})), getattr(function, "__name__", str(function))
        used = [self._names[id(tensor)][0] for tensor in graph.tensors([args, kwargs]) if id(tensor) in self._names]
        if name in CONVERSIONS:
            if used and isinstance(result, torch.Tensor):
                self._names[id(result)] = used[0], result
        elif name != "__get__":
            self.calls.append((name, *used, *(part for part in args if isinstance(part, int))))
        return result


def tried(net, example, dtype):
    """Let the network run in each mode on copies, in float64 and in its own dtype (new tensors in ``dtype``); what fails
    in both is the caller's mistake, ``ValueError``, and what differs is not read."""
    copies = [(graph.twin(net), *graph.arguments(example)), (graph.twin(net, None), *graph.arguments(example, None))]
    own = next((tensor.dtype for tensor in [*copies[1][0].parameters(), *graph.tensors(copies[1][1:])]
                if tensor.is_floating_point()), dtype)
    for mode in graph.modes(net):
        runs = []
        for kind, (copy_of_net, args, kwargs) in zip((torch.float64, dtype), copies):
            random.seed(0)
            np.random.seed(0)  # noqa: NPY002  a network's forward may draw from it
            torch.default_generator.manual_seed(0)
            torch.set_default_dtype(kind)
            try:
                with graph.modes_as(copy_of_net, mode), graph.buffers_as_they_were(net), as_it_was(copy_of_net), Named(
                        copy_of_net) as record:
                    copy_of_net(*args, **kwargs)
                runs.append(record.calls)
            except Exception as error:  # whatever the network's own code raises
                runs.append(error)
            finally:
                torch.set_default_dtype(torch.float64)
            if record.derives:
                raise graph.Unreadable(graph.DERIVES) from next((one for one in runs if isinstance(one, Exception)), None)
        if all(isinstance(one, Exception) for one in runs):
            where = "in training mode " if all(mode) else "in evaluation mode " if not any(mode) else ""
            raise ValueError(f"{where}forward raises {graph.told(runs[1])}; expected an example that the network takes") from runs[1]
        if not any(isinstance(one, Exception) for one in runs) and runs[0] != runs[1]:
            raise graph.Unreadable(f"forward computes something else in {str(own).removeprefix('torch.')} than in float64")


def programs(double, args, kwargs):
    """The graphs of the copy in each of its modes, at the first call and at later ones, one for those that are alike."""
    found = {}
    for mode in graph.modes(double):
        later = _later(double, mode, args, kwargs)
        for one in [double, *([later] if later else [])]:
            with graph.modes_as(one, mode), graph.buffers_as_they_were(one):
                found.setdefault(_recorded(graph.WithTraces(one), args, kwargs), (one, mode))
    for one, mode in found.values():
        with graph.modes_as(one, mode), graph.buffers_as_they_were(one):
            yield graph.read(one, args, kwargs)


def _recorded(whole, args, kwargs):
    with Record() as record:
        return record.returned(graph.run(whole, args, kwargs))


def _later(double, mode, args, kwargs):
    """A copy that has run, where it then computes something else than at first, but always the same; None where all alike."""
    later, calls = graph.twin(double), []
    with as_it_was(later):  # functions on it are not copied, and what they close over is the network's
        for _ in range(CALLS):
            with graph.modes_as(later, mode), graph.buffers_as_they_were(later):
                calls.append(_recorded(later, args, kwargs))
        if all(one == calls[0] for one in calls):
            return None
        later = graph.twin(later)
    if any(one != calls[1] for one in calls[2:]) or graph.behind_functions(later, args, kwargs) != graph.behind_functions(
            double, args, kwargs):
        raise graph.Unreadable("forward computes something else at a later call")
    return later
