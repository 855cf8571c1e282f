"""Runs and shards on the Hugging Face Hub: `salpipe push` and `salpipe pull`."""
