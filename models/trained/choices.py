"""Names of the architectures and initializations, and names and formulas of the fusions, that a run can choose from."""

ARCHS = ("baseline", "modulated", "learned", "pooled")
"""See `models.trained.two_branch`."""

MAP_ARCHS = ("modulated", "pooled")
"""Those whose network reads the map."""

INITS = ("scratch", "half", "full")
"""See `models.trained.initialize`."""

FUSIONS = {
    "multiply-skip": "rgb*sal + alpha*rgb",
    "neutral": "rgb*(1 + tanh(zero(sal))), with a 1x1 convolution initialized to 0",
    "multiply": "rgb*sal",
    "add": "rgb + sal",
    "concat": "a 1x1 convolution of both",
    "input": "the map as a fourth input channel",
}
"""Formulas by name, see `models.trained.fusion`; `input` has no module, as it joins before the first layer."""
