"""What the soak does to a training process: signals, saves cut short, disks and clocks."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import os
import random
import select
import shutil
import signal
import struct
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

MODIFY, MOVED_TO, CREATED = 0x2, 0x80, 0x100  # inotify(7)
WRITTEN = MODIFY | MOVED_TO  # in whatever way
EVENT = struct.Struct("iIII")
LONGEST = 300  # seconds that a child may take to end, on a busy machine

# The moments of a save, from its temporary file's appearance to the rename.
MOMENTS = [
    (".checkpoint.safetensors.new", CREATED),
    (".checkpoint.safetensors.new", MODIFY),
    ("checkpoint.safetensors", WRITTEN),
    ("metrics.jsonl", MODIFY),
    (".timing.json.new", CREATED),
    (".timing.json.new", MODIFY),
    ("timing.json", WRITTEN),
]

FILES = {"config.json", "metrics.jsonl", "checkpoint.safetensors", "timing.json"}
TEMPORARIES = {f".{name}.new" for name in FILES}


class SoakError(Exception):
    """What the soak is there to find."""


class Watch:
    """The file events of a run's folder, told by the kernel as they happen."""

    def __init__(self) -> None:
        self.libc = ctypes.CDLL(None, use_errno=True)
        self.file = self.libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)

    def add(self, folder: Path) -> None:
        mask = MODIFY | MOVED_TO | CREATED
        if self.libc.inotify_add_watch(self.file, os.fsencode(folder), mask) < 0:
            raise OSError(ctypes.get_errno(), "inotify_add_watch", str(folder))

    def wait(self, child: Child, name: str, event: int) -> bool:
        """Return at the event, or with False when the child has ended."""
        while child.process.poll() is None:
            ready = select.select([self.file, child.ended], [], [], LONGEST)[0]
            if not ready:
                raise subprocess.TimeoutExpired(name, LONGEST)
            if self.file not in ready:
                return False
            content, at = os.read(self.file, 65536), 0
            while at < len(content):
                _, mask, _, length = EVENT.unpack_from(content, at)
                at += EVENT.size + length
                found = content[at - length : at].rstrip(b"\0").decode()
                if found == name and mask & event:
                    return True
        return False

    def close(self) -> None:
        os.close(self.file)


class Disk:
    """A small file system of the soak's own, which can be full and read-only."""

    def __init__(self, folder: Path, size: str = "4m") -> None:
        self.folder, self.filler = folder, folder / "filler"
        folder.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "soak", folder], check=True)

    def fill(self, room: int) -> None:
        """Leave `room` bytes."""
        with self.filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(1 << 16))
        os.truncate(self.filler, max(0, self.filler.stat().st_size - room))

    def read_only(self) -> None:
        """Take effect when no file is open for writing, as `mount` wants it."""
        while self._remount("ro").returncode:
            time.sleep(0.002)

    def mend(self) -> None:
        self._remount("rw").check_returncode()
        self.filler.unlink(missing_ok=True)

    def _remount(self, mode: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(["mount", "-o", f"remount,{mode}", self.folder], capture_output=True)


class Clock:
    """The children's time of day, by soak_machine.cpp."""

    def __init__(self, folder: Path) -> None:
        self.offset, library = folder / "clock", folder / "soak_machine.so"
        self.jump(0)
        compiler = os.environ.get("CXX", "g++" if shutil.which("g++") else "c++")
        source = Path(__file__).with_name("soak_machine.cpp")
        subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source], check=True)
        self.environment = {"LD_PRELOAD": str(library), "CLOCK_OFFSET": str(self.offset)}

    def jump(self, seconds: int) -> None:
        with self.offset.open("r+b" if self.offset.exists() else "wb", buffering=0) as file:
            file.write(struct.pack("q", seconds))


