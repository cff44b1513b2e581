"""Command line: ``python -m profiling verify | verified | compare-torch``."""

from __future__ import annotations

import argparse
import sys

from profiling import compare_torch, verified, verify


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 1 a check failed, 2 bad usage or input."""
    parser = argparse.ArgumentParser(
        prog="python -m profiling", description="Verify and measure the lab's kernels."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, module, text in (
        ("verify", verify, "run every kernel on this GPU, or emulated, and keep the record"),
        ("verified", verified, "the README's table of what was verified where"),
        ("compare-torch", compare_torch, "train LeNet here and with PyTorch, step by step"),
    ):
        command = commands.add_parser(name, help=text, description=module.__doc__)
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    args = parser.parse_args(argv)
    try:
        return int(args.run(args))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
