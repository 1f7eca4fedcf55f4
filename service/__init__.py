"""closeby.service: the durable store, shards, and the HTTP service around them.

Start at `shard` (what a collection does), `store` (what is on disk) and `app` (what is on the
wire). `settings` is the only module which reads the environment.
"""
