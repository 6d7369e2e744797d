"""Deep linear networks: what adding layers that add nothing does to gradient descent.

One pipeline serves every chapter of *Depth as a preconditioner*: ``losses`` gives the gradient at the end-to-end matrix,
``chain`` turns it into layer gradients or ``preconditioner`` into the end-to-end step, ``descent`` or ``flow`` moves,
``checks``, ``plots`` and ``recorded`` look.
"""

from . import (adapters, asking, attention, chain, checks, conservation, convnet, data, decay, deepening, descent, exact,
               experiments, factorisation, field, flow, folding, heads, homogeneous, imbalanced, ledger, losses, modes, networks,
               optimizers, plots, polar, preconditioner, products, recorded, shards, sources, stiff, transformer, tuning,
               units, verification)
from .asking import ask
from .chain import (balanced_init, end_to_end, forked, identity_init, imbalance, integers, layer_gradients,
                    near_zero_init, normal, seeded, uniform)
from .checks import check, control, slope, table
from .deepening import deepen
from .descent import Group, sweep, train
from .folding import fold
from .losses import LpLoss, Polynomial
from .networks import laws
from .optimizers import GD, AdaDelta, AdaGrad, Adam, HeavyBall, Nesterov

__all__ = ["AdaDelta", "AdaGrad", "Adam", "adapters", "ask", "asking", "attention", "balanced_init", "chain", "check", "checks",
           "conservation", "control", "convnet", "data", "decay", "deepen", "deepening", "descent", "end_to_end", "exact",
           "experiments", "factorisation", "field", "flow", "fold", "folding", "forked", "GD", "Group", "heads", "HeavyBall",
           "homogeneous", "identity_init", "imbalance", "imbalanced", "integers", "laws", "layer_gradients", "ledger", "losses",
           "LpLoss", "modes", "near_zero_init", "Nesterov", "networks", "normal", "optimizers", "plots", "polar", "Polynomial",
           "preconditioner", "products", "recorded", "seeded", "shards", "slope", "sources", "stiff", "sweep", "table", "train",
           "transformer", "tuning", "uniform", "units", "verification"]

__version__ = recorded.version("deeplinear")
