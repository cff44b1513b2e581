"""The page of ``explain --html`` in a real browser: what is pointed at against conv2d and NumPy."""

from __future__ import annotations

import io

import numpy as np
import pytest
from explain_pages import cell, grid, layers, numbers, total, values, view, write
from PIL import Image

import kernels
from kernels import explain
from kernels.explain_page import examples
from kernels.shapes import Conv2dShape

LECTURE = "--input 5x5x3 --filters 32 --size 3"
LAYERS = {
    "stride 2": ("--input 9x8x2 --filters 3 --size 3 --stride 2", {"stride": 2}),
    "same": ("--input 6x7x3 --filters 2 --size 3 --stride 2 --padding same",
             {"stride": 2, "padding": "same"}),
    "dilation 2": ("--input 9x9x1 --filters 2 --size 3 --dilation 2", {"dilation": 2}),
    "asymmetric": ("--input 7x6x2 --filters 2 --size 4x2 --stride 1x3 --padding 0,2,3,1",
                   {"stride": (1, 3), "padding": ((0, 2), (3, 1))}),
    "tiles": ("--input 31x40x2 --filters 2 --size 3x5 --padding 1", {"padding": 1}),
}  # fmt: skip


@pytest.fixture
def page_file(tmp_path):
    return tmp_path / "page.html"


def shape_of(line, options):
    words = line.split()
    h, w, c = map(int, words[1].split("x"))
    size = [int(extent) for extent in words[5].split("x")]
    return Conv2dShape.of((1, c, h, w), (int(words[3]), c, *(size * 2)[:2]), **options)


def patches(x, shape, p, q):
    """Return what an output sees, (C, R, S), cut out of the padded input."""
    padded = np.pad(x[0], ((0, 0), *shape.padding))
    top, left = p * shape.stride_h, q * shape.stride_w
    height, width = shape.window
    seen = padded[:, top : top + height, left : left + width]
    return seen[:, :: shape.dilation_h, :: shape.dilation_w]


