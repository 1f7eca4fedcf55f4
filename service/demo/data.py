"""The two data sets of the demo: what is stored, how it is compared, how it is shown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from closeby.loaders import after_scheme, samples


@dataclass(frozen=True, slots=True)
class DataSet:
    """Points whose id is their position.

    title, comparison: for people, what the points are and what makes two of them near.
    inputs: the raw text or sequence of each point; labels: what a person calls it, kept as the
        payload `{label_name: label}`.
    """

    name: str
    title: str
    comparison: str
    features: dict[str, Any]
    field: Literal["text", "sequence"]
    inputs: list[str]
    labels: list[str]
    label_name: str

    def __len__(self) -> int:
        return len(self.inputs)

    def points(self) -> list[dict[str, Any]]:
        """The points as `Collection.upsert` takes them."""
        return [
            {"id": position, self.field: value, "payload": {self.label_name: label}}
            for position, (value, label) in enumerate(zip(self.inputs, self.labels, strict=True))
        ]


def shipped_data() -> list[DataSet]:
    """The URLs and the genes that come with closeby."""
    urls = samples.urls()
    genes = samples.genes()
    return [
        DataSet(
            name="urls",
            title="URLs of US government web sites",
            comparison="Jaccard similarity of their byte 4-grams, scheme left out",
            features={"kind": "shingles", "unit": "byte", "n": 4},
            field="text",
            inputs=[after_scheme(url) for url in urls],
            labels=urls,
            label_name="url",
        ),
        DataSet(
            name="genes",
            title="antibiotic resistance genes",
            comparison="Jaccard similarity of their canonical 16-mers",
            features={"kind": "kmers", "k": 16, "canonical": True},
            field="sequence",
            inputs=[gene.sequence for gene in genes],
            labels=[gene.name for gene in genes],
            label_name="name",
        ),
    ]
