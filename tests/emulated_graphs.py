"""CUDA graphs on a CPU: what capture and replay do to tensors, made of the operations that PyTorch dispatches.

As on a GPU, capture executes nothing: its effects are undone, and tensors made in it hold nothing yet. Replay runs the
recorded operations on the same tensors, with the same numbers, and puts results into the tensors that capture made. What
a GPU refuses to capture, whatever needs an answer on the host, raises :class:`Refused`.
"""

import contextlib
import functools
from unittest import mock

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from deeplinear.descent import replay


class Refused(RuntimeError):
    """An operation that cannot be captured."""


class Graph:
    """In place of ``torch.cuda.CUDAGraph``; ``replays`` counts."""

    def __init__(self):
        self.calls, self.replays = [], 0

    def replay(self):
        self.replays += 1
        for operation, arguments, named, made in self.calls:
            for tensor, result in zip(made, tree_leaves(operation(*arguments, **named))):
                tensor.copy_(result)


class Capture(TorchDispatchMode):
    """In place of ``torch.cuda.graph``: records what is dispatched within.

    ``before``: the bytes of every storage that was there already, from before its first change. ``made``: the storages
    that came to be within; the graph keeps their tensors, so no address is given out twice.
    """

    def __init__(self, graph, stream=None):
        super().__init__()
        self.graph, self.before, self.made, self.python = graph, {}, {}, _OnTheHost()

    def __enter__(self):
        self.python.__enter__()
        return super().__enter__()

    def __exit__(self, *error):
        super().__exit__(*error)
        self.python.__exit__(*error)
        for storage, content in self.before.values():
            storage.copy_(content)
        for storage in self.made.values():
            storage.fill_(255)  # NaN, where it stands for a number

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name, writes, looks = _kind(operation)
        if name.startswith("index") and any(index.dtype in (torch.bool, torch.uint8) for index in args[1] if index is not None):
            raise Refused(f"{name} with a mask needs the host")
        for place, argument in writes:
            for address, storage in _storages(kwargs[argument] if argument in kwargs else args[place]):
                if address not in self.made:
                    self.before.setdefault(address, (storage, storage.clone()))
        results = operation(*args, **kwargs)
        if looks:
            return results
        made = [] if writes else tree_leaves(results)
        self.made.update(_storages(made))
        self.graph.calls.append((operation, args, kwargs, made))
        return results


class _OnTheHost(TorchFunctionMode):
    """Refuses the ways to the host that need no operation where the tensor is there already."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        name = getattr(function, "__name__", "")
        moves = name == "to" and any(isinstance(value, (str, torch.device)) for value in tree_leaves([args, kwargs]))
        if name in ("tolist", "numpy", "cpu", "__array__") or moves:
            raise Refused(f"{name} brings a tensor to the host")
        return function(*args, **kwargs or {})


@functools.cache
def _kind(operation):
    """Name, the places and names of the arguments that it writes to, and whether it only looks at a tensor in another way.

    Refused is it where the host waits for a value or a shape, where numbers of the host become a tensor, and where a solver
    reports whether it succeeded.
    """
    schema = operation._schema
    name = schema.name.removeprefix("aten::")
    asks = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape} & set(operation.tags)
    solves = name.startswith(("linalg_", "_linalg_")) and name != "linalg_vector_norm"
    if (asks and not name.startswith("index")) or solves or name == "lift_fresh":
        raise Refused(f"{name} needs the host")
    writes = [(place, argument.name) for place, argument in enumerate(schema.arguments) if argument.is_write]
    looks = name == "_unsafe_view" or any(result.alias_info and not result.alias_info.is_write for result in schema.returns)
    return name, writes, looks


def _storages(tensors):
    """The storages that hold anything, with their addresses."""
    found = [tensor.untyped_storage() for tensor in (tensors if isinstance(tensors, (list, tuple)) else [tensors])]
    return [(storage.data_ptr(), storage) for storage in found if storage.nbytes()]


@contextlib.contextmanager
def graphs_on_a_cpu():
    """Training on a CPU replays its steps as it does on a GPU; gives the list of the graphs that were made."""
    made = []

    def graph():
        made.append(Graph())
        return made[-1]

    with mock.patch.multiple(torch.cuda, CUDAGraph=graph, graph=Capture, Stream=lambda device: None,
                             device=lambda device: contextlib.nullcontext()), \
         mock.patch.object(replay, "GRAPHS", ("cpu",)):
        yield made
