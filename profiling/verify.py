"""Run every kernel where it is to be trusted, and keep a record of it: ``make gpu``.

Three things go into the record: the tests; every pass of every kernel against the judge, on fixed
and random shapes; and a short LeNet run on every kernel, whose losses must follow the host's.
A kernel that crashes takes down the process it runs in, which is its own, and is recorded.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import importlib.util
import json
import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from kernels import cases, place, table
from profiling import machine

SCHEMA = 1
RESULTS = machine.ROOT / "profiling" / "results"
REASONS_KEPT = 5

# LeNet: steps and the accuracy that a healthy run passes by a wide margin. The emulator's few steps
# learn little; there the losses alone are judged.
STEPS = {"gpu": 300, "emulator": 8, "simulator": 2}
TARGET_ACCURACY = {"gpu": 0.93, "emulator": 0.0, "simulator": 0.0}
BATCH_SIZE = {"gpu": 32, "emulator": 32, "simulator": 1}
TEST_IMAGES = {"simulator": 1}  # all of them elsewhere
# The first losses must agree with the host's: rounding has not been amplified yet. This tolerance
# and the accuracies above are chosen, not derived, and have not met a GPU; kernels are judged by
# `check`, with its derived bound.
COMPARED_STEPS = 8
LOSS_TOLERANCE = 1e-3
# A row that rounds its factors is compared before the first update alone: the training makes much
# of small differences. It may be off by so many times its round-off.
ROUNDED = 8.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("--place", choices=tuple(STEPS), default="gpu")
    parser.add_argument(
        "--random-shapes", type=int, default=20, metavar="N", help="beside the fixed ones"
    )
    parser.add_argument("--seed", type=int, default=0, help="of shapes and values")
    parser.add_argument("--steps", type=int, metavar="N", help="of each LeNet run")
    parser.add_argument("--target-accuracy", type=float, metavar="X", help="of each LeNet run")
    parser.add_argument("--no-tests", action="store_true", help="leave out pytest")
    parser.add_argument("--commit", help="what is being verified, where there is no .git")
    parser.add_argument(
        "--results", type=Path, default=RESULTS, metavar="DIR", help="default profiling/results"
    )


def run(args: argparse.Namespace) -> int:
    """Verify, write the record, and return the exit code: 0 all well, 1 a failure, 2 no place."""
    problem = _problem(args.place)
    if problem:
        print(f"verify --place {args.place}: {problem}", file=sys.stderr)
        return 2
    head, dirty = machine.commit()
    about = machine.describe(args.place)
    double = args.place == "gpu" and machine.is_test_double()
    print(f"verifying on {about['name']}")
    tests = None if args.no_tests else _tests(args.place)
    record = {
        "schema": SCHEMA,
        "place": "test double" if double else args.place,
        "machine": about,
        "date": machine.today(),
        "commit": args.commit or head,
        "dirty": dirty,
        "tests": tests,
        "kernels": [_kernel(row, args) for row in rows(args.place)],
        "lenet": [_lenet(kernels, args) for kernels in _lenet_kernels(args.place)],
    }
    record["ok"] = _all_well(record)
    path = args.results / f"{slug(about['name'] if args.place == 'gpu' else args.place)}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=1) + "\n")
    print(f"{'all well' if record['ok'] else 'FAILED'}; written to {path}")
    return 0 if record["ok"] else 1


def rows(where: str) -> list[table.Row]:
    """Return the rows that run at a place."""
    found = [row for row in table.rows() if where in row.places]
    if where == "gpu" and place.gpu_problem() is None and machine.is_test_double():
        # Numba's launches go past CuPy, to the driver: the tests' double knows nothing of them.
        return [row for row in found if row.language != "numba"]
    return found


def slug(name: str) -> str:
    """Return a name as it stands in a file name."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def _problem(where: str) -> str | None:
    if where == "gpu":
        return place.gpu_problem()
    if where == "simulator":
        return None
    from kernels import emulator

    return emulator.problem()


