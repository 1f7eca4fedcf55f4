"""What the engines of FAISS decide, each for itself; what they share is ``rebuilt``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import faiss
import numpy as np
import numpy.typing as npt
from closeby.index.batches import Batch
from closeby.index.engine import Metric
from closeby.index.errors import InvalidInputError

from .structure import Structure


class Choices(ABC):
    """The part of an engine that differs.

    Attributes:
        kind: name of the engine.
        metrics: those it takes.
        part: what the structure is called in ``nbytes``.
        masks: whether FAISS's search leaves out masked points itself.
        options: names of its parameters beside those that all have.
    """

    kind: ClassVar[str]
    metrics: ClassVar[tuple[Metric, ...]]
    part: ClassVar[str]
    masks: ClassVar[bool] = True
    options: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def _codes(self, features: Batch) -> npt.NDArray[Any]:
        """What FAISS is given of features: vectors, or sketches."""

    @abstractmethod
    def _empty(self, codes: npt.NDArray[Any]) -> Any:
        """A FAISS index for these codes, trained and empty."""

    @abstractmethod
    def _faiss_type(self) -> str:
        """Name of the type of FAISS's index."""

    @abstractmethod
    def _breadths(self, points: int) -> tuple[int, ...]:
        """Breadths at which recall is measured in a structure of so many points, rising."""

    @abstractmethod
    def _candidates(self, breadth: int, k: int) -> int:
        """How many of the structure's answers are compared exactly."""

    @abstractmethod
    def _how(self, breadth: int, selector: Any) -> Any:
        """FAISS's parameters of a search; `selector` (None: all) says which points to leave out."""

    @abstractmethod
    def _structure_bytes(self, faiss_index: Any) -> int:
        """Memory of FAISS's structure."""

    @abstractmethod
    def _why(self) -> str:
        """One sentence: what a query does."""

    def _adopt(self, parameters: dict[str, Any]) -> None:  # noqa: B027 - most choose nothing
        """Take over what an index chose by its first points."""

    def _must_retrain(self, structure: Structure, points: int) -> bool:  # noqa: ARG002
        """Whether a structure has to be built anew for so many points."""
        return False

    _clone = staticmethod(faiss.clone_index)

    def _least_breadth(self, k: int) -> int:  # noqa: ARG002
        """How far a query must look to find k points at all."""
        return 1

    def _check_first(self, features: Batch) -> None:  # noqa: B027 - most take any
        """Raise InvalidInputError if the engine's options do not fit points like these."""


def whole(name: str, value: Any, least: int, most: int) -> int:
    """A whole number within bounds.

    Raises:
        InvalidInputError: it is not.
    """
    wrong = isinstance(value, bool) or not isinstance(value, (int, np.integer))
    if wrong or not least <= value <= most:
        raise InvalidInputError(
            f"{name} must be a whole number from {least} to {most}", field=name, limit=most
        )
    return int(value)
