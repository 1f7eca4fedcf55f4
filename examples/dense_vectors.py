"""Dense vectors: near-duplicate embeddings by cosine, straight from NumPy arrays.

Start a server (`closeby serve`), then: python dense_vectors.py http://127.0.0.1:8080
"""

import sys

import numpy as np
from closeby.client import Client

url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8080"
rng = np.random.default_rng(0)
# In place of embeddings from a model: 10,000 random directions.
embeddings = rng.standard_normal((10_000, 256), dtype=np.float32)

with Client(url) as db:
    images = db.create_collection(
        "example-vectors",
        metric="cosine",
        features={"kind": "vector", "dim": 256},
        index="flinng",
        threshold=0.8,
    )
    images.upsert(ids=np.arange(len(embeddings)), vectors=embeddings)

    # Slightly changed copies of some of them, as a crop or another encoding would give.
    originals = rng.choice(len(embeddings), 200, replace=False)
    copies = embeddings[originals] + 0.4 * rng.standard_normal((200, 256), dtype=np.float32)
    results = images.query_batch(vectors=copies, limit=1, threshold=0.8)

    nearest = [result.hits[0].id if result.hits else None for result in results]
    found = sum(hit == original for hit, original in zip(nearest, originals, strict=True))
    print(f"{found} of {len(originals)} originals found in {results.took_ms:.1f} ms")

    db.delete_collection("example-vectors")
