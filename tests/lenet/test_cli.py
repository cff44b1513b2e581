import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from lenet_idx_files import squares, write_folder
from PIL import Image

from lenet.__main__ import main

ROOT = Path(__file__).parents[2]
HOST = ("--conv", "reference", "--pool", "reference", "--device", "cpu")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run on the squares that has learnt them, and their folder."""
    base = tmp_path_factory.mktemp("trained")
    data = write_folder(base / "data", 200, 60)
    options = ["--data-dir", str(data), "--runs-dir", str(base / "runs"), "--name", "squares"]
    how = ["--epochs", "4", "--batch-size", "20", "--device", "cpu", "--target-accuracy", "95"]
    status = main(["train", *options, *how])
    assert status == 0
    return base / "runs" / "squares", data


def image_file(folder, label, invert=False, mode="L", size=(28, 28), name="image.png"):
    images, _ = squares(10, seed=77)
    pixels = 255 - images[label] if invert else images[label]
    path = folder / name
    Image.fromarray(pixels).resize(size).convert(mode).save(path)
    return path


def test_a_run_leaves_its_four_files_and_a_table(tmp_path, idx_folder, capsys):
    runs = tmp_path / "runs"
    status = main(
        ["train", "--data-dir", str(idx_folder), "--runs-dir", str(runs), "--epochs", "2", *HOST]
    )
    output = capsys.readouterr().out
    assert status == 0
    (folder,) = runs.iterdir()
    assert sorted(path.name for path in folder.iterdir()) == [
        "checkpoint.safetensors", "config.json", "metrics.jsonl", "timing.json"
    ]  # fmt: skip
    config = json.loads((folder / "config.json").read_text())
    assert (config["conv"], config["pool"], config["device"]) == (
        "reference", "max:reference", "cpu"
    )  # fmt: skip
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2]
    assert output.splitlines()[0].startswith("epoch 1/2  loss ")
    for words in ("convolution", "pooling", "linear", "evaluation", "test accuracy", "warming up"):
        assert words in output


@pytest.mark.parametrize(
    ("command", "default"),
    [
        ("train", "digits, which are embedded (default)"),
        ("evaluate", "other data than the run's own (default)"),
    ],
)
def test_the_help_names_the_data_that_is_taken_by_default(command, default, capsys):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    assert default in " ".join(capsys.readouterr().out.split())


def test_the_target_decides_the_exit_status(trained, capsys):
    run, _ = trained
    assert main(["train", "--resume", str(run), "--target-accuracy", "0.5"]) == 0
    accuracy = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["test_accuracy"]
    if accuracy < 1:
        assert main(["train", "--resume", str(run), "--target-accuracy", "100%"]) == 1
        assert "is below the target of 100.00%" in capsys.readouterr().err


def test_a_run_below_its_target_exits_with_1(tmp_path, idx_folder, capsys):
    options = ["--data-dir", str(idx_folder), "--runs-dir", str(tmp_path / "r"), "--lr", "1e-9"]
    status = main(["train", *options, "--epochs", "1", *HOST, "--target-accuracy", "98"])
    assert status == 1
    assert "is below the target of 98.00%" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--target-accuracy", "high"], "--target-accuracy is 'high'; expected a share, 0 to 1"),
        (["--target-accuracy", "101"], "--target-accuracy is '101'; expected a share"),
        (["--target-accuracy", "-1"], "--target-accuracy is '-1'; expected a share"),
        (["--target-accuracy", "nan"], "--target-accuracy is 'nan'; expected a share"),
        (["--epochs", "0"], "--epochs is 0; expected at least 1"),
        (["--batch-size", "-4"], "--batch-size is -4; expected at least 1"),
        (["--lr", "0"], "--lr is 0.0; expected a number above 0"),
        (["--lr", "nan"], "--lr is nan; expected a number above 0"),
        (["--momentum", "1"], "--momentum is 1.0; expected 0 <= momentum < 1"),
        (["--weight-decay", "-1"], "--weight-decay is -1.0; expected 0 or more"),
        (["--seed", "-1"], "--seed is -1; expected 0 to 2**63 - 1"),
        (["--activation", "gelu"], "--activation is 'gelu'; expected one of relu, tanh"),
        (["--conv", "fastest"], "--conv fastest: no such kernel; there are auto, reference"),
        (["--pool", "median"], "--pool median: no such pooling kernel; there are max:auto"),
        (["--device", "tpu"], "device is 'tpu'; expected 'auto', 'cpu' or 'gpu'"),
        (["--data", "cifar"], "no data set named 'cifar'"),
        (["--data-dir", "nowhere/at/all"], "nowhere/at/all: no such folder"),
        (["--name", "a/b"], "--name is 'a/b'; expected a folder's name"),
        (["--resume", "no/run"], "no/run is not a run: config.json: No such file"),
        (["--resume", "no/run", "--name", "x"], "--resume names the run's folder itself"),
    ],
)
def test_bad_options_are_one_line_and_exit_with_2(tmp_path, monkeypatch, capsys, options, message):
    monkeypatch.chdir(tmp_path)
    assert main(["train", *options]) == 2
    error = capsys.readouterr().err
    assert error.startswith("lenet: error: ")
    assert message in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_gpu_that_is_not_there(tmp_path, monkeypatch, capsys):
    from kernels import place

    monkeypatch.setattr(place, "gpu_problem", lambda: "CuPy sees no CUDA device")
    assert main(["train", "--device", "gpu", "--runs-dir", str(tmp_path / "r")]) == 2
    assert "--device gpu: CuPy sees no CUDA device; use --device cpu" in capsys.readouterr().err


def test_a_kernel_that_cannot_start_is_one_line(tmp_path, idx_folder, monkeypatch, capsys):
    import kernels

    def no_compiler(*arguments, **options):
        raise RuntimeError("no C++ compiler: install g++ or clang++, or name one by CXX")

    monkeypatch.setattr(kernels, "conv2d", no_compiler)
    options = ["--data-dir", str(idx_folder), "--runs-dir", str(tmp_path / "r"), *HOST]
    assert main(["train", *options]) == 2
    assert "the kernels do not run here: no C++ compiler: install" in capsys.readouterr().err


def test_evaluate(trained, capsys):
    run, data = trained
    capsys.readouterr()
    last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    assert main(["evaluate", str(run), "--json", *HOST]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["images"] == 60
    assert found["accuracy"] == pytest.approx(last["test_accuracy"])
    assert found["loss"] == pytest.approx(last["test_loss"], rel=1e-3)
    assert main(["evaluate", str(run), "--data-dir", str(data), "--device", "cpu"]) == 0
    assert "test accuracy " in capsys.readouterr().out


def test_evaluate_keeps_to_the_models_pooling(trained, capsys):
    assert main(["evaluate", str(trained[0]), "--pool", "avg", "--device", "cpu"]) == 2
    assert "was trained with max-pooling; give one of its kernels" in capsys.readouterr().err


def test_evaluate_with_more_classes_than_the_model(trained, tmp_path, capsys):
    data = write_folder(tmp_path / "data")
    path = data / "train-labels-idx1-ubyte"
    content = bytearray(path.read_bytes())
    content[-1] = 30
    path.write_bytes(content)
    assert main(["evaluate", str(trained[0]), "--data-dir", str(data), "--device", "cpu"]) == 2
    assert "has 31 classes but the run was trained on 10" in capsys.readouterr().err


@pytest.mark.parametrize("mode", ["L", "RGB", "P"])
@pytest.mark.parametrize("invert", [False, True])
def test_predict(trained, tmp_path, capsys, mode, invert):
    paths = [
        str(image_file(tmp_path, label, invert, mode, name=f"{label}.png")) for label in (3, 8)
    ]
    capsys.readouterr()
    options = ["--json", "--device", "cpu", *(["--invert"] if invert else [])]
    assert main(["predict", str(trained[0]), *paths, *options]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["image"] for row in rows] == paths
    assert [row["label"] for row in rows] == [3, 8]
    for row in rows:
        assert sum(row["probabilities"]) == pytest.approx(1, abs=1e-5)
        assert row["probability"] == max(row["probabilities"])


def test_predict_for_a_person_and_transparency(trained, tmp_path, capsys):
    images, _ = squares(10, seed=77)
    strokes = np.zeros((28, 28, 4), np.uint8)
    strokes[..., :3] = 255
    strokes[..., 3] = images[4]
    path = tmp_path / "clear.png"
    Image.fromarray(strokes).save(path)
    capsys.readouterr()
    assert main(["predict", str(trained[0]), str(path), "--device", "cpu"]) == 0
    assert capsys.readouterr().out.startswith(f"{path}: 4 (")


def test_predict_refuses_what_is_no_28x28_image(trained, tmp_path, capsys):
    large = image_file(tmp_path, 1, size=(64, 48), name="large.png")
    deep = tmp_path / "deep.png"
    Image.fromarray(np.zeros((28, 28), np.uint16)).save(deep)
    text = tmp_path / "text.png"
    text.write_text("not an image")
    for path, message in (
        (large, "64x48 pixels; expected 28x28. Resize it first, for instance: python -c"),
        (deep, "its pixels are not bytes"),
        (text, "no image that Pillow can read"),
        (tmp_path / "missing.png", "No such file or directory"),
    ):
        capsys.readouterr()
        assert main(["predict", str(trained[0]), str(path), "--device", "cpu"]) == 2
        assert message in capsys.readouterr().err


def test_an_average_tanh_run_is_remembered(tmp_path, idx_folder, capsys):
    options = [
        "--data-dir",
        str(idx_folder),
        "--runs-dir",
        str(tmp_path / "r"),
        "--name",
        "classic",
    ]
    classic = ["--conv", "reference", "--pool", "avg:reference", "--activation", "tanh"]
    assert main(["train", *options, *classic, "--epochs", "1", "--device", "cpu"]) == 0
    capsys.readouterr()
    run = tmp_path / "r" / "classic"
    assert main(["evaluate", str(run), "--conv", "reference", "--device", "cpu", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    last = json.loads((run / "metrics.jsonl").read_text())
    assert found["accuracy"] == pytest.approx(last["test_accuracy"])


def test_help_imports_nothing_heavy():
    code = (
        "import sys\n"
        "from lenet.__main__ import main\n"
        "try:\n    main(['train', '--help'])\n"
        "except SystemExit as stop:\n    assert stop.code == 0\n"
        "heavy = {'numba', 'sklearn', 'scipy', 'cupy', 'rich', 'PIL', 'safetensors'}\n"
        "heavy |= {'kernels.conv2d_relu_pool.fused'}  # makes its plans\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True)


def test_an_unknown_option_is_usage():
    with pytest.raises(SystemExit) as stop:
        main(["train", "--epoch-count", "3"])
    assert stop.value.code == 2


def test_the_bar_on_a_terminal(tmp_path, idx_folder, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setattr("lenet.progress.REFRESH", 0)
    options = ["--data-dir", str(idx_folder), "--runs-dir", str(tmp_path / "r")]
    assert main(["train", *options, "--epochs", "2", *HOST]) == 0
    assert "epoch 2/2" in capsys.readouterr().out


def test_training_on_the_simulator_is_announced(capsys):
    assert main(["train", "--conv", "naive_numba", *HOST[2:], "--data", "none"]) == 2
    err = capsys.readouterr().err
    assert "lenet: naive_numba will run on Numba's simulator, seconds to minutes an image" in err


def test_training_elsewhere_is_not(capsys):
    assert main(["train", "--conv", "naive", *HOST[2:], "--data", "none"]) == 2
    assert "simulator" not in capsys.readouterr().err
