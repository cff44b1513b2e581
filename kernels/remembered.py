"""What was measured once is kept: small JSON files, one an entry, in the user's cache.

An entry's file is named after its key, written beside its place and moved there in one step: any
number of processes may read and write at once, a reader sees all of an entry or none of it, and
two who write the same entry leave the later one. Nothing here depends on a clock. What cannot be
read, is not JSON or has another key counts as not there; what cannot be written is lost with a
warning. No call fails for want of this folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from kernels.emulator.cache import cache_directory

FOLDER = "CONV_KERNEL_LAB_CHOICES"  # names another folder than the one in the user's cache

Key = dict[str, Any]


class Entry(NamedTuple):
    """One entry: its file, its key and its value, as JSON has them."""

    path: Path
    key: Key
    value: dict[str, Any]


class Entries:
    """The entries of one kind.

    Parameters
    ----------
    kind
        Names their folder: ``"auto"``, ``"tiles"``.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind

    @property
    def folder(self) -> Path:
        """Where they are; it need not exist."""
        named = os.environ.get(FOLDER)
        return (Path(named) if named else cache_directory() / "choices") / self.kind

    def read(self, key: Key) -> dict[str, Any] | None:
        """Return what was kept for a key, or None."""
        entry = _load(self.folder / _file_name(key))
        return entry.value if entry and entry.key == _as_json(key) else None

    def write(self, key: Key, value: dict[str, Any]) -> bool:
        """Keep a value; return whether it could be."""
        text = json.dumps({"key": key, "value": value}, indent=1) + "\n"
        beside = None
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            handle, beside = tempfile.mkstemp(".tmp", dir=self.folder)
            with open(handle, "w", encoding="utf-8") as file:
                file.write(text)
            os.replace(beside, self.folder / _file_name(key))
        except OSError as error:
            if beside is not None:
                with contextlib.suppress(OSError):
                    os.unlink(beside)
            warnings.warn(
                f"{self.folder}: what was measured cannot be kept ({error.strerror or error}); "
                f"it will be measured again. {FOLDER} names another folder.",
                RuntimeWarning,
                stacklevel=2,
            )
            return False
        return True

    def __iter__(self) -> Iterator[Entry]:
        """Yield every entry that can be read, in the order of their names."""
        for path in _listed(self.folder, "*.json"):
            if entry := _load(path):
                yield entry

    def forget(self, **fields: Any) -> int:
        """Remove the entries whose keys have these fields; return how many there were.

        Without fields all go, and so does what cannot be read and what a killed process left.

        Raises
        ------
        OSError
            Where a file cannot be removed.
        """
        wanted = _as_json(fields)
        gone = 0
        for path in _listed(self.folder, "*.json"):
            entry = _load(path)
            if not fields or (entry and wanted.items() <= entry.key.items()):
                path.unlink(missing_ok=True)
                gone += 1
        for path in [] if fields else _listed(self.folder, "*.tmp"):
            path.unlink(missing_ok=True)
        return gone


def _file_name(key: Key) -> str:
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:20]
    return f"{key['operation']}-{key['pass']}-{digest}.json"


def _as_json(value: Any) -> Any:
    """Return a value as it comes back from a file."""
    return json.loads(json.dumps(value))


def _listed(folder: Path, pattern: str) -> list[Path]:
    try:
        return sorted(folder.glob(pattern))
    except OSError:
        return []


def _load(path: Path) -> Entry | None:
    try:
        data = msgspec.json.decode(path.read_bytes())
        key, value = data["key"], data["value"]
    # Torn or edited by hand: not UTF-8, not JSON, too deep, another form.
    except (OSError, ValueError, RecursionError, TypeError, KeyError):
        return None
    return Entry(path, key, value) if isinstance(key, dict) and isinstance(value, dict) else None
