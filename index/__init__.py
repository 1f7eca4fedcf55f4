"""closeby's library: near neighbours of sets and vectors, usable without the service.

    featurizer_from    raw text, sequences or vectors -> features
    FlinngIndex        group tests: sets and vectors, dense or sparse, at high similarity
    fit_sets           a sample of sets -> parameters of FlinngIndex
    LshIndex           LSH tables: the same, faster for more memory
    fit_lsh            a sample of points -> parameters of LshIndex
    MaxIPIndex         maximum inner product of vectors of any norm
    FlatIndex          exact search, the oracle

Modules, from the ground up: ``_native`` (kernels) < ``batches``, ``features`` < ``minhash``,
``projection`` (hash families) < ``views`` (what kernels search) < ``segment`` (sealed points) <
``flinng``, ``lsh`` (engines); ``points`` < ``flat`` (engine); ``_maxip`` (kernels) <
``maxip_lists`` < ``maxip_effort`` < ``maxip`` (engine), and ``maxip_paper``. ``tuning`` has the
mathematics, ``files`` the file format.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from . import errors
from .errors import ClosebyError, CorruptFileError, InvalidInputError, UnsupportedVersionError

if TYPE_CHECKING:
    from .batches import SetBatch, SparseBatch, as_dense_batch, as_set_batch, as_sparse_batch
    from .engine import Engine
    from .features import featurizer_from
    from .featurizer import Featurizer
    from .fitting import fit_lsh, fit_sets
    from .flat import FlatIndex
    from .flinng import FlinngIndex
    from .lsh import LshIndex
    from .maxip import MaxIPIndex
    from .maxip_gap import GapAnswer
    from .minhash import MinHashFamily
    from .projection import SignedRandomProjection
    from .topk import merge_topk

__all__ = [
    "ClosebyError",
    "CorruptFileError",
    "Engine",
    "Featurizer",
    "FlatIndex",
    "FlinngIndex",
    "GapAnswer",
    "InvalidInputError",
    "LshIndex",
    "MaxIPIndex",
    "MinHashFamily",
    "SetBatch",
    "SignedRandomProjection",
    "SparseBatch",
    "UnsupportedVersionError",
    "as_dense_batch",
    "as_set_batch",
    "as_sparse_batch",
    "errors",
    "featurizer_from",
    "fit_lsh",
    "fit_sets",
    "merge_topk",
]

# Imported when they are asked for: who wants one engine, or only the exceptions, does not wait for
# the rest.
_HOMES = {
    "Engine": "engine",
    "Featurizer": "featurizer",
    "FlatIndex": "flat",
    "FlinngIndex": "flinng",
    "GapAnswer": "maxip_gap",
    "LshIndex": "lsh",
    "MaxIPIndex": "maxip",
    "MinHashFamily": "minhash",
    "SetBatch": "batches",
    "SignedRandomProjection": "projection",
    "SparseBatch": "batches",
    "as_dense_batch": "batches",
    "as_set_batch": "batches",
    "as_sparse_batch": "batches",
    "featurizer_from": "features",
    "fit_lsh": "fitting",
    "fit_sets": "fitting",
    "merge_topk": "topk",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(f".{home}", __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
