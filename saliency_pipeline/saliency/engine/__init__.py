"""The engine: what it answers about a batch of frames, and how the network runs for it."""
