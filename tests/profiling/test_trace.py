"""`profiling trace`: the file that Perfetto opens, held against its documented format."""

from __future__ import annotations

import collections
import gzip
import itertools
import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from kernels import emulator
from profiling import timeline, trace

ROOT = Path(__file__).parents[2]
DOUBLE = ROOT / "tests" / "fake_cupy"

needs_compiler = pytest.mark.skipif(emulator.problem() is not None, reason=str(emulator.problem()))


def events(path: Path) -> list[dict]:
    """Read a trace, refusing what the format does not have and spans that do not nest."""
    data = path.read_bytes()
    found = json.loads(gzip.decompress(data) if path.suffix == ".gz" else data)["traceEvents"]
    tracks = collections.defaultdict(list)
    open_ids = set()
    for event in found:
        assert isinstance(event["pid"], int)
        assert isinstance(event["tid"], int)
        assert isinstance(event["name"], str)
        assert event["name"]
        if event["ph"] == "M":
            assert event["name"] in ("process_name", "thread_name")
            assert isinstance(event["args"]["name"], str)
            continue
        assert event["ph"] in "Xbei"
        assert event["ts"] >= 0
        if event["ph"] == "X":
            assert event["dur"] >= 0
            tracks[event["pid"], event["tid"]].append(event)
        elif event["ph"] == "b":
            open_ids.add((event["cat"], event["id"]))
        elif event["ph"] == "e":
            open_ids.remove((event["cat"], event["id"]))
    assert not open_ids
    names = {(e["pid"], e["tid"]) for e in found if e["name"] == "thread_name"}
    assert set(tracks) <= names
    assert {pid for pid, _ in tracks} <= {e["pid"] for e in found if e["name"] == "process_name"}
    for spans in tracks.values():
        enclosing: list[float] = []
        for span in sorted(spans, key=lambda event: (event["ts"], -event["dur"])):
            end = span["ts"] + span["dur"]
            while enclosing and enclosing[-1] <= span["ts"]:
                enclosing.pop()
            assert not enclosing or end <= enclosing[-1] + 1e-3, span
            enclosing.append(end)
    return found


def spans(found: list[dict], name: str) -> list[dict]:
    return [event for event in found if event["ph"] == "X" and event["name"] == name]


def run(*words: str | Path, cwd: Path = ROOT, **env: str) -> subprocess.CompletedProcess[str]:
    path = f"{env.pop('PYTHONPATH', '')}{os.pathsep}{ROOT}"
    return subprocess.run(
        [sys.executable, "-m", "profiling", "trace", *map(str, words)],
        cwd=cwd, env={**os.environ, **env, "PYTHONPATH": path},
        capture_output=True, text=True, check=False,
    )  # fmt: skip


# Writing the trace, from lines of a spool.

COMMAND = timeline.Command("a command", 10, 1000, 100_000)


def written(tmp_path: Path, *lines: dict | bytes) -> tuple[list[dict], timeline.Summary]:
    spool = tmp_path / "spool"
    texts = [x if isinstance(x, bytes) else json.dumps({"pid": 10, "tid": 10, **x}).encode()
             for x in lines]  # fmt: skip
    spool.write_bytes(b"\n".join(texts))
    summary = timeline.write(spool, tmp_path / "trace.json", COMMAND)
    return events(tmp_path / "trace.json"), summary


def begin(ns: int, name: str, cat: str = "d", **more: object) -> dict:
    return {"ph": "B", "ns": ns, "name": name, "cat": cat, **more}


def end(ns: int, cat: str = "d", **more: object) -> dict:
    return {"ph": "E", "ns": ns, "cat": cat, **more}


