"""Approximate a vector by few of 5,000 points: a sparse convex combination, with a proof.

Start a server (`closeby serve`), then: python sparse_approximation.py http://127.0.0.1:8080
"""

import sys

import numpy as np
from closeby.client import Client

url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8080"
rng = np.random.default_rng(0)
atoms = rng.standard_normal((5_000, 48)).astype(np.float32)
target = 0.7 * rng.standard_normal(48)

with Client(url) as db:
    words = db.create_collection(
        "example-words", metric="ip", features={"kind": "vector", "dim": 48}
    )
    words.upsert(ids=np.arange(len(atoms)), vectors=atoms)

    found = words.frank_wolfe(target, tol=0.01)
    print(f"{found.status} after {found.iterations} steps: {len(found.ids)} of 5,000 points")
    print(f"weights {[round(weight, 3) for weight in found.weights[:5]]} ...")
    error = np.sqrt(found.objective) / np.linalg.norm(target)
    print(f"error {error:.1%}; squared distance at most {found.gap:.1e} above the least (proved)")
    combined = np.array(found.weights) @ atoms[found.ids]
    print(f"checked: {np.linalg.norm(combined - target) / np.linalg.norm(target):.1%}")

    db.delete_collection("example-words")
