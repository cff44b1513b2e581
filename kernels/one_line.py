"""Text out of somebody's file, made fit for a message: one line, which a terminal only shows."""

from __future__ import annotations

MOST = 500  # characters at either end; a file's own text is what makes a message longer


def one_line(text: str) -> str:
    """Return a text with what cannot be printed escaped, and its middle left out if it is long."""
    shown = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    return shown if len(shown) <= 2 * MOST else f"{shown[:MOST]} ... {shown[-MOST:]}"
