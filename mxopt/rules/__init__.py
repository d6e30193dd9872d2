"""The mathematics of the optimizers, each written once as a NumPy function of a few arrays."""
