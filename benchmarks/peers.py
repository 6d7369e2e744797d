"""The ways to train a batch of deep linear networks that the benchmark compares.

Every entry is made from a :class:`Problem` and offers ``advance(steps)``, which trains further, ``end_to_end()``, where
it has got to, (K, 1, d), ``runs``, how many configurations one advance serves, and ``least_steps``, how many it takes at
least: the engine is set up anew in every advance, as no real run is.
"""

import dataclasses

import torch

import deeplinear as dl


@dataclasses.dataclass(frozen=True)
class Problem:
    """lp regression with K configurations of one depth and width; every configuration has its own start."""

    X: torch.Tensor
    y: torch.Tensor
    p: int
    depth: int
    width: int
    runs: int
    rate: float
    optimizer: str = "GD"

    @property
    def starts(self):
        """Layers (K, n_{j+1}, n_j) that keep signals at their size: scalars near 1, wider layers Gaussian."""
        dims = (self.X.shape[1],) + (self.width,) * (self.depth - 1) + (1,)
        layers = [W / W.shape[-1] ** 0.5 for W in dl.near_zero_init(dims, 1.0, dl.seeded(0), (self.runs,))]
        layers[0] = 0.3 * layers[0]
        return [(W if W.shape[-1] > 1 else 1 + W / 10).to(self.X) for W in layers]


class AutogradChain:
    """The field's way: one nn.Linear chain, autograd, one torch.optim optimiser per run."""

    runs, least_steps = 1, 1

    def __init__(self, problem, run=0):
        self.problem = problem
        self.layers = torch.nn.Sequential()
        for W in problem.starts:
            layer = torch.nn.Linear(W.shape[-1], W.shape[-2], bias=False, dtype=W.dtype, device=W.device)
            layer.weight.data.copy_(W[run])
            self.layers.append(layer)
        kind = {"GD": torch.optim.SGD, "Adam": torch.optim.Adam}[problem.optimizer]
        self.optimizer = kind(self.layers.parameters(), lr=problem.rate)

    def advance(self, steps):
        X, y, p = self.problem.X, self.problem.y[:, None], self.problem.p
        for _ in range(steps):
            self.optimizer.zero_grad()
            ((self.layers(X) - y) ** p).mean().backward()
            self.optimizer.step()

    def end_to_end(self):
        return dl.end_to_end([layer.weight.detach()[None] for layer in self.layers])


class BatchedAutograd:
    """All runs in one module with batched layers, collapsed first; autograd and torch.optim."""

    least_steps = 1

    def __init__(self, problem):
        self.problem, self.runs = problem, problem.runs
        self.layers = [torch.nn.Parameter(W) for W in problem.starts]
        self.optimizer = torch.optim.SGD(self.layers, lr=problem.rate)

    def advance(self, steps):
        problem, Xt = self.problem, self.problem.X.T
        for _ in range(steps):
            self.optimizer.zero_grad()
            W = self.layers[0]
            for layer in self.layers[1:]:
                W = layer @ W
            ((W[:, 0] @ Xt - problem.y) ** problem.p).mean(1).sum().backward()
            self.optimizer.step()

    def end_to_end(self):
        return dl.end_to_end([W.detach() for W in self.layers])


class VmapGrad:
    """``torch.func.vmap(grad)`` of one network's loss over the batch of starts."""

    least_steps = 1

    def __init__(self, problem):
        self.problem, self.runs = problem, problem.runs
        self.layers = tuple(problem.starts)

        def loss(*layers):
            W = layers[0]
            for layer in layers[1:]:
                W = layer @ W
            return ((problem.X @ W[0] - problem.y) ** problem.p).mean()

        self.gradients = torch.func.vmap(torch.func.grad(loss, argnums=tuple(range(problem.depth))))

    def advance(self, steps):
        for _ in range(steps):
            self.layers = tuple(W - self.problem.rate * G for W, G in zip(self.layers, self.gradients(*self.layers)))

    def end_to_end(self):
        return dl.end_to_end(list(self.layers))


class Engine:
    """``dl.sweep``, its set-up included."""

    least_steps = 100

    def __init__(self, problem):
        self.problem, self.runs = problem, problem.runs
        self.layers = problem.starts
        self.loss = dl.LpLoss(problem.X, problem.y, problem.p)
        rates = torch.full((problem.runs,), problem.rate, dtype=problem.X.dtype, device=problem.X.device)
        self.optimizer = {"GD": dl.GD, "Adam": dl.Adam}[problem.optimizer](rates)

    def advance(self, steps):
        run, = dl.sweep([dl.Group(self.loss, self.layers, self.optimizer)], steps, [steps])
        if (run.diverged_at >= 0).any():
            raise RuntimeError(f"{int((run.diverged_at >= 0).sum())} runs diverged at rate {self.problem.rate}")
        self.layers = run.weights

    def end_to_end(self):
        return dl.end_to_end(self.layers)


class Roofline:
    """The two matrix products a step cannot do without, alone; for p = 2 in float64, the one product of the moments."""

    least_steps = 1

    def __init__(self, problem):
        self.runs = problem.runs
        n, d = problem.X.shape
        self.X, self.Xt = problem.X, problem.X.T.contiguous()
        self.W, self.R = self.X.new_zeros(self.runs, d), self.X.new_empty(self.runs, n)
        self.H = self.Xt @ self.X if problem.p == 2 and problem.X.dtype == torch.float64 else None
        self.G = torch.empty_like(self.W)

    def advance(self, steps):
        for _ in range(steps):
            if self.H is not None:
                torch.mm(self.W, self.H, out=self.G)
            else:
                torch.mm(self.W, self.Xt, out=self.R)
                torch.mm(self.R, self.X, out=self.G)
