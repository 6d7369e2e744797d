"""The types that repeat in signatures: for readers and type checkers; nothing is computed with them."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import ArrayLike

Array = TypeVar("Array", torch.Tensor, np.ndarray)  # what comes in goes out; an array holds exact entries or symbols
Numbers = torch.Tensor | ArrayLike  # anything that NumPy reads as numbers
Exact = Any  # a tensor where the data are tensors; an array of their entries where these are rationals or symbols
Number = Any  # a float, or an exact number of Python, SymPy or python-flint
Rule = Literal["layers", "end-to-end"]
Method = Literal["closed-form", "quadrature", "certified"]
Report = Callable[[Any], object]  # called now and then with how far a run is; what it raises ends the run
Directions = tuple[Sequence[Number], Sequence[Number]] | None


class Optimizer(Protocol):
    """A rule that moves parameters in place."""

    @property
    def lr(self) -> Any: ...

    def start(self, parameters: Sequence[torch.Tensor], /) -> list[torch.Tensor]: ...

    def step(self, parameters: Sequence[torch.Tensor], gradients: Sequence[torch.Tensor],
             state: Sequence[torch.Tensor], /) -> None: ...


class Checkpoint(Protocol):
    """The file of an unfinished run: :class:`deeplinear.recorded.Checkpoint`."""

    def of(self, settings: str, /) -> "Checkpoint": ...

    def load(self) -> dict[str, np.ndarray] | None: ...

    def save(self, arrays: dict[str, Any], /) -> None: ...

    def save_now_and_then(self, make: Callable[[], dict[str, Any]], /) -> None: ...


class Valued(Protocol):
    """A loss with a value."""

    def value(self, W: Any, /) -> Any: ...


class Trainable(Protocol):
    """A loss that descent can lower."""

    def value_and_gradient(self, W: Any, /) -> tuple[Any, Any]: ...


class Differentiable(Protocol):
    """A loss with a gradient."""

    def gradient(self, W: Any, /) -> Any: ...


class Shaped(Differentiable, Protocol):
    """A loss with a gradient, of matrices of one shape."""

    @property
    def shape(self) -> Any: ...


class Smooth(Shaped, Protocol):
    """A loss with a gradient and a Hessian."""

    def hessian_product(self, W: Any, V: Any, /) -> Any: ...
