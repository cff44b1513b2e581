"""The X-ray in a terminal: findings, the source with its figures beside it, the launch's totals."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.text import Text

from kernels.xray import excerpt, static_view
from kernels.xray.excerpt import source_line
from kernels.xray.lane_map import SECTOR_WORDS, lane_map
from kernels.xray.launches import Xray
from kernels.xray.line_totals import LineTotal, Place, label, line_totals, passes
from kernels.xray.record import Access, Finding, Recording
from kernels.xray.static import Report
from kernels.xray.wording import (
    against,
    counted,
    decided,
    described,
    efficiency,
    figure,
    flops_compared,
    totals,
    traced,
    where,
)

HEAT = ((0.20, "bold red"), (0.05, "yellow"), (0.01, "green"), (0.0, "dim"))
BARS = " ▏▎▍▌▋▊▉█"
COLUMNS = ("heat", "sectors", "eff.", "wavefr.", "lanes", "split", "FLOPs")
LEGEND = {
    "heat": "share of the launch's passes through the load/store units",
    "sectors": "32-byte sectors a global request (the least that would do)",
    "eff.": "least sectors by sectors",
    "wavefr.": "passes over the banks a shared request (the least)",
    "lanes": "active lanes of 32",
    "split": "warps whose lanes go different ways here",
}


def render(
    console: Console,
    xray: Xray,
    reports: Sequence[Report | str],
    focus: Place | None = None,
) -> None:
    """Print an X-ray.

    Parameters
    ----------
    console
        To print to. Where it is no terminal, source lines are never cut or wrapped.
    xray
        What was recorded.
    reports
        For each launch the static report, or why there is none; not looked at with a focus.
    focus
        A line to be shown alone, with the lanes of one warp of each of its accesses.
    """
    _print(console, Text(xray.title, style="bold"))
    print_findings(console, xray.findings)
    if focus is not None:
        for recording in xray.recordings:
            _print_focus(console, recording, focus)
        return
    remaining = iter(reports)
    for step in xray.steps:
        _print(console, Text())
        if isinstance(step, Recording):
            _print_launch(console, step, next(remaining))
        else:
            _print(console, Text(f"not traced: {step}, by the library", style="dim"))
    _print(console, Text())
    for line in flops_compared(xray):
        _print(console, Text(line))


def _print_launch(console: Console, recording: Recording, report: Report | str) -> None:
    _print(console, _heading(recording))
    _print_source(console, recording)
    for line in totals(recording):
        _print(console, Text(line))
    if isinstance(report, str):
        _print(
            console,
            Text(f"static side: {report}; traffic with local memory is not known", style="dim"),
        )
    else:
        static_view.render(console, report)


def print_findings(console: Console, findings: Sequence[Finding]) -> None:
    """Print what was found, each with its source line and a mark under the array."""
    if not findings:
        _print(console, Text("no findings", style="green"))
        return
    _print(console, Text(counted(len(findings), "finding"), style="bold red"))
    for finding in findings:
        _print(console, Text.assemble(("  " + finding.kind, "bold red"), "  " + where(finding)))
        if text := source_line(finding.file, finding.line):
            number = f"{finding.line:>8} | "
            code = text.strip()
            _print(console, Text(number + code))
            at, length = _marked(code, finding.array)
            gap = " " * (len(number) - 2) + "| " + " " * at
            _print(console, Text.assemble(gap, ("^" * length, "red")))
        _print(console, Text(f"      {finding.message}"))


def _heading(recording: Recording) -> Text:
    macros = ", ".join(f"{name}={value}" for name, value in recording.defines.items())
    heading = Text.assemble(
        (recording.kernel, "bold"), f"  {label(recording.file)}", f"  {macros}" if macros else ""
    )
    if note := traced(recording):
        heading.append(f"\n{note}", style="yellow")
    return heading


def _print_source(console: Console, recording: Recording) -> None:
    by_place = line_totals(recording)
    every = sum(map(passes, recording.accesses))
    cells = {at: _cells(total, every) for at, total in by_place.items()}
    used = [i for i in range(len(COLUMNS)) if any(row[i] for row in cells.values())]
    wide = {i: max(len(row[i]) for row in (COLUMNS, *cells.values())) for i in used}
    shown = excerpt.shown(recording)
    longest = max((len(source_line(*at)) for at in shown), default=0)
    # Where figures and source do not fit beside each other, the figures go below the line.
    below = console.is_terminal and console.width < 8 + sum(wide.values()) + len(wide) + longest
    beside = [i for i in used if not below or COLUMNS[i] == "heat"]

    def aligned(row: Sequence[str]) -> str:
        return " ".join(f"{row[i]:>{wide[i]}}" for i in beside)

    faulty = {(finding.file, finding.line) for finding in recording.findings}
    before: Place = ("", 0)
    for at in shown:
        file, line = at
        if file != before[0]:
            _print(console, Text(f" line {aligned(COLUMNS)}  {label(file)}", style="dim"))
        elif line != before[1] + 1:
            _print(console, Text("    ⋮", style="dim"))
        before = at
        total = by_place.get(at)
        share = total.passes / every if total and every else 0.0
        prefix = Text(f"{line:>5} ", style="bold red" if at in faulty else "dim")
        prefix.append(aligned(cells.get(at, [""] * len(COLUMNS))), style=_style(share))
        _print_row(console, prefix, source_line(*at))
        if below and total and (said := _said(total)):
            _print_row(console, Text(" " * len(prefix)), "╰ " + said)
    named = [f"{COLUMNS[i]}: {LEGEND[COLUMNS[i]]}" for i in beside if COLUMNS[i] in LEGEND]
    _print(console, Text("; ".join(named), style="dim"), wrap=True)


def _said(total: LineTotal) -> str:
    """Return a line's figures in words, where they are not the usual ones."""
    parts = []
    if sectors := total.sectors:
        parts.append(f"global: {against(sectors)} sectors, {efficiency(total)}")
    if total.wavefronts:
        parts.append(f"shared: {against(total.wavefronts)} wavefronts")
    if total.lanes is not None and (parts or total.lanes < 31.95):
        parts.append(f"{total.lanes:.3g} lanes")
    if total.split:
        parts.append(f"{total.split:.0%} split")
    if total.flops:
        parts.append(f"{figure(total.flops)} FLOPs")
    return "; ".join(parts)


