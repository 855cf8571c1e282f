"""Weight files: kinds, pickles and tensor views, read without executing anything."""
