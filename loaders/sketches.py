"""MinHash sketches of genomes as sourmash writes them: signature files in JSON."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import orjson

from .errors import DamagedFileError, WrongFormatError
from .points import PointBatch, Row, collect
from .report import Report
from .source import Source

_KEPT = ("ksize", "num", "max_hash", "seed", "molecule", "md5sum")


@dataclass(frozen=True, slots=True)
class Sourmash:
    """Each sketch is a point: the `set` of its hashes; the name of its signature is the id.

    ksize: the k-mer size of the sketches to take; None takes all, and then a name that has
        sketches of several sizes gives a point for the first of them alone.

    The id is the signature's name, else its file's name, else the sketch's MD5; size, seed and
    scale of the sketch are the payload. Abundances are left out. The file is one JSON array, so it
    is held whole in memory and may be no larger than a record (`Limits.record`). The "line" of a
    sketch is its number from 1.
    """

    name: ClassVar[str] = "sourmash"
    extensions: ClassVar[tuple[str, ...]] = ("sig",)

    ksize: int | None = None

    def recognises(self, head: bytes) -> bool:
        """Whether the head begins as a list of signatures."""
        return head.lstrip().startswith(b"[") and b'"sourmash_signature"' in head

    def refusal(self, head: bytes) -> str | None:
        """A reason if the head does not begin a JSON array."""
        return None if not head or head.lstrip().startswith(b"[") else "is no JSON array"

    def batches(self, source: Source, report: Report, size: int) -> Iterator[PointBatch]:
        """The sketches that have hashes."""
        if not source.head:
            return iter(())
        signatures = _signatures(source)
        return collect(self._rows(signatures), "set", report, size, given_ids=True)

    def _rows(self, signatures: list[dict[str, Any]]) -> Iterator[Row]:
        number = 0
        for signature in signatures:
            for sketch in signature["signatures"]:
                number += 1
                if not isinstance(sketch, dict):
                    yield Row(number, -1, None, None, "is no object")
                    continue
                if self.ksize is not None and sketch.get("ksize") != self.ksize:
                    continue
                named = (signature.get("name"), signature.get("filename"), sketch.get("md5sum"))
                point_id = next((n for n in named if isinstance(n, str) and n), "")
                payload = {key: sketch[key] for key in _KEPT if key in sketch}
                hashes = sketch.get("mins")
                yield Row(number, point_id, hashes, payload or None, _refusal(hashes))


def _refusal(hashes: object) -> str | None:
    if not isinstance(hashes, list) or not hashes:
        return "has no hashes"
    if not all(type(h) is int and 0 <= h < 2**64 for h in hashes):
        return "has hashes that are no integers in 0 .. 2**64-1"
    return None


def _signatures(source: Source) -> list[dict[str, Any]]:
    held = bytearray()
    for chunk in source.chunks():
        held += chunk
        if len(held) > source.limits.record:
            raise WrongFormatError(source.path, f"is longer than {source.limits.record} bytes")
    try:
        signatures = orjson.loads(held)
    except orjson.JSONDecodeError as error:
        raise DamagedFileError(source.path, 1, f"is no JSON: {error}") from error
    if not isinstance(signatures, list) or not all(
        isinstance(s, dict) and isinstance(s.get("signatures"), list) for s in signatures
    ):
        raise WrongFormatError(source.path, "is JSON, but no list of signatures")
    return signatures