def _all_well(record: dict[str, Any]) -> bool:
    tests = record["tests"]
    passes = [p for kernel in record["kernels"] for p in kernel["passes"].values()]
    return (
        (tests is None or (tests["exit_status"] == 0 and tests["passed"] > 0))
        and all(p["passed"] and not p["failed"] for p in passes)
        and all(lenet["ok"] for lenet in record["lenet"])
    )


# The tests.


def _tests(where: str) -> dict[str, Any]:
    # pytest-benchmark, where it happens to be installed, warns of xdist; our warnings are errors.
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:benchmark"]
    if where == "gpu":
        command.append("--require-gpu")
    if importlib.util.find_spec("xdist"):
        # Each worker holds a CUDA context: a few are enough.
        command += ["-n", str(min(4, len(os.sched_getaffinity(0))))]
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        status = subprocess.run([*command, f"--junitxml={report}"], cwd=machine.ROOT, check=False)
        cases = list(ElementTree.parse(report).iter("testcase")) if report.exists() else []
    failed = {
        f"{case.get('classname')}::{case.get('name')}": (problem.get("message") or "")[:300]
        for case in cases
        for problem in (*case.findall("failure"), *case.findall("error"))
    }
    skipped = sum(case.find("skipped") is not None for case in cases)
    return {
        "command": " ".join(["python", *command[1:]]),
        "exit_status": status.returncode,
        "passed": len(cases) - skipped - len(failed),
        "failed": len(failed),
        "skipped": skipped,
        "failures": failed,
    }


# Every pass of every kernel.


def _kernel(row: table.Row, args: argparse.Namespace) -> dict[str, Any]:
    began = time.perf_counter()
    given = (row.operation, row.name, args.place, args.random_shapes, args.seed)
    passes, crash = _alone(check_kernel, *given)
    if passes is None:
        empty = {"passed": 0, "failed": 1, "worst": None, "reasons": [crash]}
        passes = dict.fromkeys(row.passes, empty)
    failed = sum(p["failed"] for p in passes.values())
    passed = sum(p["passed"] for p in passes.values())
    verdict = f"{failed} of {passed + failed} FAILED" if failed else f"{passed} ok"
    print(
        f"{row.operation:16} {row.name:19} {verdict:18} {time.perf_counter() - began:6.1f} s",
        flush=True,
    )
    for name, outcome in passes.items():
        for reason in outcome["reasons"][:1]:
            print(f"  {name}: {reason}")
    return {"operation": row.operation, "name": row.name, "passes": passes}


def check_kernel(
    operation: str, name: str, where: str, random_shapes: int, seed: int
) -> dict[str, dict[str, Any]]:
    """Check every pass of one kernel; return for each how many (shape, dtype) passed and failed."""
    from kernels import check

    shapes = cases.chosen(operation, where, random_shapes, seed)
    row = table.find(operation, name)
    passes: dict[str, dict[str, Any]] = {
        direction: {"passed": 0, "failed": 0, "worst": 0.0, "reasons": []}
        for direction in row.passes
    }
    for result in check.check_row(row, shapes, where, seed):
        outcome = passes[result.direction]
        if result.ok:
            outcome["passed"] += 1
            outcome["worst"] = max(outcome["worst"], result.worst)
            continue
        outcome["failed"] += 1
        if len(outcome["reasons"]) < REASONS_KEPT:
            outcome["reasons"].append(f"{result.dtype} {result.shape}: {result.message}")
    return passes


# LeNet.


def _lenet_kernels(where: str) -> list[dict[str, str]]:
    """Return what each LeNet runs on: every row in one at least, but for those that refuse it."""
    convs = [
        row.name
        for row in rows(where)
        if row.operation == "conv2d" and not cases.refuses_lenet(row)
    ]
    pools = [
        f"{row.operation.partition('_')[0]}:{row.name}"
        for row in rows(where)
        if row.operation in ("max_pool2d", "avg_pool2d")
    ]
    pairs = [(conv, pools[0]) for conv in convs] + [(convs[0], pool) for pool in pools[1:]]
    blocks = [row.name for row in rows(where) if row.operation == "conv2d_relu_pool"]
    return [
        *({"conv": conv, "pool": pool} for conv, pool in pairs),
        *({"block": block} for block in blocks),
    ]


