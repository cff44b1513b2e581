"""Measure the kernels, and say how far to trust the figures."""
