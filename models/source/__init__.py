"""Source models: registry of names, construction, weights, and matching of weight files."""
