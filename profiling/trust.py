"""The report's tables: what was measured on what, and what each figure's trust rests on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from kernels import page
from profiling import looks, roofline, units
from profiling.result_file import Row, Sensors, Timing
from profiling.series import Pass, Series, ladder_order, main_timing, timings

SHORT = 8


def machines(files: Sequence[Series]) -> str:
    """Return a table of where, when and of which source each file is."""
    facts = [_facts(file) for file in files]
    rows = [[what, *(fact[what] for fact in facts)] for what in facts[0]]
    return page.table(["", *(file.name for file in files)], rows)


def devices(files: Sequence[Series]) -> str:
    """Return a table of the devices of files that have several; nothing where no file has."""
    rows = [
        [
            file.name, device.name, device.model, device.identity or "",
            units.rate(device.ceilings.copy, "B/s"), units.rate(device.ceilings.gemm, "FLOP/s"),
            units.seconds(device.ceilings.launch_s), str(len(mine)),
        ]
        for file in files
        for device, mine in file.devices
    ]  # fmt: skip
    columns = ["file", "device", "model", "identity", "copy", "GEMM", "empty launch", "rows"]
    return page.table(columns, rows) if rows else ""


def not_timed(files: Sequence[Series]) -> str:
    """Return a table of what failed or was skipped, and why; nothing where all was timed."""
    found: dict[tuple[str, ...], list[str]] = {}
    for file in files:
        for row in file.results.rows:
            if row.status != "timed":
                key = file.name, row.status, row.name, Pass.of(row).title, row.reason
                found.setdefault(key, []).append(row.label)
    rows = [[*key[:4], ", ".join(labels), key[4]] for key, labels in found.items()]
    columns = ["file", "", "kernel", "pass", "shapes", "because"]
    marks = ["failed" if row[1] == "failed" else "" for row in rows]
    return page.table(columns, rows, marks=marks) if rows else ""


def resources(files: Sequence[Series]) -> str:
    """Return a table of what each GPU function takes; nothing where no file says."""
    rows = dict.fromkeys(
        (r.function, row.language, r.arch, r.registers, r.shared_bytes, r.spill_bytes)
        for file in files
        for row in sorted(file.results.rows, key=lambda row: (row.operation, ladder_order(row)))
        for r in row.resources
    )
    columns = [
        "function", "language", "compiled for", "registers", "shared bytes", "spilled bytes",
    ]  # fmt: skip
    marks = ["unstable" if row[-1] else "" for row in rows]
    return page.table(columns, list(rows), marks=marks) if rows else ""


def lines(files: Sequence[Series], which: Pass, group: str) -> str:
    """Return a table with a line for every row of a group."""
    entries = [(file, row) for file in files for row in file.of(which) if row.group == group]
    order = list(dict.fromkeys(row.label for _, row in entries))
    entries.sort(key=lambda entry: (order.index(entry[1].label), ladder_order(entry[1])))
    columns = ["shape", "kernel", "cold", "hot", "bound", "checked", "clocks", "doubts"]
    if len(files) > 1:
        columns.insert(2, "file")
    if has_devices := any(file.devices for file in files):
        columns.insert(-1, "device")
    rows, marks = [], []
    for file, row in entries:
        timing = (_timing(its) for its in (row.cold, row.hot))
        facts = (*timing, _bound(file, row), _checked(row), _sensors(row))
        cells = [row.label, _kernel(row), *map(_kept, facts), doubts(file, row)]
        if len(files) > 1:
            cells.insert(2, file.name)
        if has_devices:
            device = file.results.device(row)
            cells.insert(-1, device.name if device else "")
        rows.append(cells)
        marks.append(_mark(file, row))
    return page.table(columns, rows, right=("cold", "hot"), marks=marks)


def doubts(file: Series, row: Row) -> str:
    """Return all that speaks against a row's figures; empty where nothing does."""
    said = [row.reason if row.status == "timed" else f"{row.status}: {row.reason}"]
    for state, timing in timings(row):
        if not timing.stable:
            said.append(f"{state} not stable: {timing.unstable_because}")
        at = roofline.standing(row, timing, file.results.ceilings(row), cold=state == "cold")
        if at.impossible:
            said.append(f"{state} impossible: {at.impossible}")
    if held := sorted({*row.before.throttled, *row.after.throttled}):
        said.append(f"throttled: {', '.join(held)}")
    return "\n".join(filter(None, said))


