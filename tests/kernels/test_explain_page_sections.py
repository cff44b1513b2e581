"""The other sections of explain's page: receptive field, pooling, 1x1, an image, LeNet; errors."""

from __future__ import annotations

import base64
import json
import os
import re

import numpy as np
import pytest
from explain_pages import cell, data_of, grid, layers, numbers, values, view, write
from PIL import Image
from safetensors.numpy import save_file
from scipy import ndimage

import kernels
from kernels import explain
from kernels.explain_page import learned, picture
from kernels.explain_page.examples import INPUT, example
from lenet.checkpoint import Checkpoint, Run
from lenet.choice import Choice
from lenet.model import build_model

SMALL = "--input 6x6x2 --filters 2 --size 3"
EVIL = "<img src=x onerror=alert(1)>"


@pytest.fixture
def page_file(tmp_path):
    return tmp_path / "page.html"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of the trainer with fresh weights, as it writes one, and its model."""
    model = build_model(choice=Choice("reference", "max_pool2d", "reference"), seed=3)
    weights = model.tensors(model.weights)
    folder = tmp_path_factory.mktemp("runs") / "fresh"
    config = {"format": "conv-kernel-lab lenet 1", "activation": "relu", "pool": "max:reference"}
    made = Run.create(folder, config | {"mean": 0.15, "std": 0.3})
    velocity = {name: np.zeros_like(array) for name, array in weights.items()}
    made.save(Checkpoint(weights, velocity, 0, np.empty(0), np.empty(0)))
    return folder, model


def decoded(text):
    return np.frombuffer(base64.b64decode(text), "<f4")


def point(canvas, extents, row, column):
    """Move the pointer to the middle of a map's cell."""
    box = canvas.bounding_box()
    down, across = box["height"] / extents[0], box["width"] / extents[1]
    canvas.hover(position={"x": (column + 0.5) * across, "y": (row + 0.5) * down})


def said(of_view):
    return of_view.locator("output").inner_text()


def test_the_receptive_field_reaches_down_to_the_input(page_file, open_page):
    specs = ["5x5 filters 6 padding 2", "pool 2x2", "3x3 filters 4 dilation 2 stride 2"]
    shown = open_page(write(page_file, "--input 28x28x1", *layers(*specs)))
    field = view(shown, "field")
    canvases = field.locator("canvas")
    assert field.locator("figcaption").all_inner_texts() == [
        "Input, 28x28", "Layer 1: 5x5 filters 6 padding 2, 28x28", "Layer 2: pool 2x2, 14x14",
        "Layer 3: 3x3 filters 4 dilation 2 stride 2, 5x5",
    ]  # fmt: skip
    r, s = kernels.receptive_field([5, (2, 2), (3, 2, 2)])
    point(canvases.nth(3), (5, 5), 2, 1)
    # Row 2 of layer 3 has its taps on rows 4, 6 and 8 of layer 2, those on 8 to 17 of layer 1.
    assert said(field).startswith(
        "Unit (2, 1) of layer 3 depends on 3x3 of layer 2, 6x6 of layer 1, 14x14 of the input: "
        "rows 6 to 19, columns 2 to 15."
    )
    assert (r, s) == (14, 14)
    assert f"Its receptive field is {r}x{s}; receptive_field: 14x14, the same." in said(field)
    canvases.nth(3).press("PageUp")
    assert "rows 0 to 11, columns 2 to 15" in said(field)
    assert "The rest is padding" in said(field)
    canvases.nth(1).press("End")
    assert said(field).startswith("Unit (0, 27) of layer 1 depends on 3x3 of the input")


def test_a_layer_alone_is_stacked_on_itself(page_file):
    write(page_file, "--input 9x9x3 --filters 2 --size 3")
    stack = data_of(page_file)["field"]["layers"]
    assert [one["receptive_field"] for one in stack] == [[3, 3], [5, 5], [7, 7], [9, 9]]
    write(page_file, "--input 6x9x3 --filters 2 --size 5x2")
    assert len(data_of(page_file)["field"]["layers"]) == 1


def test_pooling_with_its_maximum_and_mean(page_file, open_page):
    shown = open_page(write(page_file, "--input 7x9x2", *layers("pool 3 stride 2 padding 1")))
    pooling = view(shown, "pooling")
    x = example(INPUT, 1, np.arange(2 * 7 * 9)).reshape(1, 2, 7, 9)
    y, argmax = kernels.max_pool2d(
        x, 3, stride=2, padding=1, kernel="reference", return_argmax=True
    )
    mean = kernels.avg_pool2d(x, 3, stride=2, padding=1, kernel="reference")
    pooling.get_by_label("channel", exact=True).fill("1")
    assert np.array_equal(values(grid(pooling, "The maximum")), y[0, 1])
    assert np.allclose(values(grid(pooling, "The average")), mean[0, 1], atol=0.005)
    for p, q in ((0, 0), (1, 3), (3, 4)):
        cell(grid(pooling, "The maximum"), p, q).hover()
        row, column = divmod(int(argmax[0, 1, p, q]), 9)
        assert f"first at row {row}, column {column};" in said(pooling)
        assert "max_pool2d and avg_pool2d: the same" in said(pooling)
        chosen = grid(pooling, "input").locator(".chosen")
        assert chosen.get_attribute("data-place") == f"{row + 1} {column + 1}"
    assert grid(pooling, "input").locator(".pad").first.inner_text() == "-"


