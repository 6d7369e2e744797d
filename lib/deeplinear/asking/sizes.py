"""How many rows and steps a race has: functions of the table's shape and the seconds asked for, not of the machine."""

import torch

from .. import chain

MOST_ROWS, FEWER = 2000, 100_000  # rows, and rows times features
FEWEST = 300  # steps
FASTEST = 10_000 / 60  # steps a second of a small table, of which half a second is to do them
SPEED = 6e9  # floating-point operations in half a second on two cores


def drawn(X, y):
    """At most ``MOST_ROWS`` rows, fewer where there are many features, drawn with seed 0; the columns centred again."""
    n, d = X.shape
    most = min(n, MOST_ROWS, max(FEWER // d, 5 * d))
    if most == n:
        return X, y
    chosen = torch.randperm(n, generator=chain.seeded(0))[:most].sort().values
    X, y = X[chosen] - X[chosen].mean(0), y[chosen] - y[chosen].mean()
    if not y.std(correction=0) > 1e-6:
        raise ValueError(f"the target is constant in the {most} rows drawn for the race; expected one that varies")
    return X, y / y.std(correction=0)


def horizon(n, d, power, seconds):
    """How many steps: a function of the table's shape alone, so that the answer does not hang on the machine."""
    operations = 120 * d**2 + 6000 * d if power == 2 else 1000 * n * d
    steps = int(max(FEWEST, min(seconds * SPEED / operations, seconds * FASTEST)))
    size = 10 ** (len(str(steps)) - 2)
    return steps // size * size