def _cells(total: LineTotal, every: int) -> list[str]:
    share = total.passes / every if every else 0.0
    sectors, wavefronts = total.sectors, total.wavefronts
    return [
        f"{_bar(share)} {share:4.0%}" if total.passes else "",
        against(sectors),
        efficiency(total),
        against(wavefronts),
        f"{total.lanes:.3g}" if total.lanes is not None else "",
        f"{total.split:.0%}" if total.split else "",
        figure(total.flops) if total.flops else "",
    ]


def _bar(share: float) -> str:
    eighths = round(16 * share)
    full, rest = divmod(eighths, 8)
    return (BARS[-1] * full + (BARS[rest] if rest else "")).ljust(2)[:2]


def _style(share: float) -> str:
    return next(style for least, style in HEAT if share >= least)


def _print_row(console: Console, prefix: Text, code: str) -> None:
    """Print a source line behind its figures; in a terminal what is too long hangs below."""
    room = console.width - len(prefix) - 2
    pieces = [code]
    if console.is_terminal and room >= 20:
        indent = " " * min(len(code) - len(code.lstrip()) + 4, room // 2)
        while len(pieces[-1]) > room:
            cut = pieces[-1].rfind(" ", len(indent), room) + 1
            cut = cut if pieces[-1][:cut].strip() else room
            pieces[-1:] = [pieces[-1][:cut], indent + pieces[-1][cut:]]
    for number, piece in enumerate(pieces):
        left = prefix if number == 0 else Text(" " * len(prefix))
        row = Text.assemble(left, "  ", piece)
        row.rstrip()
        _print(console, row)


def _print_focus(console: Console, recording: Recording, focus: Place) -> None:
    total = line_totals(recording).get(focus)
    if total is None:
        return
    _print(console, Text())
    _print(console, _heading(recording))
    _print_row(console, Text(f"{focus[1]:>5}"), source_line(*focus).strip())
    for branch in total.branches:
        _print(console, Text(f"  {decided(branch)}"))
    if total.flops:
        _print(console, Text(f"  {total.flops:,} FLOPs"))
    for access in total.accesses:
        _print(console, Text(f"  {described(access)}"))
        for line in drawn(access):
            _print(console, Text(f"    {line}"))


def drawn(access: Access) -> Iterator[str]:
    """Yield an access's example request as rows of 32 words: which of them how many lanes touch."""
    rows = lane_map(access)
    if access.warp is None or not rows:
        return
    wide = max(len(row.label) for row in rows)
    unit = "banks" if access.space == "shared" else "words of 4 B, a bar between sectors"
    yield f"warp {access.warp.warp} of block {access.warp.block}: 32 {unit}; 1 to 9 lanes, + more"
    for row in rows:
        cells = [_cell(len(lanes)) for lanes in row.cells]
        if row.sectors:
            parts = [cells[at : at + SECTOR_WORDS] for at in range(0, 32, SECTOR_WORDS)]
            shown = "|".join(
                "".join(part) if touched else " " * SECTOR_WORDS
                for part, touched in zip(parts, row.sectors, strict=True)
            )
            yield f"{row.label:>{wide}} |{shown}|"
        else:
            yield f"{row.label:>{wide}} |{''.join(cells)}|"


def _cell(lanes: int) -> str:
    return "·" if lanes == 0 else str(lanes) if lanes <= 9 else "+"


def _marked(code: str, array: str | None) -> tuple[int, int]:
    """Return where to mark a line of code, and how long: its array, else all of it."""
    name = re.escape(array) if array else "(?!)"
    found = re.search(rf"\b{name}(?=\s*\[)", code) or re.search(rf"\b{name}\b", code)
    return (found.start(), len(found[0])) if found else (0, max(len(code), 1))


def _print(console: Console, text: Text, wrap: bool = False) -> None:
    console.print(text, soft_wrap=not wrap, highlight=False, markup=False, emoji=False)
