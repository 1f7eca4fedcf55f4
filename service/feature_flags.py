"""Features that the flags of a command name, and those that suit a file when none are named."""

from __future__ import annotations

from typing import Any

from closeby.loaders import PointBatch

__all__ = ["WrongUseError", "features_for", "named_features"]


class WrongUseError(Exception):
    """Flags which do not go together, or do not say enough."""


def named_features(
    shingles: int | None, unit: str, words: int | None, kmers: int | None
) -> dict[str, Any] | None:
    """The featurizer that the flags name; None if they name none.

    Raises:
        WrongUseError: they name several.
    """
    given = {"--shingles": shingles, "--words": words, "--kmers": kmers}
    named = [flag for flag, value in given.items() if value is not None]
    if len(named) > 1:
        raise WrongUseError(f"{' and '.join(named)} exclude one another")
    if kmers is not None:
        return {"kind": "kmers", "k": kmers}
    if words is not None:
        return {"kind": "shingles", "unit": "word", "n": words}
    if shingles is not None:
        return {"kind": "shingles", "unit": unit, "n": shingles}
    return None


def features_for(batch: PointBatch, unit: str) -> dict[str, Any]:
    """The featurizer that suits points like these, of which there is at least one."""
    first = batch.values[0]
    if batch.field == "text":
        return {"kind": "shingles", "unit": unit, "n": 4}
    if batch.field == "sequence":
        return {"kind": "kmers", "k": 16}
    if batch.field == "vector":
        return {"kind": "vector", "dim": len(first)}
    if batch.field == "sparse":
        raise WrongUseError(
            "the file holds sparse vectors, and does not say of how many dimensions: create the"
            ' collection first, with features {"kind": "sparse", "dim": …}'
        )
    return {"kind": "tokens" if isinstance(first[0], str) else "ids"}
