"""What is not a whole benchmark's file is never taken for one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiling.result_file import (
    SCHEMA,
    Ceilings,
    End,
    Group,
    Header,
    ResultFileError,
    Row,
    Timing,
    Writer,
    load,
)  # fmt: skip

CEILINGS = Ceilings(1e10, 1e10, 1e11, None, 1e-6, 1 << 20)
HEADER = Header(
    SCHEMA, "cpu", {"name": "a machine"}, "2026-01-01", None, False, 2, ["lenet"], 2, "f00",
    CEILINGS, {},
)  # fmt: skip


def row(n: int, name: str = "cpu") -> Row:
    timing = Timing(1e-3, 0.9e-3, 1.1e-3, [1e-3, 1.1e-3, 0.9e-3], 1, "perf_counter", True)
    return Row(
        "conv2d", name, "forward", "kernel", "numba", f"N={n}", "a", {"n": n}, "float32", "fp32",
        10, 10, 10, 5, "timed", cold=timing,
    )  # fmt: skip


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    path = tmp_path / "whole.jsonl"
    with Writer(path, HEADER) as writer:
        writer.add(Group([row(1), row(1, "torch")]))
        writer.add(Group([row(2)]))
        writer.add(End(3, 1.0))
    return path


def test_what_was_written_is_read(whole: Path):
    results = load(whole)
    assert results.header == HEADER
    assert results.rows == [row(1), row(1, "torch"), row(2)]


def test_no_part_of_a_file_is_a_whole_one(whole: Path, tmp_path: Path):
    data = whole.read_bytes()
    cut = tmp_path / "cut.jsonl"
    for length in range(len(data)):
        cut.write_bytes(data[:length])
        with pytest.raises(ResultFileError) as error:
            load(cut)
        assert str(error.value).startswith(str(cut))
        assert "\n" not in str(error.value)


def test_an_unfinished_run_is_read_when_asked_for_and_gone_on_with(whole: Path):
    lines = whole.read_bytes().splitlines(keepends=True)
    whole.write_bytes(b"".join(lines[:2]) + lines[2][:50])
    results = load(whole, unfinished=True)
    assert (len(results.rows), results.end) == (2, None)
    with Writer(whole, None) as writer:
        writer.add(Group([row(2)]))
        writer.add(End(3, 1.0))
    assert load(whole).rows == [row(1), row(1, "torch"), row(2)]


def test_a_file_that_is_there_is_not_overwritten(whole: Path):
    before = whole.read_bytes()
    with pytest.raises(ResultFileError, match="exists; choose another name"):
        Writer(whole, HEADER)
    assert whole.read_bytes() == before


def change(path: Path, number: int, **values: object) -> None:
    lines = path.read_text().splitlines()
    record = json.loads(lines[number])
    target = record["rows"][0] if "rows" in record and number == 1 else record
    target.update(values)
    lines[number] = json.dumps(record)
    path.write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize(
    ("line", "values", "said"),
    [
        (0, {"schema": "conv-kernel-lab bench 99"}, "schema 'conv-kernel-lab bench 99'; expected"),
        (0, {"schema": None}, "schema None; expected"),
        (0, {"threads": "two"}, "line 1: Expected `int`, got `str` - at `$.threads`"),
        (0, {"groups": 5}, "lines were lost or added"),
        (1, {"flops": "many"}, "line 2: Expected `int`, got `str` - at `$.rows[0].flops`"),
        (1, {"status": "fine"}, "Invalid enum value 'fine'"),
        (1, {"name": "torch"}, "two rows of one kernel on one shape"),
        (3, {"rows": 4}, "lines were lost or added"),
        (2, {"line": "header"}, "line 3"),
    ],
)
def test_a_line_that_does_not_fit_is_named(
    whole: Path, line: int, values: dict[str, object], said: str
):
    change(whole, line, **values)
    with pytest.raises(ResultFileError) as error:
        load(whole)
    assert said in str(error.value)


@pytest.mark.parametrize(
    "content", [b"", b"\n\n", b"not json\n", b"[1, 2]\n", b"\xff\xfe\n", b"{}\n"]
)
def test_what_is_no_result_file_at_all(tmp_path: Path, content: bytes):
    path = tmp_path / "other"
    path.write_bytes(content)
    with pytest.raises(ResultFileError, match=r"other: (the file is empty|schema None; expected)"):
        load(path)


def test_a_file_that_is_not_there(tmp_path: Path):
    with pytest.raises(ResultFileError, match="No such file"):
        load(tmp_path / "none.jsonl")
    with pytest.raises(ResultFileError, match="Is a directory"):
        load(tmp_path)


def test_two_files_in_one(whole: Path):
    whole.write_bytes(whole.read_bytes() * 2)
    with pytest.raises(ResultFileError, match="two files in one"):
        load(whole)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_a_damaged_byte_is_an_error_or_still_a_file(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("damage") / "file.jsonl"
    with Writer(path, HEADER) as writer:
        writer.add(Group([row(1)]))
        writer.add(Group([row(2)]))
        writer.add(End(2, 1.0))
    content = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(content))
    try:
        assert len(load(path).rows) == 2
    except ResultFileError as error:
        assert "\n" not in str(error)  # noqa: PT017
