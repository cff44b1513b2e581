"""``python -m kernels new OPERATION NAME``: a kernel to begin with, right as it is, and its row.

It starts as a copy of the operation's first rung under the new name, so that ``check`` passes
before the first change and each change can be held against it.
"""

from __future__ import annotations

import argparse
import ast
import keyword
import re
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

from kernels import plugins, table
from kernels.one_line import one_line
from kernels.source import ROOT

# What a new kernel of an operation begins as: its file below kernels/, without the ending.
FIRST_RUNGS = {"conv2d": "conv2d/naive", "max_pool2d": "pool2d/max", "avg_pool2d": "pool2d/avg"}
WIDTH = 100

_LIST = '''"""The kernels in this folder, a row each."""

from kernels import table
from kernels.table import Row

ROWS = [
]
'''


class NewError(Exception):
    """What is asked for cannot be made; the message says why and what to do."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give the command its arguments."""
    parser.add_argument("operation", metavar="OPERATION", help=", ".join(FIRST_RUNGS))
    parser.add_argument("name", metavar="NAME", help="of the new kernel, such as my_idea")
    parser.add_argument(
        "--numba", action="store_true",
        help="in Numba CUDA, as NAME_numba, instead of CUDA C",
    )  # fmt: skip
    parser.add_argument(
        "--plugin", type=Path, metavar="DIR",
        help="in this folder, made if need be; without it inside the lab, beside its own kernels",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Write the files; return 0, or 2 where nothing was written."""
    try:
        written, row = _write(args.operation, args.name, args.numba, args.plugin)
    except (NewError, plugins.PluginError) as error:
        print(f"new: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        named = one_line(str(error.filename))
        print(f"new: cannot write {named}: {error.strerror}", file=sys.stderr)
        return 2
    option = f" --plugin {args.plugin}" if args.plugin else ""
    for path in written:
        print(f"wrote {path}")
    print("next:")
    print(f"  python -m kernels check {row}{option}")
    if not args.numba:
        print(f"  python -m kernels xray {row}{option}")
    print(f"  python -m profiling bench --kernel {row}{option}")
    if option:
        print(
            f"KERNELS_PATH={args.plugin} stands for the option, and makes the lab's Python see it"
        )
    return 0


def _write(operation: str, name: str, numba: bool, folder: Path | None) -> tuple[list[Path], str]:
    first = FIRST_RUNGS.get(operation)
    if first is None:
        raise NewError(
            f"no operation {operation!r} to begin a kernel of; there are {', '.join(FIRST_RUNGS)}"
        )
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,39}", name) or keyword.iskeyword(name):
        raise NewError(
            f"{name!r} is no name for a kernel: expected a-z, 0-9 and _, 40 at most, and no Python "
            "keyword, such as my_idea"
        )
    row = f"{name}_numba" if numba and not name.endswith("_numba") else name
    if folder is not None and (folder / "rows.py").exists():
        plugins.use(folder)
    if row in (known := [*table.names(operation), "auto"]):
        raise NewError(f"{operation} has a kernel {row!r} already, among {', '.join(known)}")
    target = folder or (ROOT / first).parent
    begun = Path(first).name
    files = {
        target / f"{row}.py": _module(
            (ROOT / f"{first}{'_numba' if numba else ''}.py").read_text(),
            operation, begun, row, None if folder else Path(first).parent.name,
        )
    }  # fmt: skip
    if not numba:
        code = _laid_out(_renamed((ROOT / f"{first}.cu").read_text(), operation, row))
        said = f"// {row}: say its idea here. As it stands it is `{begun}`."
        files[target / f"{row}.cu"] = "\n// ".join(textwrap.wrap(said, WIDTH - 3)) + "\n" + code
    for path in files:
        if path.exists():
            raise NewError(f"{path} is there already; choose another name")
    listed = folder / "rows.py" if folder else ROOT / "table.py"
    text = listed.read_text() if listed.exists() else _LIST
    module = '__package__ + ".' if folder else '"kernels.' + Path(first).parent.name + "."
    files[listed] = _with_row(text, listed, folder is None, operation, row, numba, module)
    target.mkdir(parents=True, exist_ok=True)
    for path, content in files.items():
        path.write_text(content)
    return list(files), row


def _renamed(text: str, operation: str, row: str) -> str:
    """Return a file whose kernels bear the new name, as in ``conv2d_NAME_forward``."""
    return re.sub(rf"\b{operation}_(?:naive_)?(forward|backward)", rf"{operation}_{row}_\1", text)


def _laid_out(text: str) -> str:
    """Return a .cu file whose kernels' heads are as clang-format has them for names of any length.

    Parameters fill lines from the bracket on, or, where one does not fit there, from the left.
    """
    return re.sub(r'^(extern "C" __global__ void) (\w+\()([^)]*\) \{)$', _head, text, flags=re.M)


def _head(match: re.Match[str]) -> str:
    before, name, rest = match.groups()
    parameters = [" ".join(one.split()) for one in rest.split(",")]
    begin = f"{before} {name}"
    lines = _filled(parameters, begin, " " * len(begin))
    if max(map(len, lines)) > WIDTH:
        begin = begin if len(begin) <= WIDTH else f"{before}\n{name}"
        lines = [begin, *_filled(parameters, "    ", "    ")]
    return "\n".join(lines)


def _filled(parts: Sequence[str], first: str, indent: str) -> list[str]:
    """Return lines of parts with commas between; none is broken."""
    words = ", ".join(part.replace(" ", "\0") for part in parts)
    lines = textwrap.wrap(
        words, WIDTH, initial_indent=first, subsequent_indent=indent, break_long_words=False
    )
    return [line.replace("\0", " ") for line in lines]


def _module(text: str, operation: str, begun: str, row: str, package: str | None) -> str:
    text = _renamed(text, operation, row)
    body = text[text.index('"""', 3) + 3 :]
    here = f'"{package}/{row}.cu"' if package else 'Path(__file__).with_suffix(".cu")'
    body = re.sub(r'CudaSource\("[^"]*"\)', f"CudaSource({here})", body)
    if not package and "CudaSource" in body:
        body = body.replace("import math\n", "import math\nfrom pathlib import Path\n", 1)
    return _formatted(f'"""{row}: say its idea here. As it stands it is `{begun}`."""{body}')


def _formatted(text: str) -> str:
    """Return a module as `make format` lays it out, where what does it is installed."""
    command = [str(Path(sys.executable).with_name("ruff")), "format", "--isolated"]
    try:
        done = subprocess.run(
            [*command, f"--line-length={WIDTH}", "-"], input=text, capture_output=True, text=True
        )
    except OSError:
        return text
    return text if done.returncode else done.stdout


def _with_row(
    text: str, path: Path, in_table: bool, operation: str, row: str, numba: bool, module: str
) -> str:
    """Return a list of rows with one more: behind its operation's last, or at the end."""
    language, places = (
        ("numba", '("simulator", "gpu")') if numba else ("cuda_c", '("emulator", "gpu")')
    )
    passes = "CONV2D_PASSES" if operation == "conv2d" else "POOL2D_PASSES"
    fields = (
        f'Row("{operation}"', f'"{row}"', f'"{language}"', f'{module}{row}"', places,
        f'{"" if in_table else "table."}{passes}', '"say its idea here"),',
    )  # fmt: skip
    entry = "\n".join(_filled(fields, "    ", " " * 8)) + "\n"
    wanted = "_ROWS" if in_table else "ROWS"
    before = _listed(text, wanted)
    if before is None:
        raise NewError(f"{path} has no list {wanted} = [...] to put the row into")
    same = [
        one.end_lineno or 0
        for one in before.elts
        if isinstance(one, ast.Call) and getattr(one.args[0], "value", "") == operation
    ]
    lines = text.splitlines(keepends=True)
    at = max(same, default=(before.end_lineno or 0) - 1)
    changed = "".join([*lines[:at], entry, *lines[at:]])
    after = _listed(changed, wanted)
    if after is None or len(after.elts) != len(before.elts) + 1:
        raise NewError(f"{path}: {wanted} needs a line for each row; put this one in:\n{entry}")
    return changed


def _listed(text: str, name: str) -> ast.List | ast.Tuple | None:
    """Return the list or tuple that a module's text assigns to a name; None where it does not."""
    try:
        module = ast.parse(text)
    except SyntaxError:
        return None
    for node in module.body:
        targets = [node.target] if isinstance(node, ast.AnnAssign) else getattr(node, "targets", [])
        value = getattr(node, "value", None)
        if [ast.unparse(one) for one in targets] == [name] and isinstance(
            value, (ast.List, ast.Tuple)
        ):
            return value
    return None
