"""What a network computes, as graphs of PyTorch's own operations with the shapes of an example (``torch.export``).

Everything is read from copies: the network, its parameters, gradients, buffers, mode and random state are left alone.
"""

import contextlib
import copy
import dataclasses
import io
import logging
import random
import types
import warnings

import numpy as np
import torch
from torch import nn
from torch.nn.utils import parametrize
from torch.utils._python_dispatch import TorchDispatchMode

from ..deepening import product_of

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class Unreadable(ValueError):
    """No graph of the network; the message says why."""


@dataclasses.dataclass(frozen=True)
class Graph:
    """``nodes`` in order; ``names``: what each placeholder that is a parameter is called by ``named_parameters``;
    ``constants``: the values of those that are buffers or constants."""

    nodes: list
    names: dict
    constants: dict


class WithTraces(nn.Module):
    """A network that also returns the tensors which its forward keeps on its modules: a loss can use them."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, *args, **kwargs):
        before = [(container, container.copy()) for container in _state(self.net)]
        known = {id(tensor) for _, contents in before for tensor in tensors(contents)}
        output = self.net(*args, **kwargs)
        kept = [tensor for container in _state(self.net) for tensor in tensors(container)
                if id(tensor) not in known and tensor.is_floating_point()]
        for container, contents in before:
            container.clear()
            container.extend(contents) if isinstance(container, list) else container.update(contents)
        return output, kept


def _state(net):
    """The attributes of all modules, and the lists, dicts and objects in them, but not their parameters."""
    todo, found = [vars(module) for module in net.modules() if not isinstance(module, nn.RNNBase)], {}
    while todo:
        container = todo.pop()
        if id(container) in found:
            continue
        if isinstance(container, (list, dict)):
            found[id(container)] = container
        parts = container.items() if isinstance(container, dict) else enumerate(container)
        for name, part in parts:
            if isinstance(part, (list, tuple, dict)) and name not in ("_parameters", "_modules"):
                todo.append(part)
            elif type(part).__module__ != "builtins" and not isinstance(part, (torch.Tensor, nn.Module, type)):
                todo.append(getattr(part, "__dict__", {}) if not isinstance(part, types.ModuleType) else {})
    return list(found.values())


def tensors(value):
    """The tensors in nested lists, tuples, dicts and dataclasses."""
    if isinstance(value, torch.Tensor):
        return [value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = vars(value)
    if isinstance(value, dict):
        value = list(value.values())
    return [one for part in value for one in tensors(part)] if isinstance(value, (list, tuple)) else []


def twin(net):
    """A copy of the network in float64 on the CPU, without hooks."""
    if lazy := [name for name, parameter in net.named_parameters() if nn.parameter.is_lazy(parameter)]:
        raise Unreadable(f"{lazy[0]} is lazy; expected a network that has run once")
    kept = {id(tensor): _double(tensor) for module in net.modules() for name, value in vars(module).items()
            if name not in ("_parameters", "_modules") for tensor in tensors(value)
            if not isinstance(tensor, nn.Parameter)}  # deepcopy copies no tensor with a history
    double = copy.deepcopy(net, kept).to("cpu", torch.float64)
    for module in double.modules():
        for hooks in HOOKS:
            getattr(module, hooks).clear()
    for parameter in double.parameters():
        parameter.grad = None
    return double


def arguments(example):
    """(args, kwargs) of a tensor, a tuple of arguments or a dict of keywords, in float64 on the CPU."""
    if not isinstance(example, (torch.Tensor, tuple, dict)):
        raise TypeError(f"example is a {type(example).__name__}; expected a tensor, a tuple of arguments or a dict of keywords")
    if isinstance(example, torch.Tensor):
        example = (example,)
    double = _double(example)
    return ((), double) if isinstance(example, dict) else (double, {})


def _double(value):
    if isinstance(value, torch.Tensor):
        value = value.detach().to("cpu", copy=True)
        return value.double() if value.is_floating_point() else value
    if isinstance(value, dict):
        return {key: _double(part) for key, part in value.items()}
    return type(value)(_double(part) for part in value) if type(value) in (list, tuple) else value


@contextlib.contextmanager
def undisturbed():
    """Random states and the default dtype as before, whatever runs; new tensors in float64; nothing printed."""
    state, dtype = random.getstate(), torch.get_default_dtype()
    numpy_state = np.random.get_state()  # noqa: NPY002  a network's forward may draw from it
    logs = logging.root.manager.disable
    with (torch.random.fork_rng([], device_type="cuda"), warnings.catch_warnings(), torch.enable_grad(),
          contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO())):
        warnings.simplefilter("ignore")
        torch.set_default_dtype(torch.float64)
        logging.disable(logging.CRITICAL)
        try:
            yield
        finally:
            logging.disable(logs)
            torch.set_default_dtype(dtype)
            random.setstate(state)
            np.random.set_state(numpy_state)  # noqa: NPY002


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
        self.calls.append(self._named(tensors(output)))

    def _named(self, value):
        """The call that made a tensor, or the order in which a parameter or an input was first met."""
        if isinstance(value, torch.Tensor):
            return self._seen.setdefault(id(value), (len(self._seen), value))[0]
        if isinstance(value, dict):
            return tuple((key, self._named(part)) for key, part in value.items())
        return tuple(map(self._named, value)) if isinstance(value, (list, tuple)) else repr(value)


def run(whole, args, kwargs):
    try:
        return whole(*args, **kwargs)
    except Exception as error:  # whatever the network's own code raises
        raise Unreadable(f"on a float64 copy its forward raises {_told(error)}") from error


def graphs(double, args, kwargs):
    """The graphs of the copy in each of its modes, one for those in which it computes the same."""
    whole, found = WithTraces(double), {}
    for mode in modes(double):
        with modes_as(double, mode):
            record = Record()
            with record, buffers_as_they_were(double):
                record.returned(run(whole, args, kwargs))
            found.setdefault(tuple(record.calls), mode)
    for mode in found.values():
        with modes_as(double, mode), buffers_as_they_were(double):
            yield _graph(_export(whole, args, kwargs), double)


@contextlib.contextmanager
def buffers_as_they_were(double):
    """Buffers as they were."""
    before = [(buffer, buffer.clone()) for buffer in double.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in before:
                buffer.copy_(value)


def modes(net):
    """The settings of ``training`` of all modules that matter: as they are, all on, all off."""
    parts = list(net.modules())
    given = tuple(module.training for module in parts)
    return list(dict.fromkeys([given, len(parts) * (True,), len(parts) * (False,)]))


@contextlib.contextmanager
def modes_as(net, mode):
    before = [module.training for module in net.modules()]
    for module, training in zip(net.modules(), mode):
        module.training = training
    try:
        yield
    finally:
        for module, training in zip(net.modules(), before):
            module.training = training


def _export(whole, args, kwargs):
    try:
        return torch.export.export(whole, args, kwargs)
    except Exception as error:  # whatever the network's own code or the tracer raises
        raise Unreadable(f"torch.export raises {_told(error)}") from error


def _told(error):
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0][:200] if str(error).strip() else ''}"


def _graph(program, double):
    from torch.export.graph_signature import InputKind  # slow to import, and few need it
    called = {id(parameter): name for name, parameter in double.named_parameters()}
    names, constants = {}, {}
    for spec in program.graph_signature.input_specs:
        if spec.kind == InputKind.PARAMETER:
            names[spec.arg.name] = called[id(double.get_parameter(spec.target.removeprefix("net.")))]
        elif spec.kind in (InputKind.BUFFER, InputKind.CONSTANT_TENSOR):
            found = program.constants.get(spec.target, program.state_dict.get(spec.target))
            constants |= {spec.arg.name: found} if isinstance(found, torch.Tensor) else {}
    return Graph(list(program.graph_module.graph.nodes), names, constants)


def place(node):
    """The path of the module that a node belongs to, and its kind, for people."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    path, kind = stack[-1] if stack else ("", "")
    path = path.removeprefix("net").lstrip(".")
    return path or "forward", str(kind).rsplit(".", 1)[-1]


