"""Result files of the benchmark, records of `verify`, and what was remembered of measurements."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import made_up_results
import pytest
from fuzzing import AWKWARD, Target, as_json, damaged, damaged_json, json_text, share
from hypothesis import given
from hypothesis import strategies as st

from kernels import __main__ as kernels_command
from kernels import choosing, remembered, table
from profiling import __main__ as command
from profiling import report, result_file, series
from profiling.result_file import ResultFileError, load


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """A right file's lines, few: a header, two groups, the end."""
    path = tmp_path_factory.mktemp("right") / "right.jsonl"
    made_up_results.write(path, batches=(64,))
    header, first, *_, last, end = map(json.loads, path.read_bytes().splitlines())
    for group in (first, last):
        for row in group["rows"]:
            for state in ("cold", "hot"):
                if row[state]:
                    row[state]["samples_s"] = row[state]["samples_s"][:7]
    header["groups"], end["rows"] = 2, len(first["rows"]) + len(last["rows"])
    return [header, first, last, end]


@st.composite
def result_files(draw: Any, lines: list[Any]) -> bytes:
    """A result file with damaged lines, values or bytes."""
    how = draw(st.integers(0, 5))
    if how == 0:
        return draw(damaged(b"".join(as_json(line) + b"\n" for line in lines)))
    if how == 1:  # one value, in a place that the schema says little of
        changed = json.loads(json.dumps(lines))
        row = draw(st.sampled_from(changed[1]["rows"]))
        where = draw(st.sampled_from([row, row["shape"], row["cold"], row["check"], row["before"],
                                      changed[0], changed[0]["ceilings"], changed[0]["machine"],
                                      *row["ratios"], *row["resources"]]))  # fmt: skip
        if where:
            key = draw(st.sampled_from(sorted(where)))
            value = where[key]
            same = {
                float: [0.0, -1.0, 1e-320, 1e308, 5e-324], int: [0, -1, 2**62, 2**63, 10**30],
                str: ["", "x" * 3000, "<script>alert(1)</script>", "\x1b[2J", "a\nb", "[/]"],
                list: [[], [0.0], [-1.0, 1.0], [1e308] * 9],
            }.get(type(value), [None, 0, "", {}])  # fmt: skip
            where[key] = draw(st.sampled_from(same))
            if draw(st.booleans()):
                where[draw(st.sampled_from(sorted(where)))] = draw(AWKWARD)
    else:
        changed = draw(damaged_json(lines))
        if not isinstance(changed, list):
            return as_json(changed)
    return b"".join(as_json(line) + b"\n" for line in changed)


@given(st.data())
@share(6, 150)
def test_result_file(target: Target, lines: list[Any], data: Any):
    content = data.draw(result_files(lines))
    Path("b.jsonl").write_bytes(content)
    unfinished = data.draw(st.booleans())
    got = target.outcome(lambda: load(Path("b.jsonl"), unfinished=unfinished), ResultFileError)
    if got is not None:
        told = [
            json.loads(line, parse_int=lambda digits: int(digits) if len(digits) < 99 else None)
            for line in content.splitlines()
            if line.endswith(b"}")
        ]
        rows = [row for line in told if line["line"] == "group" for row in line["rows"]]
        assert [(row.name, row.label, row.flops) for row in got.rows] == [
            (row["name"], row["label"], row["flops"]) for row in rows
        ]


@given(st.data(), st.sampled_from(
    [["compare", "a.jsonl", "b.jsonl", "--state", "both"],
     ["compare", "b.jsonl", "a.jsonl", "--json"],
     ["targets", "b.jsonl"], ["targets", "b.jsonl", "--json"]]
))  # fmt: skip
@share(4, 100)
def test_result_file_in_a_command(target: Target, lines: list[Any], capsys: Any, data: Any, argv):
    Path("a.jsonl").write_bytes(b"".join(as_json(line) + b"\n" for line in lines))
    Path("b.jsonl").write_bytes(data.draw(result_files(lines)))
    target.command(command.main, argv, capsys)


@given(st.data())
@share(0.5, 12)
def test_page_of_a_result_file(target: Target, lines: list[Any], data: Any):
    Path("b.jsonl").write_bytes(data.draw(result_files(lines)))
    page = target.outcome(
        lambda: report.build(series.load([Path("b.jsonl")])), result_file.ResultFileError
    )
    assert page is None or "<script>alert(1)" not in page


RECORD = json.loads(
    Path(__file__).parents[2].joinpath("profiling/results/emulator.json").read_text()
)
RECORD["kernels"] = RECORD["kernels"][:2]


@given(json_text(RECORD))
@share(2, 60)
def test_record_of_verify(target: Target, capsys: Any, content: bytes):
    Path("results").mkdir(exist_ok=True)
    Path("results/emulator.json").write_bytes(content)
    target.command(command.main, ["verified", "--results", "results"], capsys)


def _entries() -> dict[str, tuple[Any, Any]]:
    key = {
        "operation": "conv2d", "pass": "forward", "shape": {"n": 1, "c": 1, "h": 9, "w": 9},
        "dtype": "float32", "device": {"name": "a GPU"},
    }  # fmt: skip
    names = [row.name for row in table.rows("conv2d")]
    value = {"seconds": dict.fromkeys(names[1:], 0.001), "left_out": {names[0]: "it fails"}}
    tile = {"tile": {"TILE": 8}, "usual": {"TILE": 16}, "seconds": 1e-3, "ratio": 0.9, "tried": 2,
            "offered": 3}  # fmt: skip
    auto = key | {"precision": "fp32", "sources": {"naive": "0"}, "lab": "0.1.0"}
    return {"auto": (auto, value), "tiles": (key | {"kernel": "tiled", "source": "0"}, tile)}


ENTRIES = _entries()


@given(st.data(), st.sampled_from(["auto", "tiles"]), st.booleans())
@share(2, 100)
def test_remembered_entry(target: Target, monkeypatch, capsys: Any, data: Any, kind: str, as_text):
    monkeypatch.setenv(remembered.FOLDER, "choices")
    key, value = ENTRIES[kind]
    entries = remembered.Entries(kind)
    entries.write(key, value)
    (path,) = entries.folder.iterdir()
    path.write_bytes(data.draw(json_text({"key": key, "value": value})))
    found = target.outcome(lambda: entries.read(key), ())
    if found is None:  # counts as not there
        target.refused, target.read = target.refused + 1, target.read - 1
    if kind == "auto":
        rows = table.rows("conv2d")
        choice = target.outcome(lambda: choosing.read(found, rows), ())
        assert choice is None or set(choice.ranking) <= {row.name for row in rows}
    options = [f"--{kind}", *([] if as_text else ["--json"])]
    assert target.command(kernels_command.main, ["list", *options], capsys) == 0
