"""Benchmarks: scripts that print ratios taken in one run. None of them is a test."""
