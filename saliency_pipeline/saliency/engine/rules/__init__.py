"""How operators pass a signal back: one module per method, and what they share."""
