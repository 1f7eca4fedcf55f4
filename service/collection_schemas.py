"""The shapes on the wire of collections as models; see `schemas`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from .engines import IndexName

__all__ = [
    "NAME_PATTERN",
    "CollectionBody",
    "CollectionInfo",
    "CollectionList",
    "IndexParams",
]

STRICT = ConfigDict(strict=True, extra="forbid")
"""Of all models: no conversions, no unknown fields."""
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$"

_COUNTS: dict[str, Any] = {
    "type": "boolean",
    "default": False,
    "description": "Whether repeats count: the similarity is that of the bags.",
}
_FEATURES_SCHEMA: dict[str, Any] = {
    "description": "How a point's raw input becomes a set or a vector.",
    "oneOf": [
        {
            "type": "object",
            "title": "shingles of a text",
            "required": ["kind"],
            "additionalProperties": False,
            "properties": {
                "kind": {"const": "shingles"},
                "unit": {"enum": ["byte", "char", "word"], "default": "char"},
                "n": {"type": "integer", "minimum": 1, "maximum": 64, "default": 4},
                "normalise": {
                    "type": "object",
                    "description": "What is done to a text first, in this order.",
                    "additionalProperties": False,
                    "properties": {
                        "unicode": {"enum": ["NFC", "NFKC"]},
                        "case": {"enum": ["lower", "fold"]},
                        "whitespace": {"enum": ["collapse"]},
                    },
                },
                "counts": _COUNTS,
            },
        },
        {
            "type": "object",
            "title": "k-mers of a DNA or RNA sequence",
            "required": ["kind"],
            "additionalProperties": False,
            "properties": {
                "kind": {"const": "kmers"},
                "alphabet": {"const": "dna"},
                "k": {"type": "integer", "minimum": 1, "maximum": 64, "default": 16},
                "canonical": {"type": "boolean", "default": True},
                "counts": _COUNTS,
            },
        },
        {
            "type": "object",
            "title": "k-mers of a protein",
            "required": ["kind", "alphabet"],
            "additionalProperties": False,
            "properties": {
                "kind": {"const": "kmers"},
                "alphabet": {"enum": ["protein", "dayhoff", "hp"]},
                "k": {
                    "type": "integer",
                    "minimum": 1,
                    "maximum": 64,
                    "description": "Default: 7, dayhoff 12, hp 24.",
                },
                "counts": _COUNTS,
            },
        },
        {
            "type": "object",
            "title": "a set of integers",
            "required": ["kind"],
            "additionalProperties": False,
            "properties": {"kind": {"const": "ids"}, "counts": _COUNTS},
        },
        {
            "type": "object",
            "title": "a set of strings",
            "required": ["kind"],
            "additionalProperties": False,
            "properties": {"kind": {"const": "tokens"}, "counts": _COUNTS},
        },
        {
            "type": "object",
            "title": "n-grams of a list of integers or strings",
            "required": ["kind"],
            "additionalProperties": False,
            "properties": {
                "kind": {"const": "ngrams"},
                "unit": {"enum": ["id", "token"], "default": "id"},
                "n": {"type": "integer", "minimum": 1, "maximum": 64, "default": 2},
                "counts": _COUNTS,
            },
        },
        {
            "type": "object",
            "title": "a MinHash sketch made elsewhere",
            "required": ["kind"],
            "additionalProperties": False,
            "properties": {
                "kind": {"const": "sketch"},
                "positions": {
                    "type": "boolean",
                    "default": False,
                    "description": "Whether a value counts only at its place in the list.",
                },
            },
        },
        {
            "type": "object",
            "title": "a vector",
            "required": ["kind", "dim"],
            "additionalProperties": False,
            "properties": {
                "kind": {"const": "vector"},
                "dim": {"type": "integer", "minimum": 1, "maximum": 65536},
            },
        },
        {
            "type": "object",
            "title": "a sparse vector",
            "required": ["kind", "dim"],
            "additionalProperties": False,
            "properties": {
                "kind": {"const": "sparse"},
                "dim": {"type": "integer", "minimum": 1, "maximum": 2**32},
            },
        },
    ],
}

IndexParams = Annotated[
    dict[str, Any],
    WithJsonSchema(
        {
            "type": "object",
            "description": "Parameters of the engine, see docs/engines.md.",
            "additionalProperties": {"anyOf": [{"type": "integer"}, {"type": "string"}]},
        }
    ),
]


class _Model(BaseModel):
    model_config = STRICT


class CollectionBody(_Model):
    """What a collection is made of. Two collections of equal configuration answer alike."""

    features: Annotated[dict[str, Any], WithJsonSchema(_FEATURES_SCHEMA)]
    metric: Literal["jaccard", "cosine", "ip"] | None = Field(
        None, description="Default: jaccard for sets, cosine for vectors, dense or sparse."
    )
    index: IndexName = Field(
        "auto",
        description="auto: flinng, flat or maxip by metric (flat of sparse vectors), until"
        " `:reindex` plans otherwise.",
    )
    index_params: IndexParams = {}
    target_recall: float = Field(
        0.95, ge=0.5, le=0.9999, description="Recall to aim at, of neighbours above `threshold`."
    )
    threshold: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Least similarity of a neighbour that matters. Default: .5, cosine .8.",
    )
    seed: int = Field(0, ge=0, le=2**63 - 1, description="Seed of all hash functions.")
    store: Literal["features", "none"] = Field(
        "features",
        description="What is kept of a point's input. none: hashes alone, made as it comes in;"
        " scores are estimates then, by flinng or lsh.",
    )


class CollectionInfo(_Model):
    """A collection and its state."""

    name: str
    metric: Literal["jaccard", "cosine", "ip"]
    features: Annotated[dict[str, Any], WithJsonSchema(_FEATURES_SCHEMA)]
    index: IndexName
    index_params: IndexParams
    target_recall: float
    threshold: float
    seed: int
    store: Literal["features", "none"]
    count: int
    ready: bool
    created_at: str
    index_stats: dict[str, Any]


class CollectionList(_Model):
    """One page of collections; `next_cursor` is null on the last."""

    collections: list[CollectionInfo]
    next_cursor: str | None
