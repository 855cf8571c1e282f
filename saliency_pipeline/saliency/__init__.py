"""How a source model explains a batch of frames."""
