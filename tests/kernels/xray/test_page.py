"""The X-ray's page in a real browser, on made-up recordings."""

from __future__ import annotations

import pytest
from xray_samples import ACCESS, SOURCE, access, finding, recording

from kernels.resources import Usage
from kernels.xray import gpus, xray_page
from kernels.xray.bound import bound
from kernels.xray.launches import Product, Xray
from kernels.xray.occupancy import occupancy
from kernels.xray.static import Kernel, Report

EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"
LINE = f"#line-1-1-{ACCESS}"


@pytest.fixture
def write(tmp_path):
    def write_(*steps, reports=None, **options):
        xray = Xray("scale", steps, **options)
        path = tmp_path / "page.html"
        missing = ["no NVRTC here"] * len(xray.recordings)
        path.write_text(xray_page.build(xray, reports or missing), encoding="utf-8")
        return path

    return write_


def conflict(path):
    return access(
        range(0, 1024, 32), space="shared", array="tile", file=str(path), wavefronts=32,
        ideal_wavefronts=1,
    )  # fmt: skip


def test_a_line_opens_by_mouse_and_closes_by_keyboard(write, open_page, tmp_path):
    made = recording(tmp_path / "scale.cu", accesses=(conflict(tmp_path / "scale.cu"),))
    shown = open_page(write(made))
    assert shown.locator(".warp").count() == 0
    shown.locator(f"{LINE} code").click()
    detail = shown.locator(f"{LINE} + tr.detail")
    assert detail.locator(".row").count() == 1 + 32  # the banks' numbers, then the wavefronts
    first = detail.locator(".row").nth(1).locator(".words > span")
    assert first.count() == 32
    assert first.all_inner_texts() == ["0"] + [""] * 31
    button = shown.locator(f"{LINE} button")
    assert button.get_attribute("aria-expanded") == "true"
    button.focus()
    shown.keyboard.press("Enter")
    assert detail.count() == 0
    assert button.get_attribute("aria-expanded") == "false"


def test_lanes_on_sectors_and_from_lane_to_lane_by_arrow_keys(write, open_page, tmp_path):
    shown = open_page(write(recording(tmp_path / "scale.cu")))
    shown.locator(f"{LINE} button").click()
    strided, plain = shown.locator(".warp").all()
    assert strided.locator(".row").count() == 32
    assert strided.locator(".in-sector").count() == 32 * 7  # what comes along with each word
    assert plain.locator(".row").count() == 1
    assert plain.locator(".words > span").all_inner_texts() == [str(lane) for lane in range(32)]
    assert strided.locator("output").inner_text() == "lane 0: x[0]"
    strided.focus()
    shown.keyboard.press("ArrowRight")
    assert strided.locator("output").inner_text() == "lane 1: x[32]"
    shown.keyboard.press("ArrowLeft")
    shown.keyboard.press("ArrowLeft")
    assert strided.locator("output").inner_text() == "lane 31: x[992]"
    assert strided.locator(".chosen").inner_text() == "31"


def test_a_broadcast_and_lanes_at_rest(write, open_page, tmp_path):
    path = tmp_path / "scale.cu"
    made = recording(path, accesses=(access([4] * 31, file=str(path), sectors=1),))
    shown = open_page(write(made))
    shown.locator(f"{LINE} button").click()
    assert shown.locator(".words > .lane").all_inner_texts() == ["\u00d731"]
    assert "the same words as 30 other lanes" in shown.locator("output").inner_text()
    shown.locator(".warp").press("ArrowLeft")
    assert shown.locator("output").inner_text() == "lane 31 is not active"


def test_findings_lead_to_their_lines(write, open_page, tmp_path):
    path = tmp_path / "scale.cu"
    first = recording(path)
    second = recording(path, kernel="again", findings=(finding(path),))
    shown = open_page(write(first, second))
    assert shown.locator("nav a").all_inner_texts() == ["Findings", "scale", "again"]
    link = shown.locator(".findings a")
    assert "y[32]" in link.inner_text()
    link.click()
    assert shown.url.endswith(f"#line-2-1-{ACCESS}")
    assert shown.locator(":target").get_attribute("class") == "has-detail fault hot"
    assert "writes y[32]" in shown.locator(".findings").inner_text()


