"""Who the points of a sealed segment are: ids by seq and seqs by id, mapped from a file.

A file of arrays (docs/format.md) of kind `points`, its n points in rising order of seq:

    seqs      i8 (n)      which log row each point is
    starts    i8 (n + 1)  where its key begins in `keys`
    keys      u1          point keys (`store.point_key`), one behind the other
    payloads  u1          a bit for each point: it has a payload
    hashes    u8 (n)      xxh3-64 of the keys, rising
    places    u4 (n)      whose key each hash is

So a million points need no dictionary, and are there as soon as the file is mapped. Which of them
were replaced or deleted since is told by `dead`, in memory; the manifest keeps it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import xxhash
from closeby.index.abandon import checkpoint
from closeby.index.errors import CorruptFileError, unusable_is_corrupt
from closeby.index.files import (
    ArrayFileWriter,
    Shapes,
    check_offsets,
    read_arrays,
)

__all__ = ["KIND", "Names", "PointsFile", "key_hashes"]

KIND = "points"
BLOCK_POINTS = 65_536
"""Points copied at a time when files are merged."""

Seqs = npt.NDArray[np.int64]
Rows = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]
Flags = npt.NDArray[np.bool_]


def key_hashes(keys: Sequence[str]) -> Hashes:
    """xxh3-64 of point keys, uint64 (n,)."""
    digest = xxhash.xxh3_64_intdigest
    return np.fromiter((digest(key.encode()) for key in keys), np.uint64, len(keys))


class Names:
    """Points by rising seq: int64 (n,); keys as starts int64 (n + 1,) and bytes; payload flags."""

    def __init__(
        self, seqs: Seqs, starts: Seqs, keys: npt.NDArray[np.uint8], payloads: Flags
    ) -> None:
        self.seqs = seqs
        self.starts = starts
        self.keys = keys
        self.payloads = payloads

    def __len__(self) -> int:
        return len(self.seqs)

    @classmethod
    def of(cls, seqs: Seqs, keys: Sequence[str], payloads: Sequence[bool]) -> Names:
        """Names of points that are in memory."""
        encoded = [key.encode() for key in keys]
        starts = np.zeros(len(encoded) + 1, np.int64)
        np.cumsum([len(key) for key in encoded], out=starts[1:])
        joined = np.frombuffer(b"".join(encoded), np.uint8)
        return cls(seqs, starts, joined, np.array(payloads, bool))

    def names(self, seqs: Seqs) -> Names:
        """See `Source`."""
        rows = _rows(self.seqs, seqs)
        rows = rows[rows >= 0]
        starts, keys = _pick(self.starts, self.keys, rows)
        return Names(self.seqs[rows], starts, keys, self.payloads[rows])


class Source(Protocol):
    """Something that can name points."""

    def names(self, seqs: Seqs) -> Names:
        """Names of those of `seqs` (rising) that are known here."""
        ...


class PointsFile:
    """The points of one sealed segment.

    `dead` bool (n,) marks points that are not live any more; one thread at a time may mark them.
    """

    def __init__(self, path: Path, arrays: dict[str, npt.NDArray[Any]], dead: Flags | None) -> None:
        self.path = path
        # Plain views: each slice of a mapped array costs more than what is looked up in it.
        plain = {name: array.view(np.ndarray) for name, array in arrays.items()}
        self.seqs: Seqs = plain["seqs"]
        self._starts: Seqs = plain["starts"]
        self._keys: npt.NDArray[np.uint8] = plain["keys"]
        self._payloads: npt.NDArray[np.uint8] = plain["payloads"]
        self._hashes: Hashes = plain["hashes"]
        self._places: npt.NDArray[np.uint32] = plain["places"]
        self.dead = np.zeros(len(self.seqs), bool) if dead is None else dead

    def __len__(self) -> int:
        return len(self.seqs)

    @property
    def alive(self) -> int:
        """Points that are not marked dead."""
        return len(self) - int(np.count_nonzero(self.dead))

    # --- files -----------------------------------------------------------------------------------

    @classmethod
    def write(cls, path: Path, seqs: Seqs, sources: Sequence[Source]) -> PointsFile:
        """Write the names of `seqs` (rising), each known to one of `sources`, and map the file.

        Raises OSError, and then no file is left.
        """
        blocks = [seqs[i : i + BLOCK_POINTS] for i in range(0, len(seqs), BLOCK_POINTS)]
        sizes = []
        for block in blocks:
            checkpoint()
            sizes.append(np.diff(_gather(block, sources).starts))
        starts = np.zeros(len(seqs) + 1, np.int64)
        np.cumsum(np.concatenate([np.zeros(0, np.int64), *sizes]), out=starts[1:])
        shapes: Shapes = {
            "seqs": (np.int64, (len(seqs),)),
            "starts": (np.int64, (len(seqs) + 1,)),
            "keys": (np.uint8, (int(starts[-1]),)),
            "payloads": (np.uint8, (-(-len(seqs) // 8),)),
            "hashes": (np.uint64, (len(seqs),)),
            "places": (np.uint32, (len(seqs),)),
        }
        with ArrayFileWriter(path, {"index": KIND}, shapes) as writer:
            arrays = writer.arrays
            arrays["seqs"][:] = seqs
            arrays["starts"][:] = starts
            hashes = np.empty(len(seqs), np.uint64)
            payloads = np.empty(len(seqs), bool)
            at = 0
            for block in blocks:
                checkpoint()
                names = _gather(block, sources)
                stop = at + len(block)
                arrays["keys"][starts[at] : starts[stop]] = names.keys
                payloads[at:stop] = names.payloads
                hashes[at:stop] = [
                    xxhash.xxh3_64_intdigest(key) for key in _cut(names.starts, names.keys)
                ]
                at = stop
            arrays["payloads"][:] = np.packbits(payloads, bitorder="little")
            order = np.argsort(hashes, kind="stable")
            arrays["hashes"][:] = hashes[order]
            arrays["places"][:] = order
            del arrays
            writer.publish()
        return cls.open(path)

    @classmethod
    def open(cls, path: Path, dead: Flags | None = None) -> PointsFile:
        """Map a file whose checksum was compared. Raises CorruptFileError, OSError."""
        _, arrays = read_arrays(path, KIND, verify=False)
        with unusable_is_corrupt(path):
            n = len(arrays["seqs"])
            check_offsets(arrays["starts"], arrays["keys"])
            if (
                len(arrays["starts"]) != n + 1
                or len(arrays["payloads"]) != -(-n // 8)
                or len(arrays["hashes"]) != n
                or len(arrays["places"]) != n
                or (dead is not None and len(dead) != n)
            ):
                raise CorruptFileError("the arrays do not fit together", path=str(path))
            return cls(path, arrays, dead)

    # --- reading ---------------------------------------------------------------------------------

    def find(self, hashes: Hashes, keys: Sequence[str]) -> dict[str, int]:
        """Live seqs of those of `keys` that have one here; `hashes` are those of the keys.

        Quickest where the hashes rise.
        """
        found: dict[str, int] = {}
        n = len(self)
        if not n:
            return found
        at = np.minimum(np.searchsorted(self._hashes, hashes), n - 1)
        here = np.flatnonzero(self._hashes[at] == hashes)
        place = at[here]
        # Equal hashes: versions of one point, or (hardly ever) points of other keys.
        while len(here):
            rows = self._places[place].astype(np.int64)
            alive = np.flatnonzero(~self.dead[rows])
            names = _cut(*_pick(self._starts, self._keys, rows[alive]))
            seqs = self.seqs[rows[alive]].tolist()
            for i, name, seq in zip(here[alive].tolist(), names, seqs, strict=True):
                if name == keys[i].encode():
                    found[keys[i]] = seq
            more = place + 1 < n
            here, place = here[more], place[more] + 1
            more = self._hashes[place] == hashes[here]
            here, place = here[more], place[more]
        return found

    def rows(self, seqs: Seqs) -> Rows:
        """Row of each seq, int64 (n,); -1 where it is not here."""
        return _rows(self.seqs, seqs)

    def key(self, row: int) -> str:
        """The key of the point in a row."""
        return bytes(self._keys[self._starts[row] : self._starts[row + 1]]).decode()

    def has_payload(self, row: int) -> bool:
        """Whether the point in a row has a payload."""
        return bool(self._payloads[row >> 3] >> (row & 7) & 1)

    def names(self, seqs: Seqs) -> Names:
        """See `Source`."""
        rows = self.rows(seqs)
        rows = rows[rows >= 0]
        starts, keys = _pick(self._starts, self._keys, rows)
        payloads = (self._payloads[rows >> 3] >> (rows & 7).astype(np.uint8)) & 1
        return Names(self.seqs[rows], starts, keys, payloads.astype(bool))

    # --- marks -----------------------------------------------------------------------------------

    def mark_dead(self, seqs: Seqs) -> None:
        """The points of these seqs, as far as they are here, are not live any more."""
        rows = self.rows(seqs)
        self.dead[rows[rows >= 0]] = True


def _rows(known: Seqs, seqs: Seqs) -> Rows:
    """Where in `known` (rising) each seq is; -1 where it is not."""
    if not len(known):
        return np.full(len(seqs), -1, np.int64)
    at = np.minimum(np.searchsorted(known, seqs), len(known) - 1)
    return np.where(known[at] == seqs, at, -1)


def _pick(
    starts: Seqs, keys: npt.NDArray[np.uint8], rows: Rows
) -> tuple[Seqs, npt.NDArray[np.uint8]]:
    """Starts and bytes of the keys of some rows."""
    return _pick_bytes(starts[rows], starts[rows + 1] - starts[rows], keys)


def _pick_bytes(
    begins: Seqs, sizes: Seqs, keys: npt.NDArray[np.uint8]
) -> tuple[Seqs, npt.NDArray[np.uint8]]:
    picked = np.zeros(len(begins) + 1, np.int64)
    np.cumsum(sizes, out=picked[1:])
    # Position of every byte: those of a key follow each other.
    return picked, keys[np.arange(picked[-1]) + np.repeat(begins - picked[:-1], sizes)]


def _gather(seqs: Seqs, sources: Sequence[Source]) -> Names:
    """Names of `seqs` (rising) from all sources together. Raises KeyError if one is unknown."""
    parts = [part for source in sources if len(part := source.names(seqs))]
    if len(parts) == 1 and len(parts[0]) == len(seqs):
        return parts[0]
    if sum(map(len, parts)) != len(seqs):
        raise KeyError("a sealed point has no name")
    order = np.argsort(np.concatenate([part.seqs for part in parts]), kind="stable")
    ends = np.cumsum([len(part.keys) for part in parts])
    begins = np.concatenate(
        [
            part.starts[:-1] - part.starts[0] + end - len(part.keys)
            for part, end in zip(parts, ends.tolist(), strict=True)
        ]
    )
    sizes = np.concatenate([np.diff(part.starts) for part in parts])
    keys = np.concatenate([part.keys for part in parts])
    payloads = np.concatenate([part.payloads for part in parts])
    return Names(seqs, *_pick_bytes(begins[order], sizes[order], keys), payloads[order])


def _cut(starts: Seqs, keys: npt.NDArray[np.uint8]) -> Iterator[bytes]:
    """The keys, one by one."""
    joined = keys.tobytes()
    bounds = (starts - starts[0]).tolist()
    for begin, end in itertools.pairwise(bounds):
        yield joined[begin:end]
