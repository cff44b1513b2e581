"""``python -m lenet train | evaluate | predict | speedrun``."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import json
import sys
import time
from pathlib import Path
from typing import Any

from kernels import output, plugins
from kernels.one_line import Parser, one_line
from lenet import launcher, speedrun_command
from lenet.datasets import SOURCES
from lenet.errors import DivergedError, LenetError, OptionError
from lenet.model import MODELS
from lenet.ranks import ALONE, Ranks
from lenet.settings import Settings

DONE, CHECK_FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130

EPILOG = (
    "exit status: 0 done, 1 a check failed, 2 bad usage or input, 130 interrupted, 141 nobody reads"
)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    # Of the processes that mpiexec starts, the first one speaks.
    quiet = (launcher.launched() or launcher.SINGLE).rank > 0
    with contextlib.redirect_stderr(io.StringIO() if quiet else sys.stderr):
        options = _parser().parse_args(arguments)
    try:
        return int(options.command(options))
    except DivergedError as error:
        if not quiet:
            print(f"lenet: {error}", file=sys.stderr)
        return CHECK_FAILED
    except (LenetError, plugins.PluginError) as error:
        if not quiet:
            print(f"lenet: error: {error}", file=sys.stderr)
        return BAD_INPUT
    except BrokenPipeError:
        raise  # for `output.run`
    except OSError as error:  # a path that the system does not take
        named = one_line(str(error.filename or "output"))
        print(f"lenet: error: {named}: {error.strerror}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print("lenet: interrupted", file=sys.stderr)
        return INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m lenet", description="LeNet on hand-written kernels.", epilog=EPILOG
    )
    commands = parser.add_subparsers(required=True, metavar="train | evaluate | predict | speedrun")
    default = Settings()

    train = commands.add_parser("train", help="train, or go on with a run", epilog=EPILOG)
    train.set_defaults(command=_train)
    _add_data(train, "digits, which are embedded (default)")
    _add_setting(train, "epochs", int, f"whole passes over the data ({default.epochs})")
    _add_setting(train, "batch-size", int, f"images a step ({default.batch_size})")
    _add_setting(train, "lr", float, f"highest learning rate, one-cycle ({default.lr})")
    _add_setting(train, "momentum", float, f"of Nesterov's kind ({default.momentum})")
    _add_setting(train, "weight-decay", float, f"of all parameters ({default.weight_decay})")
    _add_setting(train, "seed", int, f"of weights, shuffles and moves ({default.seed})")
    _add_setting(
        train,
        "augment",
        int,
        f"move images by up to N pixels each way, anew every epoch ({default.augment})",
    )
    _add_setting(
        train,
        "distort",
        float,
        "scale, squeeze and shear images by up to this share of their size, anew every epoch "
        f"({default.distort})",
    )
    _add_setting(train, "model", str, f"{' or '.join(MODELS)}, the published one ({default.model})")
    _add_setting(train, "activation", str, "relu or tanh (relu)")
    _add_kernels(train)
    train.add_argument(
        "--runs-dir", type=Path, metavar="DIR", help="where the run's folder goes (runs)"
    )
    train.add_argument("--name", help="the run's folder (data, kernels and time)")
    train.add_argument(
        "--resume", type=Path, metavar="RUN", help="go on with the run in this folder"
    )
    train.add_argument(
        "--target-accuracy",
        metavar="X",
        help="exit with 1 if the test accuracy ends below X: 0 to 1, or per cent (98)",
    )
    _add_graph(train)
    train.add_argument(
        "--distributed",
        action="store_true",
        help="be one of the processes that mpiexec or srun started to train together, each on its "
        "part of every batch; see docs/distributed.md",
    )
    train.add_argument("--no-progress", action="store_true", help="a line an epoch, no bar")

    evaluate = commands.add_parser("evaluate", help="test accuracy of a run", epilog=EPILOG)
    evaluate.set_defaults(command=_evaluate)
    evaluate.add_argument("run", type=Path, metavar="RUN", help="a run's folder")
    _add_data(evaluate, "other data than the run's own (default): digits, which are embedded")
    _add_kernels(evaluate)
    evaluate.add_argument(
        "--by-class", action="store_true", help="a line for each class too: how many it got right"
    )
    evaluate.add_argument("--json", action="store_true", help="print one JSON object")

    predict = commands.add_parser("predict", help="what a run sees in images", epilog=EPILOG)
    predict.set_defaults(command=_predict)
    predict.add_argument("run", type=Path, metavar="RUN", help="a run's folder")
    predict.add_argument(
        "images", nargs="+", type=Path, metavar="IMAGE", help="an image file of 28x28 pixels"
    )
    predict.add_argument(
        "--invert", action="store_true", help="the strokes are dark on a light ground"
    )
    _add_kernels(predict)
    predict.add_argument("--json", action="store_true", help="print one JSON array")

    speedrun = commands.add_parser(
        "speedrun",
        help="MNIST to 99 %% by a fixed recipe, over many seeds",
        description=speedrun_command.DESCRIPTION,
        epilog=EPILOG + ", with what it has",
    )
    speedrun.set_defaults(command=_speedrun)
    speedrun_command.add_arguments(speedrun)
    _add_kernels(speedrun)
    _add_graph(speedrun)
    return parser


def _add_setting(parser: argparse.ArgumentParser, name: str, kind: type, text: str) -> None:
    # No defaults here: --resume must see what was given.
    metavar = None if kind is str else "N" if kind is int else "X"
    parser.add_argument("--" + name, type=kind, metavar=metavar, help=text)


def _add_data(parser: argparse.ArgumentParser, text: str) -> None:
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--data", help=f"{text}, or one that is fetched once: {', '.join(SOURCES)}")
    group.add_argument("--data-dir", metavar="DIR", help="a folder of IDX files, MNIST's form")


def _add_kernels(parser: argparse.ArgumentParser) -> None:
    plugins.add_argument(parser)
    parser.add_argument("--conv", help="conv2d kernel: see `python -m kernels list` (auto)")
    parser.add_argument(
        "--pool", help="max_pool2d or avg_pool2d kernel: max, avg, auto, max:cpu, avg:cpu (auto)"
    )
    parser.add_argument(
        "--block",
        help="conv2d_relu_pool kernel in place of conv, ReLU and max-pool, or none (auto: where "
        "--conv and --pool are auto)",
    )
    parser.add_argument("--device", help="auto, cpu or gpu (auto)")


def _add_graph(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--graph",
        action=argparse.BooleanOptionalAction,
        help="on a GPU: the whole step is one CUDA graph, and a kernel that cannot be recorded an "
        "error; --no-graph launches its kernels one by one; the numbers are the same "
        "(a graph where the kernels allow it)",
    )


def _given(options: argparse.Namespace, names: set[str]) -> dict[str, Any]:
    return {n: v for n, v in vars(options).items() if n in names and v is not None}


def _train(options: argparse.Namespace) -> int:
    given = _given(options, {field.name for field in dataclasses.fields(Settings)})
    target = _target("--target-accuracy", options.target_accuracy)
    if options.resume and (options.name or options.runs_dir):
        raise OptionError("--resume names the run's folder itself; leave out --name and --runs-dir")
    name = options.name
    if name is not None and (name in ("", ".", "..") or Path(name).name != name):
        raise OptionError(f"--name is {name!r}; expected a folder's name, without a path")

    count = (launcher.launched() or launcher.SINGLE).size
    if not options.distributed:
        if count > 1:
            raise OptionError(
                f"{count} processes were started, and each would train alone; add --distributed "
                "for one training by all of them, or start one"
            )
        return _train_as(ALONE, options, given, target)
    if count > 1 and not launcher.is_watched():
        return launcher.watch(
            lambda ended, folder: f"lenet: error: {ended}; {launcher.way_on(folder, count)}"
        )

    from lenet.distributed import ranks_of_this_job

    ranks = ranks_of_this_job()
    with ranks.guard():
        return _train_as(ranks, options, given, target)


def _train_as(
    ranks: Ranks, options: argparse.Namespace, given: dict[str, Any], target: float
) -> int:
    """Do one rank's part."""
    from lenet import train
    from lenet.progress import Bar, Lines, Silent, print_result

    plain = options.no_progress or not sys.stdout.isatty()
    progress = (Lines() if plain else Bar()) if ranks.first else Silent()
    how = {"graph": options.graph, "ranks": ranks}
    if options.resume:
        result = train.resume(options.resume, given, progress, **how)
    else:
        settings = Settings(**given)
        runs = options.runs_dir or Path("runs")

        def chosen() -> Path:
            _warn_of_simulator(settings)
            return runs / options.name if options.name else _unused(runs, settings)

        result = train.train(settings, ranks.from_first(chosen), progress, **how)
    if result.interrupted:
        if ranks.first:
            print(
                f"lenet: {result.stopped_by or 'interrupted'} and saved; go on with: "
                f"{launcher.resume_command(result.run.folder, ranks.size)}",
                file=sys.stderr,
            )
        return CHECK_FAILED if result.stopped_by else INTERRUPTED
    if not ranks.first:
        return DONE
    print_result(result)
    accuracy = result.history[-1]["test_accuracy"]
    if accuracy < target:
        print(
            f"lenet: test accuracy {accuracy:.2%} is below the target of {target:.2%}",
            file=sys.stderr,
        )
        return CHECK_FAILED
    return DONE


