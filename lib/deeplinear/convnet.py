"""The MNIST ConvNet of TensorFlow's tutorial, which Arora, Cohen and Hazan 2018 deepen by linear layers, and its trainer.

Images are rows of ``side * side`` pixels, shape (n, side^2), float32; labels are integers, shape (n,). A net is a plain
``torch.nn.Module``. Training reports the loss on the data and the penalty on the weights separately, since the penalty
hides what the data term does.
"""

import copy
import dataclasses
import itertools
import math
import time
from collections.abc import Sequence
from typing import Any, Literal, TypeVar

import torch
from torch import nn
from torch.nn import functional as F

from . import chain
from .annotations import Checkpoint, Report
from .fingerprint import fingerprint
from .penalties import Penalty

TUTORIAL = {"channels": (32, 64), "kernel": 5, "hidden": 512, "dropout": 0.5}
SMALL = {"channels": (8, 16), "kernel": 3, "hidden": 64, "dropout": 0.0}
VARIANTS = ("original", "deep", "identity", "folded", "low-rank")
Net = TypeVar("Net", bound=nn.Module)


class ConvNet(nn.Module):
    """Convolutions of odd ``kernel``, each with ReLU and 2 x 2 max-pooling, a dense layer with ReLU, dropout, an output.

    The defaults are the tutorial's: 1,663,370 parameters. ``forward``: pixels (n, side^2) to logits (n, classes).
    """

    def __init__(self, channels: Sequence[int] = (32, 64), kernel: int = 5, hidden: int = 512, dropout: float = 0.5,
                 side: int = 28, classes: int = 10) -> None:
        super().__init__()
        self.side = side
        self.convolutions = nn.ModuleList(nn.Conv2d(before, after, kernel, padding=kernel // 2)
                                          for before, after in zip((1, *channels), channels))
        self.dense = nn.Linear(channels[-1] * (side // 2 ** len(channels)) ** 2, hidden)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(hidden, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.reshape(-1, 1, self.side, self.side).contiguous(memory_format=torch.channels_last)
        for convolution in self.convolutions:
            x = F.relu(F.max_pool2d(convolution(x), 2))  # the maximum commutes with ReLU, and this way it is cheaper
        return self.output(self.dropout(F.relu(self.dense(x.flatten(1)))))


def build(variant: str, generator: torch.Generator, std: float = 0.1, **architecture: Any) -> ConvNet:
    """A :class:`ConvNet` with the tutorial's start: weights normal with standard deviation 0.1, cut at two of them;
    biases 0 in the first convolution, 0.1 elsewhere. ``architecture``: ``TUTORIAL`` (default), ``SMALL`` or your own.

    ``variant``: ``"original"``; ``"deep"``, the paper's: behind the matrix of the dense and of the output layer a new
    square one, drawn like the others with standard deviation ``std``; ``"identity"``, the new ones start as identities;
    ``"folded"``, the original net, its two matrices started at the products of ``"deep"``; ``"low-rank"``, the dense
    layer's matrix is a product through an eighth of its width, which takes parameters away. ``ValueError`` for others.
    """
    if variant not in VARIANTS:
        raise ValueError(f"variant is {variant!r}; expected one of {', '.join(VARIANTS)}")
    if not (math.isfinite(std) and std >= 0):
        raise ValueError(f"std is {std!r}; expected a finite number >= 0")
    with chain.forked(0):  # PyTorch draws a start that is not used
        net = ConvNet(**architecture)
    draw = lambda *shape, std=0.1: chain.truncated_normal(*shape, std=std, generator=generator).float()
    for module in (*net.convolutions, net.dense, net.output):
        module.weight = nn.Parameter(draw(*module.weight.shape))
        nn.init.constant_(module.bias, 0.0 if module is net.convolutions[0] else 0.1)
    if variant in ("deep", "identity", "folded"):
        for name in ("dense", "output"):
            layer = getattr(net, name)
            size = len(layer.weight)
            new = torch.eye(size) if variant == "identity" else draw(size, size, std=std)
            setattr(net, name, _product(layer.weight, new, layer.bias))
    if variant == "low-rank":
        rows, columns = net.dense.weight.shape
        net.dense = _product(draw(rows // 8, columns), draw(rows, rows // 8), net.dense.bias)
    return (fold(net) if variant == "folded" else net).to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def fold(net: Net) -> Net:
    """A copy of a net that :func:`build` made in which every product of linear layers is one layer: the same function.

    For nets of other making :func:`deeplinear.folding.fold`, which knows of biases inside, convolutions and nested parts.
    """
    net = copy.deepcopy(net)
    for name, module in net.named_children():
        if isinstance(module, nn.Sequential):
            weight = chain.end_to_end([layer.get_parameter("weight").detach() for layer in module])
            setattr(net, name, _linear(weight, module[-1].bias))
    return net


def parameters(net: nn.Module) -> int:
    """The number of parameters."""
    return sum(p.numel() for p in net.parameters())


@dataclasses.dataclass(frozen=True)
class Run:
    """``data`` (steps,): the loss of every batch, NaN from ``diverged_at`` on (-1: never). ``penalty``: the L2 term
    before each of the steps in ``at``. ``seconds``: of all steps, evaluation of the penalty included."""

    data: torch.Tensor
    penalty: torch.Tensor
    at: torch.Tensor
    diverged_at: int
    seconds: float


def steps_to(losses: torch.Tensor, level: float, window: int = 25) -> float:
    """The first step after which the mean of the last ``window`` batch losses is at most ``level``, or infinity.

    ``losses``: shape (steps,), as in :attr:`Run.data`.
    """
    reached = losses.unfold(0, window, 1).mean(1) <= level
    return window + int(reached.to(torch.uint8).argmax()) if reached.any() else math.inf


def train(net: ConvNet, X: torch.Tensor, y: torch.Tensor, lr: float, steps: int, batch: int = 64, momentum: float = 0.9,
          decay: float = 0.95, penalty: float = 5e-4, penalise: str = "both",
          order: Literal["shuffled", "tutorial"] = "shuffled", seed: int = 0, checkpoint: Checkpoint | None = None,
          report: Report | None = None) -> Run:
    """Train ``net`` in place by stochastic gradient descent with heavy-ball momentum; returns a :class:`Run`.

    The tutorial's settings are the defaults: the rate is ``lr`` times ``decay`` for every full pass, the loss is the cross
    entropy plus ``penalty / 2`` times the squares that ``penalise`` names (:class:`deeplinear.penalties.Penalty`).
    ``order``: ``"shuffled"``, a new permutation each pass, or ``"tutorial"``, consecutive batches. ``X`` and ``y`` lie on
    the device of ``net``. ``seed`` settles the order and the dropout. A loss that is not finite ends the run and is
    recorded; lack of memory raises ``MemoryError``. ``checkpoint``: a :class:`deeplinear.recorded.Checkpoint`; a run that
    finds one goes on from it, bit for bit as if never stopped. ``report(step)``, if given, is called now and then; what
    it raises ends the run, after a checkpoint.
    """
    if order not in ("shuffled", "tutorial"):
        raise ValueError(f"order is {order!r}; expected 'shuffled' or 'tutorial'")
    if not 0 < batch <= len(X) or len(X) != len(y):
        raise ValueError(f"{len(X)} images, {len(y)} labels and batches of {batch}; expected a label for each image and "
                         "a batch no larger than the data")
    term = Penalty(net, penalise, penalty)
    progress = _Progress(net, term.optimiser(lr, momentum), steps, X.device)
    if checkpoint is not None:
        settings = lr, steps, batch, momentum, decay, penalty, penalise, order, seed
        checkpoint = checkpoint.of(fingerprint(settings, X, y, list(net.parameters())))
    net.train()
    started = time.perf_counter()
    with chain.forked(seed, X.device):
        first = progress.restore(checkpoint)
        started -= progress.seconds
        rows = itertools.islice(batches(len(X), batch, order, seed, X.device), first, None)
        for step in range(first, steps):
            for group in progress.optimiser.param_groups:
                group["lr"] = lr * decay ** (step * batch // len(X))
            if step % 20 == 0:
                progress.terms.append(term.value())
            try:
                progress.data[step] = _step(net, progress.optimiser, term, X, y, next(rows))
            except RuntimeError as error:
                if isinstance(error, torch.OutOfMemoryError) or "allocate memory" in str(error):
                    raise MemoryError(f"no memory on {X.device} for a batch of {batch}; expected enough for one step. "
                                      "Take a smaller batch or net") from error
                raise
            if step % 20 == 19 or step == steps - 1:
                progress.seconds = time.perf_counter() - started
                if progress.lost(step + 1):
                    break
                progress.tell(step + 1, checkpoint, report)
    return progress.run()


class _Progress:
    """How far a training run has come, and all that it needs to go on: ``data``, ``terms``, net, momentum, generator."""

    def __init__(self, net, optimiser, steps, device):
        self.net, self.optimiser, self.terms, self.seconds, self.diverged_at = net, optimiser, [], 0.0, -1
        self.data = torch.full((steps,), torch.nan, dtype=torch.float64, device=device)

    def lost(self, step):
        """Whether one of the first ``step`` losses is not finite; then that is recorded."""
        finite = torch.isfinite(self.data[:step])
        if finite.all():
            return False
        self.diverged_at = int((~finite).to(torch.uint8).argmax())
        self.data[self.diverged_at:] = torch.nan
        return True

    def tell(self, step, checkpoint, report):
        """Report, and save a checkpoint where its time has come."""
        try:
            if report:
                report(step)
        except BaseException:
            if checkpoint is not None:
                checkpoint.save(self.snapshot(step))
            raise
        if checkpoint is not None:
            checkpoint.save_now_and_then(lambda: self.snapshot(step))

    def snapshot(self, step):
        """Named arrays of everything, after ``step`` steps."""
        arrays = {"step": torch.tensor(step), "seconds": torch.tensor(self.seconds, dtype=torch.float64),
                  "data": self.data, "terms": torch.stack(self.terms), "generator": torch.get_rng_state()}
        if self.data.is_cuda:
            arrays["generator of the GPU"] = torch.cuda.get_rng_state(self.data.device)
        for i, p in enumerate(self.net.parameters()):
            arrays |= {f"{i}": p, f"{i} velocity": self.optimiser.state[p].get("momentum_buffer", torch.zeros(0))}
        return {name: value.detach().cpu().numpy() for name, value in arrays.items()}

    def restore(self, checkpoint):
        """Go back to what ``checkpoint`` holds, if it holds anything; returns the number of steps done."""
        saved = checkpoint.load() if checkpoint is not None else None
        if saved is None:
            return 0
        saved = {name: torch.from_numpy(value) for name, value in saved.items()}
        self.seconds, self.terms = saved["seconds"].item(), list(saved["terms"].to(self.data.device))
        self.data.copy_(saved["data"])
        with torch.no_grad():
            for i, p in enumerate(self.net.parameters()):
                p.copy_(saved[f"{i}"])
                if saved[f"{i} velocity"].numel():  # none without momentum
                    self.optimiser.state[p]["momentum_buffer"] = torch.empty_like(p).copy_(saved[f"{i} velocity"])
        torch.set_rng_state(saved["generator"])
        if self.data.is_cuda:
            torch.cuda.set_rng_state(saved["generator of the GPU"], self.data.device)
        return int(saved["step"])

    def run(self):
        at = torch.arange(0, 20 * len(self.terms), 20)
        return Run(self.data.cpu(), torch.stack(self.terms).double().cpu(), at, self.diverged_at, self.seconds)


def evaluate(net: nn.Module, X: torch.Tensor, y: torch.Tensor, batch: int = 1000) -> tuple[float, float]:
    """The mean loss and the share of errors, without dropout."""
    net.eval()
    with torch.no_grad():
        logits = torch.cat([net(part) for part in X.split(batch)])
    return F.cross_entropy(logits, y).item(), (logits.argmax(1) != y).double().mean().item()


def _step(net, optimiser, term, X, y, indices):
    loss = F.cross_entropy(net(X[indices]), y[indices])
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    term.add_gradient()
    optimiser.step()
    return loss.detach()


def batches(rows, batch, order, seed, device):
    """Index tensors without end: the tutorial's offsets, or permutations drawn on the CPU, the same for every device."""
    generator = chain.seeded(seed)
    step = 0
    while True:
        if order == "tutorial":
            offset = step * batch % max(rows - batch, 1)
            yield torch.arange(offset, offset + batch, device=device)
            step += 1
        else:
            permutation = torch.randperm(rows, generator=generator).to(device)
            yield from permutation.split(batch)[:rows // batch]


def _product(first, second, bias):
    """``x -> (x first^T) second^T + bias``."""
    return nn.Sequential(_linear(first), _linear(second, bias))


def _linear(weight, bias=None):
    layer = nn.utils.skip_init(nn.Linear, weight.shape[1], weight.shape[0], bias=bias is not None, device=weight.device,
                               dtype=weight.dtype)
    with torch.no_grad():
        layer.weight.copy_(weight)
        if bias is not None:
            layer.bias.copy_(bias)
    return layer
