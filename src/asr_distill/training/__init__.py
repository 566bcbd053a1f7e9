"""Training: data, objective, optimisation, checkpoints, and the loop that holds them together."""
