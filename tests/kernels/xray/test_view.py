"""The terminal's view, on made-up recordings."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console
from xray_samples import ACCESS, SOURCE, access, finding, recording

from kernels.xray import source_view
from kernels.xray.launches import Product, Xray

LONG = SOURCE.replace("2 * x", "2 * /* why two: " + 70 * "y" + " */ x")


def shown(xray: Xray, *, width: int = 120, terminal: bool = False, focus=None) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=terminal, no_color=True)
    source_view.render(console, xray, ["no NVRTC here"] * len(xray.recordings), focus)
    return re.sub(r"\x1b\[[\d;]*m", "", console.file.getvalue())


def of(*steps, **options) -> Xray:
    return Xray("scale", steps, **options)


def line_of(text: str, number: int) -> str:
    return next(line for line in text.splitlines() if line.split()[:1] == [str(number)])


def test_a_line_has_its_figures_and_functions_that_did_nothing_are_left_out(tmp_path):
    text = shown(of(recording(tmp_path / "scale.cu")))
    line = line_of(text, ACCESS)
    assert "18 (4)" in line  # 32 and 4 sectors in two requests; 4 would do for each
    assert "22%" in line
    assert "100%" in line
    assert line.endswith("        y[i] = 2 * x[32 * i];")
    assert "never" not in text
    assert "wavefr." not in text  # there is no shared memory in it
    assert "2 requests, 256B asked for; 36 sectors, 18 a request; least 8 (22%)" in text
    assert "static side: no NVRTC here; traffic with local memory is not known" in text


def test_piped_source_is_whole_whatever_its_length(tmp_path):
    text = shown(of(recording(tmp_path / "scale.cu", LONG)), width=80)
    for line in LONG.splitlines()[2:]:
        assert line in text


@pytest.mark.parametrize("width", [60, 100])
def test_a_terminal_is_never_overrun_and_no_word_is_lost(tmp_path, width):
    text = shown(of(recording(tmp_path / "scale.cu", LONG)), width=width, terminal=True)
    begin = text.index("scale.cu\n")
    source = text[begin : text.index("heat:")]
    assert max(map(len, source.splitlines())) <= width
    assert "global: 18 (4) sectors" in source
    for word in ("blockIdx.x", "/* why two:", 30 * "y", "[32 * i];"):
        assert word in source


def test_findings_come_first_with_the_line_and_a_mark_under_the_array(tmp_path):
    path = tmp_path / "scale.cu"
    text = shown(of(recording(path, findings=(finding(path),))))
    lines = text.splitlines()
    assert lines[1] == "1 finding"
    assert lines[2].split("  ")[1:] == [
        "bounds", "scale.cu:6", "scale", "block (0, 0, 0)", "thread (7, 0, 0)", "y[32]", "3 times",
    ]  # fmt: skip
    assert lines[3].endswith("6 | y[i] = 2 * x[32 * i];")
    assert lines[4].index("^") == lines[3].index("y[i]")
    assert lines[5].strip() == "writes y[32] of 32 elements"


def test_a_finding_without_a_place_or_an_array_has_its_message(tmp_path):
    path = tmp_path / "scale.cu"
    nowhere = finding(path, line=0, block=None, thread=None, array=None, index=None, count=1)
    text = shown(of(recording(path, findings=(nowhere,))))
    assert "  bounds  scale.cu  scale\n      writes y[32]" in text


def test_a_finding_in_a_function_without_accesses_shows_that_function(tmp_path):
    path = tmp_path / "scale.cu"
    assert "never" in shown(of(recording(path, findings=(finding(path, line=1),))))


def test_a_sample_says_so_and_compares_no_sums(tmp_path):
    whole = recording(tmp_path / "scale.cu", blocks=8, blocks_traced=8)
    part = recording(tmp_path / "scale.cu", blocks=8, blocks_traced=2, cut=3)
    assert "sampled" not in shown(of(whole, declared_flops=64))
    text = shown(of(part, declared_flops=64))
    assert "sampled: 2 of 8 blocks were traced (25.00%); counts and findings are of those" in text
    assert "3 segments of warps were too long and are cut short" in text
    assert "declared" not in text


def test_declared_flops_are_held_against_those_counted(tmp_path):
    one, product = recording(tmp_path / "scale.cu"), Product(2, 3, 4, batch=2)
    assert product.flops == 96
    text = shown(of(one, product, declared_flops=128))
    assert "not traced: matrix product 2 times (2 x 4) (4 x 3), 96 FLOPs, by the library" in text
    assert "declared for the pass: 128 (those on padding included); counted: 32 + 96" in text
    assert "100% of it" in text


def test_a_line_alone_draws_one_warps_lanes(tmp_path):
    path = tmp_path / "scale.cu"
    shared = access(
        [0] * 16 + [32] * 16, space="shared", array="tile", file=str(path), wavefronts=2,
        ideal_wavefronts=1,
    )  # fmt: skip
    made = recording(path, accesses=(shared, access([1, 2, None, 2], file=str(path), sectors=1)))
    text = shown(of(made), focus=(str(path), ACCESS))
    assert "wavefront 1 |+" + 31 * "·" + "|" in text
    assert "wavefront 2 |+" in text
    assert "wavefronts a request: 2 (least 1)" in text
    assert "x[1..2] |·12·····|        |        |        |" in text
    assert "int i = blockIdx" not in text


def test_a_file_that_is_gone_leaves_the_totals(tmp_path):
    path = tmp_path / "scale.cu"
    made = recording(path, file=str(tmp_path / "gone.cu"), accesses=(), branches=(), lines=())
    assert "1 block (1 x 1 x 1) of 32 x 1 x 1 threads, 1 warp" in shown(of(made))
