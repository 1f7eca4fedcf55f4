"""Routes: they read a request, call a shard in a thread, and write the answer."""
