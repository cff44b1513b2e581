"""A fuzzed target's tally, and the table of them all that `make fuzz` prints."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from typing import Any

import fuzzing
import pytest


@pytest.fixture
def target(request: pytest.FixtureRequest) -> Iterator[fuzzing.Target]:
    """Counts; and a target whose inputs all end alike tells nothing, and fails."""
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the peak begins anew
    found = fuzzing.Target()
    yield found
    name = request.node.name.removeprefix("test_")
    fuzzing.counts[name] = fuzzing.Count(found.read, found.refused, found.seconds, _peak_bytes())
    assert found.read, "every input was refused: the damage is too great to find anything"
    assert found.refused, "no input was refused: there is no damage"


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a command line names lies here, and what it sets in the environment ends here."""
    monkeypatch.chdir(tmp_path)
    before = dict(os.environ)
    yield
    for name in os.environ.keys() - before.keys():
        del os.environ[name]
    os.environ.update(before)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if not fuzzing.INPUTS or not fuzzing.counts:
        return
    line = "{:44} {:>8} {:>8} {:>8} {:>9} {:>9}"
    rows = [
        (name, c.read + c.refused, c.read, c.refused, f"{c.seconds:.1f} s", c.peak_bytes >> 20)
        for name, c in fuzzing.counts.items()
    ]
    sums = [sum(row[column] for row in rows) for column in (1, 2, 3)]
    seconds = sum(c.seconds for c in fuzzing.counts.values())
    most = max(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10, *(r[5] for r in rows))
    terminalreporter.section("fuzzed")
    for row in (
        ("target", "inputs", "read", "refused", "inside", "peak MiB"),
        *rows,
        ("all", *sums, f"{seconds:.1f} s", most),
    ):
        terminalreporter.write_line(line.format(*row))


def _peak_bytes() -> int:
    with open("/proc/self/status") as file:
        for line in file:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) << 10
    return 0
