"""Traffic with local memory, on kernels whose counts are worked out by hand."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from kernels.__main__ import main
from kernels.xray import gpus, session, static, static_page, static_view
from kernels.xray.disassembly import DisassemblerMissingError, program

pytest.importorskip("cuda.bindings.nvrtc", reason="cuda-bindings is not installed (make test does)")
try:
    program()
except DisassemblerMissingError as error:
    pytest.skip(str(error), allow_module_level=True)

SOURCE = Path(__file__).with_name("local_memory.cu")
H200 = gpus.find("h200")
AT = np.arange(32, dtype=np.int32)[::-1].copy()


def line(text: str) -> int:
    return 1 + next(n for n, code in enumerate(SOURCE.read_text().splitlines()) if text in code)


def report(kernel: str, *args, blocks: int = 1, local_arrays: bool = True) -> static.Report:
    recording = session.record(
        SOURCE, (blocks,), (32,), args, kernel=kernel, local_arrays=local_arrays
    )
    assert recording.findings == ()
    return static.of_recording(recording, H200)


def indexed(kernel: str, n: int, **options) -> static.Report:
    return report(kernel, AT, np.zeros(96, np.float32), np.int32(n), **options)


def counts(found: static.Report) -> dict[tuple[int, str], tuple[int, int, int, int]]:
    return {
        (one.line, one.operation): (one.requests, one.bytes, one.sectors, one.ideal_sectors)
        for one in found.local.lines
    }


def test_lanes_at_the_same_index_are_side_by_side():
    found = indexed("same_index", 32)
    # 32 turns a loop, each by one warp: 32 lanes of 4 bytes lie in 128 bytes, which are 4 sectors.
    store, load = line("kept[at[j]] = j"), line("sum += kept")
    once = (32, 32 * 32 * 4, 32 * 4, 32 * 4)
    assert counts(found) == {(store, "write"): once, (load, "read"): once}
    assert found.local.uncounted == ()
    assert found.local.totals == {
        "requests": 64, "bytes": 8192, "sectors": 256, "ideal_sectors": 256,
    }  # fmt: skip


def test_lanes_at_different_indices_have_a_sector_each():
    found = indexed("other_indices", 32)
    read = counts(found)[line("kept[at[threadIdx.x]]"), "read"]
    assert read == (1, 128, 32, 4)


def test_all_warps_are_counted():
    one, three = (indexed("same_index", 5, blocks=count) for count in (1, 3))
    assert three.local.totals == {name: 3 * count for name, count in one.local.totals.items()}


def test_wide_accesses_of_half_a_warp():
    found = indexed("wide", 16)
    written = counts(found)[line("kept[at[j]] = make"), "write"]
    # 16 turns; 16 lanes' 256 bytes are 4 words a lane, each of which lies in 2 sectors.
    assert written[1] == 16 * 256
    assert written[2:] == (16 * 8, 16 * 8)


def test_what_is_kept_in_registers_counts_for_nothing():
    found = report("unrolled", np.ones(256, np.float32), np.zeros(32, np.float32))
    assert not found.has_local_memory
    assert found.local.lines == found.local.uncounted == ()


def test_spills_are_listed_but_no_array_of_theirs_is_counted():
    found = report("spills", np.ones(2048, np.float32), np.zeros(2048, np.float32))
    usage = found.kernel.usage
    assert found.local.lines == ()
    loads = sum(one.loads for one in found.local.uncounted)
    stores = sum(one.stores for one in found.local.uncounted)
    # ptxas counts in bytes, 4 for each of these instructions.
    assert (4 * stores, 4 * loads) == (usage.spill_stores, usage.spill_loads)
    assert stores > 0


def test_without_a_recording_of_the_arrays_it_is_unknown_not_zero():
    found = indexed("same_index", 4, local_arrays=False)
    assert found.local is None
    assert found.to_dict()["local_memory"] is None
    assert "128 B a thread; what is moved to and from it is not known" in shown(found)


def test_without_a_disassembler_it_is_unknown(monkeypatch):
    def missing(*_):
        raise DisassemblerMissingError("nvdisasm is not installed")

    monkeypatch.setattr(static, "_functions", missing)
    assert "is not known" in shown(indexed("same_index", 4))


def shown(found: static.Report) -> str:
    console = Console(file=io.StringIO(), width=160)
    static_view.render(console, found)
    return console.file.getvalue()


def test_terminal_and_page_say_it_by_line():
    found = indexed("same_index", 32)
    texts = (
        "128 B a thread; 64 requests, 8.19kB; 256 sectors, 4 a request; least 256",
        f"local_memory.cu:{line('sum += kept')} reads: 32 requests, 4.1kB; 128 sectors",
    )
    for text in texts:
        assert text in shown(found)
        assert text in static_page.facts(found)


def test_the_command_line_looks_for_it_where_there_is_any(capsys):
    options = ["--grid", "1", "--block", "32", "--json"]
    arrays = ["--arg", "at=arange:int32:32", "--arg", "y=empty:float32:32", "--arg", "n=8"]
    assert main(["xray", str(SOURCE), "--kernel", "same_index", *options, *arrays]) == 0
    (launch,) = json.loads(capsys.readouterr().out)["launches"]
    assert launch["local_arrays"]
    assert launch["static"]["local_memory"]["sectors"] == 2 * 8 * 4
    arrays = ["--arg", "x=ones:float32:256", "--arg", "y=empty:float32:32"]
    assert main(["xray", str(SOURCE), "--kernel", "unrolled", *options, *arrays]) == 0
    (launch,) = json.loads(capsys.readouterr().out)["launches"]
    assert not launch["local_arrays"]
