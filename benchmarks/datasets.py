"""Named data sets: real rows to features, split into points and queries.

URLs and genes come with closeby. The others are read from a folder that the caller names, under
the file names below; any text file with one row a line can be measured too (``lines:PATH``).
"""

from __future__ import annotations

import gzip
import json
import lzma
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from closeby.index import SetBatch, featurizer_from
from closeby.loaders import Fasta, after_scheme, open_points, samples

Features = SetBatch | np.ndarray[Any, Any]


class Named(NamedTuple):
    """A data set that can be asked for by name."""

    what: str
    read: Callable[[Path | None], Features]
    metric: str = "jaccard"
    shipped: bool = False


@dataclass(frozen=True)
class Split:
    """Points to be indexed and queries that are not among them.

    Attributes:
        name, what, metric: of the data set.
        points: features of the points.
        queries: features of the queries, random rows of the same data.
    """

    name: str
    what: str
    metric: str
    points: Features
    queries: Features


def _shingles(texts: list[str], n: int) -> SetBatch:
    features = featurizer_from({"kind": "shingles", "unit": "byte", "n": n}).features(texts)
    assert isinstance(features, SetBatch)
    return features


def _kmers(sequences: list[str], k: int) -> SetBatch:
    features = featurizer_from({"kind": "kmers", "k": k, "canonical": True}).features(sequences)
    assert isinstance(features, SetBatch)
    return features


def _in(folder: Path | None, *names: str) -> Path:
    if folder is None:
        raise FileNotFoundError(
            f"this data set is read from a folder: give --data (for {names[0]})"
        )
    for name in names:
        if (folder / name).exists():
            return folder / name
    raise FileNotFoundError(f"{folder} has none of {', '.join(names)}")


def _lines(path: Path) -> Iterator[str]:
    opened: Any = {".gz": gzip.open, ".xz": lzma.open}.get(path.suffix, open)
    with opened(path, "rt", encoding="utf-8") as lines:
        yield from (line.rstrip("\n") for line in lines)


def _distinct(texts: Iterator[str]) -> list[str]:
    return list(dict.fromkeys(text for text in texts if text))


def _urls(_: Path | None) -> SetBatch:
    return _shingles([after_scheme(url) for url in samples.urls()], 4)


def _genes(_: Path | None) -> SetBatch:
    return _kmers([gene.sequence for gene in samples.genes()], 16)


def _glosses(folder: Path | None) -> SetBatch:
    rows = _lines(_in(folder, "text-wordnet/wordnet_glosses.jsonl.xz"))
    return _shingles(_distinct(json.loads(row)["gloss"] for row in rows), 4)


def _genomes(folder: Path | None) -> SetBatch:
    path = _in(folder, "refseq-mash54k/refseq_mash54k_csr.npz", "refseq-mash54k/open_12k_csr.npz")
    with np.load(path) as arrays:
        return SetBatch(arrays["indptr"].astype(np.int64), arrays["indices"].astype(np.uint64))


def _amplicons(folder: Path | None) -> SetBatch:
    path = _in(folder, "metabar-biomarks50k/BioMarKs50k.fsa.gz")
    rows = open_points(path, format=Fasta(ids="position"))
    return _kmers([sequence for batch in rows for sequence in batch.values], 16)


def _molecules(folder: Path | None) -> SetBatch:
    rows = _lines(_in(folder, "molecules-hiv-muv/smiles_raw.tsv.gz"))
    return _shingles(_distinct(row.split("\t")[0] for row in rows), 4)


def _smiles(folder: Path | None) -> SetBatch:
    """Both molecule files: the screens above, and the 1.9 million of the package molsets."""
    screens = _lines(_in(folder, "molecules-hiv-muv/smiles_raw.tsv.gz"))
    texts = [row.split("\t")[0] for row in screens]
    for name in ("train", "test", "test_scaffolds"):
        rows = _lines(_in(folder, f"molsets/{name}.csv.gz"))
        texts += [row.split(",")[0] for row in rows][1:]
    return _shingles(_distinct(iter(texts)), 4)


def _fashion(folder: Path | None) -> np.ndarray[Any, Any]:
    with np.load(_in(folder, "fashion-mnist/open_20k.npz")) as arrays:
        images = next(array for array in arrays.values() if array.ndim >= 2)
    pixels = images.reshape(len(images), -1).astype(np.float32)
    pixels = pixels - pixels.mean(axis=0)
    return np.asarray(pixels / np.linalg.norm(pixels, axis=1, keepdims=True), np.float32)


