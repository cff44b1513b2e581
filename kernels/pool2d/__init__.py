"""Two-dimensional max and average pooling."""