@dataclasses.dataclass
class Child:
    """A training process, and what surrounds it."""

    process: subprocess.Popen[str]
    folder: Path
    fresh: bool
    watch: Watch
    disk: Disk
    clock: Clock
    dice: random.Random
    epoch: float  # seconds

    def __post_init__(self) -> None:
        self.ended = os.pidfd_open(self.process.pid)

    def begin(self) -> bool:
        """Wait until it trains."""
        if self.fresh and not self.made():
            return False
        name = "checkpoint.safetensors" if self.fresh else "metrics.jsonl"
        return self.watch.wait(self, name, WRITTEN)

    def train(self) -> None:
        """Let it get to a random step: of the first epoch, or of those after one is saved."""
        if self.begin():
            if self.dice.random() < 0.6:
                self.watch.wait(self, "timing.json", WRITTEN)
                self.sleep(2 * self.epoch)
            else:
                self.sleep(1 + self.epoch)  # the warm-up too

    def made(self) -> bool:
        """Wait until it has made its folder."""
        there = self.folder.exists() or self.watch.wait(self, self.folder.name, CREATED)
        if there:
            self.watch.add(self.folder)
        return there

    def sleep(self, most: float) -> None:
        """Let it go on for a random part of `most` seconds."""
        select.select([self.ended], [], [], self.dice.uniform(0, most))

    def send(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)

    def close(self) -> None:
        """Leave nothing behind: no process, full disk or wrong clock."""
        self.process.kill()
        self.process.wait()
        os.close(self.ended)
        self.watch.close()
        self.clock.jump(0)
        self.disk.mend()


def at_any_step(number: int) -> Callable[[Child], None]:
    def fault(child: Child) -> None:
        child.train()
        child.send(number)

    return fault


def kill_at_the_start(child: Child) -> None:
    """Between Python's first line and the training's, or while the run's folder is made."""
    if child.fresh and child.dice.random() < 0.7:
        child.made()
        child.sleep(child.dice.choice([0, 0.002, 0.05]))
    else:
        child.sleep(2)
    child.send(signal.SIGKILL)


def kill_in_a_save(child: Child) -> None:
    moment = child.dice.choice(MOMENTS)
    if child.begin():
        for _ in range(child.dice.randint(1, max(1, round(2 / child.epoch)))):
            child.watch.wait(child, *moment)
        child.sleep(child.dice.choice([0, 0, 0.0005]))
        child.send(signal.SIGKILL)


def ctrl_c_twice(child: Child) -> None:
    child.train()
    child.send(signal.SIGINT)
    child.sleep(0.02)
    child.send(signal.SIGINT)


def full_disk(child: Child) -> None:
    if child.dice.random() < 0.8:
        child.train()
    child.disk.fill(child.dice.choice([0, 4096, 100_000, 300_000]))


def read_only_folder(child: Child) -> None:
    if child.dice.random() < 0.8:
        child.train()
    child.disk.read_only()


def clock_jump(child: Child) -> None:
    """By up to 20 years either way, as are the dates of the files that are there."""
    years = 365 * 86400
    for path in child.folder.glob("*"):
        then = time.time() + child.dice.uniform(-20, 20) * years
        with contextlib.suppress(FileNotFoundError):
            os.utime(path, (then, then))
    child.train()
    child.clock.jump(child.dice.randint(-20 * years, 20 * years))
    child.sleep(2 * child.epoch)
    child.send(signal.SIGINT)


@dataclasses.dataclass(frozen=True)
class Fault:
    """One way to go wrong: how often, what it does, and how the process must end by it."""

    name: str
    weight: int
    inflict: Callable[[Child], None]
    statuses: tuple[int, ...]
    says: str = ""


# Python itself dies of a Ctrl-C that comes when it is shutting down, all work done.
INTERRUPTED = (130, -signal.SIGINT)
FAULTS = [
    Fault("SIGKILL at any step", 4, at_any_step(signal.SIGKILL), (-signal.SIGKILL,)),
    Fault("SIGKILL in a save", 7, kill_in_a_save, (-signal.SIGKILL,)),
    Fault("SIGKILL at the start", 2, kill_at_the_start, (-signal.SIGKILL,)),
    Fault("SIGTERM", 1, at_any_step(signal.SIGTERM), (-signal.SIGTERM, 130)),
    Fault("Ctrl-C", 2, at_any_step(signal.SIGINT), INTERRUPTED),
    Fault("Ctrl-C twice", 1, ctrl_c_twice, INTERRUPTED),
    Fault("full disk", 3, full_disk, (2,), "No space left on device"),
    Fault("read-only folder", 2, read_only_folder, (2,), "Read-only file system"),
    Fault("clock jump", 2, clock_jump, INTERRUPTED),
]
