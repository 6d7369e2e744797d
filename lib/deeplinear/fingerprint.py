"""A digest of what settles a run: of tensors, numbers and the objects that hold them."""

import hashlib
import numbers

import numpy as np
import sympy as sp
import torch


def fingerprint(*things):
    """The SHA-256, shortened, of tensors and arrays (type, shape, entries), numbers and texts, lists, tuples and dicts of
    them, and of objects by their class and attributes; of functions, generators and the like the class and name alone."""
    digest = hashlib.sha256()
    _feed(digest, things, set())
    return digest.hexdigest()[:16]


def _feed(digest, thing, within):
    """Feed one thing; ``within``: the objects on the way to it, which may hold each other."""
    def text(*words):
        digest.update("\0".join(map(str, (*words, ""))).encode())

    if isinstance(thing, torch.Tensor):
        thing = thing.detach().cpu().contiguous()
        text(thing.dtype, tuple(thing.shape))
        digest.update(thing.flatten().view(torch.uint8).numpy().tobytes() if thing.numel() else b"")
    elif isinstance(thing, np.ndarray):
        text(thing.dtype, thing.shape, *(thing.ravel().tolist() if thing.dtype == object else ()))
        digest.update(b"" if thing.dtype == object else np.ascontiguousarray(thing).tobytes())
    elif thing is None or isinstance(thing, (numbers.Number, str, bytes, sp.Basic)):
        text(type(thing).__name__, repr(thing))
    elif isinstance(thing, (list, tuple)):
        text("list", len(thing))
        for each in thing:
            _feed(digest, each, within)
    else:
        kind = type(thing)
        text(kind.__module__, kind.__qualname__, getattr(thing, "__qualname__", ""))
        entries = thing if isinstance(thing, dict) else getattr(thing, "__dict__", {})
        if id(thing) in within or isinstance(thing, type) or callable(thing):
            return
        for key in sorted(entries, key=str):
            text(key)
            _feed(digest, entries[key], within | {id(thing)})