def _warn_of_simulator(settings: Settings) -> None:
    """Tell whoever trains on Numba's simulator not to wait for the end of an epoch."""
    device, choice = settings.check()
    slow = choice.simulated(device)
    if slow:
        print(
            f"lenet: {' and '.join(slow)} will run on Numba's simulator, seconds to minutes an "
            "image: fit for a few steps with --batch-size 1; the CUDA C kernels are emulated far "
            "faster",
            file=sys.stderr,
        )


def _unused(runs: Path, settings: Settings) -> Path:
    """Return a folder that is not there yet, named after what the run is."""
    data = Path(settings.data_dir).resolve().name if settings.data_dir else settings.data
    name = f"{data}-{settings.conv}-{time.strftime('%Y%m%d-%H%M%S')}"
    folder, again = runs / name, 1
    while folder.exists():
        again += 1
        folder = runs / f"{name}-{again}"
    return folder


def _target(option: str, text: str | None) -> float:
    """Return a target accuracy as a share: up to 1 it is one, above that it is per cent."""
    try:
        value = float((text or "0").removesuffix("%"))
    except ValueError:
        value = -1.0
    if text and (text.endswith("%") or value > 1):
        value /= 100
    if not 0 <= value <= 1:
        raise OptionError(
            f"{option} is {text!r}; expected a share, 0 to 1, or per cent: 0.98 or 98"
        )
    return value


