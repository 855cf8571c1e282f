"""Training data: splits, controls, batches of augmented image and map pairs, and their order."""
