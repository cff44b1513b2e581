"""Convolution, ReLU and max-pooling in one kernel, one technique a file."""
