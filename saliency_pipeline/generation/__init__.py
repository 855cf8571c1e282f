"""Images and saliency into shards: the plan, the shard jobs, and the run that drives them."""
