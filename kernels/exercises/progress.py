"""How far a participant has come: one small JSON file beside the participant's own.

It is written beside its place and moved there in one step. A file that is not ours, or cannot be
read, is left as it is, and an error says so.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

FILE = "progress.json"
KIND = "conv-kernel-lab exercises 1"


class ProgressError(RuntimeError):
    """The file cannot be used; the message names it and says what to do."""


class Tries(msgspec.Struct, forbid_unknown_fields=True):
    """What happened in one language.

    Attributes
    ----------
    attempts
        Checks, until one passed.
    passed
        Whether one has.
    """

    attempts: int = 0
    passed: bool = False


class Entry(msgspec.Struct, forbid_unknown_fields=True):
    """What happened with one exercise.

    Attributes
    ----------
    hints
        How many have been shown.
    solution_seen
        Whether the solution has been shown before the exercise was passed.
    languages
        ``"cuda_c"`` and ``"numba"``.
    """

    hints: int = 0
    solution_seen: bool = False
    languages: dict[str, Tries] = msgspec.field(default_factory=dict)

    def tries(self, language: str) -> Tries:
        """Return those of a language, which may be none yet."""
        return self.languages.setdefault(language, Tries())

    @property
    def passed(self) -> bool:
        """Whether it is, in any language."""
        return any(tries.passed for tries in self.languages.values())


class Progress(msgspec.Struct, forbid_unknown_fields=True):
    """All of a participant's entries, by the exercises' names."""

    kind: str = KIND
    exercises: dict[str, Entry] = msgspec.field(default_factory=dict)

    def entry(self, name: str) -> Entry:
        """Return an exercise's, which may be empty yet."""
        return self.exercises.setdefault(name, Entry())


def load(folder: Path) -> Progress:
    """Return the progress kept in a folder; where nothing is kept, an empty one.

    Raises
    ------
    ProgressError
        There is something that is no progress of these exercises, or that cannot be read.
    """
    path = folder / FILE
    try:
        found = msgspec.json.decode(path.read_bytes(), type=Progress)
    except (FileNotFoundError, NotADirectoryError):
        return Progress()
    except OSError as error:
        raise ProgressError(f"{path}: cannot be read ({error.strerror})") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProgressError(_foreign(path, str(error))) from None
    if found.kind != KIND:
        raise ProgressError(_foreign(path, f"its kind is {found.kind!r}, expected {KIND!r}"))
    return found


@contextmanager
def updated(folder: Path) -> Iterator[Progress]:
    """Give the progress kept in a folder to a ``with`` block, and keep what that makes of it.

    Raises
    ------
    ProgressError
        As for `load`; or it cannot be written.
    """
    progress = load(folder)
    yield progress
    text = msgspec.json.format(msgspec.json.encode(progress), indent=2) + b"\n"
    beside = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, beside = tempfile.mkstemp(".tmp", FILE, folder)
        with open(handle, "wb") as file:
            file.write(text)
        os.replace(beside, folder / FILE)
    except OSError as error:
        if beside is not None:
            with suppress(OSError):
                os.unlink(beside)
        raise ProgressError(
            f"{folder / FILE}: progress cannot be kept ({error.strerror}); --dir names another "
            "folder"
        ) from None


def _foreign(path: Path, why: str) -> str:
    return (
        f"{path}: this is no progress of exercises ({why}); it is left as it is: move it away to "
        "begin anew, or name another folder by --dir"
    )
