"""Fetching a data set, once: from the first mirror that has it, into a cache, checked by SHA-256.

pooch does the transfer: into a file beside the place, moved there when its sum is right, so that
the cache holds whole files only.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from lenet.datasets import IDX_ORDER, SOURCES, Source
from lenet.errors import DataError

if TYPE_CHECKING:
    from rich.progress import Progress

VARIABLE = "CONV_KERNEL_LAB_DATA"
TIMEOUT = (10.0, 30.0)  # seconds: to connect, and of silence
CHUNK = 1 << 16  # bytes

Place = Path | zipfile.Path


def cache() -> Path:
    """Return where fetched data are kept: what CONV_KERNEL_LAB_DATA says, or the user's cache."""
    import pooch

    return Path(os.environ.get(VARIABLE) or pooch.os_cache("conv-kernel-lab")).expanduser()


def fetch(name: str) -> list[Place]:
    """Return a data set's four IDX files, fetched where the cache does not have them.

    Parameters
    ----------
    name
        A key of `lenet.datasets.SOURCES`.

    Returns
    -------
    list
        Training images and labels, then those of the test.

    Raises
    ------
    DataError
        No mirror had a file, or the cache cannot be written.
    """
    source, folder = SOURCES[name], cache() / name
    if not all(_is_there(folder / file, sha256) for file, sha256 in source.sha256.items()):
        try:
            with _one_process(folder):
                _fetch_all(name, source, folder)
        except OSError as error:
            raise DataError(
                f"cannot write {name} to {folder}: {error.strerror or error}; name a folder that "
                f"can be written, by {VARIABLE}=DIR"
            ) from None
    if source.members:
        (archive,) = source.sha256
        return [zipfile.Path(folder / archive, member) for member in source.members]
    return [folder / file for file in IDX_ORDER]


def _is_there(path: Path, sha256: str) -> bool:
    import pooch

    return path.is_file() and pooch.file_hash(str(path)) == sha256


@contextlib.contextmanager
def _one_process(folder: Path) -> Iterator[None]:
    """Let one process at a time fetch; those that waited find the files there."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _fetch_all(name: str, source: Source, folder: Path) -> None:
    from rich import progress as bars
    from rich.console import Console

    console = Console(stderr=True, highlight=False, soft_wrap=True)
    with bars.Progress(
        bars.TextColumn("{task.description}"),
        bars.BarColumn(),
        bars.DownloadColumn(),
        bars.TransferSpeedColumn(),
        bars.TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as progress:
        for file, sha256 in source.sha256.items():
            if not _is_there(folder / file, sha256):
                _fetch_one(name, source, folder, file, progress)


def _fetch_one(name: str, source: Source, folder: Path, file: str, progress: Progress) -> None:
    """Fetch a file from the first mirror that has it."""
    import pooch
    import requests

    pooch.get_logger().setLevel("WARNING")
    say, failures = progress.console.print, []
    for mirror in source.mirrors:
        host = f"{urlsplit(mirror).scheme}://{urlsplit(mirror).netloc}"
        say(f"lenet: fetching {name}'s {file} from {host}")
        bar = _Bar(progress, file)
        try:
            pooch.retrieve(
                mirror + file,
                source.sha256[file],
                file,
                folder,
                downloader=pooch.HTTPDownloader(bar, CHUNK, timeout=TIMEOUT),
            )
            return
        except (requests.RequestException, ValueError) as error:
            failures.append(f"{host}: {_reason(error)}")
            say(f"lenet: {failures[-1]}")
        finally:
            bar.close()
    raise DataError(
        f"{name}: {file} is not in {folder}, and no mirror gave it ({'; '.join(failures)}). "
        f"Without a network, bring {', '.join(source.sha256)} from {source.mirrors[0]} into "
        f"{folder}"
        + (", or unpack it and name" if source.members else ", or name")
        + " their folder with --data-dir DIR in place of --data"
    )


def _reason(error: Exception) -> str:
    """Return in a few words why a transfer failed."""
    import requests

    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"HTTP {error.response.status_code}"
    # What falls silent in the middle of a body is a ConnectionError, not a Timeout.
    if isinstance(error, requests.Timeout) or "timed out" in str(error):
        return "no answer in time"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "cut off in the middle"
    if isinstance(error, requests.ConnectionError):
        return "no connection"
    if isinstance(error, requests.RequestException):
        return str(error)
    return "what it sent has another SHA-256"


class _Bar:
    """A file's bar of rich's, as pooch moves one."""

    def __init__(self, progress: Progress, file: str) -> None:
        self.progress, self.task = progress, progress.add_task(file, total=None)

    def _set_total(self, count: int) -> None:
        self.progress.update(self.task, total=count or None)  # 0 where the server does not say

    total = property(fset=_set_total)

    def update(self, count: int) -> None:
        """Count bytes."""
        self.progress.advance(self.task, count)

    def reset(self) -> None:
        """Begin again: pooch counts the whole at the end."""
        self.progress.update(self.task, completed=0)

    def close(self) -> None:
        """Take the bar away."""
        self.progress.update(self.task, visible=False)
