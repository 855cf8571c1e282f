"""Where calls run: in processes of this machine, or on the workers of a dask or ray cluster."""
