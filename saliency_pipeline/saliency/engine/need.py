"""`Need`: what a method may ask the engine for."""

from __future__ import annotations

from enum import Flag, auto


class Need(Flag):
    """What a method asks for; the engine runs the network once for all that the methods of a run need.

    Attributes:
        NOTHING: the frames only; no network.
        ACTIVATIONS: output of the explained layers.
        GRADIENTS: gradients of the explained scores with respect to these.
        CONTRASTS: gradients of sums of several logits with weights, with respect to these.
        HEAD: logits of other activations of a layer, without the network before it.
        PIXELS: gradients with respect to the frame.
        POINTS: the same at other frames.
        FORWARD: logits of other frames.
        BIASES: gradients with respect to the biases of the exported network.
        MODULE: the network itself, as it was loaded.
        ATTENTION: attention matrices of a vision transformer.
        ATTENTION_GRADIENTS: gradients of the explained scores with respect to these.
        BLOCKS: the same of scores at the output of each block of the transformer.
        BACKWARD: signals pulled back through the exported network by other rules than the gradient's.
    """

    NOTHING = 0
    ACTIVATIONS = auto()
    GRADIENTS = auto()
    CONTRASTS = auto()
    HEAD = auto()
    PIXELS = auto()
    POINTS = auto()
    FORWARD = auto()
    BIASES = auto()
    MODULE = auto()
    ATTENTION = auto()
    ATTENTION_GRADIENTS = auto()
    BLOCKS = auto()
    BACKWARD = auto()
