"""Deep linear networks: what adding layers that add nothing does to gradient descent.

One pipeline serves every chapter of *Depth as a preconditioner*: ``losses`` gives the gradient at the end-to-end matrix,
``chain`` turns it into layer gradients or ``preconditioner`` into the end-to-end step, ``descent`` or ``flow`` moves,
``checks``, ``plots`` and ``recorded`` look.
"""

import importlib
from typing import TYPE_CHECKING, Any

from . import (chain, checks, conservation, convnet, data, decay, deepening, descent, exact, factorisation, field, flow, homogeneous,
               imbalanced, ledger, losses, modes, optimizers, polar, preconditioner, products, recorded, shards, sources,
               transformer)
from .chain import (balanced_init, end_to_end, forked, identity_init, imbalance, integers, layer_gradients,
                    near_zero_init, normal, seeded, uniform)
from .checks import check, control, slope, table
from .deepening import deepen
from .descent import Group, sweep, train
from .losses import LpLoss, Polynomial
from .optimizers import GD, AdaDelta, AdaGrad, Adam, HeavyBall, Nesterov

if TYPE_CHECKING:
    from . import (adapters, asking, attention, experiments, folding, heads, networks, plots, printed, races, stiff, tuning,
                   units, verification)
    from .asking import ask
    from .folding import fold
    from .networks import laws

__all__ = ["AdaDelta", "AdaGrad", "Adam", "adapters", "ask", "asking", "attention", "balanced_init", "chain", "check",
           "checks", "conservation", "control", "convnet", "data", "decay", "deepen", "deepening", "descent", "end_to_end",
           "exact", "experiments", "factorisation", "field", "flow", "fold", "folding", "forked", "GD", "Group", "heads",
           "HeavyBall", "homogeneous", "identity_init", "imbalance", "imbalanced", "integers", "laws", "layer_gradients",
           "ledger", "losses", "LpLoss", "modes", "near_zero_init", "Nesterov", "networks", "normal", "optimizers", "plots",
           "polar", "Polynomial", "preconditioner", "printed", "products", "races", "recorded", "seeded", "shards", "slope",
           "sources", "stiff", "sweep", "table", "train", "transformer", "tuning", "uniform", "units", "verification"]

__version__ = recorded.version("deeplinear")

# Imported when first asked for: what needs Matplotlib, scipy.stats or torch.export takes longer to import than PyTorch.
LATER = {**dict.fromkeys(("adapters", "asking", "attention", "experiments", "folding", "heads", "networks", "plots", "printed",
                          "races", "stiff", "tuning", "units", "verification")),
         "ask": "asking", "fold": "folding", "laws": "networks"}


def __getattr__(name: str) -> Any:
    if name not in LATER:
        raise AttributeError(f"module 'deeplinear' has no attribute {name!r}")
    home = LATER[name]
    return getattr(importlib.import_module(f"deeplinear.{home}"), name) if home else importlib.import_module(f"deeplinear.{name}")


def __dir__() -> list[str]:
    return sorted({*globals(), *LATER})
