"""What a fuzzed reader must do: refuse an input in one clear line, or give what it holds.

Anything else is a failure: another exception, a warning, more than `SECONDS` of processor time, or
more than `BYTES` of memory. `FUZZ=100000` in the environment is how many inputs all targets get
together, new ones at every run; without it each gets a few, always the same.
"""

from __future__ import annotations

import contextlib
import copy
import json
import os
import resource
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

SECONDS, BYTES = 10.0, 1 << 30
INPUTS = int(os.environ.get("FUZZ", "0"))
EXIT_CODES = (0, 1, 2, 130)


class TooSlowError(BaseException):
    """The reader took longer than it may; no `except Exception` of its own stops this."""


class Count(NamedTuple):
    """What became of a target's inputs, and what they took."""

    read: int
    refused: int
    seconds: float
    peak_bytes: int


counts: dict[str, Count] = {}


def share(per_cent: float, quick: int) -> settings:
    """Return the settings of a target that gets its share of `INPUTS`, or a quick few."""
    return settings(
        max_examples=max(1, round(INPUTS * per_cent / 100)) if INPUTS else quick,
        derandomize=not INPUTS,
        database=None,
        deadline=None,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
    )


class Target:
    """Counts what became of one target's inputs."""

    def __init__(self) -> None:
        self.read = self.refused = 0
        self.seconds = 0.0

    def outcome(self, reader: Callable[[], Any], refusal: Any) -> Any:
        """Return what a reader gives, or None where it refuses its input as it should.

        Parameters
        ----------
        reader
            Called without arguments, within the limits.
        refusal
            The documented exceptions; their text must be one clear line.
        """
        began = time.perf_counter()
        try:
            with limits():
                value = reader()
        except refusal as error:
            self.refused += 1
            one_clear_line(str(error))
            return None
        finally:
            self.seconds += time.perf_counter() - began
        self.read += 1
        return value

    def command(self, main: Callable[[list[str]], int], argv: list[str], capsys: Any) -> int:
        """Run a command line; return its exit code, which must be one of the documented ones."""
        began = time.perf_counter()
        try:
            with limits():
                code = main(argv)
        except SystemExit as exit_:  # argparse's own
            code = exit_.code
        self.seconds += time.perf_counter() - began
        out, err = capsys.readouterr()
        assert code in EXIT_CODES, (argv, code)
        assert "Traceback" not in out + err
        assert "\x1b" not in out + err, "what a file holds reaches the terminal"
        if code == 2:
            assert not out, f"{argv}: refused, and yet printed {out!r}"
            last = err.rstrip("\n").rpartition("\n")[2]
            one_clear_line(last)
            self.refused += 1
        else:
            self.read += 1
        if code == 0 and "--json" in argv:
            json.loads(out, parse_constant=_not_json)
        return code


def one_clear_line(text: str) -> None:
    """Fail for a message that is empty, has line breaks, or would play tricks on a terminal."""
    assert len(text) > 10, f"says too little: {text!r}"
    assert text.isprintable(), f"not one printable line: {text!r}"
    assert len(text) < 2000, f"{len(text)} characters: {text[:200]!r}"


@contextlib.contextmanager
def limits() -> Iterator[None]:
    """Stop what takes too long or too much memory."""

    def stop(*_: Any) -> None:
        raise TooSlowError(f"more than {SECONDS} s of processor time")

    before = signal.signal(signal.SIGPROF, stop)  # SIGALRM is pytest-timeout's
    with open("/proc/self/statm") as file:
        size = int(file.read().split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (size + BYTES, hard))
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        signal.signal(signal.SIGPROF, before)


def _not_json(name: str) -> None:
    raise AssertionError(f"--json printed {name}, which is no JSON")


# Damage. What is drawn is small: where, and how; so that hypothesis can make a failure small, too.

NUMBERS = [0, 1, -1, 2, 127, 255, 2**31 - 1, 2**31, 2**63 - 1, 2**63, -(2**63) - 1, 10**30, 0.5,
           -0.5, 1e-320, 1e308, float("nan"), float("inf"), -float("inf")]  # fmt: skip
