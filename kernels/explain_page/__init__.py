"""``python -m kernels explain ... --html PAGE``: the user's layers as a page to play with."""
