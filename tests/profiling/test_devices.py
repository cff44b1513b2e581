"""Files of several devices as their readers take them: each row by its own device, models apart."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from profiling import bench_table, result_file, scatter_charts, series, targets
from profiling.__main__ import main
from profiling.result_file import Device, End, Group, Results, Row, Writer, load
from tests.profiling import made_up_results

SLOW, FAST = ({"name": name, "cores": 8} for name in ("Made-up S", "Made-up F"))
CEILINGS = made_up_results.CEILINGS["gpu"]


def device(index: int, machine: dict[str, object], copy: float = CEILINGS.copy) -> Device:
    return Device(
        "node", index, f"GPU-{index}", machine, msgspec.structs.replace(CEILINGS, copy=copy)
    )


TWO_OF_ONE = [device(0, SLOW), device(1, SLOW, 2e12)]


def spread(path: Path, devices: list[Device], turn: int = 0) -> Results:
    """Write the made-up file with its groups dealt out to devices in turn, from the given one."""
    path.unlink(missing_ok=True)
    made_up_results.write(path, batches=(64, 512))
    header, *groups, end = map(result_file._LINE.decode, path.read_bytes().splitlines())
    path.unlink()
    with Writer(path, header) as writer:
        for line in devices:
            writer.add(line)
        for i, group in enumerate(groups):
            number = (i + turn) % len(devices)
            rows = [msgspec.structs.replace(row, device=number) for row in group.rows]
            writer.add(Group(rows))
        writer.add(End(end.rows, end.seconds))
    return load(path)


def compared(capsys, *paths: Path) -> tuple[int, dict]:
    code = main(["compare", *map(str, paths), "--json"])
    return code, json.loads(capsys.readouterr().out)


def timed(rows: list[Row]) -> int:
    return sum(row.status == "timed" for row in rows)


def test_rows_that_name_no_device_of_the_file_are_refused(tmp_path):
    path = tmp_path / "a.jsonl"
    spread(path, TWO_OF_ONE)
    lines = path.read_bytes().splitlines(keepends=True)
    for without in (1, 2):  # a device's line is lost, or both
        path.write_bytes(b"".join([lines[0], *lines[1 + without :]]))
        with pytest.raises(result_file.ResultFileError, match="lines were lost or added"):
            load(path)


def test_a_row_stands_against_the_ceilings_of_its_own_device(tmp_path):
    results = spread(tmp_path / "a.jsonl", TWO_OF_ONE)
    assert {results.ceilings(row).copy for row in results.rows if row.device == 1} == {2e12}
    for record in bench_table.records(results):
        if record["status"] == "timed":
            copy = {"GPU 0 of node": 2.9e12, "GPU 1 of node": 2e12}[record["device"]["name"]]
            rate = record["least_bytes"] / record["cold"]["median_s"]
            assert record["cold"]["of_copy"] == pytest.approx(rate / copy)


def test_devices_of_one_model_are_one_series_and_each_has_its_roof(tmp_path):
    spread(tmp_path / "a.jsonl", TWO_OF_ONE)
    (one,) = series.load([tmp_path / "a.jsonl"])
    which = series.Pass("conv2d", "forward", "float32")
    roofs = [t for t in scatter_charts.roofline(one, which).data if t.legendgroup == "roofs"]
    assert [roof.y[0] / roof.x[0] for roof in roofs] == pytest.approx([2.9e12, 2e12])
    assert [roof.showlegend for roof in roofs] == [True, False]
    assert "2.00 TB/s to 2.90 TB/s" in roofs[0].name


def test_models_are_shown_apart_and_no_line_joins_them(tmp_path):
    spread(tmp_path / "a.jsonl", [device(0, SLOW), device(1, FAST), device(2, FAST)])
    parts = series.load([tmp_path / "a.jsonl"])
    assert [part.name for part in parts] == ["a, Made-up S", "a, Made-up F"]
    assert [{row.device for row in part.results.rows} for part in parts] == [{0}, {1, 2}]
    output = tmp_path / "page.html"
    assert main(["report", str(tmp_path / "a.jsonl"), "-o", str(output)]) == 0
    text = output.read_text()
    assert "a.jsonl was measured on unlike devices, Made-up S and Made-up F" in text
    assert all(f"GPU {i} of node" in text for i in range(3))


def test_compare_matches_only_rows_of_one_model(tmp_path, capsys):
    a, b = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    mixed = [device(0, SLOW), device(1, FAST)]
    rows = spread(a, mixed).rows
    spread(b, mixed)
    code, found = compared(capsys, a, b)
    assert code == 0
    assert len(found["rows"]) == timed(rows)
    assert {row["model"] for row in found["rows"]} == {"Made-up S", "Made-up F"}
    # One group more or less, and what was on one model is on the other.
    spread(b, mixed, turn=1)
    assert main(["compare", str(a), str(b)]) == 2
    said = capsys.readouterr().err
    assert "no row in common" in said
    assert "shapes and models of device" in said
    # Only those that the model of the second file measured in the first.
    spread(b, [device(0, FAST)])
    code, found = compared(capsys, a, b)
    assert len(found["rows"]) == timed([row for row in rows if row.device == 1])
    elsewhere = [row for row in found["untimed"] if row["reason"].startswith("on ")]
    assert {row["reason"] for row in elsewhere} == {"on Made-up S in A, on Made-up F in B"}
    assert len(elsewhere) == sum(row.device == 0 for row in rows)
    assert found["only_in_a"] == found["only_in_b"] == []
    assert any("rows are compared only within a model" in text for text in found["warnings"])


def test_another_device_of_a_model_is_compared_and_counted(tmp_path, capsys):
    a, b = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    rows = spread(a, TWO_OF_ONE).rows
    spread(b, TWO_OF_ONE, turn=1)
    _, found = compared(capsys, a, b)
    assert len(found["rows"]) == timed(rows)
    (said,) = [text for text in found["warnings"] if "on other devices" in text]
    assert said.startswith(f"{len(rows)} of {len(rows)} rows")


def test_a_goal_is_never_added_up_from_two_models(tmp_path):
    goal = targets._over_peers("tiled", "forward", ("lenet conv1 N=64", "lenet conv2 N=64"))
    of_one = spread(tmp_path / "a.jsonl", [device(0, SLOW)])
    assert [goal(part) is None for part in of_one.by_model()] == [False]
    # conv1 and conv2 lie two groups apart.
    of_two = spread(
        tmp_path / "b.jsonl", [device(i, [SLOW, SLOW, FAST, FAST][i]) for i in range(4)]
    )
    assert [goal(part) for part in of_two.by_model()] == [None, None]


def test_a_cpus_model_has_its_cores(tmp_path):
    cpus = [Device("h", None, None, {"name": "one", "cores": n}, CEILINGS) for n in (8, 16)]
    spread(tmp_path / "a.jsonl", cpus)
    names = [part.name for part in series.load([tmp_path / "a.jsonl"])]
    assert names == ["a, one, 8 cores", "a, one, 16 cores"]
