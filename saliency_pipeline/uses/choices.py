"""Names of the uses of maps, with a line on each, for help texts: no library is imported for them."""

USES = {
    "modulate": "a branch that reads the map modulates the features of the stem (--arch modulated)",
    "input": "the map is a fourth channel of the image (--fusion input)",
    "zoom": "the image is cropped to the part that the map marks",
    "mask": "what the map leaves out is dimmed, blurred or replaced",
    "attention-loss": "a term of the loss pulls the network's own class activation map toward the map",
    "mix": "training images are mixed: a patch where the map peaks, or as in CutMix and mixup",
    "keep": "augmentation never removes what the map marks",
    "pool": "features are averaged with the map's weights (--arch pooled)",
}
"""See `uses.registry`."""
