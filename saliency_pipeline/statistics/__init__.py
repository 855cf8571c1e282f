"""Metrics of classifiers, and statistics of paired runs: tests, intervals, power, planned looks. Pure functions."""
