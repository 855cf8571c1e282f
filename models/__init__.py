"""Networks: source models, which are explained, trained networks, and files of weights."""
