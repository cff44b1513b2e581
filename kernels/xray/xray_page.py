"""The X-ray as one HTML page: findings, the source with its figures, a warp's lanes on request."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from kernels import page
from kernels.xray import excerpt, wording
from kernels.xray.lane_map import lane_map
from kernels.xray.launches import Xray
from kernels.xray.line_totals import LineTotal, label, line_totals, passes
from kernels.xray.record import Access, Recording
from kernels.xray.static import Report
from kernels.xray.static_page import bound, facts

_HERE = Path(__file__).parent
LEAD = (
    "What the kernel did on the CPU emulator, for warps of 32 threads: counts, not times. Choose a "
    "line with a button to see where the lanes of one warp fall."
)
# Class, and heading.
HEADS = {
    "line": "line",
    "share": "share",
    "sectors": "sectors",
    "efficiency": "eff.",
    "wavefronts": "wavefr.",
    "lanes": "lanes",
    "flops": "FLOPs",
    "source": "source",
}


def build(xray: Xray, reports: Sequence[Report | str]) -> str:
    """Return the page.

    Parameters
    ----------
    xray
        What was recorded.
    reports
        For each launch the static report, or why there is none.
    """
    style = f"<style>{(_HERE / 'xray_page.css').read_text()}</style>"
    anchors = _anchors(xray)
    sections = [page.Section("findings", "Findings", style + _findings(xray, anchors))]
    details: dict[str, Any] = {}
    remaining = iter(reports)
    number = 0
    for step in xray.steps:
        if not isinstance(step, Recording):
            text = f"Not traced: {step}, by the library."
            last = sections[-1]
            sections[-1] = last._replace(html=last.html + page.paragraph(text, "note"))
            continue
        html, more = _launch(step, number, anchors, next(remaining))
        details |= more
        sections.append(page.Section(f"launch-{number + 1}", step.kernel, html))
        number += 1
    closing = "".join(page.paragraph(line, "note") for line in wording.flops_compared(xray))
    data = json.dumps(details, separators=(",", ":")).replace("<", "\\u003c")
    closing += f'<script type="application/json" id="xray-data">{data}</script>'
    sections[-1] = sections[-1]._replace(html=sections[-1].html + closing)
    script = (_HERE / "xray_page.js").read_text()
    return page.render(f"X-ray: {xray.title}", LEAD, sections, scripts=[script])


def _anchors(xray: Xray) -> dict[tuple[int, str, int], str]:
    """Return the id of every line that is shown, by launch, file and line."""
    found = {}
    for number, recording in enumerate(xray.recordings, 1):
        files: dict[str, int] = {}
        for file, line in excerpt.shown(recording):
            at = files.setdefault(file, len(files) + 1)
            found[number - 1, file, line] = f"line-{number}-{at}-{line}"
    return found


def _findings(xray: Xray, anchors: dict[tuple[int, str, int], str]) -> str:
    if not xray.findings:
        return page.paragraph("None.")
    items = []
    for number, recording in enumerate(xray.recordings):
        for finding in recording.findings:
            where = escape(wording.where(finding))
            anchor = anchors.get((number, finding.file, finding.line))
            place = f'<a href="#{anchor}">{where}</a>' if anchor else where
            code = escape(excerpt.source_line(finding.file, finding.line).strip())
            items.append(
                f"<li><strong>{escape(finding.kind)}</strong> {place}"
                f"<pre>{code}</pre>{page.paragraph(finding.message)}</li>"
            )
    return f'<ol class="findings">{"".join(items)}</ol>'


def _launch(
    recording: Recording,
    number: int,
    anchors: dict[tuple[int, str, int], str],
    report: Report | str,
) -> tuple[str, dict[str, Any]]:
    macros = ", ".join(f"{name}={value}" for name, value in recording.defines.items())
    parts = [page.paragraph(f"{label(recording.file)} {macros}", "note")]
    if note := wording.traced(recording):
        parts.append(page.paragraph(note[0].upper() + note[1:] + ".", "warning"))
    source, details = _source(recording, number, anchors)
    totals = [(name, text) for name, _, text in map(_parted, wording.totals(recording))]
    parts += [source, "<h3>Totals</h3>", page.table(("", ""), totals)]
    if isinstance(report, str):
        parts.append(
            page.paragraph(
                f"Static side: {report}; traffic with local memory is not known.", "note"
            )
        )
    else:
        parts += [f"<h3>On {escape(report.gpu.name)}</h3>", facts(report), bound(report)]
    return "".join(parts), details


def _parted(line: str) -> tuple[str, str, str]:
    return line.strip().partition(" ")


def _source(
    recording: Recording, number: int, anchors: dict[tuple[int, str, int], str]
) -> tuple[str, dict[str, Any]]:
    by_place = line_totals(recording)
    every = sum(map(passes, recording.accesses))
    faulty = {(finding.file, finding.line) for finding in recording.findings}
    shown = [(file, line) for launch, file, line in anchors if launch == number]
    details: dict[str, Any] = {}
    tables = []
    for file in dict.fromkeys([recording.file, *(file for file, _ in shown)]):
        rows, before = [], 0
        for line in [line for name, line in shown if name == file]:
            if before and line != before + 1:
                rows.append(f'<tr class="gap"><td>⋮</td><td colspan="{len(HEADS) - 1}"></td></tr>')
            before = line
            total = by_place.get((file, line), LineTotal())
            anchor = anchors[number, file, line]
            if total.accesses or total.branches:
                details[anchor] = _detail(total)
            fault = (file, line) in faulty
            rows.append(_row(anchor, line, total, every, excerpt.source_line(file, line), fault))
        if rows:
            heads = "".join(
                f'<th scope="col" class="{name}">{text}</th>' for name, text in HEADS.items()
            )
            tables.append(
                f'<h3>{escape(label(file))}</h3><table class="source"><thead><tr>{heads}</tr>'
                f"</thead><tbody>{''.join(rows)}</tbody></table>"
            )
    legend = "; ".join(f"{name}: {text}" for name, text in _LEGEND.items())
    return "".join(tables) + page.paragraph(legend, "note"), details


_LEGEND = {
    "share": "of the launch's passes through the load/store units (four sectors or one wavefront)",
    "sectors": "32 bytes of global memory, a request of a warp (the least that would do)",
    "eff.": "the least sectors by the sectors",
    "wavefr.": "passes over the banks of shared memory, a request (the least)",
    "lanes": "active ones of 32",
}


def _row(anchor: str, line: int, total: LineTotal, every: int, code: str, fault: bool) -> str:
    share = total.passes / every if every else 0.0
    has_detail = total.accesses or total.branches
    number = f"{line}"
    if has_detail:
        number = (
            f'<button type="button" aria-expanded="false" aria-label="line {line}: details">'
            f"{line}</button>"
        )
    bar = ""
    if total.passes:
        bar = f'<span class="bar" style="width: {100 * share:.1f}%"></span><b>{share:.0%}</b>'
    sectors, wavefronts = total.sectors, total.wavefronts
    cells = {
        "sectors": wording.against(sectors),
        "efficiency": wording.efficiency(total),
        "wavefronts": wording.against(wavefronts),
        "lanes": f"{total.lanes:.3g}" if total.lanes is not None else "",
        "flops": wording.figure(total.flops) if total.flops else "",
    }
    kind = " ".join(
        name
        for name, does in (("has-detail", has_detail), ("fault", fault), ("hot", share >= 0.2))
        if does
    )
    inner = "".join(f'<td class="{name}">{text}</td>' for name, text in cells.items())
    return (
        f'<tr id="{anchor}" class="{kind}"><td class="line">{number}</td>'
        f'<td class="share">{bar}</td>{inner}'
        f'<td class="source"><code>{escape(code)}</code></td></tr>'
    )


def _detail(total: LineTotal) -> dict[str, Any]:
    branches = [wording.decided(branch) for branch in total.branches]
    flops = [f"{total.flops:,} FLOPs"] if total.flops else []
    return {"texts": [*branches, *flops], "accesses": [_drawing(a) for a in total.accesses]}


def _drawing(access: Access) -> dict[str, Any]:
    rows = [
        {
            "label": row.label,
            "sectors": row.sectors,
            "cells": {
                at: {"lanes": lanes, "element": element}
                for at, (lanes, element) in enumerate(zip(row.cells, row.elements, strict=True))
                if lanes
            },
        }
        for row in lane_map(access)
    ]
    drawing: dict[str, Any] = {
        "text": wording.described(access),
        "space": access.space,
        "array": access.array,
        "rows": rows,
    }
    if access.warp is not None:
        drawing["warp"] = f"warp {access.warp.warp} of block {access.warp.block}"
        drawing["elements"] = access.warp.elements
    return drawing