def _url_vectors(folder: Path | None) -> np.ndarray[Any, Any]:
    """4-grams of URLs folded into 256 dimensions with random signs (Weinberger et al. 2009)."""
    sets = _urls(folder)
    rows = np.repeat(np.arange(len(sets)), sets.sizes)
    mixed = (sets.indices * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(40)
    vectors = np.zeros((len(sets), 256), np.float32)
    signs = np.where(mixed & np.uint64(256), 1.0, -1.0).astype(np.float32)
    np.add.at(vectors, (rows, (mixed & np.uint64(255)).astype(np.int64)), signs)
    lengths = np.linalg.norm(vectors, axis=1)
    return np.asarray(vectors[lengths > 0] / lengths[lengths > 0, None], np.float32)


def _glove(folder: Path | None) -> np.ndarray[Any, Any]:
    stored = np.load(_in(folder, "glove-wink-100d/open_40k_f16.npy"))
    return np.ascontiguousarray(stored, np.float32)


NAMED = {
    "urls": Named("URLs of government sites, byte 4-grams after the scheme", _urls, shipped=True),
    "genes": Named("resistance genes, canonical 16-mers", _genes, shipped=True),
    "url-vectors": Named(
        "4-grams of URLs folded into 256 dimensions", _url_vectors, "cosine", shipped=True
    ),
    "glosses": Named("WordNet glosses, byte 4-grams", _glosses),
    "genomes": Named("RefSeq genomes, 400 smallest 16-mer hashes", _genomes),
    "amplicons": Named("18S amplicons, canonical 16-mers", _amplicons),
    "molecules": Named("SMILES of the HIV and MUV screens, byte 4-grams", _molecules),
    "smiles": Named("SMILES of HIV, MUV and MOSES, byte 4-grams", _smiles),
    "fashion": Named("Fashion-MNIST images, 784 pixels less their mean", _fashion, "cosine"),
    "glove": Named("GloVe word vectors, 100 dimensions", _glove, "cosine"),
    "glove-products": Named("the same by inner product, norms as they are", _glove, "ip"),
}


def planted(n: int, seed: int, size: int = 56, family: int = 4) -> SetBatch:
    """Synthetic sets: families of `family`, each a base set with a share of elements redrawn.

    Each member keeps 60 to 98 % of its base set's elements, so that members of a family have a
    Jaccard similarity of .2 to .9 and any two other sets almost none.
    """
    rng = np.random.default_rng(seed)
    bases = rng.integers(0, 1 << 32, (-(-n // family), size), np.uint64)
    rows = np.repeat(bases, family, axis=0)[:n]
    kept = rng.random((n, 1)) * 0.38 + 0.6
    redrawn = rng.random((n, size)) > kept
    rows[redrawn] = rng.integers(0, 1 << 32, int(redrawn.sum()), np.uint64)
    rows.sort(axis=1)
    fresh = np.ones(rows.shape, bool)
    fresh[:, 1:] = rows[:, 1:] != rows[:, :-1]
    indptr = np.concatenate(([0], np.cumsum(fresh.sum(axis=1)))).astype(np.int64)
    return SetBatch(indptr, rows[fresh])


def load(name: str, folder: Path | None, limit: int | None, queries: int, seed: int) -> Split:
    """A data set by name, shuffled and split.

    Args:
        name: one of ``NAMED``, ``lines:PATH`` for a text file, or ``planted:N``.
        folder: where the data sets that are not shipped lie.
        limit: at most so many points.
        queries: rows that are taken out of the data and asked for.
        seed: of the shuffle.

    Raises:
        FileNotFoundError: the folder lacks the file.
        KeyError: no such name.
    """
    if name.startswith("lines:"):
        path = Path(name.removeprefix("lines:"))
        known = Named(f"lines of {path.name}, byte 4-grams", lambda _: _text(path))
        name = path.name.split(".")[0]
    elif name.startswith("planted:"):
        count = int(name.removeprefix("planted:"))
        known = Named(
            "synthetic sets of 56 elements in families of 4", lambda _: planted(count, seed)
        )
    else:
        known = NAMED[name]
    features = known.read(folder)
    if isinstance(features, SetBatch):
        features = features.take(np.flatnonzero(features.sizes))
    order = np.random.default_rng(seed).permutation(len(features))
    stop = len(order) if limit is None else min(len(order), limit + queries)
    asked, kept = order[:queries], np.sort(order[queries:stop])
    if isinstance(features, SetBatch):
        return Split(name, known.what, known.metric, features.take(kept), features.take(asked))
    return Split(name, known.what, known.metric, features[kept], features[asked])


def _text(path: Path) -> SetBatch:
    return _shingles(_distinct(_lines(path)), 4)


def save_features(path: Path, features: Features) -> None:
    """Write features, without compression, for :func:`load_features`."""
    if isinstance(features, SetBatch):
        np.savez(path, indptr=features.indptr, indices=features.indices)
    else:
        np.savez(path, vectors=features)


def load_features(path: Path) -> Features:
    """Features that :func:`save_features` wrote."""
    with np.load(path) as arrays:
        if "vectors" in arrays:
            return np.asarray(arrays["vectors"])
        return SetBatch(arrays["indptr"], arrays["indices"])
