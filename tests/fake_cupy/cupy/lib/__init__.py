"""cupy.lib of the double."""

from cupy.lib import stride_tricks

__all__ = ["stride_tricks"]
