"""The library without a server: near-duplicate sentences, and an index in a file."""

import tempfile
from pathlib import Path

from closeby.index import FlinngIndex, featurizer_from

sentences = [
    "The committee approved the budget for the coming year on Tuesday.",
    "On Tuesday the committee approved the budget for the coming year.",
    "The committee rejected the budget for the coming year on Tuesday!",
    "A storm is expected to reach the coast by tomorrow evening.",
    "Heavy rain is expected to reach the coast by tomorrow evening.",
]
featurizer = featurizer_from({"kind": "shingles", "unit": "char", "n": 4})

index = FlinngIndex(metric="jaccard", threshold=0.5)
index.add(featurizer.features(sentences))

with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "sentences.closeby"
    index.save(path)
    loaded = FlinngIndex.load(path)

    ids, scores = loaded.search(featurizer.features(sentences), k=3, threshold=0.3)
    for sentence, hits, similarities in zip(sentences, ids, scores, strict=True):
        print(sentence)
        for hit, similarity in zip(hits, similarities, strict=True):
            # -1 stands where there is no further neighbour; the first hit is the sentence itself.
            if hit >= 0 and sentences[hit] != sentence:
                print(f"    {similarity:.2f}  {sentences[hit]}")
