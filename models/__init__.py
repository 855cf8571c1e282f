"""Networks: source models that explain images (and, later, the two-branch network that is trained on the pairs)."""
