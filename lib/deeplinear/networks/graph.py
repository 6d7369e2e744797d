"""What a network computes, as graphs of PyTorch's own operations with the shapes of an example (``torch.export``).

Everything is read from copies: the network, its parameters, gradients, buffers, mode and random state are left alone.
"""

import contextlib
import copy
import dataclasses
import io
import logging
import random
import warnings

import numpy as np
import torch
from torch import nn
from torch.nn.utils import parametrize

from ..deepening import product_of
from .examples import given
from .traces import WithTraces, held, tensors

UNGUARDED = ("GuardOnDataDependentSymNode", "DataDependentOutputException")  # of torch.export, by name: they have moved
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


DERIVES = ("forward takes derivatives, by torch.autograd.grad or backward, which torch.export does not follow; pass the part that it "
           "differentiates, whose laws hold for every loss of its derivatives in the inputs too")
DECIDES = ("forward decides by the values of a tensor, as an if, a loop or a slice does, and torch.export follows no such decision; "
           "pass a network that goes one way for all values")
SHAPES = ("a shape in forward depends on the values of a tensor, as that of x[x > 0] does; pass a network whose shapes follow "
          "from those of its inputs")
COMPILED = "{} is compiled; pass the module that was compiled"


class Unreadable(ValueError):
    """No graph of the network; the message says why."""


@dataclasses.dataclass(frozen=True)
class Graph:
    """``nodes`` in order; ``names``: what each placeholder that is a parameter is called by ``named_parameters``;
    ``constants``: the values of those that are buffers or constants."""

    nodes: list
    names: dict
    constants: dict


def expect(net):
    """``TypeError`` or ``ValueError`` of what is no network with values."""
    if not isinstance(net, nn.Module):
        what = f"the class {net.__name__}" if isinstance(net, type) else f"a {type(net).__name__}"
        raise TypeError(f"net is {what}; expected a torch.nn.Module, such as nn.Linear(3, 2)")
    for name, tensor in [*net.named_parameters(), *net.named_buffers()]:
        if tensor.is_meta:
            raise ValueError(f"{name} is on the meta device; expected parameters and buffers with values")


def compiled(net):
    """The path of the first part that ``torch.compile`` or ``torch.jit`` made, in words; None without one."""
    found = [path for path, module in net.named_modules() if hasattr(module, "_orig_mod") or isinstance(module, torch.jit.ScriptModule)]
    return (found[0] or "the network") if found else None


def twin(net, dtype=torch.float64):
    """A copy of the network on the CPU, in float64 or, with ``dtype=None``, as it is, without hooks."""
    if lazy := [name for name, parameter in net.named_parameters() if nn.parameter.is_lazy(parameter)]:
        raise Unreadable(f"{lazy[0]} is lazy; expected a network that has run once")
    if path := compiled(net):
        raise Unreadable(COMPILED.format(path))
    kept = {id(tensor): _plain(tensor, dtype) for tensor in held(net)}  # deepcopy copies no tensor with a history
    try:
        double = copy.deepcopy(net, kept).to("cpu", dtype)
    except Exception as error:  # such as a lock or a generator on a module
        raise Unreadable(f"copy.deepcopy raises {told(error)}") from error
    for module in double.modules():
        for hooks in HOOKS:
            getattr(module, hooks).clear()
    for parameter in double.parameters():
        parameter.grad = None
    return double


def arguments(example, dtype=torch.float64):
    """What is :func:`examples.given`, on the CPU, in float64 or as it is."""
    args, kwargs = given(example)
    return _plain(args, dtype), _plain(kwargs, dtype)


def _plain(value, dtype):
    if isinstance(value, torch.Tensor):
        value = value.detach().to("cpu", copy=True)
        return value.to(dtype) if value.is_floating_point() and dtype else value
    if isinstance(value, dict):
        return {key: _plain(part, dtype) for key, part in value.items()}
    return type(value)(_plain(part, dtype) for part in value) if type(value) in (list, tuple) else value


@contextlib.contextmanager
def random_states_kept(devices=()):
    """The states of Python's, NumPy's and PyTorch's global generators, those of the GPUs ``devices`` too, as before."""
    state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002  a network's forward may draw from it
    with torch.random.fork_rng(devices, device_type="cuda"):
        try:
            yield
        finally:
            random.setstate(state)
            np.random.set_state(numpy_state)  # noqa: NPY002


@contextlib.contextmanager
def undisturbed():
    """Random states and the default dtype (given back) as before, whatever runs; new tensors in float64; nothing printed."""
    dtype, logs = torch.get_default_dtype(), logging.root.manager.disable
    with (random_states_kept(), warnings.catch_warnings(), torch.inference_mode(False), torch.enable_grad(),
          contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO())):
        warnings.simplefilter("ignore")
        torch.set_default_dtype(torch.float64)
        logging.disable(logging.CRITICAL)
        try:
            yield dtype
        finally:
            logging.disable(logs)
            torch.set_default_dtype(dtype)


def run(whole, args, kwargs):
    try:
        return whole(*args, **kwargs)
    except Exception as error:  # whatever the network's own code raises
        raise Unreadable(f"on a float64 copy its forward raises {told(error)}") from error


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


def read(copy_of_net, args, kwargs):
    """The graph of a copy of the network, in the mode that it is in."""
    try:
        graph = _graph(torch.export.export(WithTraces(copy_of_net), args, kwargs), copy_of_net)
    except Exception as error:  # whatever the network's own code or the tracer raises
        decides = any(type(one).__name__ in UNGUARDED for one in (error, error.__cause__, error.__context__))
        raise Unreadable(DECIDES if decides else f"torch.export raises {told(error)}") from error
    if any(isinstance(size, torch.SymInt) for node in graph.nodes for tensor in tensors(node.meta.get("val")) for size in tensor.shape):
        raise Unreadable(SHAPES)
    return graph


def told(error):
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
    return found | behind_functions(double, args, kwargs)


def behind_functions(double, args, kwargs):
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
