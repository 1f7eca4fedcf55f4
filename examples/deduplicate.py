"""Near-duplicates of a list of texts with the library alone: pairs, clusters, what to keep."""

from closeby.index import featurizer_from
from closeby.index.duplicates import DuplicateSearch, representatives
from closeby.loaders import after_scheme, samples

urls = samples.urls()[:20_000]
featurizer = featurizer_from({"kind": "shingles", "unit": "byte", "n": 4})
search = DuplicateSearch(featurizer.features([after_scheme(url) for url in urls]), threshold=0.8)

pairs = 0
for block in search.pairs():  # blocks of bounded size: all pairs need never be in memory
    if not pairs:
        for a, b, score in zip(block.a[:5], block.b[:5], block.scores[:5], strict=True):
            print(f"{score:.2f}  {urls[a]}\n      {urls[b]}")
    pairs += len(block)

labels = search.clusters()
kept = representatives(labels, "longest", lengths=[len(url) for url in urls])
plan = search.plan
print(f"{len(urls):,} URLs, {pairs:,} pairs, {len(kept):,} kept")
print(f"{plan.tables} tables of {plan.K} hashes find a pair at the threshold in {plan.recall:.1%}")
