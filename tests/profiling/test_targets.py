"""Goals are held against what a file measured, and nothing that it lacks is called met."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kernels.shapes import BlockShape, Conv2dShape
from lenet.speedrun_command import KIND as SPEEDRUN
from profiling import roofline, targets
from profiling.__main__ import main
from profiling.compare_torch import KIND as STEP
from profiling.result_file import SCHEMA, Ceilings, End, Group, Header, Row, Timing, Writer

CEILINGS = Ceilings(3e12, 3e12, 50e12, 67e12, 2e-6, 1 << 20, {"bf16": 800e12})
BLOCK1 = BlockShape.of((8192, 1, 28, 28), (6, 1, 5, 5), padding=2)
BLOCK2 = BlockShape.of((8192, 6, 14, 14), (16, 6, 5, 5))
RESNET = Conv2dShape.of((64, 64, 56, 56), (64, 64, 3, 3), padding=1)
RESNET3 = Conv2dShape.of((64, 256, 14, 14), (256, 256, 3, 3), padding=1)  # as many FLOPs
BF16 = RESNET.flops / 800e12  # seconds at the ceiling


def timing(seconds: float) -> Timing:
    return Timing(seconds, seconds, seconds, [seconds], 1, "graph", True)


def rows(label, operation, direction, shape, seconds: dict[str, float]) -> list[Row]:
    work = roofline.work(None, operation, direction, shape)
    return [
        Row(
            operation, name, direction, "peer" if name.startswith("torch") else "kernel", "x",
            label, label, shape._asdict(), "float32", "bf16" if name in targets.BF16 else "fp32",
            work.flops, 0, work.least_bytes, work.input_bytes, "timed", cold=timing(value),
        )
        for name, value in seconds.items()
    ]  # fmt: skip


def write(path: Path, groups: list[list[Row]], place: str = "gpu") -> Path:
    header = Header(SCHEMA, place, {"name": "Made-up"}, "2026-11-23T10:00:00Z", None, False, 2,
                    ["lenet"], len(groups), "plan", CEILINGS, {})  # fmt: skip
    with Writer(path, header) as writer:
        for group in groups:
            writer.add(Group(group))
        writer.add(End(sum(map(len, groups)), 1.0))
    return path


def blocks(fused1: float, fused2: float) -> list[list[Row]]:
    return [
        rows(f"lenet block{i} N=8192", "conv2d_relu_pool", "forward", shape,
             {"fused": ours, "torch": 5e-4, "torch channels_last graph": 4e-4})
        for i, shape, ours in ((1, BLOCK1, fused1), (2, BLOCK2, fused2))
    ]  # fmt: skip


def resnet(bf16: float, stage: int = 1) -> list[Row]:
    times = {"implicit_gemm_wgmma": bf16, "implicit_gemm_bf16": 2 * bf16}
    times |= {"winograd": 2e-4, "torch graph": 3e-4, "torch": 3.2e-4}
    shape = RESNET if stage == 1 else RESNET3
    return rows(f"resnet50-3x3 stage {stage} N=64", "conv2d", "forward", shape, times)


def answers(*paths: Path, capsys: pytest.CaptureFixture[str], code: int) -> dict[str, dict]:
    assert main(["targets", *map(str, paths), "--json"]) == code
    return {one["goal"]: one for one in json.loads(capsys.readouterr().out)}


def test_layers_are_added_up_and_the_fastest_peer_counts(tmp_path, capsys):
    lenet = write(tmp_path / "a.jsonl", blocks(1.5e-4, 0.4e-4))
    other = write(tmp_path / "b.jsonl", [resnet(BF16 / 0.8), resnet(BF16 / 0.9, stage=3)])
    found = answers(lenet, other, capsys=capsys, code=0)
    forward = found["fused LeNet forward, both blocks, N=8192"]
    assert forward["got"] == pytest.approx(8e-4 / 1.9e-4)
    assert forward["met"] is True
    assert found["winograd on ResNet's 64-channel 3x3, fp32"]["got"] == pytest.approx(1.5)
    share = found["the better bf16 rung there, as a share of the bf16 product"]
    assert share["got"] == pytest.approx(0.8)
    best = found["the better bf16 rung on its best stage of ResNet, 3x3, likewise"]
    assert best["got"] == pytest.approx(0.9)


def test_what_was_missed_fails_and_what_is_missing_is_not_met(tmp_path, capsys):
    path = write(tmp_path / "a.jsonl", [*blocks(1.5e-4, 0.6e-4), resnet(BF16 / 0.7)])
    found = answers(path, capsys=capsys, code=1)
    verdicts = [one["met"] for one in found.values()]
    assert verdicts == [False, None, None, None, True, False, False, None, None, None]
    assert main(["targets", str(path)]) == 1
    shown = capsys.readouterr().out
    assert shown.count("MISSED") == 3
    assert shown.count("not measured") == 6
    # Nothing measured is nothing missed.
    only_one = write(tmp_path / "b.jsonl", blocks(1.0, 1.0)[:1])
    assert all(one["met"] is None for one in answers(only_one, capsys=capsys, code=0).values())


def test_a_cpus_file_has_no_such_goals(tmp_path, capsys):
    path = write(tmp_path / "a.jsonl", blocks(1.0, 1.0), place="cpu")
    assert main(["targets", str(path)]) == 2
    assert "measured on a CPU, the goals are a GPU's" in capsys.readouterr().err
    assert main(["targets", str(tmp_path / "none.jsonl")]) == 2


def test_every_goals_shape_is_one_that_a_suite_measures():
    from profiling import suites

    labels = {case.label for case in suites.cases(["lenet", "resnet50-3x3"], [])}
    assert {*targets.BLOCKS, *targets.RESNET} <= labels


GPU = {"device": "gpu", "machine": {"name": "Made-up"}}


def step(path, eager=25.0, graph=6.0, **other):
    ratios = [
        {"of": name, "ratio": ratio, "interval": [ratio, ratio]}
        for name, ratio in (("PyTorch 2 (fused)", eager), ("PyTorch 2 (fused, CUDA graph)", graph))
    ]
    record = {"kind": STEP, "batch_size": 256, "ratios": ratios, "data": "mnist"} | GPU | other
    path.write_text(json.dumps(record, indent=2))  # as the command prints it
    return path


def speedrun(path, seconds=0.04, accuracy=0.991, runs=30, held_out=False, **other):
    summary = {"runs": runs, "reached": runs, "accuracy": accuracy, "seconds": seconds}
    record = {"kind": SPEEDRUN, "held_out": held_out, "summary": summary} | GPU | other
    path.write_text(json.dumps(record))
    return path


def test_the_training_has_goals_too(tmp_path, capsys):
    files = step(tmp_path / "a.jsonl"), speedrun(tmp_path / "b.jsonl")
    *_, eager, graph, mnist = answers(*files, capsys=capsys, code=0).values()
    assert [one["got"] for one in (eager, graph)] == [25, 6]
    assert mnist["got"] == pytest.approx(0.05 / 0.04)
    assert [one["met"] for one in (eager, graph, mnist)] == [True] * 3
    assert main(["targets", *map(str, files)]) == 0
    assert f"{files[0]}: Made-up" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("write", "how", "met"),
    [
        (step, {"graph": 4.9}, [True, False, None]),
        (step, {"batch_size": 128}, [None, None, None]),
        (speedrun, {"seconds": 0.06}, [None, None, False]),
        (speedrun, {"accuracy": 0.9899}, [None, None, False]),
        (speedrun, {"runs": 29}, [None, None, None]),
        (speedrun, {"held_out": True}, [None, None, None]),
        (speedrun, {"summary": None}, [None, None, None]),
    ],
)
def test_a_training_that_does_not_meet_them(tmp_path, capsys, write, how, met):
    path = write(tmp_path / "a.jsonl", **how)
    found = answers(path, capsys=capsys, code=int(False in met))
    assert [one["met"] for one in found.values()][-3:] == met


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"device": "cpu"}, "measured on a CPU, the goals are a GPU's"),
        ({"device": "tpu"}, "a.jsonl: damaged: Invalid enum value 'tpu'"),
        ({"batch_size": "many"}, "a.jsonl: damaged: Expected `int`, got `str`"),
    ],
)
def test_a_training_that_cannot_be_used(tmp_path, capsys, how, message):
    assert main(["targets", str(step(tmp_path / "a.jsonl", **how))]) == 2
    assert message in capsys.readouterr().err