def _evaluate(options: argparse.Namespace) -> int:
    from lenet.inference import Trained

    trained = Trained(options.run, **_given(options, {"conv", "pool", "block", "device"}))
    found = trained.evaluate(options.data, options.data_dir)
    if options.json:
        print(json.dumps(found))
    else:
        print(
            f"{found['data']}: test accuracy {found['accuracy']:.2%}, "
            f"test loss {found['loss']:.4f}, {found['images']:,} images"
        )
        if options.by_class:
            _print_classes(found["classes"])
    return DONE


def _print_classes(rows: list[dict[str, Any]]) -> None:
    wide = max(len(row["name"]) for row in rows)
    for row in rows:
        share = row["right"] / row["images"] if row["images"] else 0
        other = f"  most often taken for {row['mistaken_for']}" if row["mistaken_for"] else ""
        print(f"{row['name']:>{wide}}  {share:7.2%} of {row['images']:,}{other}")


def _predict(options: argparse.Namespace) -> int:
    import numpy as np

    from lenet.inference import Trained, read_image

    trained = Trained(options.run, **_given(options, {"conv", "pool", "block", "device"}))
    pixels = np.stack([read_image(path, options.invert) for path in options.images])
    probabilities = trained.predict(pixels)
    rows = [
        {
            "image": str(path),
            "label": int(row.argmax()),
            "name": trained.names[int(row.argmax())],
            "probability": float(row.max()),
            "probabilities": [float(p) for p in row],
        }
        for path, row in zip(options.images, probabilities, strict=True)
    ]
    if options.json:
        print(json.dumps(rows))
    else:
        for row in rows:
            print(f"{row['image']}: {row['name']} ({row['probability']:.1%})")
    return DONE


def _speedrun(options: argparse.Namespace) -> int:
    target = _target("--target", options.target)
    kernels = _given(options, {"conv", "pool", "block", "device"})
    reached = speedrun_command.run(options, target, kernels)
    return INTERRUPTED if reached is None else DONE if reached else CHECK_FAILED


if __name__ == "__main__":
    sys.exit(output.run(main))
