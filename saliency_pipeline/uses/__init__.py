"""Ways to use a saliency map in training: each use is a module with its formula, paper and parameters."""
