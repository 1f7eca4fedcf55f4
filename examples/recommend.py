"""Recommend from factors: the items of highest inner product with a user, popular ones longer."""

import numpy as np
from closeby.index import MaxIPIndex

rng = np.random.default_rng(0)
tastes = rng.standard_normal((20, 64))
items = rng.standard_normal((30_000, 20)) @ tastes + 2 * rng.standard_normal((30_000, 64))
items *= rng.lognormal(0, 0.7, (30_000, 1)) / np.linalg.norm(items, axis=1, keepdims=True)
users = (rng.standard_normal((200, 20)) @ tastes).astype(np.float32)

index = MaxIPIndex(target_recall=0.95)
index.add(items.astype(np.float32))

ids, scores = index.search(users, k=10)
exact = np.argsort(-(users @ items.T), axis=1)[:, :10]
found = (ids[:, :, None] == exact[:, None, :]).any(axis=1).mean()
print(f"for user 0: items {ids[0, :5].tolist()}, scores {scores[0, :5].round(1).tolist()}")
print(f"recall of the true ten: {found:.3f}")

index.update(123, 40 * users[0] / np.linalg.norm(users[0]))  # item 123 becomes a hit
print(f"after an update, user 0 is offered item {index.search(users[:1], k=1)[0][0, 0]} first")
