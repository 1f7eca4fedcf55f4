"""Pick a coreset: 100 points that stand for 20,000, their mean and their spread."""

import numpy as np
from closeby.index import MaxIPIndex
from closeby.optimize import RandomFourier, herding

rng = np.random.default_rng(0)
centres = 3 * rng.standard_normal((8, 16))
shares = np.array([0.3, 0.2, 0.15, 0.1, 0.1, 0.08, 0.05, 0.02])
groups = rng.choice(8, 20_000, p=shares)
points = (centres[groups] + rng.standard_normal((20_000, 16))).astype(np.float32)

features = RandomFourier(features=128)(points)
index = MaxIPIndex()
index.add(features)
chosen = herding(index, 100)

mean = features.mean(axis=0)
random = np.linalg.norm(features[rng.choice(20_000, 100)].mean(axis=0) - mean)
print(f"discrepancy: {chosen.discrepancy[-1]:.4f} by herding, {random:.4f} at random")
print("share of each group, of all points and of the chosen:")
print("   ", (np.bincount(groups, minlength=8) / 20_000).round(2).tolist())
print("   ", (np.bincount(groups[chosen.ids], minlength=8) / 100).round(2).tolist())