def test_figures_stand_beside_their_line(write, open_page, tmp_path):
    shown = open_page(write(recording(tmp_path / "scale.cu")))
    row = shown.locator(LINE)
    cells = {
        name: row.locator(f"td.{name}").inner_text()
        for name in ("share", "sectors", "efficiency", "wavefronts", "lanes", "flops")
    }
    assert cells == {
        "share": "100%", "sectors": "18 (4)", "efficiency": "22%", "wavefronts": "", "lanes": "32",
        "flops": "32",
    }  # fmt: skip
    assert row.locator("code").inner_text() == SOURCE.splitlines()[ACCESS - 1]


def test_the_bound_is_called_so_and_its_longest_bar_binds(write, open_page, tmp_path):
    made = recording(tmp_path / "scale.cu")
    gpu = gpus.find("t4")
    kernel = Kernel(Usage("scale", 16, 0, 0, 0, 0), gpu.arch, {}, None, "nvdisasm is missing")
    report = Report(gpu, kernel, occupancy(gpu, 32, 16), bound(made, gpu))
    shown = open_page(write(made, reports=[report]))
    assert "A bound, not a time" in shown.locator("#launch-1").inner_text()
    bars = {
        row.locator("th").inner_text(): row.locator(".bar").bounding_box()["width"]
        for row in shown.locator(".bound tr").all()
    }
    assert [name for name in bars if "binds" in name] == [max(bars, key=bars.get)]
    assert f"{report.bound.terms[0].seconds * 1e9:.3g} ns" in shown.locator(".binding").inner_text()
    assert "nvdisasm is missing" in shown.locator("#launch-1").inner_text()


def test_a_sample_and_a_product_are_told(write, open_page, tmp_path):
    part = recording(tmp_path / "scale.cu", blocks=8, blocks_traced=2)
    shown = open_page(write(part, Product(2, 3, 4)))
    assert "Sampled: 2 of 8 blocks" in shown.locator("p.warning").inner_text()
    assert "Not traced: matrix product (2 x 4) (4 x 3)" in shown.locator("#launch-1").inner_text()


def test_what_comes_from_a_file_is_text(write, open_page, tmp_path):
    path = tmp_path / "scale.cu"
    text = SOURCE.replace("y[i] =", f"/* {EVIL} */ y[i] =")
    accesses = (access(range(32), array=EVIL, file=str(path), sectors=4),)
    made = recording(
        path, text, accesses=accesses, kernel=EVIL, defines={"A": EVIL},
        findings=(finding(path, message=EVIL, array=EVIL),),
    )  # fmt: skip
    shown = open_page(write(made))
    shown.locator(f"{LINE} button").click()
    assert EVIL in shown.locator(".detail").inner_text()
    assert EVIL in shown.locator(f"{LINE} code").inner_text()
    assert shown.locator("img").count() == 0  # and open_page fails at a dialogue


@pytest.mark.parametrize("width", [400, 1200])
def test_nothing_is_wider_than_the_screen(write, open_page, tmp_path, width):
    path = tmp_path / "scale.cu"
    long = SOURCE.replace("2 * x", "2 * /*" + 200 * "y" + "*/ x")
    made = recording(path, long, findings=(finding(path),))
    shown = open_page(write(made), width=width)
    shown.locator(f"{LINE} button").click()
    assert shown.evaluate("document.documentElement.scrollWidth") <= width
    cell = shown.locator(".warp .words > .lane").first.bounding_box()
    assert cell["width"] >= 8


@pytest.mark.parametrize("color_scheme", ["light", "dark"])
def test_lanes_and_faults_stand_out(write, open_page, tmp_path, color_scheme):
    path = tmp_path / "scale.cu"
    shown = open_page(write(recording(path, findings=(finding(path),))), color_scheme=color_scheme)
    shown.locator(f"{LINE} button").click()
    for pair in shown.evaluate(
        """() => ["tr.fault code", ".words > .lane"].map((name) => {
            const own = document.querySelector(name), ink = getComputedStyle(own).color;
            let at = own, paper = "rgba(0, 0, 0, 0)";
            for (; paper === "rgba(0, 0, 0, 0)"; at = at.parentElement)
                paper = getComputedStyle(at).backgroundColor;
            return [ink, paper];
        })"""
    ):
        darker, lighter = sorted(map(luminance, pair))
        assert (lighter + 0.05) / (darker + 0.05) > 4.5  # WCAG's contrast for text


def luminance(css: str) -> float:
    channels = [float(c) / 255 for c in css.removeprefix("rgb(").rstrip(")").split(",")]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
