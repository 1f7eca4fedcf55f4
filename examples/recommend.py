"""Recommend from factors: the items of highest inner product with a user, popular ones longer.

Start a server (`closeby serve`), then: python recommend.py http://127.0.0.1:8080
"""

import sys

import numpy as np
from closeby.client import Client

url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8080"
rng = np.random.default_rng(0)
# In place of the factors of a model of who liked what.
tastes = rng.standard_normal((20, 32))
items = rng.standard_normal((20_000, 20)) @ tastes + 2 * rng.standard_normal((20_000, 32))
items *= rng.lognormal(0, 0.7, (20_000, 1)) / np.linalg.norm(items, axis=1, keepdims=True)
users = (rng.standard_normal((200, 20)) @ tastes).astype(np.float32)

with Client(url) as db:
    offers = db.create_collection(
        "example-items", metric="ip", features={"kind": "vector", "dim": 32}
    )
    offers.upsert(ids=np.arange(20_000), vectors=items.astype(np.float32))

    results = offers.query_batch(vectors=users, limit=10)
    exact = np.argsort(-(users @ items.T), axis=1)[:, :10]
    found = [
        hit.id in best for result, best in zip(results, exact, strict=True) for hit in result.hits
    ]
    first = results[0].hits[:3]
    print(f"for user 0: {[(hit.id, round(hit.score, 1)) for hit in first]}")
    print(f"recall of the true ten: {np.mean(found):.3f}")

    offers.upsert(ids=[123], vectors=[40 * users[0] / np.linalg.norm(users[0])])  # becomes a hit
    print(
        f"after an update, user 0 is offered item {offers.query(vector=users[0]).hits[0].id} first"
    )

    db.delete_collection("example-items")