def test_spans_nest_and_self_time_leaves_out_what_is_inside(tmp_path):
    found, summary = written(
        tmp_path, begin(2000, "outer"), begin(3000, "inner", args={"grid": [1]}), end(5000),
        begin(6000, "inner"), end(9000), end(12_000),
    )  # fmt: skip
    assert [(e["ts"], e["dur"]) for e in spans(found, "inner")] == [(2, 2), (5, 3)]
    assert [(e["ts"], e["dur"]) for e in spans(found, "outer")] == [(1, 10)]
    assert [(e["ts"], e["dur"]) for e in spans(found, "a command")] == [(0, 99)]
    assert spans(found, "inner")[0]["args"] == {"grid": [1]}
    assert summary.spans["d", "outer"] == timeline.Totals(1, 10_000, 5000, 10_000)
    assert summary.spans["d", "inner"] == timeline.Totals(2, 5000, 5000, 3000)


def test_ranges_of_two_domains_that_cross_do_not_break_the_nesting(tmp_path):
    found, summary = written(
        tmp_path, begin(2000, "one", "d"), begin(3000, "two", "e"), end(4000, "d"), end(6000, "e")
    )
    assert [e["ts"] for e in found if e["name"] == "one" and e["ph"] in "be"] == [1, 3]
    assert [(e["ts"], e["dur"]) for e in spans(found, "two")] == [(2, 3)]
    assert summary.spans["d", "one"].total_ns == 2000


def test_what_a_dying_process_leaves_is_drawn_and_counted(tmp_path):
    found, summary = written(
        tmp_path,
        begin(2000, "lost"),
        {"ph": "b", "ns": 2500, "name": "process range", "cat": "d", "id": 3},
        begin(3000, "elsewhere", pid=11, tid=12), begin(4000, "inside", pid=11, tid=12),
        end(7000, pid=11, tid=12), end(8000, pid=13, tid=13),
        b'{"ph":"B","ns":5000,"pid":10,"tid":10,"cat":"d","name":"\xff"}', end(6000),
        {"ph": "dropped", "cat": "ranges", "id": 4}, {"ph": "dropped", "cat": "ranges", "id": 5},
        {"ph": "dropped", "cat": "launches", "id": 7}, b'{"ph":"B","ns":5',
    )  # fmt: skip
    assert (summary.unfinished, summary.unreadable, summary.dropped) == (3, 1, 12)
    (lost,) = spans(found, "lost")
    assert lost["ts"] + lost["dur"] == 99  # with the command
    assert lost["args"] == {"unfinished": True}
    (elsewhere,) = spans(found, "elsewhere")
    assert elsewhere["ts"] + elsewhere["dur"] == 6  # when its process was last heard of
    assert len(spans(found, "\ufffd")) == 1


def test_a_summary_has_a_bounded_number_of_names(tmp_path, monkeypatch):
    monkeypatch.setattr(timeline, "MOST_NAMES", 3)
    lines = itertools.chain(*((begin(2000 + i, str(i)), end(2001 + i)) for i in range(0, 50, 2)))
    _, summary = written(tmp_path, *lines)
    assert len(summary.spans) == 4
    assert sum(totals.count for totals in summary.spans.values()) == 25


# The command.

SCRIPT = """
import subprocess, sys, threading, time
from kernels import ranges
def timed(name, seconds):
    begin = time.perf_counter()
    with ranges.span(name):
        time.sleep(seconds)
    return time.perf_counter() - begin
if len(sys.argv) > 1:
    timed("child", 0.02)
    sys.exit()
with ranges.span("outer"):
    total = sum(timed("slept", 0.05) for _ in range(3))
thread = threading.Thread(target=timed, args=("thread", 0.02)); thread.start(); thread.join()
subprocess.run([sys.executable, __file__, "child"], check=True)
print(total)
sys.exit(7)
"""


