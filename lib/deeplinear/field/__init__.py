r"""Is the end-to-end rule the gradient of anything? Curl, closed line integrals, certificates, potentials.

.. math:: F_N(W) = A_W(\nabla L(W)), \qquad F_N(w) = |w|^{2-2/N} \Big( g + (N-1) \frac{\langle w, g \rangle}{|w|^2} w \Big)

is the field a balanced network of depth N follows downhill. It is a gradient only if its integral around every closed
curve is 0. Polynomial losses (:class:`~deeplinear.losses.LpLoss`, :class:`~deeplinear.losses.Polynomial`) are taken as
exact: a float is the rational number it stands for. ``depth`` is an integer >= 1; for one output any real number > 0
(below 1 the field is not defined at 0).
"""

from .decisions import Decision, Potential, SpectralPotential, is_gradient, obstruction, potential
from .derivatives import curl, expression, gradient_variation, vector_field
from .line_integrals import Derivation, Enclosure, green, line_integral, symbolic
from .matrix_integrals import matrix_line_integral

__all__ = ["Enclosure", "Potential", "SpectralPotential", "Decision", "Derivation", "vector_field", "curl", "expression",
           "gradient_variation", "obstruction", "line_integral", "green", "matrix_line_integral", "symbolic", "is_gradient", "potential"]