def test_1x1_is_the_same_network_at_every_pixel(page_file, open_page):
    shown = open_page(write(page_file, "--input 6x6x5 --filters 2 --size 3"))
    mlp = view(shown, "pixelwise")
    x = np.array([values(one) for one in grid(mlp, "Input").all()])
    weights = [values(grid(mlp, name)) for name in ("W1", "b1", "W2", "b2")]
    assert [one.shape for one in weights] == [(4, 5), (4, 1), (3, 4), (3, 1)]
    w1, b1, w2, b2 = weights
    y = w2 @ np.maximum(w1 @ x.reshape(5, 16) + b1, 0) + b2
    outputs = np.array([values(one) for one in grid(mlp, "Output").all()])
    assert np.array_equal(outputs, y.reshape(3, 4, 4))
    cell(grid(mlp, "Output, channel 1"), 3, 2).hover()
    assert np.array_equal(values(grid(mlp, "y2"))[:, 0], outputs[:, 3, 2])
    assert said(mlp).count("the same") == 2


@pytest.mark.parametrize("name", picture.FILTERS)
def test_named_filters_are_those_of_scipy(name):
    x = picture.drawn()
    shown = {one["name"]: one for one in picture.through_filters(x, "")["filters"]}[name]
    y = decoded(shown["y"]).reshape(x.shape)
    wanted = ndimage.correlate(x, np.array(shown["filter"]), mode="constant")
    assert np.allclose(y, wanted, atol=1e-3)


def test_an_image_through_filters_and_through_ones_own(page_file, open_page, tmp_path):
    image = tmp_path / f"{EVIL}.png"
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    Image.fromarray(pixels).save(image)
    shown = open_page(write(page_file, SMALL, "--image", os.fspath(image)))
    part = view(shown, "picture")
    grey = np.asarray(Image.open(image).convert("L")).astype(float)
    before, after = part.locator("canvas").all()
    assert part.locator("figcaption").first.inner_text() == f"{EVIL}.png, 40x60"
    assert shown.locator("img").count() == 0  # and open_page fails at a dialogue
    part.get_by_role("combobox").select_option("sharpen")
    point(after, (40, 60), 20, 31)
    sharpen = np.array(picture.FILTERS["sharpen"])
    patch = grey[19:22, 30:33]
    assert np.array_equal(values(grid(part, "Patch")), patch)
    assert np.array_equal(values(grid(part, "Products")), patch * sharpen)
    y = (patch * sharpen).sum()
    assert f"; sum {y:g}. conv2d: {y:g}, the same." in said(part)
    part.get_by_label("weight in row 0, column 2").fill("0.5")
    y += 0.5 * patch[0, 2]
    assert f"; sum {y:g}. Worked out in this page." in said(part)
    assert part.get_by_role("combobox").input_value() == "your own"
    own = np.add(sharpen, [[0, 0, 0.5], [0, 0, 0], [0, 0, 0]])
    level = np.clip(ndimage.correlate(grey, own, mode="constant"), 0, 255)[5, 8]
    painted = after.evaluate(  # a cell is 6 pixels, drawn twice as fine
        "one => [...one.getContext('2d').getImageData(8 * 12 + 6, 5 * 12 + 6, 1, 1).data]"
    )
    assert painted == [round(level)] * 3 + [255]
    before.press("ArrowUp")
    assert said(part).startswith("Pixel (19, 31):")


def test_lenets_maps_are_the_models(run, page_file, open_page):
    folder, model = run
    file = folder / "checkpoint.safetensors"
    write(page_file, SMALL, "--checkpoint", os.fspath(folder))
    by_folder = data_of(page_file)
    shown = open_page(write(page_file, SMALL, "--checkpoint", os.fspath(file)))
    assert data_of(page_file) == by_folder
    x = ((learned.digit() / 255 - 0.15) / 0.3)[None, None].astype(np.float32)
    outputs = {}
    for layer in model.layers:
        x = layer.forward(x)
        outputs[layer.name] = x.copy()  # the next may work in place
        if layer.name == "pool2":
            break
    for at, (name, side) in enumerate((("conv1", 28), ("conv2", 10))):
        stage = view(shown, "learned", at)
        point(stage.get_by_label(f"map 5 of {name};"), (side, side), 3, 7)
        number = re.search(r"Map 5, unit \(3, 7\): .* conv2d: (\S+), the same\.", said(stage))[1]
        assert float(number) == pytest.approx(outputs[name][0, 5, 3, 7], abs=0.006)
        stage.get_by_label(f"map 0 of {name};").press("ArrowRight")
        assert said(stage).startswith("Map 0, unit (0, 1)")
    pooled = data_of(page_file)["learned"]["stages"][1]["pooled"]
    got = decoded(pooled["values"])
    assert np.allclose(got, outputs["pool2"].ravel(), atol=1e-4)


