"""Networks that are trained: two-branch architectures, initialization, freezing, saved files."""
