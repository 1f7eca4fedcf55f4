"""What every featurizer has: a name, a specification, and features of raw inputs."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from .batches import Batch, SetBatch
from .errors import InvalidInputError

MAX_ELEMENTS = 1_000_000


class Featurizer(ABC):
    """Turns a list of raw inputs into a batch of features.

    Attributes:
        kind: name in a specification.
        field: name of the raw input in a point: ``"text"``, ``"sequence"``, ``"set"``,
            ``"vector"`` or ``"sparse"``.
        element: what a set is given as, int or str.
        gives_back: whether the features alone tell the input (but for order and repeats of a set).
    """

    kind: ClassVar[str]
    field: ClassVar[str]
    element: type = int
    gives_back: bool = False

    @property
    @abstractmethod
    def spec(self) -> dict[str, Any]:
        """The complete specification; ``featurizer_from(f.spec)`` is the same featurizer."""

    @abstractmethod
    def features(self, inputs: Sequence[Any]) -> Batch:
        """Features of each input: a ``SetBatch``, float32 (n, dim), or a ``SparseBatch``.

        Raises:
            InvalidInputError: an input is of the wrong type or size; ``row`` says which.
        """

    def empty_rows(self, features: Batch) -> npt.NDArray[np.int64]:
        """Numbers of the rows without any element, int64: nothing can be near them."""
        if isinstance(features, SetBatch):
            return np.flatnonzero(features.sizes == 0).astype(np.int64)
        return np.zeros(0, np.int64)


def whole_number(value: Any, field: str, least: int, most: int) -> int:
    """`value`, if it is a whole number in that range. Raises InvalidInputError."""
    integral = isinstance(value, int) and not isinstance(value, bool)
    if not integral or not least <= value <= most or math.isnan(value):
        raise InvalidInputError(
            f"{field} must be a whole number from {least} to {most}", field=field, limit=most
        )
    return int(value)
