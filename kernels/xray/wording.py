"""What the terminal's view and the page both say of an X-ray, in words."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from kernels.xray.launches import Xray
from kernels.xray.line_totals import LineTotal, label
from kernels.xray.record import Access, Branch, Finding, Recording
from kernels.xray.static import Report


def where(finding: Finding) -> str:
    """Return where a finding is: ``tiled.cu:54  kernel  block (0, 0, 0) ...  x[35]  96 times``."""
    parts = [place(finding.file, finding.line), finding.kernel]
    if finding.block is not None:
        parts.append(f"block {finding.block}")
    if finding.thread is not None:
        parts.append(f"thread {finding.thread}")
    if finding.array is not None:
        index = "" if finding.index is None else f"[{finding.index}]"
        parts.append(f"{finding.array}{index}")
    if finding.count > 1:
        parts.append(f"{finding.count:,} times")
    return "  ".join(parts)


def place(file: str, line: int) -> str:
    """Return ``conv2d/tiled.cu:54``, without the line where none is known."""
    return f"{label(file)}:{line}" if line else label(file)


def totals(recording: Recording) -> list[str]:
    """Return a launch's totals, each a line of text."""
    threads = " x ".join(map(str, recording.block))
    blocks = " x ".join(map(str, recording.grid))
    lines = [
        f"launch     {counted(recording.blocks, 'block')} ({blocks}) of {threads} threads, "
        f"{counted(recording.warps, 'warp')}; shared memory a block: "
        f"{recording.static_shared_bytes:,} B static, {recording.dynamic_shared_bytes:,} B dynamic"
    ]
    for space, unit in (("global", "sectors"), ("shared", "wavefronts")):
        found = [access for access in recording.accesses if access.space == space]
        if found:
            lines.append(f"{space:10} {_space_total(found, unit)}")
    if conflicts := sum(access.conflicts for access in recording.accesses):
        lines.append(f"atomics    {conflicts:,} lanes met an address of another lane")
    for array in recording.arrays:
        moved = ", ".join(
            f"{how} {figure(count)}B"
            for how, count in (("read", array.read_bytes), ("wrote", array.written_bytes))
            if count
        )
        asked = sum(
            a.bytes for a in recording.accesses if (a.array, a.space) == (array.name, "global")
        )
        unique = array.read_bytes + array.written_bytes
        reuse = f"; asked for {figure(asked)}B, reuse {asked / unique:.3g}" if unique else ""
        lines.append(
            f"  {array.name:8} {array.dtype}, {figure(array.nbytes)}B: "
            f"{moved or 'untouched'}{reuse}"
        )
    lines.append(f"FLOPs      {recording.flops:,} counted")
    return lines


def local_memory(report: Report) -> list[str]:
    """Return a launch's traffic with local memory: in total, by line, and what is not counted."""
    if not report.has_local_memory:
        return ["none: arrays and values are all in registers"]
    stack = f"{report.kernel.usage.stack_bytes:,} B a thread"
    if report.local is None:
        return [f"{stack}; what is moved to and from it is not known"]
    found = []
    if report.local.lines:
        found.append(f"{stack}; {_moved(**report.local.totals)}, of arrays")
    for one in report.local.lines:
        traffic = dataclasses.asdict(one)
        where = place(traffic.pop("file"), traffic.pop("line"))
        found.append(f"{where} {traffic.pop('operation')}s: {_moved(**traffic)}")
    if report.local.uncounted:
        found.append(
            ("" if found else f"{stack}; ")
            + "spills, in the machine code; how often they are executed is not known:"
        )
    found += [
        f"{place(one.file, one.line)} {counted(one.loads, 'load')}, {counted(one.stores, 'store')}"
        for one in report.local.uncounted
    ]
    return found


def _moved(requests: int, bytes: int, sectors: int, ideal_sectors: int) -> str:
    each = sectors / requests
    return (
        f"{counted(requests, 'request')}, {figure(bytes)}B; {sectors:,} sectors, {each:.3g} a "
        f"request; least {ideal_sectors:,}"
    )


def traced(recording: Recording) -> str | None:
    """Return how much of a launch the counts are of, where that is not all of it."""
    parts = []
    if recording.blocks_traced < recording.blocks:
        parts.append(
            f"sampled: {recording.blocks_traced:,} of {recording.blocks:,} blocks were traced "
            f"({recording.sampled:.2%}); counts and findings are of those"
        )
    if recording.cut:
        parts.append(f"{recording.cut:,} segments of warps were too long and are cut short")
    return "; ".join(parts) or None


def flops_compared(xray: Xray) -> list[str]:
    """Return the declared operations beside those that were counted."""
    if xray.declared_flops is None or any(r.sampled < 1 or r.cut for r in xray.recordings):
        return []
    counted = sum(recording.flops for recording in xray.recordings)
    products = sum(step.flops for step in xray.steps if not isinstance(step, Recording))
    by = f" + {products:,} of the library's" if products else ""
    declared = xray.declared_flops
    return [
        f"FLOPs declared for the pass: {declared:,} (those on padding included); counted: "
        f"{counted:,}{by}, {(counted + products) / declared:.0%} of it"
    ]


def described(access: Access) -> str:
    """Return an access and its counts in one line."""
    text = (
        f"{access.operation} {access.array} ({access.space} memory), {access.width} B a lane: "
        f"{counted(access.requests, 'request')} of "
        f"{access.lanes / max(access.requests, 1):.3g} lanes, {figure(access.bytes)}B asked for"
    )
    if access.unique_bytes:
        text += f", {figure(access.unique_bytes)}B different ones"
    for unit in ("sectors", "wavefronts"):
        count, least = getattr(access, unit), getattr(access, f"ideal_{unit}")
        if count:
            each, ideal = count / access.requests, least / access.requests
            text += f"; {unit} a request: {each:.3g} (least {ideal:.3g})"
    if access.operation == "atomic":
        text += f"; {access.conflicts:,} lanes in conflict"
    return text


def against(pair: tuple[float, float] | None) -> str:
    """Return a count a request and the least that would do, ``"4 (3.5)"``; empty for none."""
    return "" if pair is None else f"{pair[0]:.3g} ({pair[1]:.3g})"


def decided(branch: Branch) -> str:
    """Return what happened at a branch."""
    return (
        f"branch: {counted(branch.executions, 'execution')} by a warp, "
        f"{branch.lanes / max(branch.executions, 1):.3g} lanes each; lanes went apart in "
        f"{branch.divergent:,}"
    )


def efficiency(total: LineTotal) -> str:
    """Return the least sectors by the sectors of a line; empty where it has none."""
    sectors = total.sectors
    return f"{sectors[1] / sectors[0]:.0%}" if sectors and sectors[0] else ""


def counted(count: int, what: str) -> str:
    """Return a count with what it is of: ``"1 block"``, ``"4 blocks"``."""
    return f"{count:,} {what}" + ("" if count == 1 else "s")


def figure(value: float) -> str:
    """Return a count in three digits: ``1.23M``."""
    for step, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= step:
            return f"{value / step:.3g}{prefix}"
    return f"{value:.3g}"


def _space_total(found: Sequence[Access], unit: str) -> str:
    requests = sum(access.requests for access in found)
    count = sum(getattr(access, unit) for access in found)
    least = sum(getattr(access, f"ideal_{unit}") for access in found)
    share = least / count if count else 1.0
    return (
        f"{counted(requests, 'request')}, {figure(sum(a.bytes for a in found))}B asked for; "
        f"{count:,} {unit}, {count / requests:.3g} a request; least {least:,} ({share:.0%})"
    )
