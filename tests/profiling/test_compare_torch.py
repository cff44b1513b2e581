import importlib.util

import pytest

from profiling import training_records
from profiling.__main__ import main


def test_without_torch_one_line_says_how_to_install_it(monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert main(["compare-torch"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "pip install torch" in said


@pytest.mark.parametrize("option", ["--epochs", "--batch-size", "--threads", "--steps-a-turn"])
def test_a_bad_option_is_one_line(option, monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    assert main(["compare-torch", option, "0"]) == 2
    assert capsys.readouterr().err == f"compare-torch: {option} is 0; expected at least 1\n"


def test_both_compute_the_same(capsys, tmp_path):
    pytest.importorskip("torch", reason="PyTorch is not installed (make compare-torch does)")
    import json

    assert main(["compare-torch", "--device", "cpu", "--batch-size", "64", "--json"]) == 0
    (tmp_path / "printed").write_text(capsys.readouterr().out)
    record = training_records.read(tmp_path / "printed")
    assert (record.device, record.batch_size) == ("cpu", 64)
    assert record.over(graph=False) > 0
    assert record.over(graph=True) is None
    ours, theirs = json.loads((tmp_path / "printed").read_text())["sides"]
    assert ours["first_loss"] == pytest.approx(theirs["first_loss"], rel=1e-5)
    assert ours["last_loss"] == pytest.approx(theirs["last_loss"], rel=2e-2)
