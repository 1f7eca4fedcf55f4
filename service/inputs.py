"""Raw inputs of a collection: to features that can be stored and searched, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import numpy as np
import orjson
from closeby.index import Engine, Featurizer, SetBatch, SparseBatch, featurizer_from
from closeby.index.alive_points import rows_of
from closeby.index.errors import InvalidInputError
from closeby.index.hashed import HashedBatch
from closeby.index.segmented import SegmentedIndex

from .encoding import Features, Stored, decode_features, decode_rows, encode_rows
from .engines import keeps_features
from .log_reader import LogReader
from .log_rows import Entry, Op, point_key

__all__ = ["Inputs", "Point", "PointBatch"]


@dataclass(frozen=True, slots=True)
class PointBatch:
    """Points to upsert: ids, raw inputs, and payloads as compact JSON (None: no payload)."""

    ids: Sequence[int | str]
    inputs: Sequence[Any] | np.ndarray[Any, Any]
    payloads: Sequence[bytes | None] | None = None


class Point(NamedTuple):
    """A stored point; `value` is the input it was made from, `payload` compact JSON.

    No `value` where no features are kept.
    """

    id: int | str
    value: Any
    payload: bytes | None


class Inputs:
    """What a collection of this configuration takes.

    `max_set_elements` bounds the distinct elements of one set.
    """

    def __init__(self, config: Mapping[str, Any], max_set_elements: int) -> None:
        self.featurizer: Featurizer = featurizer_from(config["features"])
        self.keeps_features = keeps_features(config)
        self._max_set_elements = max_set_elements

    def features(self, inputs: Sequence[Any] | np.ndarray[Any, Any], engine: Engine) -> Features:
        """Features of raw inputs, each row of which `engine` takes.

        Raises InvalidInputError with `row` if an input cannot be used.
        """
        features: Features = self.featurizer.features(cast(Sequence[Any], inputs))
        self._check(features, engine)
        return features

    def entries(
        self, batch: PointBatch, engine: Engine
    ) -> tuple[list[Entry], list[int | str], Stored]:
        """Log rows of a batch, ids and what is kept of its points; of each id the last alone."""
        features = self.features(batch.inputs, engine)
        payloads = batch.payloads or [None] * len(batch.ids)
        last = {point: row for row, point in enumerate(batch.ids)}
        rows = list(last.values())
        if len(rows) < len(batch.ids):
            features = rows_of(features, np.array(rows, np.int64))
        kept: Stored = features
        if not self.keeps_features:
            kept = cast(SegmentedIndex, engine).hashed(features)
        sources = self._sources([batch.inputs[row] for row in rows])
        entries = [
            Entry(point_key(batch.ids[row]), Op.PUT, encoded, source, payloads[row])
            for row, encoded, source in zip(rows, encode_rows(kept), sources, strict=True)
        ]
        return entries, list(last), kept

    def decoded(self, entries: Sequence[Entry], engine: Engine) -> Stored:
        """What rows of another log keep of their points.

        Raises StoreUnavailableError if they are damaged, InvalidInputError if they are not what
        this collection holds.
        """
        stored = decode_rows([entry.features or b"" for entry in entries])
        if isinstance(stored, HashedBatch) == self.keeps_features:
            raise InvalidInputError(
                "are not what this collection holds", field=self.featurizer.field
            )
        if isinstance(stored, HashedBatch):
            return cast(SegmentedIndex, engine).hashed(stored)
        features = stored
        self._check(features, engine)
        if isinstance(features, SetBatch) and not _rising(features):
            raise InvalidInputError("elements of a set must rise", field=self.featurizer.field)
        if isinstance(features, SparseBatch) and not np.isfinite(features.values).all():
            raise InvalidInputError("values must be finite", field=self.featurizer.field)
        return features

    def stored(
        self, store: LogReader, wanted: Sequence[int | str], seqs: Mapping[int | str, int]
    ) -> tuple[list[Point], list[int | str]]:
        """The points of `wanted` in that order, by their live seqs, and those that have none.

        Raises StoreUnavailableError.
        """
        rows = store.get(list(seqs.values()))
        found: list[Point] = []
        missing: list[int | str] = []
        for point in wanted:
            row = rows.get(seqs.get(point, -1))
            if row is None:
                missing.append(point)
            else:
                found.append(Point(point, self.value(row.features, row.source), row.payload))
        return found, missing

    def value(self, features: bytes | None, source: bytes | None) -> Any:
        """The input of a stored point; None if it is not kept."""
        if not self.keeps_features:
            return None
        if source is not None:
            return orjson.loads(source) if self.featurizer.field == "set" else source.decode()
        decoded = decode_features([features or b""])
        if isinstance(decoded, SparseBatch):
            return {"indices": decoded.indices.tolist(), "values": decoded.values.tolist()}
        row = decoded.row(0) if isinstance(decoded, SetBatch) else decoded[0]
        return row.tolist()

    def _sources(self, inputs: list[Any]) -> list[bytes | None]:
        """Raw inputs as they are kept, where the features alone do not give them back."""
        if self.featurizer.gives_back or not self.keeps_features:
            return [None] * len(inputs)
        if self.featurizer.field == "set":
            plain = orjson.OPT_SERIALIZE_NUMPY
            return [
                orjson.dumps(s if isinstance(s, np.ndarray) else list(s), option=plain)
                for s in inputs
            ]
        return [text.encode() for text in inputs]

    def _check(self, features: Features, engine: Engine) -> None:
        # Checked only: what is stored is what was given, not what an engine makes of it.
        name = self.featurizer.field
        if isinstance(features, SparseBatch) != (name == "sparse"):
            raise InvalidInputError("are not what this collection holds", field=name)
        engine.check(features)
        empty = self.featurizer.empty_rows(features)
        if len(empty):
            raise InvalidInputError(_why_empty(self.featurizer.spec), field=name, row=int(empty[0]))
        if isinstance(features, SetBatch):
            sizes = np.diff(features.indptr)
            if len(sizes) and int(sizes.max()) > self._max_set_elements:
                raise InvalidInputError(
                    f"has {int(sizes.max())} distinct elements, the limit is"
                    f" {self._max_set_elements}",
                    field=name,
                    row=int(sizes.argmax()),
                    limit=self._max_set_elements,
                )


def _rising(sets: SetBatch) -> bool:
    """Whether the elements of each set rise, as engines trust them to."""
    steps = sets.indices[1:] > sets.indices[:-1]
    starts = sets.indptr[1:-1]
    steps[starts[(starts > 0) & (starts < len(sets.indices))] - 1] = True
    return bool(steps.all())


def _why_empty(spec: dict[str, Any]) -> str:
    if spec["kind"] == "shingles":
        return f"is empty: it holds no shingle of {spec['unit']}s"
    if spec["kind"] == "kmers":
        return f"is empty: it holds no k-mer of {spec['k']} unambiguous letters"
    if spec["kind"] == "sparse":
        return "has no value but zeros, and is near to nothing"
    return "is an empty set, which is near to nothing"
