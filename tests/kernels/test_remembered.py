"""Entries on disk: whole or not there, whatever other processes and people do to their folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kernels.remembered import Entries

ROOT = Path(__file__).parents[2]
KEY = {"operation": "conv2d", "pass": "forward", "shape": {"n": 1}, "dtype": "float32"}


@pytest.fixture
def entries(tmp_path, monkeypatch):
    monkeypatch.setenv("CONV_KERNEL_LAB_CHOICES", str(tmp_path))
    return Entries("kind")


def child(program: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_what_was_written_is_read_under_its_own_key_only(entries):
    assert entries.read(KEY) is None
    assert entries.write(KEY, {"best": (1, 2)})
    assert entries.read(KEY) == {"best": [1, 2]}
    assert entries.read({**KEY, "shape": {"n": 2}}) is None
    assert entries.write(KEY, {"best": 3})
    assert entries.read(KEY) == {"best": 3}
    assert [(entry.key, entry.value) for entry in entries] == [(KEY, {"best": 3})]


def test_a_clock_that_jumps_changes_nothing(entries):
    entries.write(KEY, {"best": 1})
    (entry,) = entries
    for when in (0, 4e9):
        os.utime(entry.path, (when, when))
        assert entries.read(KEY) == {"best": 1}
        assert entries.write(KEY, {"best": 1})


def test_the_cache_of_the_user_is_where_they_lie_by_default(monkeypatch, tmp_path):
    monkeypatch.delenv("CONV_KERNEL_LAB_CHOICES", raising=False)
    monkeypatch.delenv("CONV_KERNEL_LAB_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert Entries("auto").folder == tmp_path / "conv-kernel-lab" / "choices" / "auto"


@pytest.mark.parametrize(
    "text",
    [
        b"", b'{"key": {"operation', b"\xff\xfe\x00", b"[1, 2]", b"null", b'{"key": {}}',
        b'{"key": 1, "value": 2}', b"[" * 100_000, b'{"key": {}, "value": {"best": 1}}',
    ],
)  # fmt: skip
def test_a_torn_or_edited_file_counts_as_not_there(entries, text):
    entries.write(KEY, {"best": 1})
    (entry,) = entries
    entry.path.write_bytes(text)
    assert entries.read(KEY) is None
    assert entries.write(KEY, {"best": 2})
    assert entries.read(KEY) == {"best": 2}


WRITER = """
import sys
from kernels.remembered import Entries
entries, me = Entries("kind"), int(sys.argv[1])
key = {"operation": "conv2d", "pass": "forward"}
print("ready", flush=True)
for n in range(60):
    assert entries.write({**key, "shared": n % 3}, {"writer": me, "filler": "x" * 20_000})
    assert entries.write({**key, "writer": me, "n": n}, {"n": n})
"""


def test_processes_that_write_at_once_lose_nothing(entries):
    writers = [child(WRITER, number) for number in range(3)]
    shared = {"operation": "conv2d", "pass": "forward", "shared": 0}
    seen = 0
    while any(writer.poll() is None for writer in writers):
        value = entries.read(shared)
        if value is not None:
            assert set(value) == {"writer", "filler"}
            assert len(value["filler"]) == 20_000
            seen += 1
    for writer in writers:
        _, errors = writer.communicate()
        assert writer.returncode == 0, errors
    assert seen
    own = {(e.key["writer"], e.key["n"]) for e in entries if "writer" in e.key}
    assert own == {(number, n) for number in range(3) for n in range(60)}
    assert len(list(entries)) == 3 * 60 + 3
    assert list(entries.folder.glob("*.tmp")) == []


def test_a_writer_that_is_killed_leaves_what_was_there(entries):
    """Killed while it writes: the entry is one of those that were written whole."""
    writer = child(WRITER.replace("range(60)", "range(10**9)"), 7)
    assert writer.stdout is not None
    assert writer.stdout.readline() == "ready\n"
    time.sleep(0.05)
    writer.kill()
    writer.communicate()
    for entry in entries:
        assert set(entry.value) in ({"writer", "filler"}, {"n"})
    (entries.folder / "left.tmp").touch()
    assert entries.forget() > 0
    assert list(entries.folder.iterdir()) == []


FULL = """
import resource, sys, warnings
from kernels.remembered import Entries
warnings.simplefilter("error")
resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))  # no file may grow past ten bytes
key = {"operation": "conv2d", "pass": "forward"}
try:
    Entries("kind").write(key, {"best": 1})
except RuntimeWarning as warning:
    print(warning)
assert Entries("kind").read(key) is None
"""


def test_a_disk_that_takes_no_more_costs_a_warning(entries):
    said, errors = child(FULL).communicate()
    assert "cannot be kept (File too large)" in said, errors
    assert list(entries.folder.iterdir()) == []


def test_a_folder_that_cannot_be_made_costs_a_warning(entries, tmp_path):
    (tmp_path / "kind").touch()
    with pytest.warns(RuntimeWarning, match=r"CONV_KERNEL_LAB_CHOICES names another folder"):
        assert not entries.write(KEY, {"best": 1})
    assert entries.read(KEY) is None
    assert list(entries) == []
    assert entries.forget() == 0


def test_forgetting_some(entries):
    shapes = [{"n": 1}, {"n": 2}]
    for shape in shapes:
        for direction in ("forward", "backward_data"):
            entries.write({**KEY, "shape": shape, "pass": direction}, {})
    assert entries.forget(shape={"n": 1}, dtype="float64") == 0
    assert entries.forget(shape={"n": 1}) == 2
    assert [entry.key["shape"] for entry in entries] == [{"n": 2}, {"n": 2}]
    (entries.folder / "torn.json").write_text(json.dumps({"n": 1})[:4])
    assert entries.forget() == 3
