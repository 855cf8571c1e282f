"""Pages that show the content of shards and the duplicates of a data set."""

COUNT, MAX_COUNT = 48, 10_000
"""Default and maximum number of images in a gallery."""
