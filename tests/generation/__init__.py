"""Tests of plans, shard jobs and the run that drives them."""
