from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

STRIDE_ALIGNMENT: int
SKETCH_BYTES: tuple[int, ...]
COARSE_BYTES: int
SHORTLIST: int
LEAST_SHORTLIST: int

def instruction_set() -> str: ...
def instruction_sets() -> list[str]: ...
def use_instruction_set(name: str) -> None: ...
def minhash_by_permutations(
    indptr: Array, indices: Array, xors: Array, multipliers: Array, seed: int
) -> npt.NDArray[np.uint32]: ...
def minhash_by_one_permutation(
    indptr: Array, indices: Array, values: int, seed: int
) -> npt.NDArray[np.uint32]: ...
def minhash_table_keys(
    signatures: Array, tables: int, K: int, seed: int
) -> npt.NDArray[np.uint32]: ...
def minhash_sketches(signatures: Array, first: int, bits: int) -> npt.NDArray[np.uint8]: ...
def signed_projections(vectors: Array, signs: Array, bits: int) -> npt.NDArray[np.uint8]: ...
def sparse_projections(
    indptr: Array, indices: Array, values: Array, seed: int, bits: int
) -> npt.NDArray[np.uint8]: ...
def inner_products_of_sparse(
    indptr: Array, indices: Array, values: Array, query_indices: Array, query_values: Array
) -> npt.NDArray[np.float32]: ...
def insert_into_groups(bitmaps: Array, keys: Array, first: int, group_size: int) -> None: ...
def ranked_cells(
    bitmaps: Array, cells: int, keys: Array, chosen: Array
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint16], npt.NDArray[np.int64]]: ...
def sort_postings(positions: Array, offsets: Array) -> None: ...
def insert_into_rows(bitmaps: Array, keys: Array, cells: Array) -> None: ...
def paper_search(
    bitmaps: Array, keys: Array, rows: int, first: Array, members: Array, dead: Array, k: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint16]]: ...

class Team:
    def help(self) -> None: ...
    def end(self) -> None: ...

class SegmentView:
    points: int
    sketch_bytes: int
    any_dead: bool
    group_size: int
    def __init__(
        self,
        sketches: tuple[Array, Array],
        ids: Array | None,
        points: int,
        dead: Array | None,
        sets: tuple[Array, Array] | None,
        vectors: Array | None,
        *,
        bitmaps: Array | None = None,
        group_size: int = 1,
        postings: tuple[Array, Array] | None = None,
        values: Array | None = None,
    ) -> None: ...
    def candidates(
        self,
        keys: Array,
        sketches: Array,
        breadth: int,
        candidates: int,
        team: Team | None = None,
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint16]]: ...
    def estimate(
        self,
        keys: Array,
        sketches: Array,
        breadth: int,
        candidates: int,
        k: int,
        min_score: float,
        estimates: Array,
        team: Team | None = None,
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]: ...
    def search_sets(
        self,
        keys: Array,
        sketches: Array,
        indptr: Array,
        indices: Array,
        salt: int,
        breadth: int,
        candidates: int,
        k: int,
        min_score: float,
        highest: Array,
        team: Team | None = None,
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]: ...
    def search_sparse(
        self,
        keys: Array,
        sketches: Array,
        indptr: Array,
        indices: Array,
        values: Array,
        breadth: int,
        candidates: int,
        k: int,
        min_score: float,
        highest: Array,
        team: Team | None = None,
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]: ...
    def search_vectors(
        self,
        keys: Array,
        sketches: Array,
        queries: Array,
        breadth: int,
        candidates: int,
        k: int,
        min_score: float,
        highest: Array,
        team: Team | None = None,
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]: ...

def jaccard_of_rows(
    indptr: Array, elements: Array, positions: Array, query: Array, salt: int
) -> npt.NDArray[np.float32]: ...
def jaccard_of_all(
    indptr: Array, indices: Array, query_indptr: Array, query_indices: Array, salt: int
) -> npt.NDArray[np.float32]: ...
def shingle_batch(
    unit: Literal["byte", "char", "word", "dna", "letters"] | str,
    texts: Sequence[str | bytes],
    n: int,
    canonical: bool = True,
    *,
    copies: int = 0,
    letters: Array | None = None,
    complements: Array | None = None,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint64]]: ...
def ngram_batch(
    indptr: Array, values: Array, n: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint64]]: ...
def json_rows(
    text: bytes, key: bytes
) -> tuple[int, int, npt.NDArray[np.int64], npt.NDArray[np.uint64]] | None: ...
def sort_unique(
    indptr: Array, elements: Array, copies: int = 1
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint64]]: ...
def take_sets(
    indptr: Array, elements: Array, rows: Array
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint64]]: ...
def hash_tokens(tokens: list[bytes]) -> npt.NDArray[np.uint64]: ...
