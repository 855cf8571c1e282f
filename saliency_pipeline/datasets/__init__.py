"""Data sets as they lie on disk: which layout a path has, and its catalogue of labeled images."""
