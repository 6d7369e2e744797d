"""The conservation laws of any network: read from what it computes, and tried before they are returned.

``degrees`` (unknowns and equations), ``examples``, ``traces`` and ``graph`` (what a call computes), ``calls`` (and others),
``reading``, ``contraction``, ``elementwise``, ``layers`` and ``operations`` (what each operation says), ``labels`` and ``law``,
``pairs`` (from solutions to laws), ``rotations`` (queries and keys), ``shifts`` (key biases), ``guard``: each needs only
those named before it.
"""

import torch

from . import calls, graph, guard, rotations
from .law import Law, Laws, Refused
from .operations import OPERATIONS
from .pairs import find
from .reading import Reader
from .shifts import Shifts

__all__ = ["Law", "Laws", "Refused", "laws"]


def laws(net: torch.nn.Module, example: torch.Tensor | tuple | dict) -> Laws:
    """The laws that gradient flow keeps on ``net`` for every loss of its outputs, as :class:`Laws`.

    ``example``: a tensor, a tuple of arguments or a dict of keywords, as the network takes them. The laws hold for its
    shapes and its arguments that are no tensors, and for the way that Python's branches took: in each mode at the first
    calls, in float64 and in the network's dtype. Frozen parameters count as constants: freeze or unfreeze, then call again.
    Tensors that the network keeps on its modules, in whatever object they hold, count as outputs; those in a global or on a
    class do not. The laws are read from ``torch.export``'s graphs in training
    and in evaluation: hidden units that parameters write and parameters read, with nothing between that is not
    homogeneous (Du, Hu and Lee 2018; Marcotte, Gribonval and Peyre 2023); queries and keys with only constant linear maps
    before their scores; key biases that softmax does not see. What is not understood refuses the units that go into it,
    by name, in ``refused``. Every law returned was tried in float64, at random parameters of scale 0.1, 1
    and 10, on random inputs and losses; ``net`` and all random states stay as they were. :prf:ref:`thm-unit-balance`.

    ``TypeError`` of what is no network or example, ``ValueError`` of one that has no values, of an example that is empty or not
    finite (a mask beside other tensors may hold minus infinity), and where forward or backward raises.
    """
    graph.expect(net)
    with graph.undisturbed() as dtype:
        args, kwargs = graph.arguments(example)
        try:
            calls.tried(net, example, dtype)
            double = graph.twin(net)
            frozen = graph.untouchable(net, double, args, kwargs)
            reader = Reader(double, frozen, graph.hooked(net))
            shifts, programs = Shifts(reader), list(calls.programs(double, args, kwargs))
            for program in programs:
                reader.read(program, OPERATIONS)
                shifts.read(program)
            found, refused = find(reader)
            found += rotations.find(reader, programs, found)
            found, refused = (one + other for one, other in zip((found, refused), shifts.find(reader.parameters)))
            defects = guard.worst(found, double, args, kwargs)
        except graph.Unreadable as error:
            return Laws([], [Refused((), 0, str(error))], net)
    refused = [Refused((name,), 0, reason) for name, reason in frozen.items()] + [Refused(*part) for part in refused + reader.unread()]
    kept = []
    for law, defect in zip(found, defects):
        if defect <= guard.ALLOWED:
            kept.append(law)
        else:
            reason = f"read, but its defect is {defect:.0e}" if defect == defect else "in no trial its gradients were more than rounding"
            refused.append(Refused(law.parameters, len(law.terms[0].entries), reason))
    return Laws(kept, refused, net)
