"""Metrics of the quality of maps."""
