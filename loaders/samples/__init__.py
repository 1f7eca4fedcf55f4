"""Real data that comes with closeby: 120,628 URLs and 3,153 genes, both under Apache-2.0.

URLs: web sites of the United States government, from the seed lists of the End of Term Web
Archive 2024 (GitHub: end-of-term/eot2024). Genes: acquired antibiotic resistance, from ResFinder
as in Debian's resfinder-db. `README.md` beside this file says how each was made.
"""

from __future__ import annotations

import lzma
from pathlib import Path
from typing import NamedTuple

from closeby.loaders.fasta import Fasta
from closeby.loaders.reading import open_points


class Gene(NamedTuple):
    """A gene's name and its DNA (198 letters and more, 907 on average)."""

    name: str
    sequence: str


URLS_PATH = Path(__file__).with_name("urls-eot2024.txt.xz")
GENES_PATH = Path(__file__).with_name("genes-resfinder.fasta.xz")


def urls() -> list[str]:
    """The 120,628 URLs, no two alike."""
    with lzma.open(URLS_PATH, "rt", encoding="ascii") as lines:
        return lines.read().splitlines()


def genes() -> list[Gene]:
    """The 3,153 genes in the order of the file; nine have the name of an earlier one."""
    reader = open_points(GENES_PATH, format=Fasta(ids="position"), on_error="stop")
    return [
        Gene(payload["name"], sequence)
        for batch in reader
        for sequence, payload in zip(batch.values, batch.payloads, strict=True)
        if payload is not None
    ]
