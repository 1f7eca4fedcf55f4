from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Place = tuple[int, int]

class Points:
    count: int
    def __init__(
        self, sets: tuple[Array, Array] | None = None, vectors: Array | None = None
    ) -> None: ...
    def sketch(self) -> None: ...
    def hashes(self, seed: int) -> npt.NDArray[np.uint64]: ...
    def first_of_each(self, hashes: Array, order: Array) -> npt.NDArray[np.int64]: ...

def order_band(keys: Array, table: int) -> npt.NDArray[np.uint64]: ...
def join_band(
    points: Points,
    keys: Array,
    table: int,
    order: Array,
    cursor: Place,
    threshold: float,
    room: int,
    effort: int,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float64], Place | None]: ...
def cluster_band(
    points: Points,
    keys: Array,
    table: int,
    order: Array,
    threshold: float,
    begin: int,
    end: int,
    parent: Array,
) -> None: ...
def unite(a: Array, b: Array, parent: Array) -> None: ...
def flatten(parent: Array) -> None: ...
