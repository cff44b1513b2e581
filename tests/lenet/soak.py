"""Train LeNet over and over while everything goes wrong: ``make soak MINUTES=60``.

A run is begun, and its process killed at a random step or inside a save, interrupted, starved of
disk, locked out of its folder, or given another time of day; then it is resumed, until it is
complete. After every process what is in the folder must be whole and no older than before; in the
end the weights, momentum and metrics must be, bit for bit, those of a run that nothing disturbed.

The runs lie on a tmpfs in a mount namespace of the soak's own (unshare(1), as root or in a user
namespace): its disk is really full and really read-only, and is gone with the process. Loss of
power is not tried: what a killed process has written, the kernel keeps.

Exit status: 0 all runs came through, 1 something was lost, 2 cannot run here, 130 interrupted.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file
from soak_faults import (
    FAULTS,
    FILES,
    LONGEST,
    TEMPORARIES,
    Child,
    Clock,
    Disk,
    Fault,
    SoakError,
    Watch,
)

ROOT = Path(__file__).parents[2]
LENET = [sys.executable, "-m", "lenet"]
TWICE = "Ctrl-C twice"
HALF_DONE = "saves found half-done after SIGKILL"
TIMES = ("seconds", "images_per_second")
HOW = "train --data digits --batch-size 16 --device cpu --no-progress"
RECIPES = {  # saved every few seconds, and many times a second
    "cuda_c": f"{HOW} --conv naive --pool max --epochs 4".split(),
    "cpu": f"{HOW} --block cpu --epochs 50".split(),
}
HIDDEN = "CONV_KERNEL_LAB_SOAK"  # set where the mount namespace is ours


def look(folder: Path, whole: Path, before: tuple[int, int]) -> tuple[int, int]:
    """Return how far a run is, (epochs, steps), after judging all that its folder holds.

    Parameters
    ----------
    folder, whole
        The run's, and that of the same run undisturbed.
    before
        How far it was; (-1, 0) before its first checkpoint.

    Raises
    ------
    SoakError
        A file that is damaged, foreign or older than before.
    """
    names = {path.name for path in folder.glob("*")} if folder.exists() else set()
    if strange := names - FILES - TEMPORARIES:
        raise SoakError(f"strange files: {strange}")
    if "config.json" in names:
        if (folder / "config.json").read_bytes() != (whole / "config.json").read_bytes():
            raise SoakError("config.json is not that of the undisturbed run")
    elif before != (-1, 0) or names & FILES:
        raise SoakError("config.json is lost")
    here = (-1, 0)
    if "checkpoint.safetensors" in names:
        path = folder / "checkpoint.safetensors"
        try:
            tensors = load_file(path)
            with safe_open(path, framework="np") as file:
                here = int(file.metadata()["epoch"]), len(tensors["epoch.losses"])
        except (SafetensorError, OSError, KeyError, TypeError) as error:
            raise SoakError(f"the checkpoint is damaged: {error}") from None
        if not all(np.isfinite(array).all() for array in tensors.values()):
            raise SoakError("the checkpoint has numbers that are none")
    if here < before:
        raise SoakError(f"the checkpoint went back from {before} to {here} (epochs, steps)")
    lines = metrics(folder)
    if lines != metrics(whole)[: len(lines)]:
        raise SoakError("metrics.jsonl has other lines than the undisturbed run's")
    if not max(0, here[0]) <= len(lines) <= here[0] + 1:
        raise SoakError(f"metrics.jsonl has {len(lines)} epochs, the checkpoint {here[0]}")
    if "timing.json" in names:
        try:
            json.loads((folder / "timing.json").read_text())
        except ValueError as error:
            raise SoakError(f"timing.json is damaged: {error}") from None
    return here


def metrics(folder: Path) -> list[dict[str, Any]]:
    """Return a run's lines without their times, and without a last one that was cut off."""
    path = folder / "metrics.jsonl"
    texts = path.read_text().splitlines(keepends=True) if path.exists() else []
    if texts and not texts[-1].endswith("\n"):
        del texts[-1]
    try:
        lines = [json.loads(text) for text in texts]
    except ValueError as error:
        raise SoakError(f"metrics.jsonl is damaged: {error}") from None
    return [{k: v for k, v in line.items() if k not in TIMES} for line in lines]


