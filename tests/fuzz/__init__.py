"""Mutated files of every kind, read with salpipe's own readers: `python -m tests.fuzz --help`, or `make fuzz`."""
