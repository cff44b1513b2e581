"""Command line: ``python -m profiling COMMAND``; each command is a module of its own."""

from __future__ import annotations

import importlib
import sys

from kernels import output
from kernels.one_line import Parser, one_line

COMMANDS = {
    "bench": ("bench", "check kernels, then time them, against their peers"),
    "compare": ("compare", "two result files: faster, slower or the same"),
    "report": ("report", "result files as one self-contained HTML page"),
    "targets": ("targets", "what the lab wants to reach, beside a GPU's result file"),
    "trace": ("trace", "run a command under a timeline, for Perfetto"),
    "ncu": ("ncu", "the Nsight Compute line for one launch"),
    "counts": ("counts", "the X-ray's counts against Nsight Compute's, on a GPU"),
    "train-report": ("train_report", "where a training run's time went, by layer and pass"),
    "step": ("step", "LeNet's step, launch by launch: the X-ray's bounds, with no GPU"),
    "scaling": ("scaling", "distributed training by 1, 2, 4 ... ranks, as many images for each"),
    "doctor": ("doctor", "what this machine has, lacks, and how to mend it"),
    "verify": ("verify", "run every kernel on this GPU, or emulated, and keep the record"),
    "verified": ("verified", "the README's table of what was verified where"),
    "compare-torch": ("compare_torch", "train LeNet here and with PyTorch, step by step"),
}


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 1 a check failed, 2 bad usage or input."""
    given = sys.argv[1:] if argv is None else argv
    parser = Parser(
        prog="python -m profiling", description="Measure, compare and explain the lab's kernels."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (module_name, text) in COMMANDS.items():
        if given[:1] != [name]:  # imported when asked for: some take a while
            commands.add_parser(name, help=text, add_help=False)
            continue
        module = importlib.import_module(f"profiling.{module_name}")
        command = commands.add_parser(name, help=text, description=module.__doc__)
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    try:
        args = parser.parse_args(given)
        return int(args.run(args))
    except ValueError as error:
        from kernels.plugins import PluginError

        if not isinstance(error, PluginError):
            raise
        print(f"{given[0]}: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        raise  # for `output.run`
    except OSError as error:  # a path that the system does not take
        named = one_line(str(error.filename or "output"))
        print(f"{given[0]}: {named}: {error.strerror}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(output.run(main))