TEXTS = ["", "0", "1", "-1", "nan", "auto", "none", "cpu", "max:cpu", "digits", "\x1b[2J", "a\nb",
         "\u0663", "\u202e", "<script>alert(1)</script>", "../../x", "\ud800", "9" * 5000,
         "x" * 3000]  # fmt: skip
AWKWARD = st.sampled_from(
    [None, True, False, *NUMBERS, *TEXTS, [], {}, [[]], [None], {"": None}, [0] * 50, "@DEEP@",
     "@LONG@"]
).map(copy.deepcopy)  # fmt: skip


class Content(bytes):
    """A file's bytes, which in a failure's report are not all printed."""

    def __repr__(self) -> str:
        return f"{bytes(self[:200])!r}, {len(self)} bytes"


_DEEP = b"[" * 100_000 + b"]" * 100_000
_LONG = b"1" * 5000


@st.composite
def damaged(draw: Any, whole: bytes, most: int = 4) -> bytes:
    """Bytes with up to `most` flipped bits, cuts, repeats and insertions; sometimes none."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(0, most))):
        # Twice in three the head, where a format says what the rest is.
        near = draw(st.sampled_from([64, 64, max(len(data), 1)]))
        at = draw(st.integers(0, near)) if data else 0
        length = draw(st.sampled_from([1, 1, 2, 4, 8, 100, 10_000]))
        how = draw(st.sampled_from(["flip", "set", "cut", "drop", "repeat", "insert"]))
        if how == "flip" and at < len(data):
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif how == "set" and at < len(data):
            data[at : at + min(length, 8)] = draw(st.sampled_from([b"\0", b"\xff"])) * len(
                data[at : at + min(length, 8)]
            )
        elif how == "cut":
            del data[at:]
        elif how == "drop":
            del data[at : at + length]
        elif how == "repeat":
            data[at:at] = data[at : at + length]
        else:
            data[at:at] = draw(st.binary(max_size=8))
    return Content(data)


@st.composite
def damaged_json(draw: Any, whole: Any, most: int = 3) -> Any:
    """A JSON value with up to `most` of its parts replaced, dropped, added or renamed."""
    value = json.loads(json.dumps(whole))
    for _ in range(draw(st.integers(0, most))):
        places = list(_places(value))
        if not places:
            return draw(AWKWARD)
        parent, key = places[draw(st.integers(0, len(places) - 1))]
        how = draw(st.sampled_from(["replace"] * 4 + ["drop", "add", "copy"]))
        if how == "replace":
            parent[key] = draw(AWKWARD)
        elif how == "drop":
            del parent[key]
        elif how == "copy":
            other, at = places[draw(st.integers(0, len(places) - 1))]
            parent[key] = json.loads(json.dumps(other[at])) if at in _keys(other) else None
        elif isinstance(parent, dict):
            parent[draw(st.sampled_from(TEXTS))] = draw(AWKWARD)
        else:
            parent.append(draw(AWKWARD))
    return value


def as_json(value: Any) -> bytes:
    """Return a value as JSON text, with nesting that no parser follows where it is asked for."""
    text = json.dumps(value).encode()
    return text.replace(b'"@DEEP@"', _DEEP).replace(b'"@LONG@"', _LONG)


@st.composite
def json_text(draw: Any, whole: Any) -> bytes:
    """The text of a damaged JSON value; now and then with a key twice, or damaged bytes."""
    text = as_json(draw(damaged_json(whole)))
    how = draw(st.integers(0, 9))
    if how == 0 and text.startswith(b"{"):
        key = draw(st.sampled_from(sorted(whole)))
        twice = json.dumps(key).encode() + b": " + as_json(draw(AWKWARD))
        text = b"{" + twice + b", " + text[1:] if len(text) > 2 else b"{" + twice + b"}"
    if how == 1:
        text = draw(damaged(text))
    return Content(text)


def _keys(value: Any) -> Any:
    return value if isinstance(value, dict) else range(len(value))


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    for key in _keys(value) if isinstance(value, (dict, list)) else ():
        yield value, key
        yield from _places(value[key])
