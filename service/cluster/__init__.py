"""Many shards instead of one: PostgreSQL holds the log, object storage the sealed segments.

    client ──► ingress: the same HTTP API      ──► PostgreSQL: log, placement, manifests
                 │ fan out, merge                     ▲ rows of its partitions
                 ▼                                    │
               shard 0 … N-1 (`ShardHost`) ───────────┘──► object storage: sealed segments

`placement` says who holds which partition, `host` is one shard, `collection` and `deployment` are
what the ingress has in the place of a `Shard` and a `Deployment`, `joining` adds a shard. None of
these knows Ray; `serving` puts them on Ray Serve and is the one module that imports it. No
consensus, membership or replication of our own: PostgreSQL orders writes, Ray Serve places and
restarts.
"""
