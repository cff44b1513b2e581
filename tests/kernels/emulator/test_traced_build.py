"""What a traced build changes in a file: the addresses given away, the marks left out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from kernels.emulator.assembly import drop_marks, list_copies
from kernels.emulator.local_arrays import give_away
from kernels.emulator.unrolling import unrolled

MINE = Path("/mine.cu")


def given_away(code: str, file: Path = MINE) -> list[str]:
    text = f'# 1 "{file}"\n{code}'
    changed = give_away(text, [MINE])
    # The lines stay as they are, but for what is added.
    assert re.sub(r' asm volatile\("" : : "r"\(\w+\) : "memory"\);', "", changed) == text
    return re.findall(r'"r"\((\w+)\)', changed)


@pytest.mark.parametrize(
    ("declaration", "names"),
    [
        ("float kept[8];", ["kept"]),
        ("const volatile unsigned int a[2], b, c[3][4];", ["a", "c"]),
        ("float a[2] = {1, 2}, b[2]{};", ["a", "b"]),
        ("mine::Pair<float, 3>* pointers[4];", ["pointers"]),
        ("float kept\n  [TILE\n  + 1];", ["kept"]),
        ("for (int i = 0; i < 4; i++) { float t[4]; t[i] = 0; }", ["t"]),
        ("if (x) {} else kept[2] = 3;", []),
        ("kept[2] = other[3];", []),
        ("float one = kept[2];", []),
        ("float one = f(a, b[2]);", []),
        ("return kept[2];", []),
        ("static float shared_by_all[4];", []),
        ("struct Tile { float v[4]; };", []),
        ('print("float a[2];");', []),
        ("__attribute__((emulator_shared)) thread_local float tile[4];", []),
    ],
)
def test_local_arrays_are_found(declaration, names):
    assert given_away(f"float global[4];\nvoid kernel(float* x) {{\n  {declaration}\n}}\n") == names


def test_files_of_others_stay_as_they_are():
    assert given_away("void f() { float kept[8]; }\n", Path("/theirs.hpp")) == []


def code(*blocks: str) -> str:
    return "".join(
        part + "\tcall\t__sanitizer_cov_trace_pc\n" if part.endswith(":\n") else part
        for part in (block + "\n" for block in blocks)
    )


def marks(assembly: str) -> int:
    return assembly.count("__sanitizer_cov_trace_pc")


TEST, LOAD = "\tcmpl\t%eax, %ebx", "\tcall\t__tsan_read4"


def test_the_mark_of_a_block_that_only_goes_on_is_left_out():
    # while (i < n) { if (inside(i)) load(i); i++; }
    loop = code(
        "f:", TEST, "\tjmp\t.L4", ".L2:", TEST, "\tjl\t.L3", ".L5:", LOAD,
        ".L3:", "\taddl\t$1, %eax", ".L4:", TEST, "\tjl\t.L2", ".L6:", "\tret",
    )  # fmt: skip
    changed = drop_marks(loop)
    assert marks(loop) - marks(changed) == 1
    assert ".L3:\n\taddl\t$1, %eax\n.L4:\n" in changed


@pytest.mark.parametrize("does", [LOAD, "\tvaddss\t%xmm0, %xmm1, %xmm1", "\tjmp\t.L9"])
def test_a_block_that_does_something_keeps_its_mark(does):
    text = code("f:", TEST, "\tjl\t.L5", ".L3:", does, ".L4:", "\tret", ".L5:", "\tret")
    assert drop_marks(text) == text


def test_a_block_that_could_have_been_left_out_at_a_branch_keeps_its_mark():
    # if (i < n) i++;  The lanes that go apart here meet again at once.
    text = code("f:", TEST, "\tjge\t.L4", ".L3:", "\taddl\t$1, %eax", ".L4:", "\tret")
    assert drop_marks(text) == text
    # The same with the jump from elsewhere.
    text = code(
        "f:", TEST, "\tjl\t.L3", "\tjne\t.L4", ".L2:", "\tret",
        ".L3:", "\taddl\t$1, %eax", ".L4:", "\tret",
    )  # fmt: skip
    assert drop_marks(text) == text


@pytest.mark.parametrize(
    ("loop", "is_unrolled"),
    [
        ("#pragma unroll\nfor (;;)", True),
        (' # pragma  unroll  \n\n# 12 "mine.cu"\n  while (x)', True),
        ("#pragma unroll\ndo {", True),
        ("#pragma unroll 4\nfor (;;)", False),
        ("#pragma unroll\nforce = 1;", False),
        ("#pragma unroll\nx = 1;\nfor (;;)", False),
    ],
)
def test_loops_are_unrolled_where_it_is_asked_for(loop, is_unrolled):
    changed = unrolled(f"int x;\n{loop}\n")
    assert changed.count("\n") == loop.count("\n") + 2
    assert ("GCC unroll" in changed) == is_unrolled


def test_calls_for_one_access_of_the_source_are_copies_of_the_first():
    files = f'\t.file 1 "{MINE}"\n\t.file 2 "/theirs" "memory.hpp"\n'
    here, there, theirs = "\t.loc 1 7 3 view .LVU1", "\t.loc 1 7 9", "\t.loc 2 7 3"
    text = [here, LOAD, "\tnop", LOAD, there, LOAD, theirs, LOAD, LOAD]
    text += [here, "\tcall\tfloorf@PLT", LOAD]
    lines = list_copies(files + "\n".join(text), [MINE]).splitlines()
    labels = [lines[at + 1] for at, one in enumerate(lines) if one == LOAD]
    assert labels == [".Ltold0:", ".Ltold1:", ".Ltold2:", LOAD, here, ".Ltold3:"]
    assert lines[-4:] == [
        "\t.quad 2",
        "traced_copies:",
        "\t.long .Ltold1-traced_copies, .Ltold0-traced_copies",
        "\t.long .Ltold3-traced_copies, .Ltold0-traced_copies",
    ]
