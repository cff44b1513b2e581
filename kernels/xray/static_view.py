"""The static report for a terminal."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from kernels.xray.bound import Bound, Term
from kernels.xray.sass import Function, LoopMix, Mix
from kernels.xray.static import Report
from kernels.xray.wording import local_memory

TERMS = {
    "fp32": "FP32 arithmetic",
    "fp64": "FP64 arithmetic",
    "tf32": "tensor cores, TF32",
    "bf16": "tensor cores, bfloat16",
    "issue": "instruction issue",
    "lsu": "loads and stores (LSU)",
    "l2": "L2",
    "dram": "DRAM",
}
LIMITS = {
    "warps": "room for warps",
    "blocks": "room for blocks",
    "registers": "registers",
    "shared": "shared memory",
}
UNITS = {"flop": "flop", "instructions": "instr.", "wavefronts": "wavefronts", "bytes": "B"}
MEANING = (
    "A bound, not a prediction: no part ever waits for another, caches start empty and keep all "
    "that is used again; accesses as the emulator saw them, which nvcc may yet merge."
)
SI = ((1e-9, "n"), (1e-6, "µ"), (1e-3, "m"), (1.0, ""))
PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""))


def render(console: Console, report: Report) -> None:
    """Print resources, occupancy, the hot loop's mix and the bound.

    Parameters
    ----------
    console
        To print to.
    report
        Of `static`.
    """
    gpu, kernel = report.gpu, report.kernel
    console.print(
        f"[bold]{escape(kernel.usage.function)}[/] on {gpu.name} ({kernel.arch}, {gpu.sms} SMs, "
        f"{gpu.clock / 1e9:.2f} GHz): worked out, not measured",
        highlight=False,
    )
    facts = Table(box=None, show_header=False, padding=(0, 2, 0, 2))
    code = _code(kernel.code) if kernel.code else [("machine code", kernel.why_no_code or "")]
    local = [("" if at else "local memory", said) for at, said in enumerate(local_memory(report))]
    for fact in [*_resources(report), *local, *code]:
        facts.add_row(*map(escape, fact))
    console.print(facts)
    if report.bound:
        _print_bound(console, report.bound, report.measured)


def _resources(report: Report) -> list[tuple[str, str]]:
    usage, fits = report.kernel.usage, report.occupancy
    spilt = usage.spill_stores + usage.spill_loads
    spills = f"{usage.spill_stores} B stored, {usage.spill_loads} B loaded" if spilt else "none"
    stops = " and ".join(LIMITS[name] for name in fits.binds)
    if fits.blocks:
        resident = (
            f"{fits.fraction:.0%}: {fits.blocks} blocks of {fits.warps_per_block} warps on each "
            f"SM, {fits.warps} of {fits.max_warps} warps; limited by {stops}"
        )
    else:
        resident = f"0%: it cannot be launched: too much for the {stops}"
    return [
        ("registers", f"{usage.registers} a thread; spills: {spills}"),
        ("shared memory", f"{fits.shared_bytes:,} B a block"),
        ("occupancy", resident),
    ]


def _code(code: Function) -> list[tuple[str, str]]:
    hot = code.hot_loop
    if hot is None:
        return [("machine code", f"{_mix(code.mix, each=False)}; no loop")]
    return [
        ("machine code", _mix(code.mix, each=False)),
        ("hot loop", f"{_place(hot)}: {_mix(hot.mix)}"),
        ("", _frequent(hot.mix)),
    ]


def _place(loop: LoopMix) -> str:
    if not loop.file:
        return f"at {loop.start:#x}"
    lines = f"{loop.first_line}"
    if loop.last_line != loop.first_line:
        lines += f"-{loop.last_line}"
    return f"{Path(loop.file).name}:{lines}"


def _mix(mix: Mix, each: bool = True) -> str:
    parts = [f"{mix.instructions} instructions, {mix.fma} FMA ({mix.fma_share:.0%})"]
    loads = mix.global_loads + mix.shared_loads
    ratio = f", {mix.loads_per_fma:.2g} an FMA" if each and mix.loads_per_fma else ""
    wide = f", {mix.wide_loads} of them of 16 bytes" if mix.wide_loads else ""
    parts.append(
        f"{mix.global_loads} global and {mix.shared_loads} shared loads{ratio}{wide}"
        if loads
        else "no loads"
    )
    if barriers := mix.count({"BAR"}):
        parts.append(f"{barriers} barriers")
    if mix.tensor:
        parts.append(f"{mix.tensor} tensor")
    if mix.local:
        parts.append(f"{mix.local} of local memory")
    return "; ".join(parts)


def _frequent(mix: Mix) -> str:
    return "  ".join(f"{opcode} {count}" for opcode, count in list(mix.opcodes.items())[:6])


def _print_bound(console: Console, least: Bound, measured: float | None) -> None:
    table = Table(box=None, padding=(0, 2, 0, 2))
    table.add_column("the least time, by")
    for column in ("time", "work", "at most"):
        table.add_column(column, justify="right")
    for term in least.terms:
        table.add_row(*_row(term), style="bold" if term.name == least.binds else None)
    console.print(table)
    if least.binds:
        said = f"bound: {_time(least.seconds)}, by {TERMS[least.binds]}"
        if measured:
            said += f"; measured: {_time(measured)}, {measured / least.seconds:.2f} times as long"
        console.print(f"  {said}", style="bold", highlight=False)
    formulas = [f"{TERMS[term.name]}: {term.formula}" for term in least.terms]
    left_out = [f"not in it: {TERMS[name]}: {why}" for name, why in least.left_out.items()]
    for line in [MEANING, *formulas, *left_out, *(f"note: {note}" for note in least.notes)]:
        console.print(Padding(Text(line, style="dim"), (0, 0, 0, 2)))


def _row(term: Term) -> tuple[str, ...]:
    work, rate = (f"{_scaled(value)}{UNITS[term.unit]}" for value in (term.work, term.rate))
    return TERMS[term.name], _time(term.seconds), work, f"{rate}/s"


def _time(seconds: float) -> str:
    step, prefix = next((s for s in reversed(SI) if seconds >= s[0]), SI[0])
    return f"{seconds / step:.3g} {prefix}s"


def _scaled(value: float) -> str:
    step, prefix = next((p for p in PREFIXES if value >= p[0]), PREFIXES[-1])
    return f"{value / step:.3g} {prefix}"
