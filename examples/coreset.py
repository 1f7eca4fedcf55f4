"""Pick a coreset of embeddings: 100 points that stand for 10,000, far better than random ones.

Start a server (`closeby serve`), then: python coreset.py http://127.0.0.1:8080
"""

import sys

import numpy as np
from closeby.client import Client

url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8080"
rng = np.random.default_rng(0)
# In place of embeddings from a model: 8 groups of unequal size.
shares = np.array([0.3, 0.2, 0.15, 0.1, 0.1, 0.08, 0.05, 0.02])
groups = rng.choice(8, 10_000, p=shares)
centres = 3 * rng.standard_normal((8, 32))
embeddings = (centres[groups] + rng.standard_normal((10_000, 32))).astype(np.float32)

with Client(url) as db:
    images = db.create_collection(
        "example-images", metric="cosine", features={"kind": "vector", "dim": 32}
    )
    payloads = [{"split": "test" if i % 10 == 0 else "train"} for i in range(10_000)]
    images.upsert(ids=np.arange(10_000), vectors=embeddings, payloads=payloads)

    chosen = images.select(100, filter={"split": "train"})
    print(f"{len(chosen.ids)} of {chosen.points:,} points, none of them for testing")
    own, random = chosen.discrepancy[-1], chosen.random_discrepancy[-1]
    print(f"discrepancy: {own:.4f}, {random:.4f} at random")
    print("share of each group, of all points and of the chosen:")
    print("   ", (np.bincount(groups, minlength=8) / 10_000).round(2).tolist())
    print("   ", (np.bincount(groups[chosen.ids], minlength=8) / 100).round(2).tolist())

    db.delete_collection("example-images")
