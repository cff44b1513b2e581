"""IDX files, MNIST's format: two zero bytes, a type, a rank, the dimensions, then the elements."""

from __future__ import annotations

import gzip
import math
import os
import struct
import zipfile
import zlib
from pathlib import Path
from typing import IO, cast

import numpy as np

from lenet.errors import DataError

UINT8 = 0x08
TYPES = {0x09: "int8", 0x0B: "int16", 0x0C: "int32", 0x0D: "float32", 0x0E: "float64"}
HOLDS = {1: "labels", 3: "images"}
GZIP_MAGIC = b"\x1f\x8b"
# A gzipped file may unpack to so many times its size; MNIST's images do to five times theirs. The
# first bytes are free: a small file of empty images is no attack.
MOST_GROWTH, FREE_BYTES = 100, 16 << 20
CHUNK = 1 << 20


def read_idx(path: Path | zipfile.Path, rank: int) -> np.ndarray:
    """Return the elements of an IDX file of unsigned bytes, plain or gzipped.

    Parameters
    ----------
    path
        The file, or one in a zip archive. That it is gzipped is seen from its content, not from its
        name.
    rank
        Dimensions it must have: 1 for labels, 3 for images.

    Raises
    ------
    DataError
        A file that cannot be read, is no IDX file, holds another type or rank, or is shorter or
        longer than its own header says.
    """
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(0)
            packed = file.read(2) == GZIP_MAGIC
            file.seek(0)
            if not packed:
                return _read(path, file, rank, size)
            with gzip.GzipFile(fileobj=file) as unpacked:
                most = max(FREE_BYTES, MOST_GROWTH * size)
                return _read(path, cast(IO[bytes], unpacked), rank, most)
    except (gzip.BadGzipFile, EOFError, zlib.error, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: damaged gzip file: {error}; fetch the file again") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None


def _read(path: Path | zipfile.Path, file: IO[bytes], rank: int, most: int) -> np.ndarray:
    """Return the elements of an open file, which holds `most` bytes at most."""
    head = file.read(4)
    if len(head) < 4:
        raise DataError(
            f"{path}: {len(head)} bytes are too few for an IDX file; fetch the file again"
        )
    zeros, kind, got_rank = struct.unpack(">HBB", head)
    if zeros != 0 or kind not in (UINT8, *TYPES):
        raise DataError(
            f"{path}: not an IDX file: it begins with {head.hex(' ')}; expected 00 00 08 {rank:02x}"
        )
    if kind != UINT8:
        raise DataError(
            f"{path}: holds {TYPES[kind]} elements (type 0x{kind:02x}); "
            "expected unsigned bytes (type 0x08)"
        )
    if got_rank != rank:
        raise DataError(
            f"{path}: has {got_rank} dimension{'s' * (got_rank != 1)}"
            f"{', as ' + HOLDS[got_rank] if got_rank in HOLDS else ''}; "
            f"expected {rank}, {HOLDS[rank]}: is it mislabelled?"
        )
    extents = file.read(4 * rank)
    begin = 4 + 4 * rank
    if len(extents) < 4 * rank:
        raise DataError(
            f"{path}: truncated in its header, {4 + len(extents)} of {begin} bytes; "
            "fetch the file again"
        )
    dims = struct.unpack(f">{rank}I", extents)
    wanted = math.prod(dims)
    says = f"its header says {' x '.join(map(str, dims))} = {wanted} bytes"
    if wanted > most and isinstance(file, gzip.GzipFile):
        raise DataError(
            f"{path}: unpacks to more than {MOST_GROWTH} times its size: {says}; the file is "
            "cut short, or no data set: fetch it again, or unpack it yourself"
        )
    # An array of the header's size is only made where the file can fill it.
    elements = np.empty(min(wanted, most), np.uint8)
    got = 0
    while count := file.readinto(elements[got : got + CHUNK].data):  # type: ignore[attr-defined]
        got += count
    if got < wanted or file.read(1):
        short = got < wanted
        follow = got if short else "more" if isinstance(file, gzip.GzipFile) else most - begin
        raise DataError(
            f"{path}: {'truncated' if short else 'too long'}: {says} but {follow} follow; "
            "fetch the file again"
        )
    try:
        return elements.reshape(dims)
    except ValueError:  # beside a 0 the others may be more than NumPy takes
        raise DataError(f"{path}: {says}, but no array is that large; fetch it again") from None
