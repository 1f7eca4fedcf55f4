"""closeby.loaders: files to batches of points, in one pass and in bounded memory.

    reader = open_points("genes.fasta.gz")
    for batch in reader:
        collection.upsert(points=batch.points())
    print(reader.report.bad, reader.report.samples)

Each format is a small class of its own (`Lines`, `Fasta`, `Parquet`, …) that follows the `Format`
protocol; a file's format is found by its name and checked against its content.
"""

from .arrow import Arrow
from .delimited import Delimited
from .errors import (
    BadRowError,
    DamagedFileError,
    FileTooLargeError,
    FormatOptionError,
    LoaderError,
    MissingExtraError,
    UnknownFormatError,
    WrongFormatError,
)
from .fasta import Fasta
from .hdf5 import Hdf5
from .jsonl import Jsonl
from .libsvm import Libsvm
from .lines import Lines, after_scheme
from .npz import Npz
from .parquet import Parquet
from .points import Format, PointBatch
from .reading import PointReader, open_points
from .report import BadRow, Report
from .sketches import Sourmash
from .source import Limits
from .vectors import Npy, Vecs

__all__ = [
    "Arrow",
    "BadRow",
    "BadRowError",
    "DamagedFileError",
    "Delimited",
    "Fasta",
    "FileTooLargeError",
    "Format",
    "FormatOptionError",
    "Hdf5",
    "Jsonl",
    "Libsvm",
    "Limits",
    "Lines",
    "LoaderError",
    "MissingExtraError",
    "Npy",
    "Npz",
    "Parquet",
    "PointBatch",
    "PointReader",
    "Report",
    "Sourmash",
    "UnknownFormatError",
    "Vecs",
    "WrongFormatError",
    "after_scheme",
    "open_points",
]
