"""What the tests of ``deeplinear.deepening`` and ``deeplinear.folding`` share."""

import deeplinear as dl


def made(make, seed=0):
    """A network in float64, started by PyTorch at ``seed``."""
    with dl.chain.forked(seed):
        return make().double()


def inputs(*shape, seed=1):
    return dl.normal(*shape, generator=dl.seeded(seed))


def factors(layer):
    """The parameters of a deepened layer's weight, the first acts first."""
    return list(layer.parametrizations.weight.parameters())