@needs_compiler
def test_the_times_are_those_that_the_script_measured(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    done = run("-o", "t.json.gz", "--json", "--", "script.py", cwd=tmp_path)
    assert done.returncode == 7, done.stderr
    record = json.loads(done.stdout)  # the script's own output went to stderr
    total = float(done.stderr.splitlines()[0])
    assert record["exit_code"] == 7
    slept = next(row for row in record["ranges"] if row["name"] == "slept")
    assert slept["count"] == 3
    assert slept["domain"] == "conv-kernel-lab"
    assert 0.15 <= slept["total_s"] <= total
    assert total - slept["total_s"] < 0.01  # at the clock's calls round each range
    outer = next(row for row in record["ranges"] if row["name"] == "outer")
    assert outer["total_s"] - outer["self_s"] == pytest.approx(slept["total_s"])
    found = events(tmp_path / "t.json.gz")
    drawn = sum(event["dur"] for event in spans(found, "slept"))
    assert drawn / 1e6 == pytest.approx(slept["total_s"], abs=1e-6)
    (command,), (outer_span,) = spans(found, "script.py"), spans(found, "outer")
    (thread,), (child,) = spans(found, "thread"), spans(found, "child")
    assert command["tid"] == outer_span["tid"] != thread["tid"]
    assert command["pid"] == thread["pid"] != child["pid"]


KERNEL = """
import numpy as np, kernels
x, w = np.ones((2, 3, 9, 8), np.float32), np.ones((4, 3, 3, 3), np.float32)
kernels.conv2d(x, w, kernel="naive")
kernels.conv2d(x, w, kernel="im2col_gemm")
if NUMBA: kernels.max_pool2d(x[:1, :1], kernel="max_numba")
"""


@needs_compiler
def test_emulated_launches_say_so_and_carry_grid_block_and_shape(tmp_path):
    script = KERNEL.replace("NUMBA", "True")
    done = run("-o", tmp_path / "t.json", "--", "python", "-c", script)
    assert done.returncode == 0, done.stderr
    found = events(tmp_path / "t.json")
    (launch,) = spans(found, "conv2d_naive_forward (emulated)")
    args = launch["args"]
    assert (
        args["shape"] | {"n": 2, "c": 3, "h": 9, "w": 8, "k": 4, "r": 3, "p": 7, "q": 6}
        == (args["shape"])
    )
    threads = 2 * 4 * 7 * 6  # one an output element
    assert args["grid"][0] * args["block"][0] >= threads > (args["grid"][0] - 1) * args["block"][0]
    assert (args["place"], args["dtype"]) == ("emulator", "float32")
    (call,) = spans(found, "conv2d forward naive")
    assert call["ts"] <= launch["ts"]
    assert launch["ts"] + launch["dur"] <= call["ts"] + call["dur"]
    assert len(spans(found, "matmul (BLAS)")) == 1
    assert len(spans(found, "max_pool2d_forward (simulated)")) == 1
    assert not [e for e in found if e.get("cat") in ("gpu", "launch") or "GPU" in str(e)]
    assert "conv2d_naive_forward (emulated)" in done.stdout


ON_DOUBLE = """
import numpy as np, cupy, kernels
x, w = cupy.asarray(np.ones((2, 3, 9, 8), np.float32)), cupy.asarray(np.ones((4, 3, 3, 3), "f"))
for _ in range(3): kernels.conv2d(x, w, kernel="im2col_gemm")
cupy.cuda.Stream.is_capturing = lambda self: True
kernels.conv2d(x, w, kernel="naive")
"""


@needs_compiler
def test_a_launch_on_a_device_has_its_events_track_but_not_during_capture(tmp_path):
    done = run("-o", tmp_path / "t.json", "--", "python", "-c", ON_DOUBLE, PYTHONPATH=str(DOUBLE))
    assert done.returncode == 0, done.stderr
    found = events(tmp_path / "t.json")
    device = [e for e in found if e.get("cat") == "double"]
    names = ["conv2d_im2col", "matmul", "conv2d_rows_to_images"]
    assert [event["name"] for event in device] == names * 3
    host = [e for e in found if e.get("cat") == "launch"]
    assert [e["name"] for e in host] == [f"{n} (launch)" for n in names * 3] + [
        "conv2d_naive_forward (launch)"
    ]
    # The double runs a kernel while it is launched: each lies within its launch, or the clocks of
    # device and host would not be aligned.
    for there, here in zip(device, host, strict=False):
        assert here["ts"] - 50 <= there["ts"]
        assert there["ts"] + there["dur"] <= here["ts"] + here["dur"] + 50
    (track,) = {event["tid"] for event in device}
    names = [e["args"]["name"] for e in found if e["tid"] == track and e["ph"] == "M"]
    assert len(names) == 1
    assert names[0].startswith("test double 0 default stream")


def test_without_a_compiler_the_labs_own_ranges_are_drawn(tmp_path):
    script = "from kernels import ranges\nwith ranges.span('mine'): pass"
    done = run("-o", tmp_path / "t.json", "--", "python", "-c", script, CXX="no-such-compiler")
    assert done.returncode == 0
    assert "only the lab's own" in done.stderr
    assert len(spans(events(tmp_path / "t.json"), "mine")) == 1


def test_a_killed_command_leaves_its_trace(tmp_path):
    script = (
        "import os, signal\nfrom kernels import ranges\n"
        "with ranges.span('mine'): os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = run("-o", tmp_path / "t.json", "--", "python", "-c", script)
    assert done.returncode == 128 + 9
    assert "1 spans did not end" in done.stderr
    (mine,) = spans(events(tmp_path / "t.json"), "mine")
    assert mine["args"]["unfinished"]


def test_after_ctrl_c_the_trace_is_written(tmp_path):
    script = (
        "import time\nfrom kernels import ranges\n"
        "with ranges.span('mine'): print('ready', flush=True); time.sleep(60)"
    )
    words = [sys.executable, "-m", "profiling", "trace", "-o", tmp_path / "t.json", "--"]
    process = subprocess.Popen(
        [*map(str, words), "python", "-c", script],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    assert process.stdout.readline() == b"ready\n"
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does, to all of them
    process.communicate(timeout=30)
    assert process.returncode == 130
    (mine,) = spans(events(tmp_path / "t.json"), "mine")
    assert "args" not in mine  # it ended: the interpreter unwound


def test_a_command_without_ranges_is_told_of(tmp_path):
    done = run("-o", tmp_path / "t.json", "--", "true")
    assert done.returncode == 0
    assert "no range and no launch was heard from: true" in done.stderr
    assert len(events(tmp_path / "t.json")) == 3
    assert list(tmp_path.iterdir()) == [tmp_path / "t.json"]


def test_a_full_trace_says_what_is_left_out(tmp_path):
    script = (
        "from kernels import ranges\nfor i in range(20_000):\n  with ranges.span('a' * 99): pass"
    )
    done = run("-o", tmp_path / "t.json", "--limit", "1", "--", "python", "-c", script)
    left = sum(e["ph"] == "X" for e in events(tmp_path / "t.json")) - 1
    assert 0 < left < 20_000
    assert f"{20_000 - left:,} ranges and launches at its end are left out" in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--", "got no command"),
        ("-- no-such-program", "no-such-program: there is no such program"),
        ("-o notes.txt -- true", "is no trace"),
        ("-o missing/t.json -- true", "there is no folder missing"),
        ("--limit 0 -- true", "--limit is 0"),
    ],
)
def test_bad_usage_is_one_line(words, said, tmp_path, monkeypatch, capsys):
    from profiling.__main__ import main

    (tmp_path / "notes.txt").write_text("mine")
    monkeypatch.chdir(tmp_path)
    assert main(["trace", *shlex.split(words)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert said in error
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_what_is_typed_names_this_interpreter():
    assert trace.resolve(["lenet", "train"]) == [sys.executable, "-m", "lenet", "train"]
    assert trace.resolve(["python", "-c", "1"]) == [sys.executable, "-c", "1"]
    assert trace.resolve(["true"]) == ["true"]
