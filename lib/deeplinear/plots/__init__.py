"""Every figure of the book. The only module that imports a plotting library.

Each function returns a :class:`Figure`, a Matplotlib figure that shows itself as SVG: transparent, of fixed size, with
text as paths, no date and no random names, so that the same numbers give the same bytes.
"""

from .curves import band, lines
from .figure import Figure
from .ideas import directions, one_step, saddle, shapes, trades, two_speeds, unit, walks
from .intervals import intervals
from .matrices import imbalances, matrices
from .planes import cone, cover, curls, ellipses, sectors, switches
from .tables import factors

__all__ = ["Figure", "band", "cone", "cover", "curls", "directions", "ellipses", "factors", "imbalances", "intervals", "lines",
           "matrices", "one_step", "saddle", "sectors", "shapes", "switches", "trades", "two_speeds", "unit", "walks"]
