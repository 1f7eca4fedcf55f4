"""Which version of each point is the current one, in memory.

Versions are known by the seq of their log row, which is also their id in the engine.
"""

from __future__ import annotations

__all__ = ["LivePoints"]


class LivePoints:
    """Point id -> live seq, and back.

    One thread at a time may write; reading needs no lock.
    """

    def __init__(self) -> None:
        self._seq_of: dict[int | str, int] = {}
        self._point_of: dict[int, int | str] = {}
        self._with_payload: set[int] = set()

    def __len__(self) -> int:
        return len(self._seq_of)

    def seq(self, point: int | str) -> int | None:
        """The live seq of `point`; None if there is no such point."""
        return self._seq_of.get(point)

    def version(self, seq: int) -> tuple[int | str | None, bool]:
        """The point whose live version is `seq`, and whether that version has a payload.

        The point is None if the version is not live any more.
        """
        # In this order: `settle` forgets the point first, so a payload which is not seen because
        # the version was replaced just now comes with a point which is not seen either.
        has_payload = seq in self._with_payload
        return self._point_of.get(seq), has_payload

    def announce(self, seq: int, point: int | str, *, has_payload: bool) -> None:
        """Make `seq` known, so that a search which finds it already can name its point."""
        if has_payload:
            self._with_payload.add(seq)
        self._point_of[seq] = point

    def settle(self, point: int | str, seq: int | None) -> None:
        """Make `seq` (None: nothing) the live version of `point`; forgets the one before."""
        before = self._seq_of.pop(point, None) if seq is None else self._seq_of.get(point)
        if seq is not None:
            self._seq_of[point] = seq
        if before is not None and before != seq:
            self._point_of.pop(before, None)
            self._with_payload.discard(before)
