"""What a benchmark was asked for, held against what there is: its groups, threads and policy."""

from __future__ import annotations

import argparse
import hashlib
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

from kernels import place, table
from profiling import peers, suites
from profiling.bench_group import Group
from profiling.timing import STANDARD, Policy

PASSES = {
    "forward": ("forward",),
    "data": ("backward_data", "backward"),
    "filter": ("backward_filter",),
    "bias": ("backward_bias",),
}


class BenchError(ValueError):
    """Something that was asked for and cannot be; the message is one line for the user."""


class Plan(NamedTuple):
    """What is measured, and how.

    Attributes
    ----------
    where
        ``"cpu"`` or ``"gpu"``.
    threads
        Of the host.
    policy
        When a measurement is enough.
    suites
        The suites' names, and ``"--shape"``.
    groups
        In the order in which they are begun.
    against
        The peers.
    missing
        Why other peers cannot be had.
    fingerprint
        Of all that a run which resumes another must share with it.
    """

    where: str
    threads: int
    policy: Policy
    suites: list[str]
    groups: list[Group]
    against: list[str]
    missing: list[str]
    fingerprint: str


def make(args: argparse.Namespace, sharing: int = 1) -> Plan:
    """Return what the command line asks for.

    Parameters
    ----------
    args
        The options.
    sharing
        How many processes of this benchmark have this one's cores.

    Raises
    ------
    BenchError, suites.SuiteError
        Something that cannot be.
    """
    where = _where(args.device)
    threads = _threads(args.threads, sharing)
    policy = _policy(args)
    asked = args.suite or ([] if args.shape else ["lenet"])
    cases = suites.cases(asked, args.shape, args.batch)
    against, missing = _against(args.against, where)
    groups = _groups(cases, _directions(args.passes), args.kernel, against, where)
    if args.resume and args.output is None:
        raise BenchError("--resume wants -o FILE, the file to go on with")
    # Another number of processes, with other shares of the cores, goes on with the same plan.
    of = ("distributed", args.threads) if args.distributed else threads
    return Plan(
        where, threads, policy, asked + ["--shape"] * bool(args.shape), groups, against, missing,
        _fingerprint(groups, of, policy, args.seed),
    )  # fmt: skip


def _where(device: str) -> str:
    problem = None if device == "cpu" else place.gpu_problem()
    if device == "gpu" and problem:
        raise BenchError(f"--device gpu: {problem}; --device cpu times the host's kernels")
    return "cpu" if device == "cpu" or problem else "gpu"


def _threads(threads: int | None, sharing: int) -> int:
    cores = len(os.sched_getaffinity(0))
    if threads is None:
        return max(1, cores // sharing)
    if not 1 <= threads <= cores:
        raise BenchError(f"--threads is {threads}; expected 1 to {cores}, the cores there are")
    return threads


def _policy(args: argparse.Namespace) -> Policy:
    if not 0 < args.min_seconds <= args.max_seconds:
        raise BenchError(
            f"--min-seconds is {args.min_seconds:g} and --max-seconds {args.max_seconds:g}; "
            "expected two numbers above 0, the second not below the first"
        )
    return STANDARD._replace(min_seconds=args.min_seconds, max_seconds=args.max_seconds)


def _directions(passes: Sequence[str]) -> list[str]:
    for name in passes:
        if name not in PASSES:
            raise BenchError(f"unknown pass {name!r}; expected some of {', '.join(PASSES)}")
    if not passes:
        raise BenchError(f"--pass is empty; expected some of {', '.join(PASSES)}")
    return [direction for name in dict.fromkeys(passes) for direction in PASSES[name]]


def _against(names: list[str] | None, where: str) -> tuple[list[str], list[str]]:
    """Return the peers that can be had, and why others cannot."""
    wanted = [] if names == ["none"] else names or list(peers.DEFAULT[where])
    try:
        problems = {name: peers.problem(name, where) for name in wanted}
    except ValueError as error:
        raise BenchError(str(error)) from None
    return (
        [name for name, reason in problems.items() if not reason],
        [reason for reason in problems.values() if reason],
    )


def _groups(
    cases: Sequence[suites.Case],
    directions: Sequence[str],
    kernels: Sequence[str] | None,
    against: Sequence[str],
    where: str,
) -> list[Group]:
    """Return what is measured together, with the kernels that can be timed at the place."""
    operations = dict.fromkeys(case.operation for case in cases)
    if kernels is not None:
        _check_kernels(kernels, operations, where)
    groups = []
    for case in cases:
        rows = tuple(
            row
            for row in table.rows(case.operation)
            if where in row.places
            and (row.name != "reference" if kernels is None else row.name in kernels)
        )
        possible = {d for row in table.rows(case.operation) for d in row.passes}
        groups += [
            Group(case, direction, rows, tuple(against))
            for direction in directions
            if direction in possible and rows
        ]
    if not groups:
        raise BenchError("no kernel and pass is left to measure; see python -m kernels list")
    return groups


def _check_kernels(kernels: Sequence[str], operations: Any, where: str) -> None:
    known = {row.name: row for operation in operations for row in table.rows(operation)}
    for name in kernels:
        if name not in known:
            raise BenchError(
                f"unknown kernel {name!r} for {', '.join(operations)}; expected some of "
                f"{', '.join(known)}"
            )
        if where not in known[name].places:
            how = "the emulator's or simulator's time says nothing about a GPU's"
            raise BenchError(
                f"kernel {name!r} cannot be timed on this {where.upper()}: "
                + (how if where == "cpu" else "it runs on the host only")
                + f"; choose some of {', '.join(n for n, r in known.items() if where in r.places)}"
            )
    if not kernels:
        raise BenchError("--kernel is empty; see python -m kernels list")


def _fingerprint(groups: Sequence[Group], threads: Any, policy: Policy, seed: int) -> str:
    asked = [
        (g.case, g.direction, [row.name for row in g.rows], g.peers) for g in groups
    ]  # fmt: skip
    return hashlib.sha256(repr((asked, threads, policy, seed)).encode()).hexdigest()[:16]