def hooked(net):
    """Paths of the modules with a hook."""
    return {path for path, module in net.named_modules() if any(getattr(module, hooks) for hooks in HOOKS)}


def untouchable(net, double, args, kwargs):
    """Parameters whose gradient or whose step is not that of the loss alone, with the reason: ``{name: reason}``."""
    found, owners = {}, {}
    for name, tensor in [*net.named_parameters(), *net.named_buffers()]:
        if tensor.untyped_storage().nbytes():
            owners.setdefault(tensor.untyped_storage().data_ptr(), []).append(name)
        if tensor._backward_hooks or getattr(tensor, "_post_accumulate_grad_hooks", None):
            found[name] = "a hook on its gradient"
    for names in owners.values():
        if len(names) > 1:
            found |= {name: f"shares its storage with {', '.join(other for other in names if other != name)}"
                      for name in names}
    for path, module in net.named_modules():
        if parametrize.is_parametrized(module):
            product = product_of(module)  # of deepen: plain products of parameters, which are read like any others
            kinds = {type(part).__name__ for parts in module.parametrizations.values() for part in parts if part is not product}
            found |= {f"{path}.{name}".lstrip("."): f"parametrised by {', '.join(sorted(kinds))}"
                      for name, _ in module.named_parameters() if kinds and name.startswith("parametrizations.")}
    return found | _behind_functions(double, args, kwargs)


def _behind_functions(double, args, kwargs):
    """Parameters whose gradient passes through a ``torch.autograd.Function``: its backward may be anything."""
    called = {id(parameter): name for name, parameter in double.named_parameters()}
    output, kept = run(WithTraces(double), args, kwargs)
    found, seen = {}, set()
    todo = [(tensor.grad_fn, None) for tensor in [*tensors(output), *kept] if tensor.grad_fn is not None]
    while todo:
        node, function = todo.pop()
        if isinstance(node, torch.autograd.function.BackwardCFunction):
            function = type(node).__name__.removesuffix("Backward")
        if (node, function) in seen:
            continue
        seen.add((node, function))
        if function and id(getattr(node, "variable", None)) in called:
            found[called[id(node.variable)]] = f"its gradient passes through {function}, an autograd function"
        todo += [(before, function) for before, _ in node.next_functions if before is not None]
    return found
