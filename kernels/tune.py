"""The command ``tune``: search a kernel's tile sizes, and keep the fastest for its launches.

The search is Optuna's; what it tries is the launcher itself with the tile that `tuned.using` gives
it, so that grids, workspaces and passes of several kernels are the ones that a caller gets. A tile
counts only if it is right: its results on a few images are held against the float64 judge, and on
the whole shape against the usual tile's. Its time is taken in turns with the usual tile's, and the
search goes by the ratio.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from kernels import check, compare, emulator, place, shape_text, table, tuned
from kernels.shapes import Shape
from kernels.source import SCALARS
from kernels.tuned import Tile

INSTALL = "pip install 'conv-kernel-lab[tune]'"
STRATEGIES = ("grid", "random", "tpe")
JUDGED_IMAGES = 2
# A sampler that keeps coming back to what it knows is stopped.
TRIALS_A_TILE = 50


class TuneError(ValueError):
    """What was asked for cannot be done; the message says what can."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of a tile.

    Attributes
    ----------
    tile
        Its macros.
    seconds
        Of a launch, or the bound; None where there is a problem.
    ratio
        To the usual tile.
    problem
        Why it does not count, or nothing.
    wrong
        Whether that is a wrong result, and not a launch that the GPU refuses.
    """

    tile: Tile
    seconds: float | None = None
    ratio: float | None = None
    problem: str = ""
    wrong: bool = False


@dataclasses.dataclass(frozen=True)
class Pass:
    """What is tuned: a row's pass on a shape."""

    row: table.Row
    direction: str
    shape: Shape
    dtype: str

    def using(self, tile: Tile) -> Any:
        """Return a context in which the row uses a tile."""
        return tuned.using(self.row.operation, self.row.name, tile)

    def inputs(self, shape: Shape) -> tuple[np.ndarray | None, ...]:
        """Draw inputs, host memory."""
        rng = np.random.default_rng(0)
        return check.make_inputs(self.row.operation, self.direction, shape, self.dtype, rng)

    def misjudged(self, tile: Tile, where: str) -> str:
        """Return what the judge finds wrong with a tile on a few images, or nothing."""
        few = self.shape._replace(n=min(self.shape.n, JUDGED_IMAGES))
        inputs = self.inputs(few)
        with self.using(tile):
            return check.check_pass(self.row, self.direction, inputs, few, where).message


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options; `run` takes what is parsed."""
    parser.description = (
        "Search the tile sizes of a kernel for a pass on a shape, with Optuna, on this GPU, and "
        "keep the fastest: launches on this GPU use it from then on ('list --tiles' shows it). "
        "Every tile is held against the judge before its time counts; exit 1 means that one was "
        "wrong."
    )
    parser.add_argument("name", metavar="NAME", help="a kernel with tiles to choose")
    parser.add_argument("--shape", required=True, help="such as N,C,H,W,K,R,S[,stride[,padding]]")
    parser.add_argument("--pass", dest="direction", metavar="PASS", default="forward")
    parser.add_argument("--dtype", choices=SCALARS, default="float32", help="of the arrays")
    parser.add_argument(
        "--strategy", choices=STRATEGIES, default="grid",
        help="every tile, tiles at random, or Optuna's tree of Parzen estimators (default grid)",
    )  # fmt: skip
    parser.add_argument("--budget", type=int, metavar="N", help="tiles to try (default all)")
    parser.add_argument("--seed", type=int, default=0, help="of the search (default 0)")
    parser.add_argument(
        "--objective", choices=("time", "bound"), default="time",
        help="bound: the X-ray's least time, without a GPU; it is shown and not kept",
    )  # fmt: skip
    parser.add_argument("--gpu", metavar="GPU", help="with --objective bound (default h200)")
    parser.add_argument("--json", action="store_true", help="for a program to read")


def run(args: argparse.Namespace) -> int:
    """Tune what `args` name; return 0, 1 where a tile is wrong, 2 for bad input."""
    try:
        return _run(args)
    except (TuneError, shape_text.ShapeTextError) as error:
        print(f"tune: {error}", file=sys.stderr)
        return 2
    except MemoryError as error:
        print(f"tune: the tensors of {args.shape!r} find no memory: {error}", file=sys.stderr)
        return 2


def _run(args: argparse.Namespace) -> int:
    what = _pass(args)
    offered = what.row.launchers.tiles(what.direction, what.shape, np.dtype(what.dtype).itemsize)
    if len(offered) < 2:
        raise TuneError(f"{args.name} has no tile to choose for {args.direction} of this shape")
    if args.budget is not None and args.budget < 1:
        raise TuneError(f"--budget {args.budget}: expected 1 or more tiles to try")
    if args.gpu and args.objective == "time":
        raise TuneError("--gpu goes with --objective bound; times are this machine's GPU's")
    measure = _timed(what, offered[0]) if args.objective == "time" else _bounded(what, args.gpu)
    outcomes = _search(measure, offered, args)
    good = sorted((one for one in outcomes if not one.problem), key=_ratio)
    kept = False
    if good and args.objective == "time":
        key = tuned.make_key(
            what.row.operation, what.row.name, what.direction, what.shape, what.dtype, _device()
        )
        found = {
            "tile": good[0].tile, "seconds": good[0].seconds, "ratio": good[0].ratio,
            "usual": offered[0], "tried": len(outcomes), "offered": len(offered),
        }  # fmt: skip
        kept = tuned.keep(key, found)
    bad = [outcome for outcome in outcomes if outcome.problem]
    if args.json:
        print(json.dumps([dataclasses.asdict(outcome) for outcome in (*good, *bad)], indent=2))
    else:
        _print(good, bad, offered, kept)
    if not good:
        print("tune: the usual tile itself has no right result", file=sys.stderr)
    return 1 if not good or any(outcome.wrong for outcome in bad) else 0


def _pass(args: argparse.Namespace) -> Pass:
    """Return what is to be tuned, if it can be."""
    rows = [row for row in table.rows() if {"gpu", "emulator"} <= set(row.places)]
    tunable = [row for row in rows if hasattr(row.launchers, "tiles")]
    row = next((row for row in tunable if row.name == args.name), None)
    if row is None:
        known = ", ".join(row.name for row in tunable)
        raise TuneError(f"no kernel named {args.name!r} has tiles to choose; there are {known}")
    if args.direction not in row.passes:
        raise TuneError(f"no pass {args.direction!r}; {row.name} has {', '.join(row.passes)}")
    shape = shape_text.parse(args.shape, row.operation)
    if shape.n == 0:
        raise TuneError(f"shape {args.shape!r}: N is 0; an empty batch launches nothing")
    if reason := row.refuses(args.direction, shape, args.dtype):
        raise TuneError(f"kernel {row.name!r} {reason}")
    return Pass(row, args.direction, shape, args.dtype)


def _search(
    measure: Callable[[Tile], Outcome], offered: list[Tile], args: argparse.Namespace
) -> list[Outcome]:
    """Return what became of the tiles that were tried, the usual one first."""
    try:
        import optuna
    except ImportError:
        raise TuneError(f"Optuna, which searches, is not installed ({INSTALL})") from None
    from rich.console import Console
    from rich.progress import Progress

    values = {name: sorted({tile[name] for tile in offered}) for name in offered[0]}
    wanted = min(args.budget or len(offered), len(offered))
    console = Console(stderr=True)
    progress = Progress(console=console, transient=True, disable=not console.is_terminal)
    task = progress.add_task(f"tuning {args.name} {args.direction}", total=wanted)
    tried: dict[tuple[int, ...], Outcome] = {}

    def outcome_of(tile: Tile) -> Outcome:
        if (sizes := tuple(tile.values())) not in tried:
            tried[sizes] = measure(tile)
            progress.advance(task)
        return tried[sizes]

    def objective(trial: Any) -> float:
        tile = {name: trial.suggest_categorical(name, values[name]) for name in values}
        outcome = outcome_of(tile) if tile in offered else None
        if len(tried) >= wanted:
            trial.study.stop()
        if outcome is None or outcome.ratio is None:
            raise optuna.TrialPruned
        return outcome.ratio

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    samplers = {
        "grid": lambda: optuna.samplers.GridSampler(values, seed=args.seed),
        "random": lambda: optuna.samplers.RandomSampler(seed=args.seed),
        "tpe": lambda: optuna.samplers.TPESampler(seed=args.seed),
    }
    study = optuna.create_study(sampler=samplers[args.strategy]())
    with progress:
        # Where the usual tile itself is at fault, there is nothing to hold the others against.
        if not outcome_of(offered[0]).problem and wanted > 1:
            study.optimize(objective, n_trials=TRIALS_A_TILE * wanted)
    return list(tried.values())


def _timed(what: Pass, usual: Tile) -> Callable[[Tile], Outcome]:
    """Return what tries a tile on this machine's GPU."""
    if problem := place.gpu_problem():
        raise TuneError(
            f"times need a GPU: {problem}; without one, --objective bound compares what the X-ray "
            "counts"
        )
    import cupy

    from kernels import event_clock, operations
    from kernels.agreement import Agreement

    row, direction, shape = what.row, what.direction, what.shape
    inputs = tuple(a if a is None else cupy.asarray(a) for a in what.inputs(shape))
    outputs = tuple(
        cupy.empty(dims, kind or np.dtype(what.dtype))
        for dims, kind in compare.outputs(row.operation, direction, shape)
    )
    clock = event_clock.EventClock(cupy.cuda.get_current_stream())

    def launch(tile: Tile, arrays: tuple[Any, ...]) -> None:
        with what.using(tile):
            operations.run(row, direction, arrays, shape)

    @functools.cache
    def trusted() -> Agreement:
        run_usual = functools.partial(launch, usual)
        return Agreement(row, direction, inputs, outputs, shape, run_usual)

    arrays = (*inputs, *outputs)

    def outcome(tile: Tile) -> Outcome:
        try:
            launch(tile, arrays)
            cupy.cuda.get_current_stream().synchronize()
        except Exception as error:  # too large for this GPU, say: the next one may do
            return Outcome(tile, problem=f"{type(error).__name__}: {' '.join(str(error).split())}")
        if wrong := what.misjudged(tile, "gpu"):
            return Outcome(tile, problem=wrong, wrong=True)
        agreement = trusted()
        agreement.spoil()
        launch(tile, arrays)
        if wrong := agreement.problem(row):
            return Outcome(tile, problem=wrong, wrong=True)
        tiles = {"usual": usual, "this": tile}
        launches = {name: functools.partial(launch, one, arrays) for name, one in tiles.items()}
        seconds = event_clock.race(clock, launches)
        return Outcome(tile, seconds["this"], seconds["this"] / seconds["usual"])

    return outcome