def _lenet(kernels: dict[str, str], args: argparse.Namespace) -> dict[str, Any]:
    steps = STEPS[args.place] if args.steps is None else args.steps
    target = TARGET_ACCURACY[args.place] if args.target_accuracy is None else args.target_accuracy
    began = time.perf_counter()
    outcome, crash = _alone(train_lenet, kernels, args.place, steps, args.seed)
    if outcome is None:
        outcome = {"losses": [], "accuracy": None, "deviation": None}
    seconds = time.perf_counter() - began
    tolerance = ROUNDED * _roundoff(kernels) or LOSS_TOLERANCE
    reason = crash or _lenet_problem(outcome, target, tolerance)
    summary = reason or (
        f"loss {outcome['losses'][0]:.3f} to {outcome['losses'][-1]:.3f}, "
        f"accuracy {outcome['accuracy']:.1%}"
    )
    print(f"LeNet       {' + '.join(kernels.values())}: {summary}  {seconds:.1f} s", flush=True)
    return {
        **kernels,
        "steps": steps,
        "batch_size": BATCH_SIZE[args.place],
        **outcome,
        "seconds": round(seconds, 3),
        "ok": not reason,
        "reason": reason,
    }


def _roundoff(kernels: dict[str, Any]) -> float:
    return table.find("conv2d", kernels.get("conv", "cpu")).roundoff


def _lenet_problem(outcome: dict[str, Any], target: float, tolerance: float) -> str:
    if not outcome["deviation"] <= tolerance:  # so that NaN fails
        return f"losses leave the host's by {outcome['deviation']:.3g} of their size"
    if not outcome["accuracy"] >= target:
        return f"accuracy {outcome['accuracy']:.1%} below {target:.1%}"
    return ""


def train_lenet(kernels: dict[str, Any], where: str, steps: int, seed: int) -> dict[str, Any]:
    """Train LeNet on digits with named kernels, and with the host's for comparison.

    Parameters
    ----------
    kernels
        ``conv`` and ``pool``, or ``block``, as `lenet.train_steps` takes them.
    where, steps, seed
        Of the run.

    Returns
    -------
    dict
        ``losses`` of all steps; ``accuracy`` on the test images; ``deviation``, the largest
        difference between the first losses and the host's, as a share of these; of a row that
        rounds its factors the very first loss alone.
    """
    import lenet

    data = lenet.load_data()

    def train(kernels: dict[str, Any], device: str) -> lenet.Curve:
        images, labels = data.train_images, data.train_labels
        return lenet.train_steps(
            images, labels, steps,
            device=device, batch_size=BATCH_SIZE[where], seed=seed, **kernels,
        )  # fmt: skip

    curve = train(kernels, "gpu" if where == "gpu" else "cpu")
    pool = kernels.get("pool", "max").partition(":")[0]
    judge = train({"conv": "cpu", "pool": f"{pool}:cpu"}, "cpu")
    compared = 1 if _roundoff(kernels) else COMPARED_STEPS
    first, want = (np.array(c.losses[:compared]) for c in (curve, judge))
    put = curve.model.device.put
    few = slice(TEST_IMAGES.get(where))
    images, labels = put(data.test_images[few]), put(data.test_labels[few])
    _, accuracy = lenet.evaluate(curve.model, images, labels)
    return {
        "losses": [round(loss, 6) for loss in curve.losses],
        "accuracy": round(accuracy, 4),
        "deviation": float(np.max(np.abs(first - want) / want)),
    }


def _alone(function: Callable[..., Any], *args: Any) -> tuple[Any, str]:
    """Call a function in a process of its own; return its result, or None and what went wrong."""
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, context) as pool:
        try:
            return pool.submit(function, *args).result(), ""
        except concurrent.futures.process.BrokenProcessPool:
            return None, "the process died"
        except Exception as error:  # whatever it is, it is this kernel's result
            return None, f"{type(error).__name__}: {error}"
