"""Text of others', made fit for a message: one line, which a terminal only shows."""

from __future__ import annotations

import argparse
from typing import NoReturn

MOST = 500  # characters at either end; a file's own text is what makes a message longer


def one_line(text: str) -> str:
    """Return a text with what cannot be printed escaped, and its middle left out if it is long."""
    shown = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    return shown if len(shown) <= 2 * MOST else f"{shown[:MOST]} ... {shown[-MOST:]}"


class Parser(argparse.ArgumentParser):
    """argparse's, whose errors repeat what was typed: here on one line, and escaped."""

    def error(self, message: str) -> NoReturn:
        """Print usage and the message; exit with 2."""
        super().error(one_line(message))
