"""closeby's library: near neighbours of sets and vectors, usable without the service.

    featurizer_from    raw text, sequences or vectors -> features
    FlinngIndex        group tests: sets and vectors, dense or sparse, at high similarity
    fit_sets           a sample of sets -> parameters of FlinngIndex
    LshIndex           LSH tables: the same, faster for more memory
    MaxIPIndex         maximum inner product of vectors of any norm
    FlatIndex          exact search, the oracle

Modules, from the ground up: ``_native`` (kernels) < ``batches``, ``features`` < ``minhash``,
``projection`` (hash families) < ``segment`` (points and group tests) < ``flinng``, ``flat``
(engines); ``_maxip`` (kernels) < ``maxip_lists`` < ``maxip_effort`` < ``maxip`` (engine), and
``maxip_paper``. ``tuning`` has the mathematics, ``files`` the file format.
"""

from __future__ import annotations

from . import errors
from .batches import SetBatch, SparseBatch, as_dense_batch, as_set_batch, as_sparse_batch
from .engine import Engine
from .errors import ClosebyError, CorruptFileError, InvalidInputError, UnsupportedVersionError
from .features import featurizer_from
from .featurizer import Featurizer
from .fitting import fit_sets
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
    "fit_sets",
    "merge_topk",
]
