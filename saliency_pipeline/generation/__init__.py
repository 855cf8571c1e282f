"""`generate`: from images to shards: settings, checks, the plan, the shard jobs and the run."""
