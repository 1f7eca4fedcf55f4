"""closeby.loaders: files to batches of points, in one pass and in bounded memory.

    reader = open_points("genes.fasta.gz")
    for batch in reader:
        collection.upsert(points=batch.points())
    print(reader.report.bad, reader.report.samples)

Each format is a small class of its own (`Lines`, `Fasta`, `Jsonl`, `Delimited`,
`Npy`, `Vecs`) that follows the `Format`
protocol; a file's format is found by its name and checked against its content.
"""

from .delimited import Delimited
from .errors import (
    BadRowError,
    DamagedFileError,
    FileTooLargeError,
    LoaderError,
    UnknownFormatError,
    WrongFormatError,
)
from .fasta import Fasta
from .jsonl import Jsonl
from .lines import Lines, after_scheme
from .points import Format, PointBatch
from .reading import PointReader, open_points
from .report import BadRow, Report
from .source import Limits
from .vectors import Npy, Vecs

__all__ = [
    "BadRow",
    "BadRowError",
    "DamagedFileError",
    "Delimited",
    "Fasta",
    "FileTooLargeError",
    "Format",
    "Jsonl",
    "Limits",
    "Lines",
    "LoaderError",
    "Npy",
    "PointBatch",
    "PointReader",
    "Report",
    "UnknownFormatError",
    "Vecs",
    "WrongFormatError",
    "after_scheme",
    "open_points",
]
