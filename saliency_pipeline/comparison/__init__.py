"""Comparison of arms that are trained in pairs: the runs, the statistics of their differences, and the report."""
