"""`profiling compare`, held against recordings of real kernels and against planted changes.

The recordings are tests/profiling/data/recorded_samples.npz, of record_samples.py beside this file:
(round, kernel, sample), nanoseconds, on two cores that other work shared.
"""

import itertools
import json
from pathlib import Path

import msgspec
import numpy as np
import pytest

from kernels.shapes import Conv2dShape
from profiling import result_file, verdicts
from profiling.__main__ import main
from profiling.result_file import Ceilings, End, Group, Header, Row, Sensors, Timing, Writer

SMALLEST = 0.005
RECORDING = np.load(Path(__file__).parent / "data" / "recorded_samples.npz")
SECONDS = RECORDING["nanoseconds"] / 1e9
ROUNDS, KERNELS, _ = SECONDS.shape
ONE_THREAD = [k for k, name in enumerate(RECORDING["names"]) if name.startswith("conv")]
IN_TWO_THREADS = [k for k in range(KERNELS) if k not in ONE_THREAD]


def windows(before, after, kernels=range(KERNELS)):
    """Rounds of the recording as if they were runs; none of them settled to half a per cent."""
    return [
        verdicts.Measured([SECONDS[i, k] for i in before], [SECONDS[i, k] for i in after], True)
        for k in kernels
    ]


def drawn(rng, count, rows=12, block=5):
    """Rows of one run a side, both drawn in blocks from one round of one kernel."""
    found = []
    for _ in range(rows):
        series = SECONDS[rng.integers(ROUNDS), rng.integers(KERNELS)]
        begins = rng.integers(0, len(series) - block, (2, count // block, 1))
        found.append(verdicts.Measured(*([side.ravel()] for side in series[begins + range(block)])))
    return found


def differ(changes):
    return any(change.verdict != "same" for change in changes)


def test_no_difference_between_draws_from_the_same_recording():
    rng = np.random.default_rng(0)
    wrong = sum(differ(verdicts.judge(drawn(rng, 1500), SMALLEST)) for _ in range(100))
    assert wrong <= 5


@pytest.mark.parametrize("in_turns", [True, False])
@pytest.mark.parametrize("runs", [2, 3])
def test_no_difference_between_several_windows_a_side(runs, in_turns):
    rng = np.random.default_rng(1)
    wrong = 0
    for _ in range(100):
        if in_turns:
            rounds = np.sort(rng.permutation(ROUNDS)[: 2 * runs])
            sides = rounds[::2], rounds[1::2]
        else:
            begin = rng.integers(0, ROUNDS - 2 * runs + 1)
            sides = range(begin, begin + runs), range(begin + runs, begin + 2 * runs)
        wrong += differ(verdicts.judge(windows(*sides), SMALLEST))
    assert wrong <= 5


def test_no_difference_between_two_windows():
    pairs = list(itertools.permutations(range(ROUNDS), 2))
    wrong = sum(differ(verdicts.judge(windows([i], [j], ONE_THREAD), SMALLEST)) for i, j in pairs)
    assert wrong <= 0.05 * len(pairs)


def test_what_only_several_runs_show():
    """In two threads on a busy machine whole runs take twenty times as long as others."""
    pairs = list(itertools.permutations(range(ROUNDS), 2))
    single = [verdicts.judge(windows([i], [j], IN_TWO_THREADS), SMALLEST) for i, j in pairs]
    assert sum(map(differ, single)) > 0.05 * len(pairs)
    triples = [(p[:3], p[3:6]) for p in map(np.random.default_rng(2).permutation, [ROUNDS] * 100)]
    several = [verdicts.judge(windows(i, j, IN_TWO_THREADS), SMALLEST) for i, j in triples]
    assert sum(map(differ, several)) <= 5


def test_a_planted_3_per_cent_is_found_where_the_samples_can_show_it():
    """They can where the interval, were nothing planted, is narrow enough to tell 3 % from 0.5."""
    rng = np.random.default_rng(3)
    found = could = others = 0
    for trial in range(50):
        rows = drawn(rng, 10_000)
        widths = [np.log(c.high / c.low) / 2 for c in verdicts.judge(rows, SMALLEST)]
        planted = int(np.argsort(widths)[trial % 4])
        row = rows[planted]
        rows[planted] = row._replace(after=[1.03 * row.after[0]])
        changes = verdicts.judge(rows, SMALLEST)
        if widths[planted] < 0.0115:
            could += 1
            found += changes[planted].verdict == "slower"
        del changes[planted]
        others += differ(changes)
    assert could >= 30
    assert found >= 0.95 * could
    assert others <= 2


@pytest.mark.parametrize("factor", [1.03, 1 / 1.03])
def test_a_planted_3_per_cent_in_every_row_is_found(factor):
    rng = np.random.default_rng(4)
    rows = [verdicts.Measured([quiet(rng, 200)], [factor * quiet(rng, 200)]) for _ in range(20)]
    verdict = "slower" if factor > 1 else "faster"
    assert [change.verdict for change in verdicts.judge(rows, SMALLEST)] == [verdict] * 20


def quiet(rng, count, seconds=1e-3):
    return seconds * np.exp(0.01 * rng.standard_normal(count))


def test_of_many_rows_few_are_called_different_by_chance():
    """Each alone would be wrong one time in twenty; together they are not."""
    rng = np.random.default_rng(5)
    alone = together = 0
    for _ in range(50):
        rows = [verdicts.Measured([quiet(rng, 60)], [quiet(rng, 60)]) for _ in range(60)]
        changes = verdicts.judge(rows, 0.0)
        alone += any(change.low > 1 or change.high < 1 for change in changes)
        together += differ(changes)
    assert alone >= 15
    assert together <= 5


def test_a_difference_that_does_not_matter_is_the_same():
    rng = np.random.default_rng(6)
    rows = [verdicts.Measured([quiet(rng, 4000)], [1.003 * quiet(rng, 4000)]) for _ in range(5)]
    assert not differ(verdicts.judge(rows, SMALLEST))
    assert differ(verdicts.judge(rows, 0.0))


def test_a_row_that_did_not_settle_needs_more_than_its_own_drift():
    rng = np.random.default_rng(7)
    drift = np.linspace(1, 1.3, 400)
    steady = [verdicts.Measured([quiet(rng, 400)], [quiet(rng, 400)]) for _ in range(5)]
    for factor, verdict in ((1.1, "same"), (3.0, "slower")):
        row = verdicts.Measured([drift * quiet(rng, 400)], [factor * drift * quiet(rng, 400)], True)
        assert verdicts.judge([row, *steady], SMALLEST)[0].verdict == verdict


def test_too_few_samples_give_no_verdict():
    row = verdicts.Measured([np.full(5, 1.0)], [np.full(5, 2.0)])
    (change,) = verdicts.judge([row], SMALLEST)
    assert (change.verdict, change.few, change.ratio) == ("same", True, pytest.approx(2))


def test_the_geometric_mean_and_what_moves_all_rows_of_a_run():
    rng = np.random.default_rng(8)
    rows = [verdicts.Measured([quiet(rng, 100)], [f * quiet(rng, 100)]) for f in (2, 0.5, 1.1**2)]
    ratio, low, high = verdicts.geometric_mean(rows, verdicts.judge(rows, SMALLEST))
    assert ratio == pytest.approx(1.1 ** (2 / 3), rel=0.01)
    assert low < ratio < high

    def runs(factors):
        return [[f * quiet(rng, 100) for f in factors] for _ in range(4)]

    held = 0
    for _ in range(200):
        shifts = np.exp(0.05 * rng.standard_normal((2, 3)))
        rows = [verdicts.Measured(a, b) for a, b in zip(*map(runs, shifts), strict=True)]
        _, low, high = verdicts.geometric_mean(rows, verdicts.judge(rows, SMALLEST))
        held += low <= 1 <= high
    assert held >= 180  # without the runs' own scatter a third of them would


# The command.


def write(path, factors=(), seed=0, *, sensors=None, batches=(1, 2, 4, 8), rows=None, **header):
    """Write a file of quiet rows, `factors` times a millisecond; return its rows."""
    rng = np.random.default_rng(seed)
    if rows is None:
        rows = [
            row(n, factor, rng, sensors or Sensors())
            for n, factor in itertools.zip_longest(batches, factors, fillvalue=1.0)
        ]
    about = {
        "schema": result_file.SCHEMA, "place": "cpu", "machine": {"name": "Made-up CPU"},
        "date": "2031-02-03", "commit": "0123456789abcdef", "dirty": False, "threads": 2,
        "suite": ["lenet"], "groups": len(rows), "plan": "p",
        "ceilings": Ceilings(1e10, 1e10, 1e11, None, 1e-7, 2**20), "software": {"numba": "1"},
    } | header  # fmt: skip
    path.unlink(missing_ok=True)
    with Writer(path, Header(**about)) as writer:
        for line in rows:
            writer.add(Group([line]))
        writer.add(End(len(rows), 1.0))
    return rows


def row(n, factor, rng, sensors, **changes):
    shape = Conv2dShape.of((n, 1, 28, 28), (6, 1, 5, 5))
    samples = (factor * quiet(rng, 200)).tolist()
    timing = Timing(float(np.median(samples)), 0, 0, samples, 1, "perf_counter", True)
    fields = {
        "operation": "conv2d", "name": "cpu", "direction": "forward", "kind": "kernel",
        "language": "numba", "label": f"lenet conv1 N={n}", "group": "lenet conv1",
        "shape": shape._asdict(), "dtype": "float32", "precision": "fp32", "flops": 1,
        "least_flops": 1, "least_bytes": 1, "input_bytes": 1, "status": "timed",
        "source": "0123456789abcdef", "cold": timing, "hot": timing,
        "before": sensors, "after": sensors,
    } | changes  # fmt: skip
    return Row(**fields)


@pytest.fixture
def files(tmp_path):
    return tmp_path / "a.jsonl", tmp_path / "b.jsonl"


def compare(capsys, *arguments):
    """Run the command; return its status, and what it said if that is JSON."""
    status = main(["compare", *map(str, arguments)])
    said = capsys.readouterr()
    assert said.err == ""
    return status, json.loads(said.out) if "--json" in arguments else said.out


def refused(capsys, *arguments):
    """Run the command, which must refuse its input; return the one line it says."""
    assert main(["compare", *map(str, arguments)]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("compare: ")
    assert said.err.count("\n") == 1
    return said.err


def test_the_same_data_shuffled_are_the_same(files, capsys):
    rows = write(files[0])
    rng = np.random.default_rng(9)
    shuffled = []
    for was in rows:
        samples = rng.permutation(was.cold.samples_s).tolist()
        timing = msgspec.structs.replace(was.cold, samples_s=samples)
        shuffled.append(msgspec.structs.replace(was, cold=timing, hot=timing))
    write(files[1], rows=shuffled[::-1])
    status, said = compare(capsys, *files, "--json", "--state", "both")
    assert status == 0
    assert [(one["ratio"], one["verdict"]) for one in said["rows"]] == [(1.0, "same")] * 8
    assert said["warnings"] == []


def test_a_regression_is_named_and_the_status_is_1(files, capsys):
    write(files[0])
    write(files[1], [1.0, 1.06, 0.9], seed=1)
    status, said = compare(capsys, *files)
    assert status == 1
    shown = [line.strip() for line in said.splitlines() if line.startswith("  lenet conv1")]
    assert "slower =" in shown[1]
    assert "faster =" in shown[2]
    assert shown[0].endswith("same")
    assert "REGRESSION, past 2 %:\n  conv2d cpu forward, lenet conv1 N=2, cold: +6" in said
    assert "= the source is the same" in said
    assert max(map(len, said.splitlines()[2:])) <= 80
    assert compare(capsys, *files, "--tolerance", "10")[0] == 0


def test_a_regression_within_the_tolerance_is_slower_but_no_failure(files, capsys):
    write(files[0])
    write(files[1], [1.03], seed=1)
    status, said = compare(capsys, *files, "--json", "--tolerance", "4%")
    assert status == 0
    assert [one["verdict"] for one in said["rows"]] == ["slower", "same", "same", "same"]


def test_a_row_that_fails_now_is_a_regression(files, capsys):
    write(files[0])
    rng = np.random.default_rng(1)
    rows = [row(n, 1.0, rng, Sensors()) for n in (1, 2, 4, 8)]
    rows[2] = row(4, 1, rng, Sensors(), status="failed", reason="y[0] is 1.5", cold=None, hot=None)
    rows[3] = row(8, 1, rng, Sensors(), status="skipped", reason="no", cold=None, hot=None)
    write(files[1], rows=rows)
    status, said = compare(capsys, *files)
    assert status == 1
    assert "REGRESSION, failed in B:\n  conv2d cpu forward, lenet conv1 N=4: y[0] is 1.5" in said
    assert "not timed:\n  conv2d cpu forward, lenet conv1 N=8, cold: timed in A, skipped in" in said
    assert compare(capsys, files[1], files[0])[0] == 0  # mended


def test_rows_of_one_side_are_listed(files, capsys):
    write(files[0], batches=(1, 2, 4))
    write(files[1], batches=(1, 2, 8), seed=1)
    status, said = compare(capsys, *files, "--json")
    assert status == 0
    assert [one["label"] for one in said["only_in_a"]] == ["lenet conv1 N=4"]
    assert [one["label"] for one in said["only_in_b"]] == ["lenet conv1 N=8"]
    assert len(said["rows"]) == 2


def test_several_runs_a_side(files, tmp_path, capsys):
    """Runs that differ by 10 % from one another: of one a side it shows, of three it does not."""
    paths = [tmp_path / f"{n}.jsonl" for n in range(6)]
    for n, path in enumerate(paths):
        write(path, [1.0, 1.1, 1.05, 1.1, 1.15, 1.0][n : n + 1] * 4, seed=n)
    status, said = compare(capsys, *paths[:2], "--json")
    assert status == 1
    assert {one["verdict"] for one in said["rows"]} == {"slower"}
    sides = [paths[0], paths[1], "--also-a", *paths[2::2], "--also-b", *paths[3::2]]
    status, said = compare(capsys, *sides, "--json")
    assert status == 0
    assert {one["verdict"] for one in said["rows"]} == {"same"}
    assert said["warnings"] == []


def test_all_rows_together_may_be_the_machine(files, capsys):
    batches = (1, 2, 4, 8, 16, 32)
    write(files[0], batches=batches)
    write(files[1], [1.1] * 6, batches=batches, seed=1)
    status, said = compare(capsys, *files, "--json")
    assert status == 1
    assert len(said["warnings"]) == 1
    assert "100% of the rows moved together, by +10" in said["warnings"][0]
    (ours,) = [mean for mean in said["geometric_means"] if mean["name"] == "all kernels"]
    assert ours["low"] < 1.1 < ours["high"]


@pytest.mark.parametrize(
    ("header", "warning"),
    [
        ({"machine": {"name": "Other CPU"}},
         "DIFFERENT MACHINES: A Made-up CPU, B Other CPU; the ratios compare these"),
        ({"place": "gpu"}, "DIFFERENT PLACES: A cpu, B gpu;"),
        ({"threads": 1}, "threads: A 2, B 1"),
        ({"software": {"numba": "2"}}, "numba: A 1, B 2"),
        ({"machine": {"name": "Made-up CPU", "python": "3"}}, "python: A None, B 3"),
        ({"ceilings": Ceilings(1e10, 1e10, 0.9e11, None, 1e-7, 2**20)},
         "a large GEMM: A 100.0 GFLOP/s, B 90.0 GFLOP/s (-10.0%): the machine itself"),
        ({"sensors": Sensors(sm_clock_mhz=1900.0)}, "clock: A 2,000 MHz, B 1,900 MHz (-5.0%)"),
        ({"sensors": Sensors(2000.0, throttled=["hot"])}, "B: the clock was held down in 4 rows"),
    ],
)  # fmt: skip
def test_what_else_differs_is_said(header, warning, files, capsys):
    write(files[0], sensors=Sensors(sm_clock_mhz=2000.0))
    write(files[1], seed=1, **({"sensors": Sensors(sm_clock_mhz=2000.0)} | header))
    status, said = compare(capsys, *files)
    assert status == 0
    warnings = [line for line in said.splitlines() if line.startswith("warning: ")]
    assert len(warnings) == 1
    assert warnings[0].removeprefix("warning: ").startswith(warning)


def test_bad_files_are_one_line(files, tmp_path, capsys):
    write(files[0])
    other = tmp_path / "other.jsonl"
    assert "other.jsonl: No such file" in refused(capsys, files[0], other)
    other.write_text("")
    assert "other.jsonl: the file is empty" in refused(capsys, files[0], other)
    other.write_text('{"line": "header", "schema": "something else"}\n')
    assert "schema 'something else'; expected" in refused(capsys, other, files[0])
    write(other, batches=(3, 5))
    said = refused(capsys, files[0], other)
    assert "have no row in common: A has conv2d cpu, B has conv2d cpu; benchmark the same" in said


def test_rows_without_the_state_asked_for(files, capsys):
    rng = np.random.default_rng(0)
    write(files[0], rows=[row(1, 1, rng, Sensors(), hot=None)])
    said = refused(capsys, files[0], files[0], "--state", "hot")
    assert "no row was timed hot in both" in said


def test_a_sample_that_is_no_time(files, capsys):
    rng = np.random.default_rng(0)
    timing = Timing(1.0, 0, 0, [1.0, 0.0], 1, "perf_counter", True)
    write(files[0], rows=[row(1, 1, rng, Sensors(), cold=timing)])
    assert "not a number above 0" in refused(capsys, files[0], files[0])


@pytest.mark.parametrize("value", ["-1", "x", "nan"])
def test_a_bad_percentage(value, files, capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["compare", *map(str, files), f"--tolerance={value}"])
    assert exit_.value.code == 2
    assert "expected per cent, 0 or more, such as 2" in capsys.readouterr().err
