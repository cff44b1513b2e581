"""Runs the commands of a guide, and puts what they print below them: python docs/replay.py FILE.

A guide's blocks begin with ```console, and hold one command each, behind ``$ ``, with its output.
The words behind ``console`` say what of that is kept: ``first=12 last=5`` lines, ``exit=1`` where
the command is to fail. All commands of a guide run in one new folder, in their order.

With ``--check`` the file stays as it is: each command must end as it should, and each line of the
guide that has no number in it must be among what it prints.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_BLOCK = re.compile(r"^```console([^\n]*)\n\$ ([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_CUT = "..."
MOST_SECONDS = 300


class GuideError(Exception):
    """A command that does not do what the guide says."""


def run(command: str, folder: Path) -> tuple[int, str]:
    """Run a command in a folder, 100 columns wide; return its exit code and what it prints.

    Of the machine's own paths nothing is kept.
    """
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "COLUMNS": "100",
        "TERM": "dumb",
    }
    done = subprocess.run(
        command, shell=True, cwd=folder, env=environment, text=True, timeout=MOST_SECONDS,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    printed = done.stdout
    for path, name in ((folder, "."), (ROOT, "conv-kernel-lab"), (Path.home(), "~")):
        printed = printed.replace(str(path), name)
    lines = [line.rstrip() for line in printed.splitlines()]
    return done.returncode, "\n".join(lines).strip("\n")


def _kept(text: str, options: dict[str, str]) -> str:
    lines = text.splitlines()
    first, last = int(options.get("first", len(lines))), int(options.get("last", 0))
    if first + last >= len(lines):
        return text
    return "\n".join([*lines[:first], _CUT, *(lines[-last:] if last else ())])


def replay(text: str, check: bool) -> str:
    """
    Run a guide's commands.

    Returns
    -------
    str
        The guide with what they print; the same if it is only checked.

    Raises
    ------
    GuideError
        For the first command that does not do what the guide says.
    """
    with tempfile.TemporaryDirectory(prefix="guide-") as name:

        def one(block: re.Match[str]) -> str:
            options = dict(word.split("=") for word in block[1].split())
            command, shown = block[2], block[3]
            print(f"$ {command}", flush=True)
            code, printed = run(command, Path(name))
            if code != int(options.get("exit", 0)):
                raise GuideError(f"{command}: exit code {code}\n{printed}")
            if check:
                there = {" ".join(line.split()) for line in printed.splitlines()}
                for line in shown.splitlines():
                    words = " ".join(line.split())
                    if (
                        words
                        and words != _CUT
                        and not re.search(r"\d", words)
                        and words not in there
                    ):
                        raise GuideError(f"{command}: prints no line {line!r}\n{printed}")
                return block[0]
            kept = _kept(printed, options)
            return "\n".join([f"```console{block[1]}", f"$ {command}", *kept.splitlines(), "```"])

        return _BLOCK.sub(one, text)


def main() -> int:
    """Return the exit status: 1 where a command does not do what the guide says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("guide", type=Path, nargs="+")
    parser.add_argument("--check", action="store_true", help="change nothing")
    args = parser.parse_args()
    for guide in args.guide:
        try:
            text = replay(guide.read_text(), args.check)
        except GuideError as error:
            print(f"{guide}: {error}", file=sys.stderr)
            return 1
        if not args.check:
            guide.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
