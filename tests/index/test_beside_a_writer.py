"""What a reader meets at the moment when a writer has made a segment and not filled it yet."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from closeby.index import FlinngIndex, LshIndex
from closeby.index.segment_files import HashedSegments

# Large enough for a selector, also in the mutable segment.
CAPACITY = 16_384


@pytest.mark.parametrize("kind", [FlinngIndex, LshIndex])
def test_an_empty_mutable_segment_beside_a_sealed_one(
    kind: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    index = kind(capacity=CAPACITY, settle=False)
    sets = np.random.default_rng(0).integers(0, 1 << 32, (CAPACITY + 1, 5)).tolist()
    index.add(sets[:CAPACITY])
    met = []
    append = HashedSegments.append

    def read_and_append(maker: HashedSegments, segment: Any, ids: Any, features: Any) -> None:
        assert not len(segment)
        met.append((index.recall_estimate(), index.search(sets[:3], 1)[0][:, 0].tolist()))
        index.explain()
        append(maker, segment, ids, features)

    monkeypatch.setattr(HashedSegments, "append", read_and_append)
    before = index.recall_estimate()
    index.add(sets[CAPACITY:])
    assert met == [(before, [0, 1, 2])]
