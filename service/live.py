"""Which version of each point is the current one.

Versions are known by the seq of their log row, which is also their id in the engine. Points that
came in since the last seal are in dictionaries, sealed ones in mapped files (`points_file`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from .points_file import PointsFile, Seqs, key_hashes
from .store import point_id, point_key

__all__ = ["LivePoints", "Versions"]

Versions = dict[int, tuple[int | str | None, bool]]
"""Seq -> the point whose version it is (None: not known any more), whether it has a payload."""


class LivePoints:
    """Point id -> live seq, and back.

    One thread at a time may write; reading needs no lock.
    """

    def __init__(self) -> None:
        self._seq_of: dict[int | str, int] = {}
        self._point_of: dict[int, int | str] = {}
        self._with_payload: set[int] = set()
        self._sealed: tuple[PointsFile, ...] = ()
        # Kept, not added up: while points move into a file they are in both places.
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def sealed(self) -> tuple[PointsFile, ...]:
        """The files of the sealed points."""
        return self._sealed

    # --- reading ---------------------------------------------------------------------------------

    def seq(self, point: int | str) -> int | None:
        """The live seq of `point`; None if there is no such point."""
        return self.seqs((point,)).get(point)

    def seqs(self, points: Iterable[int | str]) -> dict[int | str, int]:
        """Live seqs of those of `points` that exist."""
        found: dict[int | str, int] = {}
        unknown: list[int | str] = []
        for point in points:
            seq = self._seq_of.get(point)
            if seq is None:
                unknown.append(point)
            else:
                found[point] = seq
        # Read after the dictionaries: a point on its way is in the file before it leaves them.
        sealed = self._sealed
        if not unknown or not sealed:
            return found
        by_key = {point_key(point): point for point in unknown}
        keys = list(by_key)
        hashes = key_hashes(keys)
        order = np.argsort(hashes)
        keys, hashes = [keys[i] for i in order.tolist()], hashes[order]
        for file in sealed:
            for key, seq in file.find(hashes, keys).items():
                found[by_key[key]] = seq
        return found

    def versions(self, seqs: Iterable[int]) -> Versions:
        """For each seq the point whose version it is, and whether that version has a payload.

        The point is None if the version is not known any more.
        """
        found: Versions = {}
        unknown: list[int] = []
        for seq in seqs:
            # In this order: `settle` forgets the point first, so a payload which is not seen
            # because the version was replaced just now comes with a point which is not seen.
            has_payload = seq in self._with_payload
            point = self._point_of.get(seq)
            if point is None:
                unknown.append(seq)
            found[seq] = (point, has_payload)
        if unknown and (sealed := self._sealed):
            wanted = np.sort(np.array(unknown, np.int64))
            for file in sealed:
                if wanted[0] > file.seqs[-1] or wanted[-1] < file.seqs[0]:
                    continue
                rows = file.rows(wanted)
                for at in np.flatnonzero(rows >= 0).tolist():
                    row = int(rows[at])
                    found[int(wanted[at])] = (point_id(file.key(row)), file.has_payload(row))
        return found

    def all_seqs(self) -> Seqs:
        """All live seqs, rising. The caller keeps writers away."""
        parts = [file.seqs[~file.dead] for file in self._sealed]
        recent = np.fromiter(self._seq_of.values(), np.int64, len(self._seq_of))
        return np.sort(np.concatenate([*parts, recent]))

    def are_live(self, seqs: Seqs) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """Which seqs are live versions, bool (n,). The caller keeps writers away."""
        live = np.fromiter((seq in self._point_of for seq in seqs.tolist()), bool, len(seqs))
        for file in self._sealed:
            rows = file.rows(seqs)
            here = rows >= 0
            live[here] = ~file.dead[rows[here]]
        return live

    def recent(self, seqs: Seqs) -> list[tuple[int, int | str, bool]]:
        """Seq, point and whether it has a payload, of those of `seqs` that are not sealed yet."""
        known = [(seq, self._point_of.get(seq)) for seq in seqs.tolist()]
        return [
            (seq, point, seq in self._with_payload) for seq, point in known if point is not None
        ]

    # --- writing ---------------------------------------------------------------------------------

    def announce(self, seq: int, point: int | str, *, has_payload: bool) -> None:
        """Make `seq` known, so that a search which finds it already can name its point."""
        if has_payload:
            self._with_payload.add(seq)
        self._point_of[seq] = point

    def settle(
        self, latest: Mapping[int | str, int | None], before: Mapping[int | str, int]
    ) -> None:
        """Make `latest` (None: nothing) the live version of each point, in the place of `before`.

        `before` has the points that exist.
        """
        sealed: list[int] = []
        for point, seq in latest.items():
            replaced = before.get(point)
            self._count += (seq is not None) - (replaced is not None)
            if seq is not None:
                self._seq_of[point] = seq
            elif replaced is not None:
                self._seq_of.pop(point, None)
            if replaced is not None and replaced != seq:
                if self._point_of.pop(replaced, None) is None:
                    sealed.append(replaced)
                self._with_payload.discard(replaced)
        if sealed:
            seqs = np.sort(np.array(sealed, np.int64))
            for file in self._sealed:
                file.mark_dead(seqs)

    def publish(
        self, new: PointsFile | None, replaced: Sequence[PointsFile], recent: Iterable[int]
    ) -> None:
        """`new` (None: nothing is left) takes the place of `replaced` and of recent seqs."""
        if new is not None:
            new.dead = ~self.are_live(new.seqs)
        gone = {id(file) for file in replaced}
        kept = [file for file in self._sealed if id(file) not in gone]
        self._sealed = (*kept, new) if new is not None else tuple(kept)
        for seq in recent:
            point = self._point_of.pop(seq, None)
            if point is not None and self._seq_of.get(point) == seq:
                del self._seq_of[point]
            self._with_payload.discard(seq)

    def restore(self, sealed: Sequence[PointsFile]) -> None:
        """Start from files."""
        self._sealed = tuple(sealed)
        self._count = sum(file.alive for file in sealed)
