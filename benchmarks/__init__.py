"""Lattice losses and training steps side by side with other toolkits'; see README.md."""
