"""The static report as HTML: what the compiler made, what fits on the GPU, the bound as bars."""

from __future__ import annotations

from html import escape

from kernels import page
from kernels.xray.sass import Mix
from kernels.xray.static import Report
from kernels.xray.static_view import TERMS, UNITS
from kernels.xray.wording import local_memory

SI = ((1.0, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n"))
PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def facts(report: Report) -> str:
    """Return resources, occupancy and the hot loop's mix as a table."""
    usage, fits, code = report.kernel.usage, report.occupancy, report.kernel.code
    spills = usage.spill_stores + usage.spill_loads
    rows = [
        ("registers", f"{usage.registers} a thread; spills: {f'{spills} B' if spills else 'none'}"),
        ("shared memory", f"{fits.shared_bytes:,} B a block"),
        (
            "occupancy",
            f"{fits.fraction:.0%}: {fits.blocks} blocks of {fits.warps_per_block} warps on a "
            f"multiprocessor, limited by {' and '.join(fits.binds)}",
        ),
    ]
    rows += [("" if at else "local memory", said) for at, said in enumerate(local_memory(report))]
    if code is None:
        rows.append(("machine code", report.kernel.why_no_code or "none"))
    else:
        rows.append(("machine code", _mix(code.mix)))
        hot = code.hot_loop
        if hot is not None:
            rows.append(("hot loop", f"lines {hot.first_line} to {hot.last_line}: {_mix(hot.mix)}"))
    return page.table((f"{report.kernel.arch}, worked out, not measured", ""), rows)


def bound(report: Report) -> str:
    """Return the bound's terms as bars, the one that binds marked; empty without a bound."""
    least = report.bound
    if least is None or not least.terms:
        return ""
    bars = []
    for term in least.terms:
        binds = term.name == least.binds
        share = 100 * term.seconds / least.seconds if least.seconds else 0.0
        mark = ' <strong class="binds">binds</strong>' if binds else ""
        work = f"{_scaled(term.work)}{UNITS[term.unit]} at {_scaled(term.rate)}{UNITS[term.unit]}/s"
        bars.append(
            f'<tr class="{"binding" if binds else ""}"><th scope="row">{escape(TERMS[term.name])}'
            f'{mark}</th><td class="time">{duration(term.seconds)}</td><td class="length">'
            f'<span class="bar" style="width: {share:.1f}%"></span></td>'
            f'<td class="work" title="{escape(term.formula)}">{escape(work)}</td></tr>'
        )
    said = f"A bound, not a time: no launch on it takes less than {duration(least.seconds)}."
    if report.measured:
        said += f" Measured: {duration(report.measured)}."
    left_out = [f"Not in it: {TERMS[name]}: {why}." for name, why in least.left_out.items()]
    notes = "".join(
        page.paragraph(text, "note") for text in [*left_out, *map(_sentence, least.notes)]
    )
    return (
        f'<h3>The bound</h3>{page.paragraph(said)}<table class="bound"><tbody>{"".join(bars)}'
        f"</tbody></table>{notes}"
    )


def duration(seconds: float) -> str:
    """Return a time in three digits: ``202 ns``."""
    step, prefix = next((one for one in SI if seconds >= one[0]), SI[-1])
    return f"{seconds / step:.3g} {prefix}s"


def _scaled(value: float) -> str:
    step, prefix = next((one for one in PREFIXES if value >= one[0]), (1.0, ""))
    return f"{value / step:.3g} {prefix}"


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."


def _mix(mix: Mix) -> str:
    loads = mix.global_loads + mix.shared_loads
    each = f" ({mix.loads_per_fma:.2g} an FMA)" if mix.loads_per_fma is not None else ""
    return (
        f"{mix.instructions} instructions, {mix.fma} FMA ({mix.fma_share:.0%}), "
        f"{loads} loads{each}, {mix.wide_loads} of them of 16 bytes"
    )
