"""Object storage: finished shards are sent to it once, and read from it through a cache on this host."""