def _facts(file: Series) -> dict[str, str]:
    header = file.header
    ceilings = [device.ceilings for device, _ in file.devices] or [header.ceilings]
    statuses = Counter(row.status for row in file.results.rows)
    about = dict(header.machine)
    name = str(about.pop("name", "unknown"))
    commit = header.commit[:SHORT] if header.commit else "not a repository"
    peaks = [of.peak for of in ceilings if of.peak is not None]
    count = f", {len(file.devices)} devices" if file.devices else ""
    return {
        "file": str(file.results.path.name),
        "machine": f"{name} ({header.place.upper()}{count})",
        "about it": "; ".join(
            _about(key, value) for key, value in about.items() if value is not None
        ),
        "date": header.date,
        "commit": commit + (", with changes not committed" if header.dirty else ""),
        "suite": ", ".join(header.suite),
        "host threads": str(header.threads),
        "software": ", ".join(f"{key} {value}" for key, value in header.software.items()),
        "copy, measured": units.rates([of.copy for of in ceilings], "B/s"),
        "read, measured": units.rates([of.read for of in ceilings], "B/s"),
        "GEMM, measured": units.rates([of.gemm for of in ceilings], "FLOP/s"),
        "hardware limit": units.rates(peaks, "FLOP/s") if peaks else "not known",
        "empty launch": " to ".join(
            dict.fromkeys(units.seconds(f(of.launch_s for of in ceilings)) for f in (min, max))
        ),
        "last cache": units.rates([of.cache_bytes for of in ceilings], "B"),
        "rows": ", ".join(
            f"{statuses[status]} {status}" for status in ("timed", "failed", "skipped")
        ),
    }


def _about(key: str, value: Any) -> str:
    if key.endswith("_bytes") and isinstance(value, int):
        key, value = key.removesuffix("_bytes"), units.rate(value, "B")
    return f"{key.replace('_', ' ')} {value}"


def _kernel(row: Row) -> str:
    return f"{row.name}\n{row.precision}, {row.source or row.language}"


def _timing(timing: Timing | None) -> str:
    if timing is None:
        return "-"
    return (
        f"{units.seconds(timing.median_s)}\n{units.interval(timing)}\n"
        f"{len(timing.samples_s)} \u00d7 {timing.launches}, {timing.method}"
    )


def _bound(file: Series, row: Row) -> str:
    if row.status != "timed":
        return ""
    state, timing = main_timing(row)
    at = roofline.standing(row, timing, file.results.ceilings(row), cold=state == "cold")
    return looks.verdict(row, at, timing).replace(", ", "\n")


def _checked(row: Row) -> str:
    if row.check is None:
        return "no"
    some = row.check.elements < row.check.total
    part = f"{row.check.elements:,} of {row.check.total:,}" if some else f"all {row.check.total:,}"
    worst = "not a number" if row.check.worst is None else units.digits(row.check.worst)
    return f"{part}\nworst {worst}"


def _sensors(row: Row) -> str:
    def span(name: str, unit: str) -> str:
        values = [getattr(sensors, name) for sensors in (row.before, row.after)]
        known = list(dict.fromkeys(f"{value:.0f}" for value in values if value is not None))
        return f"{' to '.join(known)} {unit}" if known else ""

    if (row.before, row.after) == (Sensors(), Sensors()):
        return "no sensors" if row.status == "timed" else ""
    memory = span("memory_clock_mhz", "MHz")
    parts = [span("sm_clock_mhz", "MHz"), f"memory {memory}" if memory else ""]
    return "\n".join(part for part in [*parts, span("temperature_c", "°C")] if part)


def _kept(text: str) -> str:
    """Return text whose lines are not broken."""
    return text.replace(" ", "\u00a0")


def _mark(file: Series, row: Row) -> str:
    if row.status == "failed":
        return "failed"
    if any(looks.is_impossible(file, row, state) for state, _ in timings(row)):
        return "impossible"
    return "" if all(timing.stable for _, timing in timings(row)) else "unstable"
