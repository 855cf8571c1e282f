"""From shards to a trained network: batches, the training loop, the run folder."""
