"""FLINNG as the paper has it: several random partitions, no distances. A tested reference.

Engels, Coleman, Shrivastava, NeurIPS 2021. R rows; in each, every point is put at random into one
of B cells; each cell has a distance-sensitive Bloom filter of m arrays. A query counts for every
cell of every row how many of its m tests the cell passes, visits the cells of all rows by falling
count, and answers with a point when a cell of it has been met in every row, until k are found.

``FlinngIndex`` is what to use: one row, points grouped by similarity, sketches instead of further
rows (docs/algorithm.md, docs/decisions). This class exists so that the paper's own trade-offs
between R, B, m and K can be measured on the same hashes and kernels.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from . import _native
from .batches import Batch, FloatArray, Int64Array, SetBatch
from .buffers import Column
from .engine import Metric, check_batch, check_ids, check_k, check_metric
from .errors import InvalidInputError
from .hashed import Family
from .minhash import MinHashFamily, UInt8Array, UInt32Array, mix64, splitmix
from .projection import SignedRandomProjection
from .segment import HASH_BLOCK
from .segments import part
from .selectors import GroupTests
from .tuning import GroupShape

MAX_ROWS, MAX_TABLES, MAX_RANGE_BITS = 255, 4_096, 16
MAX_CELLS = 1 << 24


class PaperFlinngIndex:
    """The paper's index and decode.

    Args:
        metric: ``"jaccard"`` or ``"cosine"``.
        seed: of hashes and partitions; equal seeds, ids and points give equal answers.
        rows: R, random partitions; with one row the points of the best cells are the answer.
        cells: B, cells of a row.
        tables: m, tests of a cell.
        K: MinHash values combined into a key (Jaccard).
        range_bits: r; a test's array has 2^r bits, and a cosine key is r signs.

    Memory is m 2^r R B bits and R integers a point. Not for use by several threads.

    Raises:
        InvalidInputError: a parameter out of range.
    """

    kind: ClassVar[str] = "paper"

    def __init__(
        self,
        metric: Metric = "jaccard",
        seed: int = 0,
        *,
        rows: int = 3,
        cells: int = 4_096,
        tables: int = 64,
        K: int = 1,
        range_bits: int = 8,
    ) -> None:
        self.metric: Metric = check_metric(metric, ("jaccard", "cosine"))
        limits = {
            "rows": (rows, 1, MAX_ROWS),
            "cells": (cells, 1, MAX_CELLS // max(1, rows)),
            "tables": (tables, 1, MAX_TABLES),
            "K": (K, 1, 16),
            "range_bits": (range_bits, 1, MAX_RANGE_BITS),
        }
        for name, (value, least, most) in limits.items():
            if not least <= value <= most:
                raise InvalidInputError(
                    f"{name} must be from {least} to {most}", field=name, limit=most
                )
        self.seed, self.rows, self.cells, self.tables = seed, rows, cells, tables
        self.K, self.range_bits = K, range_bits
        self._row_seeds = splitmix(seed ^ 0xCE115, rows)
        shapes = GroupTests.shapes(rows * cells, GroupShape(1, range_bits), tables)
        self._bitmaps: UInt8Array = np.zeros(shapes["bitmaps"][1], np.uint8)
        self._ids = Column(np.int64)
        self._cells = Column(np.uint32, (rows,))
        self._dead: UInt8Array = np.zeros(0, np.uint8)
        self._removed = 0
        self._members: tuple[Int64Array, UInt32Array] | None = None
        self._family: Family | None = None
        self.dim: int | None = None
        self._next_id = 0

    def __len__(self) -> int:
        return len(self._ids) - self._removed

    def check(self, batch: Any) -> Batch:
        """The batch as hashed; raises what ``add`` would raise."""
        return check_batch(batch, self.metric, self.dim)

    def add(self, batch: Any, ids: Any = None) -> None:
        """Add points: each sets R m bits, and nothing that is there already is touched.

        Args:
            batch: n sets, or float32 (n, dim).
            ids: int64 (n,), new ones; the next free numbers unless given.

        Raises:
            InvalidInputError: unusable features, or an id that was added before.
        """
        features = self.check(batch)
        new_ids = check_ids(ids, len(features), self._next_id)
        if np.isin(new_ids, self._ids.snapshot()).any():
            raise InvalidInputError("an id was added before", field="ids")
        if not len(features):
            return
        family = self._family_of(features)
        cells = self._random_cells(new_ids)
        for start in range(0, len(new_ids), HASH_BLOCK):
            stop = start + HASH_BLOCK
            keys, _ = family.hash(part(features, start, stop))
            _native.insert_into_rows(self._bitmaps, keys, cells[start:stop])
        self._ids.append(new_ids)
        self._cells.append(cells)
        self._dead = np.pad(self._dead, (0, -(-len(self._ids) // 8) - len(self._dead)))
        self._next_id = max(self._next_id, int(new_ids.max()) + 1)
        self._members = None

    def _family_of(self, features: Batch) -> Family:
        if self._family is not None:
            return self._family
        if isinstance(features, SetBatch):
            self._family = MinHashFamily(self.seed, tables=self.tables, K=self.K, sketch_bits=0)
        else:
            self.dim = features.shape[1]
            self._family = SignedRandomProjection(
                self.dim,
                self.seed,
                tables=self.tables,
                sketch_bits=0,
                key_bits=-(-self.range_bits // 8) * 8,
            )
        return self._family

    def _random_cells(self, ids: Int64Array) -> UInt32Array:
        """Cell of each point in each row, numbered over all rows: uint32 (n, rows)."""
        mixed = mix64(mix64(ids.astype(np.uint64))[:, None] ^ self._row_seeds)
        within = (mixed >> np.uint64(32)) * np.uint64(self.cells) >> np.uint64(32)
        return (within + np.arange(self.rows, dtype=np.uint64) * np.uint64(self.cells)).astype(
            np.uint32
        )

    def _cell_members(self) -> tuple[Int64Array, UInt32Array]:
        """Positions by cell, in CSR form; gathered at the first search after an add."""
        if self._members is None:
            flat = self._cells.snapshot().reshape(-1)
            order = np.argsort(flat, kind="stable")
            sizes = np.bincount(flat, minlength=self.rows * self.cells)
            first = np.concatenate(([0], np.cumsum(sizes))).astype(np.int64)
            self._members = first, (order // self.rows).astype(np.uint32)
        return self._members

    def remove(self, ids: Any) -> int:
        """Remove points by id; the number of those present. Their bits stay: filters only grow."""
        places = np.flatnonzero(np.isin(self._ids.snapshot(), ids))
        before = self._removed
        np.bitwise_or.at(self._dead, places >> 3, (1 << (places & 7)).astype(np.uint8))
        self._removed = int(np.bitwise_count(self._dead).sum())
        return self._removed - before

    def search(self, batch: Any, k: int) -> tuple[Int64Array, FloatArray]:
        """The first k points that are met in every row.

        Args:
            batch: q sets, or float32 (q, dim).
            k: points wanted for each query.

        Returns:
            ids int64 (q, k) in the order in which they were met, and float32 (q, k), the share of
            the m tests that the last met cell passed: an order, not a similarity. -1 and NaN after
            the last; cells that passed no test are not visited, so an answer may be short.

        Raises:
            InvalidInputError: unusable queries or k.
        """
        k = check_k(k)
        features = self.check(batch)
        if self._family is None:
            shape = (len(features), k)
            return np.full(shape, -1, np.int64), np.full(shape, np.nan, np.float32)
        keys, _ = self._family.hash(features)
        first, members = self._cell_members()
        places, passed = _native.paper_search(
            self._bitmaps, keys, self.rows, first, members, self._dead, k
        )
        found = places >= 0
        ids = np.where(found, self._ids.snapshot()[places], -1)
        shares: npt.NDArray[np.float32] = (passed / np.float32(self.tables)).astype(np.float32)
        return ids, np.where(found, shares, np.float32(np.nan))

    @property
    def nbytes(self) -> dict[str, int]:
        """Bytes by part: ``"bitmaps"`` of the tests, ``"members"`` of the cells and ``"ids"``."""
        first, members = self._cell_members()
        return {
            "bitmaps": self._bitmaps.nbytes,
            "members": first.nbytes + members.nbytes,
            "ids": len(self._ids) * 8 + self._dead.nbytes,
        }

    def explain(self) -> dict[str, Any]:
        """Parameters and sizes."""
        names = ("metric", "seed", "rows", "cells", "tables", "K", "range_bits")
        return {
            "index": self.kind,
            "points": len(self),
            **{name: getattr(self, name) for name in names},
            "load": len(self) / self.cells / 2**self.range_bits,
            "nbytes": self.nbytes,
        }
