"""Names of the architectures, initializations and fusions that a training run can choose from."""

ARCHS = ("baseline", "modulated", "learned")
"""See `models.trained.two_branch`."""

INITS = ("scratch", "half", "full")
"""See `models.trained.initialize`."""

FUSIONS = ("multiply-skip", "neutral", "multiply", "add", "concat", "input")
"""See `models.trained.fusion`; `input` joins before the first layer, so it is a network of its own and no module."""
