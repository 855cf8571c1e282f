"""Tests of the batches and the training loop."""