def _bounded(what: Pass, gpu_name: str | None) -> Callable[[Tile], Outcome]:
    """Return what tries a tile on the emulator: the least time that a GPU could take for it."""
    from kernels.xray import bound, cli, gpus, passes

    if problem := emulator.problem():
        raise TuneError(f"the X-ray needs the emulator: {problem}")
    try:
        gpu = gpus.find(gpu_name or cli.DEFAULT_GPU)
    except ValueError as error:
        raise TuneError(f"--gpu: {error}") from None
    usual: list[float] = []

    def outcome(tile: Tile) -> Outcome:
        if wrong := what.misjudged(tile, "emulator"):
            return Outcome(tile, problem=wrong, wrong=True)
        with what.using(tile):
            recordings = passes.record_pass(what.row, what.direction, what.shape, what.dtype)
        seconds = sum(bound.bound(recording, gpu).seconds for recording in recordings)
        usual.append(seconds)
        return Outcome(tile, seconds, seconds / usual[0])

    return outcome


def _ratio(outcome: Outcome) -> float:
    return float("inf") if outcome.ratio is None else outcome.ratio


def _device() -> int:
    import cupy

    return int(cupy.cuda.runtime.getDevice())


def _print(good: list[Outcome], bad: list[Outcome], offered: list[Tile], kept: bool) -> None:
    for outcome in good:
        usual = "  the usual one" if outcome.tile == offered[0] else ""
        micro = 1e6 * (outcome.seconds or 0.0)
        print(f"{tuned.label(outcome.tile):28} {micro:12,.2f} µs {outcome.ratio:7.2f} times{usual}")
    for outcome in bad:
        print(f"{tuned.label(outcome.tile):28} {'WRONG' if outcome.wrong else 'left out'}")
        print("    " + outcome.problem.replace("\n", "\n    "))
    print(f"{len(good) + len(bad)} of {len(offered)} tiles tried; ", end="")
    print("the first is kept for this GPU" if kept else "nothing is kept")
