"""Collections that keep no features of their points, only hashes (`store="none"`).

A write is hashed as it comes in, and the log, segments and snapshots hold what came of it
(`closeby.index.hashed`), so the hashes are fixed with the collection. `Inputs` and `engines` know
of it; to all else a row of hashes is a row. What needs features is refused here.
"""

from __future__ import annotations

from typing import Any

from closeby.index.errors import InvalidInputError

from .engines import ENGINES, check_engine, keeps_features, make_engine
from .errors import ValidationError
from .shard import Shard

__all__ = ["require_features", "without_features"]

HASHES = ("tables", "K", "sketch_bits", "scheme")
"""Parameters of the engine that hashes depend on."""
SCHEME = "permutations"
"""Of MinHash, unless another one is given: nobody has seen a set yet when it is chosen."""


def without_features(config: dict[str, Any]) -> dict[str, Any]:
    """A normalised configuration as one of a collection that keeps no features.

    All that hashes depend on is written into it: a later closeby may choose otherwise. Raises
    InvalidInputError for an engine that cannot do without features.
    """
    hashing = {name for name, kind in ENGINES.items() if "scheme" in kind.options}
    index = "flinng" if config["index"] == "auto" else config["index"]
    if config["metric"] == "ip":
        raise InvalidInputError(
            'none is not for inner products, which hashes do not estimate; take "features"',
            field="store",
        )
    if index not in hashing:
        raise InvalidInputError(
            f"{index} needs the features, which store none does not keep; take one of"
            f" {', '.join(sorted(hashing))}",
            field="index",
        )
    params = dict(config.get("index_params", {}))
    if config["metric"] == "jaccard":
        params.setdefault("scheme", SCHEME)
    fixed = config | {"store": "none", "index": index, "index_params": params}
    check_engine(fixed)
    made = make_engine(fixed, None)
    chosen = {name: getattr(made, name) for name in HASHES}
    params |= {name: value for name, value in chosen.items() if value is not None}
    return fixed


def require_features(shard: Shard, what: str, field: str = "collection") -> None:
    """Raise ValidationError if the collection keeps no features, which `what` needs."""
    if not keeps_features(shard.record.config):
        raise ValidationError.of(
            field,
            f"{what} needs the features of the points, and this collection keeps none (store"
            " none); make one with store features and import the points there",
        )
