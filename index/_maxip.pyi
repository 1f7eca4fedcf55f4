from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

BLOCK: int
MAX_CANDIDATES: int

def instruction_set() -> str: ...
def instruction_sets() -> list[str]: ...
def use_instruction_set(name: str) -> None: ...
def rotate(vectors: Array, signs: Array) -> npt.NDArray[np.float32]: ...
def products(rows: Array, queries: Array) -> npt.NDArray[np.float32]: ...
def byte_products(
    rows: Array, scales: Array, query: Array, places: Array | None = None
) -> npt.NDArray[np.float32]: ...
def scan_codes(
    codes: Array,
    factors: Array,
    tables: Array,
    scale: float,
    offset: float,
    base: float,
    bar: float,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]: ...
def encode(
    vectors: Array,
    owners: Array,
    centroids: Array,
    signs: Array,
    bits: int,
    codes: Array,
    factors: Array,
    squares: Array,
) -> None: ...
def round_rows(vectors: Array, rows: Array, scales: Array) -> None: ...
def take_nearer(
    scores: Array, halves: Array, points: Array, first: int, best: Array, owners: Array
) -> None: ...
def sum_rows(vectors: Array, owners: Array, lists: int) -> npt.NDArray[np.float64]: ...

class ListsView:
    arrays: tuple[Any, ...]
    def __init__(
        self,
        centroids: Array,
        centroid_scales: Array,
        spreads: Array,
        starts: Array,
        signs: Array,
        codes: Array,
        factors: Array,
        rounded: Array,
        scales: Array,
        vectors: Array,
        ids: Array,
    ) -> None: ...
    def search(
        self,
        queries: Array,
        k: int,
        probes: int,
        candidates: int,
        finals: int,
        kappa: float,
        min_score: float,
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32], npt.NDArray[np.int64]]: ...
