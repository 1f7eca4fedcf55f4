"""Approximate a vector by few of 20,000 atoms: a sparse convex combination, with a proof."""

import numpy as np
from closeby.index import MaxIPIndex
from closeby.optimize import frank_wolfe

rng = np.random.default_rng(0)
atoms = rng.standard_normal((20_000, 48)).astype(np.float32)
target = 0.7 * rng.standard_normal(48)

index = MaxIPIndex()
index.add(atoms)


def distance(w: np.ndarray) -> tuple[float, np.ndarray]:
    return 0.5 * float((w - target) @ (w - target)), w - target


result = frank_wolfe(distance, index, tol=0.01)
print(f"{result.status} after {len(result.trace)} steps: {len(result.ids)} atoms of 20,000")
print(f"weights {np.sort(result.weights)[::-1][:5].round(3).tolist()} ...")
print(f"error {np.linalg.norm(result.point - target) / np.linalg.norm(target):.1%} of the target")
print(f"objective {result.objective:.5f}; the minimum is at most {result.gap:.1e} below")
read = result.trace["atoms"][-1] / (len(result.trace) * len(atoms))
print(f"read {read:.1%} of what comparing all atoms at each step would read")
