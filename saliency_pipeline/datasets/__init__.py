"""Data sets: layouts, their recognition, and their catalogues of labeled images."""