def half_done(folder: Path) -> set[tuple[str, int]]:
    """Return what shows a save that was cut short: files by name and number (inode)."""
    left = {name for name in TEMPORARIES if (folder / name).exists()}
    if (folder / "checkpoint.safetensors").exists():
        # A damaged one is for `look` to judge.
        with (
            contextlib.suppress(SafetensorError),
            safe_open(folder / "checkpoint.safetensors", framework="np") as file,
        ):
            if len(metrics(folder)) > int(file.metadata()["epoch"]):
                left.add("metrics.jsonl")
    return {(name, (folder / name).stat().st_ino) for name in left}


def compare(folder: Path, whole: Path) -> None:
    """Raise SoakError unless a complete run is, bit for bit, the undisturbed one."""
    if (names := {path.name for path in folder.iterdir()}) != FILES:
        raise SoakError(f"a complete run's folder holds {sorted(names)}")
    got, want = (load_file(run / "checkpoint.safetensors") for run in (folder, whole))
    if got.keys() != want.keys():
        raise SoakError("the checkpoint has other tensors than the undisturbed run's")
    other = [name for name in want if got[name].tobytes() != want[name].tobytes()]
    if other:
        raise SoakError(f"{', '.join(other)} differ from the undisturbed run's")
    if metrics(folder) != metrics(whole):
        raise SoakError("metrics.jsonl differs from the undisturbed run's")


