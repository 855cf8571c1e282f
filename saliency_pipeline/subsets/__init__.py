"""Selection and splits of a catalogue: classes, sampling, duplicates, splits."""

THRESHOLD, MAX_THRESHOLD = 0.01, 0.1
"""Default and highest maximum distance of near duplicates: copies are usually below 0.005, crops below 0.01, other
photographs of the same object on the same background above 0.01."""
