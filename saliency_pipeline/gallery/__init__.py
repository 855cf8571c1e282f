"""A page and a contact sheet to look at what shards hold."""

COUNT, MAX_COUNT = 48, 10_000
"""Default and maximum number of images in a gallery."""