def test_without_a_checkpoint_it_says_how_to_get_one(page_file, open_page):
    shown = open_page(write(page_file, SMALL))
    assert "python -m lenet train" in shown.locator("#lenet").inner_text()


def test_json_and_a_page_in_one(page_file, capsys):
    assert explain.main([*SMALL.split(), "--json", "--html", str(page_file)]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["output"] == [1, 2, 4, 4]
    assert str(page_file) in captured.err
    assert page_file.read_text(encoding="utf-8").startswith("<!doctype html>")


def test_no_bias_is_none_on_the_page(page_file, open_page):
    shown = open_page(write(page_file, SMALL, "--no-bias"))
    assert "bias" not in said(view(shown, "sliding"))
    x, w, _ = numbers(kernels.Conv2dShape.of((1, 2, 6, 6), (2, 2, 3, 3)))
    y = kernels.conv2d(x, w, kernel="reference")
    assert np.array_equal(values(grid(view(shown, "sliding"), "Output")), y[0, 0])


def refused(capsys, *words):
    assert explain.main([word for one in words for word in one.split(" ") if word]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    return captured.err.rstrip("\n")


def test_bad_files_are_one_clear_line(capsys, tmp_path, page_file, run):
    page_to = f"--html {page_file}"
    text = tmp_path / "text.txt"
    text.write_text("no image")
    assert refused(capsys, SMALL, page_to, f"--image {text}") == (
        f"explain: --image {text}: no image that Pillow can read; expected one of PNG, JPEG, GIF, "
        "BMP, WEBP, TIFF, PPM"
    )
    assert refused(capsys, SMALL, page_to, f"--image {tmp_path}/none.png") == (
        f"explain: --image {tmp_path}/none.png: No such file or directory"
    )
    deep = tmp_path / "deep.png"
    Image.fromarray(np.zeros((4, 4), np.uint16)).save(deep)
    assert "its pixels are not bytes" in refused(capsys, SMALL, page_to, f"--image {deep}")
    wanted = "expected a run of `python -m lenet train`, such as runs/NAME/checkpoint.safetensors"
    for name, why in (
        ("none", "there is no such file"),
        ("text.txt", "it cannot be read as safetensors"),
    ):
        path = tmp_path / name
        got = refused(capsys, SMALL, page_to, f"--checkpoint {path}")
        assert got == f"explain: --checkpoint {path}: {why}; {wanted}"
    other = tmp_path / "other.safetensors"
    save_file({"w": np.zeros(3)}, other)
    assert f"{other}: not of LeNet; {wanted}" in refused(
        capsys, SMALL, page_to, f"--checkpoint {other}"
    )
    alone = tmp_path / "alone.safetensors"
    alone.write_bytes((run[0] / "checkpoint.safetensors").read_bytes())
    assert "no config.json of its run" in refused(capsys, SMALL, page_to, f"--checkpoint {alone}")
    assert not page_file.exists()


def test_a_page_that_cannot_be_written_or_drawn_is_one_clear_line(capsys, tmp_path, page_file):
    page_to = f"--html {page_file}"
    for bad, why in (
        (tmp_path / "none" / "p.html", f"there is no directory {tmp_path}/none"),
        (tmp_path, "there is something that is no page of this lab"),
    ):
        assert refused(capsys, SMALL, f"--html {bad}") == f"explain: --html {bad}: {why}"
    page_file.write_text("mine")
    assert "no page of this lab" in refused(capsys, SMALL, page_to)
    page_file.unlink()
    assert refused(capsys, page_to) == (
        "explain: --input is missing; expected --input HxWxC --filters K --size RxS, or --layer "
        "for a network"
    )
    assert refused(capsys, page_to, "--layer 3x3") == (
        "explain: --html draws the layers' numbers; add --input HxWxC"
    )
    assert refused(capsys, page_to, "--input 9x9x1 --layer 3x3") == (
        "explain: --html draws the layers' numbers; layer 1 (3x3) has no filters: "
        '--layer "3x3 filters 16"'
    )
    assert refused(capsys, SMALL, "--image a.png") == "explain: --image goes with --html PAGE only"
    assert refused(capsys, page_to, "--input 99x99x3000 --filters 1 --size 9") == (
        "explain: layer 1 (1 filters of 9x9 on 99x99x3000): 243,000 products an output; expected "
        "at most 131,072 for a page: leave --html out, or explain a smaller layer of the same kind"
    )
    write(page_file, SMALL)
    write(page_file, SMALL)  # a page of ours is written anew
