"""The step's launches and bounds: what the table says, and what it is told for bad input."""

from __future__ import annotations

import json

import pytest

from kernels import emulator
from profiling.__main__ import main

pytest.importorskip("cuda.bindings.nvrtc", reason="cuda-bindings is not installed (make test does)")
pytestmark = pytest.mark.skipif(emulator.problem() is not None, reason=str(emulator.problem()))

FILTER = "conv2d_relu_pool_fused_backward_filter"


@pytest.fixture(scope="module")
def small():
    """The step of a small batch, as JSON, and as a table."""
    from contextlib import redirect_stdout
    from io import StringIO

    said = []
    for how in (["--json"], []):
        with redirect_stdout(StringIO()) as out:
            assert main(["step", "--batch-size", "24", "--gpu", "a100", *how]) == 0
        said.append(out.getvalue())
    return json.loads(said[0]), said[1]


def test_the_launches_in_their_order(small):
    found, _ = small
    assert [(one["kernel"], one["aside"]) for one in found["launches"]] == [
        ("conv2d_relu_pool_fused_pair", False),
        ("linear_stack_learn", False),
        ("linear_stack_gradient", True),
        (FILTER, True),
        ("conv2d_relu_pool_fused_pair_backward", False),
        ("nesterov_sgd", False),
    ]
    assert all(one["spills"] == 0 and one["findings"] == 0 for one in found["launches"])
    assert found["gpu"].startswith("A100")


def test_the_sums_are_those_of_the_bounds(small):
    found, table = small
    bounds = [(one["bound_s"], one["aside"]) for one in found["launches"]]
    assert all(seconds > 0 for seconds, _ in bounds)
    assert found["all_s"] == pytest.approx(sum(seconds for seconds, _ in bounds))
    assert found["in_a_row_s"] == pytest.approx(sum(s for s, aside in bounds if not aside))
    *rows, last = table.splitlines()
    assert rows[0].startswith("a step of LeNet, 24 images, A100")
    assert sum(FILTER in row and "aside" in row for row in rows) == 1
    assert last.startswith("4 launches that wait for each other: ")
    assert "all 6: " in last


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--batch-size", "0"], "step: --batch-size is 0; expected at least 1"),
        (["--gpu", "voodoo"], "step: unknown GPU 'voodoo'; there are t4, a100"),
    ],
)
def test_what_cannot_be_used(capsys, options, message):
    assert main(["step", *options]) == 2
    assert message in capsys.readouterr().err


def test_a_finding_fails(capsys, tmp_path, monkeypatch):
    from kernels.source import ROOT, CudaSource
    from kernels.training import linear_stack

    code = (ROOT / "training" / "linear_stack.cu").read_text()
    barrier = "__syncthreads();  // the first layer reads what others loaded"
    assert code.count(barrier) == 1
    (tmp_path / "linear_stack.cu").write_text(code.replace(barrier, ""))
    faulty = CudaSource(tmp_path / "linear_stack.cu", **linear_stack.source.defines)
    monkeypatch.setattr(linear_stack, "source", faulty)
    assert main(["step", "--batch-size", "4"]) == 1
    said = capsys.readouterr().out
    assert "linear_stack_learn: " in said
    assert "of the sanitiser" in said