class Soak:
    """The runs, one after the other, and what was done to them.

    Parameters
    ----------
    work
        An empty folder.
    seed
        Of all that happens at random. The same seed throws the same faults; the step that each
        meets depends on how busy the machine is.
    command
        What trains: ``python -m lenet``.
    """

    def __init__(self, work: Path, seed: int, command: list[str]) -> None:
        self.work, self.command, self.dice = work, command, random.Random(seed)
        self.disk, self.clock = Disk(work / "runs"), Clock(work)
        self.counts: collections.Counter[str] = collections.Counter()
        self.failures: list[str] = []
        self.wholes: dict[str, tuple[Path, float]] = {}

    def go(self, end: float, recipes: list[str]) -> None:
        """Run after run until `end`, of time.monotonic; the last one is seen through."""
        while time.monotonic() < end and not self.failures:
            for name in recipes:
                if not self.failures:
                    self.one(name)

    def one(self, recipe: str) -> None:
        """See one run through."""
        whole, epoch = self.undisturbed(recipe)
        epochs = len(metrics(whole))
        name = f"run{self.counts['runs']}"
        folder, here = self.disk.folder / name, (-1, 0)
        self.counts["runs"] += 1
        try:
            while here < (epochs, 0) or self.status != 0:
                fault = self.dice.choices(FAULTS, [f.weight for f in FAULTS])[0]
                self.attempt(fault, recipe, folder, epoch)
                here = look(folder, whole, here)
                if self.status == -signal.SIGINT and here < (epochs, 0) and self.last != TWICE:
                    raise SoakError("Ctrl-C killed it before it was complete")
                print(f"{name}  {self.last:20} {self.status:4}  at {here}", file=sys.stderr)
            compare(folder, whole)
            self.counts["epochs"] += epochs
        except SoakError as error:
            kept = ROOT / "build" / "soak" / name
            with contextlib.suppress(FileNotFoundError):
                shutil.copytree(folder, kept, dirs_exist_ok=True)
            self.failures.append(f"{name}, {recipe}, after {self.last}: {error}; kept in {kept}")
        shutil.rmtree(folder, ignore_errors=True)

    def undisturbed(self, recipe: str) -> tuple[Path, float]:
        """Return the folder of a recipe's run that nothing disturbed, and an epoch's seconds."""
        if recipe not in self.wholes:
            folder = self.work / f"whole{len(self.wholes)}"
            subprocess.run(
                self.begin(recipe, folder), cwd=ROOT, check=True, stdout=subprocess.DEVNULL
            )
            lines = (folder / "metrics.jsonl").read_text().splitlines()
            epoch = sum(json.loads(line)["seconds"] for line in lines) / len(lines)
            self.wholes[recipe] = folder, epoch
        return self.wholes[recipe]

    def begin(self, recipe: str, folder: Path) -> list[str]:
        place = ["--runs-dir", str(folder.parent), "--name", folder.name]
        return [*self.command, *RECIPES[recipe], *place]

    def attempt(self, fault: Fault, recipe: str, folder: Path, epoch: float) -> None:
        """Begin a run or go on with it, with one fault; judge how the process ends."""
        fresh = not (folder / "config.json").exists()
        before = half_done(folder)
        resume = [*self.command, "train", "--resume", str(folder), "--no-progress"]
        watch = Watch()
        watch.add(folder.parent if fresh else folder)
        process = subprocess.Popen(
            self.begin(recipe, folder) if fresh else resume,
            cwd=ROOT,
            env={**os.environ, **self.clock.environment, "PYTHONFAULTHANDLER": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        child = Child(process, folder, fresh, watch, self.disk, self.clock, self.dice, epoch)
        self.last = fault.name
        try:
            fault.inflict(child)
            _, errors = process.communicate(timeout=LONGEST)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGABRT)  # the child prints where it is
            raise SoakError(f"no end in {LONGEST} s: {process.communicate()[1]}") from None
        finally:
            child.close()
        self.status = process.returncode
        self.counts["processes"] += 1
        if self.status == 0:
            return  # done before the fault took effect
        if self.status not in fault.statuses or fault.says not in errors:
            raise SoakError(f"ended with {self.status}: {errors}")
        if "Traceback" in errors and fault.name != TWICE:
            raise SoakError(f"not one clear line but {errors}")
        self.counts[fault.name] += 1
        if self.status == -signal.SIGKILL:
            self.counts[HALF_DONE] += bool(half_done(folder) - before)

    def report(self, seconds: float, seed: int) -> dict[str, Any]:
        """Print a table of what was done; return it for a program."""
        table = Table(title=f"soak of {seconds / 60:.1f} minutes, seed {seed}", title_style="")
        table.add_column("what")
        table.add_column("times", justify="right")
        for key in ["runs", "epochs", "processes", *(f.name for f in FAULTS), HALF_DONE]:
            table.add_row(key, str(self.counts[key]))
        table.add_row("lost, damaged or different", str(len(self.failures)))
        Console().print(table)
        return {
            "minutes": round(seconds / 60, 1),
            "seed": seed,
            **self.counts,
            "failures": self.failures,
        }


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--minutes", type=float, default=1, metavar="N", help="how long (1)")
    parser.add_argument("--seed", type=int, help="of what goes wrong (the time)")
    parser.add_argument(
        "--recipe",
        choices=RECIPES,
        help="train by this one only (in turns: cuda_c, emulated, and cpu)",
    )
    parser.add_argument(
        "--command", type=shlex.split, default=LENET, help="what trains (python -m lenet)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object too")
    options = parser.parse_args(arguments)
    if HIDDEN not in os.environ:
        return _in_a_namespace(arguments)
    seed = int(time.time()) if options.seed is None else options.seed
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="soak-", ignore_cleanup_errors=True) as folder:
        soak = Soak(Path(folder), seed, options.command)
        try:
            soak.go(
                began + 60 * options.minutes, [options.recipe] if options.recipe else [*RECIPES]
            )
            status = 1 if soak.failures else 0
        except KeyboardInterrupt:
            status = 130
        found = soak.report(time.monotonic() - began, seed)
        subprocess.run(["umount", soak.disk.folder], check=True)
    if options.json:
        print(json.dumps(found))
    for failure in soak.failures:
        print(f"soak: {failure}", file=sys.stderr)
    return status


def _in_a_namespace(arguments: list[str] | None) -> int:
    """Do it again where mounting harms nobody."""
    mapped = [] if os.geteuid() == 0 else ["--map-root-user"]
    unshare = ["unshare", "--mount", *mapped]
    try:
        subprocess.run([*unshare, "true"], check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        why = getattr(error, "stderr", None) or error
        print(
            f"soak: {' '.join(unshare)}: {why}; run it as root, or with user namespaces",
            file=sys.stderr,
        )
        return 2
    given = sys.argv[1:] if arguments is None else arguments
    os.environ[HIDDEN] = "1"
    os.execvp("unshare", [*unshare, sys.executable, __file__, *given])


if __name__ == "__main__":
    sys.exit(main())