@pytest.mark.parametrize("name", LAYERS)
def test_what_is_pointed_at_is_what_conv2d_sums(name, page_file, open_page):
    line, options = LAYERS[name]
    shape = shape_of(line, options)
    x, w, b = numbers(shape)
    y = kernels.conv2d(x, w, b, kernel="reference", **options)[0]
    shown = open_page(write(page_file, line))
    sliding, channels = view(shown, "sliding"), view(shown, "channels")
    output = grid(sliding, "Output")
    k = shape.k - 1
    sliding.get_by_label("filter", exact=True).fill(str(k))
    first = values(output)
    assert np.array_equal(first, y[k, : first.shape[0], : first.shape[1]])
    places = [(0, 0), (first.shape[0] - 1, first.shape[1] // 2), (0, first.shape[1] - 1)]
    for p, q in places:
        cell(output, p, q).hover()
        assert total(sliding) == total(channels) == ((p, q), k, y[k, p, q])
        patch = patches(x, shape, p, q)
        for what, wanted in (("Patch", patch), ("Filter", w[k]), ("Products", patch * w[k])):
            cells = [values(one) for one in grid(channels, what).all()]
            assert np.array_equal(cells, wanted)
        taps = grid(sliding, "input").locator(".tap").all_inner_texts()
        assert np.array_equal(np.array(taps, float), patch[0].ravel())


def test_padding_and_the_gaps_of_dilation_are_marked(page_file, open_page):
    shown = open_page(
        write(page_file, "--input 5x4x1 --filters 1 --size 2 --dilation 2 --padding 1,0,2,0")
    )
    cells = grid(view(shown, "sliding"), "input")
    assert cells.locator(".pad").count() == 6 * 6 - 5 * 4
    assert cells.locator(".pad:not(.tap)").first.inner_text() == "0"
    assert cells.locator(".tap").count() == 4
    assert cells.locator(".gap").count() == 9 - 4
    pad, tap = (
        cells.locator(css).first.evaluate("one => getComputedStyle(one).borderTopStyle")
        for css in (".pad:not(.tap):not(.gap)", ".tap:not(.pad)")
    )
    assert (pad, tap) == ("dashed", "solid")  # not by colour alone


def test_the_window_follows_a_pointer_on_the_input(page_file, open_page):
    shown = open_page(write(page_file, "--input 9x9x1 --filters 1 --size 3 --stride 2"))
    sliding = view(shown, "sliding")
    cell(grid(sliding, "input"), 5, 3).hover()
    assert total(sliding)[0] == (2, 1)


def test_same_beside_valid_where_no_padding_is_given(page_file, open_page):
    shown = open_page(write(page_file, "--input 6x6x2 --filters 3 --size 3 --stride 2"))
    x, w, b = numbers(Conv2dShape.of((1, 2, 6, 6), (3, 2, 3, 3)))
    sliding = view(shown, "sliding")
    for padding in ("valid", "same"):
        sliding.get_by_role("combobox", name="padding").select_option(padding)
        y = kernels.conv2d(x, w, b, stride=2, padding=padding, kernel="reference")
        assert np.array_equal(values(grid(sliding, "Output")), y[0, 0])
    assert grid(sliding, "input").locator(".pad").count() == 7 * 7 - 6 * 6
    assert "the same" in view(shown, "im2col").locator("output").inner_text()


def test_the_lectures_matrices_are_those_of_numpy(page_file, open_page):
    shown = open_page(write(page_file, LECTURE))
    x, w, b = numbers(Conv2dShape.of((1, 3, 5, 5), (32, 3, 3, 3)))
    windows = np.lib.stride_tricks.sliding_window_view(x[0], (3, 3), axis=(1, 2))
    x_col = windows.transpose(0, 3, 4, 1, 2).reshape(27, 9)
    w_row = w.reshape(32, 27)
    im2col = view(shown, "im2col")
    wanted = {"W_row": w_row, "X_col": x_col, "the product": w_row @ x_col + b[:, None]}
    for label, matrix in wanted.items():
        assert np.array_equal(values(grid(im2col, label)), matrix)
    captions = im2col.locator("figcaption").all_inner_texts()
    assert captions == ["Input, channel 0", "W_row: 32x27", "X_col: 27x9", "W_row X_col + b: 32x9"]
    # Number 22 of column 5 is tap (1, 1) of channel 2 under output (1, 2).
    cell(grid(im2col, "X_col"), 22, 5).hover()
    said = im2col.locator("output").inner_text()
    assert said.startswith(f"X_col[22, 5] = {x[0, 2, 2, 3]:g}: input channel 2, row 2, column 3;")
    assert grid(im2col, "input").locator(".chosen").get_attribute("data-place") == "2 3"
    assert grid(im2col, "X_col").locator(".column").count() == 27
    assert grid(im2col, "the product").locator(".chosen").inner_text() == str(
        int(wanted["the product"][0, 5])
    )
    cell(grid(im2col, "the product"), 7, 3).hover()
    assert total(im2col) == ((1, 0), 7, wanted["the product"][7, 3])
    assert grid(im2col, "W_row").locator(".row").count() == 27


def test_every_grid_is_at_hand_for_the_keyboard(page_file, open_page):
    line, options = LAYERS["tiles"]
    shape = shape_of(line, options)
    x, w, b = numbers(shape)
    y = kernels.conv2d(x, w, b, kernel="reference", **options)[0]
    shown = open_page(write(page_file, line))
    sliding, im2col = view(shown, "sliding"), view(shown, "im2col")
    output = grid(sliding, "Output")

    def pressed(*keys):
        for key in keys:
            output.press(key)
        place, _, here = total(sliding)
        assert here == y[0][place]
        return place

    assert pressed("ArrowRight", "ArrowDown", "ArrowDown") == (2, 1)
    assert pressed("End") == (2, shape.q - 1)  # in another tile, which comes into sight
    assert pressed("PageDown", "ArrowLeft") == (shape.p - 1, shape.q - 2)
    assert pressed("Home", "PageUp", "ArrowUp") == (0, 0)
    chosen = output.get_attribute("aria-activedescendant")
    assert shown.locator(f"#{chosen}").inner_text() == f"{y[0, 0, 0]:g}"
    x_col = grid(im2col, "X_col")
    x_col.press("PageDown")
    assert im2col.locator("output").inner_text().startswith("X_col[29, 0] =")
    focusable = shown.locator("[role=grid], [role=application]")
    assert focusable.evaluate_all("all => all.every((one) => one.tabIndex === 0 && one.ariaLabel)")
    sliding.locator("button").first.focus()
    shown.keyboard.press("Tab")
    assert shown.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"


def test_space_plays_and_steps_where_motion_is_unwanted(page_file, open_page, tab):
    write(page_file, LECTURE)
    shown = open_page(page_file)
    sliding = view(shown, "sliding")
    grid(sliding, "Output").press("Space")
    assert total(sliding)[0] == (0, 1)
    sliding.get_by_text("Output (0, 2) of filter 0").wait_for()
    grid(sliding, "Output").press("Space")
    assert sliding.get_by_role("button", name="Play").is_visible()
    tab.emulate_media(reduced_motion="reduce")
    try:
        shown.reload()
        for _ in range(3):
            sliding.get_by_role("button", name="Step").click()
        assert total(sliding)[0] == (1, 0)  # on to the next row
    finally:
        tab.emulate_media(reduced_motion="no-preference")


def test_a_large_layer_is_shown_in_windows(page_file, open_page):
    write(page_file, "--input 224x224x64 --filters 64 --size 3 --padding same")
    assert page_file.stat().st_size < 2e6
    shown = open_page(page_file)
    assert shown.evaluate("document.querySelectorAll('*').length") < 10_000
    sliding = view(shown, "sliding")
    captions = sliding.locator("figcaption").all_inner_texts()
    assert (
        captions[0] == "Input, channel 0: 224x224, padded 226x226, rows -1 to 12, columns -1 to 12"
    )
    assert captions[2] == "Output, filter 0, of the first 38 of 64: 224x224"
    sliding.get_by_label("output rows").select_option("212 to 223")
    sliding.get_by_label("output columns").select_option("106 to 117")
    sliding.get_by_label("channel", exact=True).fill("63")
    cell(grid(sliding, "Output"), 11, 4).hover()
    shape = Conv2dShape.of((1, 64, 224, 224), (64, 64, 3, 3), padding="same")
    x, w, b = numbers(shape)
    bottom = np.ascontiguousarray(x[:, :, 222:, 109:112])
    one = kernels.conv2d(bottom, w[:1], b[:1], padding=((0, 1), (0, 0)), kernel="reference")
    assert total(sliding) == ((223, 110), 0, one[0, 0, 0, 0])
    assert (
        "Shown: channels 60 to 63 of 64" in view(shown, "channels").locator("output").inner_text()
    )
    im2col = view(shown, "im2col")
    caption = "X_col: 576x50176, rows 536 to 567, 16 of the columns 49835 to 50062"
    assert im2col.locator("figcaption").nth(2).inner_text() == caption
    for key in ("PageUp", "ArrowDown"):
        grid(im2col, "X_col").press(key)
    assert im2col.locator("output").inner_text().startswith("X_col[1, 50062] =")
    assert "rows 0 to 31" in im2col.locator("figcaption").nth(2).inner_text()


def test_many_layers_stay_under_the_cap(page_file, capsys):
    specs = layers(*["pool 1 stride 1"] * 48)
    assert explain.main(["--input", "224x224x9", *specs, "--html", str(page_file)]) == 0
    assert 1e6 < page_file.stat().st_size < 2e6
    capsys.readouterr()
    assert (
        explain.main(["--input", "9x9x9", *specs, "--layer", "pool 1", "--html", str(page_file)])
        == 2
    )
    assert capsys.readouterr().err == "explain: 49 layers; expected at most 48 on a page\n"


def test_a_view_is_saved_as_a_png_of_its_size(page_file, open_page):
    shown = open_page(write(page_file, LECTURE))
    sliding = view(shown, "sliding")
    with shown.expect_download() as download:
        sliding.get_by_role("button", name="Save as PNG").click()
    assert download.value.suggested_filename == "layer-1-32-filters-of-3x3-on-5x5x3-sliding.png"
    image = Image.open(io.BytesIO(download.value.path().read_bytes()))
    assert image.format == "PNG"
    extent = sliding.evaluate(
        """view => {
            const range = document.createRange();
            range.selectNodeContents(view.querySelector(".said"));
            const said = range.getBoundingClientRect();
            const grids = [...view.querySelectorAll(".cells")].map((one) =>
                one.getBoundingClientRect());
            const right = Math.max(said.right, ...grids.map((one) => one.right));
            const bottom = Math.max(...grids.map((one) => one.bottom));
            return [right - said.left, bottom - said.top];
        }"""
    )
    assert image.size == pytest.approx([2 * (length + 24) for length in extent], abs=2)
    # A tap's colour is where the tap is.
    tap = sliding.locator(".tap").nth(4)
    box, colour = tap.bounding_box(), tap.evaluate("one => getComputedStyle(one).backgroundColor")
    said = sliding.locator(".said").bounding_box()
    at = [2 * (box[axis] + 4 - said[axis] + 12) for axis in ("x", "y")]
    assert f"rgb{image.convert('RGB').getpixel(tuple(map(int, at)))}" == colour


def test_a_conv2d_that_is_wrong_is_found_out(page_file, open_page, monkeypatch):
    right = examples.operations.conv2d
    monkeypatch.setattr(examples.operations, "conv2d", lambda *a, **b: right(*a, **b) + 1)
    shown = open_page(write(page_file, LECTURE))
    assert "WHICH DIFFERS" in view(shown, "sliding").locator("output").inner_text()
    assert "WHICH DIFFERS" in view(shown, "im2col").locator("output").inner_text()


@pytest.mark.parametrize("width", [400, 800])
def test_nothing_is_wider_than_the_screen(width, page_file, open_page):
    shown = open_page(write(page_file, "--input 40x40x5 --filters 33 --size 5"), width=width)
    assert shown.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("color_scheme", ["light", "dark"])
def test_numbers_stand_out(color_scheme, page_file, open_page):
    path = write(page_file, "--input 5x5x1 --filters 2 --size 3 --padding 1")
    shown = open_page(path, color_scheme=color_scheme)
    for css in (".tap", ".pad:not(.tap)", ".row", ".head"):
        ink, paper = shown.locator(f".cells {css}").first.evaluate(
            """own => {
                const ink = getComputedStyle(own).color;
                let paper = "rgba(0, 0, 0, 0)";
                for (let at = own; paper === "rgba(0, 0, 0, 0)"; at = at.parentElement)
                    paper = getComputedStyle(at).backgroundColor;
                return [ink, paper];
            }"""
        )
        darker, lighter = sorted(map(luminance, (ink, paper)))
        assert (lighter + 0.05) / (darker + 0.05) > 4.5  # WCAG's contrast for text


def luminance(css):
    channels = [float(c) / 255 for c in css.removeprefix("rgb(").rstrip(")").split(",")]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
