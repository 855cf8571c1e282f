"""Uses of maps."""
