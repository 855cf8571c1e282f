"""Networks that are trained: two-branch architectures, initialization, freezing, files."""
