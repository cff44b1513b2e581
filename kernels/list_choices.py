"""``python -m kernels list --auto`` and ``--tiles``: what was measured on GPUs; ``--forget``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from typing import Any

from kernels import choosing, tuned
from kernels.one_line import one_line
from kernels.remembered import FOLDER, Entry

# What a shape's fields are unless they are said.
USUAL = {"stride": 1, "dilation": 1, "pad": 0, "include": 0}


def run(args: argparse.Namespace) -> int:
    """Print or forget what `args` ask for; return 0, or 2 where a file cannot be removed."""
    kind = choosing if args.auto else tuned
    if args.forget:
        try:
            gone = kind.ENTRIES.forget()
        except OSError as error:
            print(f"list: cannot forget {error.filename}: {error.strerror}", file=sys.stderr)
            return 2
        print(f"{gone} forgotten in {kind.ENTRIES.folder}")
        return 0
    found = [one for entry in kind.ENTRIES if (one := _described(entry, kind)) is not None]
    if args.json:
        print(json.dumps([record for record, *_ in found], indent=2))
        return 0
    for record, of, said in found:
        stale = "" if record["current"] else "  STALE: the sources have changed; it is not used"
        print(f"{one_line(of)}{stale}\n    {one_line(said)}")
    what = "choices of kernel='auto'" if args.auto else "searched tiles"
    print(f"{len(found)} {what} in {kind.ENTRIES.folder} ({FOLDER} names another folder)")
    return 0


def shape_text(shape: Mapping[str, int]) -> str:
    """Return a shape's numbers as a command line has them, and what else is not as usual."""
    sizes = [str(shape[name]) for name in ("n", "c", "h", "w", "k", "r", "s") if name in shape]
    rest = [
        f"{name}={value}"
        for name, value in shape.items()
        if name.startswith((*USUAL, "pool_")) and value != USUAL.get(name.partition("_")[0])
    ]
    return " ".join([",".join(sizes), *rest])


def _described(entry: Entry, kind: Any) -> tuple[dict[str, Any], str, str] | None:
    """Return an entry as JSON has it, of what it is and what it says.

    None where it has another form: edited by hand.
    """
    key, value = entry.key, entry.value
    try:
        said = _choice(value) if kind is choosing else _tile(value)
        name = [key["kernel"]] if kind is tuned else []
        of = " ".join([key["operation"], *name, key["pass"], shape_text(key["shape"])])
        where = f"{of} {key['dtype']}, {key['device']['name']}"
        record = {"file": str(entry.path), **key, **value, "current": kind.is_current(key)}
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
    return record, where, said


def _choice(value: Mapping[str, Any]) -> str:
    ranking = sorted(value["seconds"].items(), key=lambda item: item[1])
    times = ", ".join(f"{name} {1e6 * seconds:,.2f} µs" for name, seconds in ranking)
    left_out = [f"{name} ({reason})" for name, reason in value["left_out"].items()]
    return times + (f"; left out: {', '.join(left_out)}" if left_out else "")


def _tile(value: Mapping[str, Any]) -> str:
    return (
        f"{tuned.label(value['tile'])}  {1e6 * value['seconds']:,.2f} µs, {value['ratio']:.2f} "
        f"times the usual {tuned.label(value['usual'])}; "
        f"{value['tried']} of {value['offered']} tried"
    )
