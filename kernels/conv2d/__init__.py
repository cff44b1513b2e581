"""Two-dimensional cross-correlation: one technique a basename, all its passes in one file."""
