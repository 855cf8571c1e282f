"""Mutated files of every kind, read by salpipe's own readers: `python -m tests.fuzz --help`, or `make fuzz`."""
