"""The report, in a real browser: what its charts hold is what the files hold."""

import json
import re

import pytest

from kernels import table
from profiling import units
from profiling.__main__ import main
from tests.profiling import made_up_results

CONV = "conv2d-forward-float32"


@pytest.fixture(scope="module")
def gpu(tmp_path_factory):
    """A page of one GPU file, and the file's rows."""
    path = tmp_path_factory.mktemp("gpu") / "gpu.jsonl"
    rows = made_up_results.write(path)
    assert main(["report", str(path)]) == 0
    return path.with_suffix(".html"), rows


@pytest.fixture(scope="module")
def shown(browser, gpu):
    """The page, opened once for the tests that only look at it."""
    context = browser.new_context(viewport={"width": 1200, "height": 900})
    page = context.new_page()
    page.goto(gpu[0].as_uri())
    yield page
    context.close()


@pytest.fixture
def page_of(tmp_path, open_page):
    """Opens the page of files: of their paths."""

    def page_of_(*paths, **options):
        output = tmp_path / "page.html"
        assert main(["report", *map(str, paths), "-o", str(output)]) == 0
        return open_page(output, **options)

    return page_of_


def data(shown, name):
    """Return a chart's traces by name, and its layout, as Plotly has them."""
    traces, layout = shown.evaluate(
        f"(() => {{ const c = document.getElementById('{name}'); return [c.data, c.layout]; }})()"
    )
    return {trace.get("name", ""): trace for trace in traces}, layout


def labels(layout):
    return dict(zip(layout["yaxis"]["tickvals"], layout["yaxis"]["ticktext"], strict=True))


def of_pass(rows, group, direction="forward"):
    return [row for row in rows if row.group == group and row.direction == direction]


def largest(rows, group, direction="forward"):
    found = of_pass(rows, group, direction)
    return [row for row in found if row.shape["n"] == max(r.shape["n"] for r in found)]


def test_the_ladder_holds_the_files_ratios_in_the_tables_order(gpu, shown):
    rows = gpu[1]
    traces, layout = data(shown, f"ladder-{CONV}")
    kernels = [
        row
        for group in ("lenet conv1", "lenet conv2")
        for row in sorted(
            (row for row in largest(rows, group) if row.kind == "kernel"),
            key=lambda row: table.names("conv2d").index(row.name),
        )
    ]
    assert [*labels(layout).values()] == [row.name for row in kernels]
    for peer in made_up_results.GPU_PEERS:
        wanted = [next(r for r in k.ratios if (r.peer, r.state) == (peer, "cold")) for k in kernels]
        trace = traces[f"to {peer}"]
        assert trace["x"] == [r.median for r in wanted]
        bars = trace["error_x"]
        assert bars["array"] == pytest.approx([r.high - r.median for r in wanted])
        assert bars["arrayminus"] == pytest.approx([r.median - r.low for r in wanted])
        assert [labels(layout)[y] for y in trace["y"]] == [row.name for row in kernels]


def test_the_floor_is_the_larger_of_operations_and_bytes(gpu, shown):
    rows = gpu[1]
    _, layout = data(shown, f"ladder-{CONV}")
    said = {a["y"]: a["text"] for a in layout["annotations"] if a["x"] == 1}
    (line,) = (y for y, name in labels(layout).items() if name == "tiled" and y < 5)
    (tiled,) = (row for row in largest(rows, "lenet conv1") if row.name == "tiled")
    floor = max(tiled.least_flops / 50e12, tiled.least_bytes / 2.9e12)
    assert said[line] == f"{100 * floor / tiled.cold.median_s:.0f} %"


def test_the_roofline_holds_measured_ceilings_and_points_under_them(gpu, shown):
    rows = gpu[1]
    traces, _ = data(shown, f"roofline-{CONV}-0")
    roof = next(trace for name, trace in traces.items() if "measured" in name)
    assert roof["y"][0] / roof["x"][0] == pytest.approx(2.9e12)  # bytes/s
    assert roof["y"][1:] == [50e12] * 2
    assert traces["66.9 TFLOP/s hardware limit"]["y"] == [66.9e12] * 2
    for name in ("naive", "tiled_numba", "torch channels_last"):
        mine = [row for row in rows if (row.name, row.direction) == (name, "forward")]
        mine = [row for row in mine if row.operation == "conv2d"]
        assert traces[name]["x"] == pytest.approx([r.flops / r.least_bytes for r in mine])
        assert traces[name]["y"] == pytest.approx([r.flops / r.cold.median_s for r in mine])
    hot = [r for r in rows if r.hot and (r.operation, r.direction) == ("conv2d", "forward")]
    assert sorted(traces["all, hot"]["y"]) == pytest.approx(
        sorted(r.flops / r.hot.median_s for r in hot)
    )


def test_time_against_batch(gpu, shown):
    rows = gpu[1]
    traces, _ = data(shown, f"batch-{CONV}-0")
    for name in ("tiled", "cupy"):
        mine = [row for row in of_pass(rows, "lenet conv1") if row.name == name]
        assert traces[name]["x"] == [64, 512, 8192]
        assert traces[name]["y"] == [row.cold.median_s / row.shape["n"] for row in mine]
    assert "not drawn: max_pool2d forward: lenet pool1" in shown.locator("#batch").inner_text()


def test_cold_against_hot(gpu, shown):
    rows = gpu[1]
    traces, layout = data(shown, f"caches-{CONV}")
    ends = [
        row
        for row in rows
        if (row.operation, row.direction) == ("conv2d", "forward") and row.shape["n"] != 512
    ]
    assert sorted(traces["cold"]["x"]) == sorted(row.cold.median_s for row in ends)
    assert sorted(traces["hot"]["x"]) == sorted(row.hot.median_s for row in ends)
    assert traces["cold"]["y"] == traces["hot"]["y"]
    assert len(labels(layout)) == len(ends)


def test_doubtful_points_are_marked_in_every_chart(gpu, shown):
    rows = gpu[1]
    (unstable,) = (row for row in rows if row.cold and not row.cold.stable)
    (impossible,) = (row for row in rows if row.name == "im2col_gemm" and
                     row.label == "lenet conv1 N=8192" and row.direction == "forward")  # fmt: skip
    roofline, _ = data(shown, f"roofline-{CONV}-0")
    assert roofline["not stable"]["y"] == [unstable.flops / unstable.cold.median_s]
    assert roofline["impossible"]["y"] == [impossible.flops / impossible.cold.median_s]
    caches, _ = data(shown, f"caches-{CONV}")
    assert caches["not stable"]["x"] == [unstable.cold.median_s]
    assert impossible.cold.median_s in caches["impossible"]["x"]
    ladder, _ = data(shown, f"ladder-{CONV}")
    assert set(ladder["impossible"]["x"]) == {r.median for r in impossible.ratios[:3]}
    batch, _ = data(shown, f"batch-{CONV}-0")
    assert batch["impossible"]["x"] == [8192]
    shown.locator("#trust-group").select_option("conv2d forward: lenet conv2")
    marked = shown.locator("#trust tr.unstable").filter(visible=True)
    assert "the interval is still 14 % wide" in marked.inner_text()
    assert "throttled: sw_power_cap" in marked.inner_text()
    assert "Not stable: 1 of" in shown.locator("#measured").inner_text()


@pytest.mark.parametrize("width", [1200, 400])
def test_a_point_says_what_it_is_when_pointed_at(width, gpu, open_page):
    path, rows = gpu
    shown = open_page(path, width=width)
    (unstable,) = (row for row in rows if row.cold and not row.cold.stable)
    name = f"roofline-{CONV}-0"
    shown.locator(f"#{name}").scroll_into_view_if_needed()
    x, y = shown.evaluate(
        """([name, x, y]) => {
            const chart = document.getElementById(name), {xaxis, yaxis} = chart._fullLayout;
            const box = chart.getBoundingClientRect();
            return [box.x + xaxis._offset + xaxis.d2p(x), box.y + yaxis._offset + yaxis.d2p(y)];
        }""",
        [name, unstable.flops / unstable.least_bytes, unstable.flops / unstable.cold.median_s],
    )
    shown.mouse.move(x, y)
    label = shown.locator(f"#{name} .hovertext")
    said = label.text_content(timeout=5000)
    ms, low, high = (1e6 * t for t in (unstable.cold.median_s, unstable.cold.low_s,
                                       unstable.cold.high_s))  # fmt: skip
    assert f"tiled lenet conv2 N=64forward, cold, fp32{ms:.2f} µs" in said
    assert f"(95 %: {low:.2f} to {high:.2f} µs)" in said
    of_gemm = 100 * unstable.flops / unstable.cold.median_s / 50e12
    assert f"{of_gemm:.0f} % of the GEMM ceiling" in said
    assert "launch-bound" in said
    assert "not stable" in said
    box = label.bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= width


def test_rows_that_were_not_timed_say_why(shown):
    said = shown.locator("#measured").inner_text()
    assert "y[0, 3, 1, 2] is 1.5 and 1.25 right" in said
    assert "no numba-cuda for this driver" in said
    assert re.search(r"rows\s+\d+ timed, 1 failed, 1 skipped", said)
    shown.locator("#ladder-pass").select_option("max_pool2d forward")
    _, layout = data(shown, "ladder-max-pool2d-forward-float32")
    assert [*labels(layout).values()] == ["max", "max_numba (skipped)"]


def test_every_row_has_a_trust_line(gpu, shown):
    rows = gpu[1]
    assert shown.locator("#trust tbody tr").count() == len(rows)
    line = shown.locator("#trust tbody tr").first.inner_text().replace("\u00a0", " ")
    row = next(r for r in rows if (r.group, r.name) == ("lenet conv1", "naive"))
    assert units.interval(row.cold) in line
    for text in ("31 \u00d7 8, events", "6,400 of 301,056", "worst 0.210", "1755 MHz", "54 °C",
                 "fp32, 0123456789abcdef", "memory-bound"):  # fmt: skip
        assert text in line


def test_resources_and_that_a_cpu_has_none(shown, tmp_path, page_of):
    line = shown.locator("#resources tr").filter(has_text="conv2d_naive_forward")
    assert line.inner_text().split() == ["conv2d_naive_forward", "cuda_c", "sm_90", "63", "1,728",
                                         "8"]  # fmt: skip
    made_up_results.write(tmp_path / "cpu.jsonl", "cpu")
    said = page_of(tmp_path / "cpu.jsonl")
    assert "the files hold no GPU function" in said.locator("#resources").inner_text()
    assert "not committed" in said.locator("#measured").inner_text()


def test_without_a_peer_the_ratio_is_to_the_first_rung_and_says_so(tmp_path, page_of):
    rows = made_up_results.write(tmp_path / "alone.jsonl", peers=False)
    shown = page_of(tmp_path / "alone.jsonl")
    traces, layout = data(shown, f"ladder-{CONV}")
    times = {row.name: row.cold.median_s for row in largest(rows, "lenet conv2")}
    got = dict(zip(traces["to naive"]["y"], traces["to naive"]["x"], strict=True))
    got = {labels(layout)[y]: x for y, x in got.items() if y > 5}
    assert got == {name: times["naive"] / time for name, time in times.items()}
    said = shown.locator("#ladder").inner_text()
    assert "No peer was timed on lenet conv1 N=8192, lenet conv2 N=8192" in said


def test_two_files_stand_side_by_side(tmp_path, page_of):
    first = made_up_results.write(tmp_path / "monday.jsonl")
    second = made_up_results.write(tmp_path / "tuesday.jsonl", batches=(64, 512))
    shown = page_of(tmp_path / "monday.jsonl", tmp_path / "tuesday.jsonl")
    traces, _ = data(shown, f"batch-{CONV}-0")
    for rows, name, count in ((first, "monday", 3), (second, "tuesday", 2)):
        mine = [row for row in of_pass(rows, "lenet conv1") if row.name == "tiled"]
        wanted = [row.cold.median_s / row.shape["n"] for row in mine]
        assert len(wanted) == count
        assert traces[f"tiled, {name}"]["y"] == wanted
    _, layout = data(shown, f"ladder-{CONV}")
    heads = [a["text"] for a in layout["annotations"] if a["x"] == 0]
    assert heads == ["<b>lenet conv1 N=512</b>", "<b>lenet conv2 N=512</b>"]  # which both have
    assert "side by side" not in shown.locator("main").inner_text()


def test_cpu_beside_gpu_is_said_at_every_chart(tmp_path, page_of):
    for place in ("cpu", "gpu"):
        made_up_results.write(tmp_path / f"{place}.jsonl", place)
    shown = page_of(tmp_path / "cpu.jsonl", tmp_path / "gpu.jsonl")
    for section in ("measured", "ladder", "batch", "caches"):
        said = shown.locator(f"#{section}").inner_text()
        assert "side by side: cpu ran on a CPU; gpu ran on a GPU." in said
    titles = shown.locator("#roofline option").all_inner_texts()  # each alone
    assert {"conv2d forward, cpu", "conv2d forward, gpu"} <= set(titles)


def test_the_double_of_a_gpu_is_called_one(tmp_path, page_of):
    path = tmp_path / "double.jsonl"
    made_up_results.write(path, batches=(64,))
    path.write_text(path.read_text().replace('"place":"gpu"', '"place":"test double"'))
    said = page_of(path).locator("#measured").inner_text()
    assert "double ran on the tests' double of a GPU: its times say nothing of a GPU" in said


def test_a_file_without_a_time_has_its_reasons_and_no_chart(tmp_path, page_of):
    path = tmp_path / "failed.jsonl"
    rows = made_up_results.write(path, "cpu", batches=(64,))
    path.write_text(path.read_text().replace('"status":"timed"', '"status":"failed"'))
    shown = page_of(path)
    assert "Nothing was timed" in shown.locator("#measured").inner_text()
    assert shown.locator(".chart").count() == 0
    assert shown.locator("#trust tr.failed").count() == len(rows)


def test_a_line_joins_only_shapes_that_differ_in_their_batch(tmp_path, page_of):
    path = tmp_path / "sweep.jsonl"
    made_up_results.write(path)
    path.write_text(
        path.read_text().replace('"lenet conv1"', '"*"').replace('"lenet conv2"', '"*"')
    )
    shown = page_of(path)
    titles = shown.locator("#batch option").all_inner_texts()
    assert titles[:2] == [f"conv2d forward: * as lenet conv{i} N=64" for i in (1, 2)]
    for i in (0, 1):
        shown.locator("#batch-group").select_option(titles[i])
        traces, _ = data(shown, f"batch-{CONV}-{i}")
        assert traces["tiled"]["x"] == [64, 512, 8192]


def test_a_phone_shows_it_without_scrolling_sideways(gpu, open_page):
    shown = open_page(gpu[0], width=400)
    for select in shown.locator("select").all():  # every panel in turn
        for option in select.locator("option").all_inner_texts():
            select.select_option(option)
            assert shown.evaluate("document.documentElement.scrollWidth") == 400
    for chart in shown.locator(".chart .main-svg").filter(visible=True).all():
        box = chart.bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 400
    plot = shown.locator("#ladder .nsewdrag").filter(visible=True)
    assert plot.bounding_box()["width"] > 120
    smallest = shown.evaluate(
        "Math.min(...[...document.querySelectorAll('.chart text, td')].map("
        "e => parseFloat(getComputedStyle(e).fontSize)))"
    )
    assert smallest >= 11


def test_print_shows_all_of_it_on_white(gpu, open_page):
    shown = open_page(gpu[0], color_scheme="dark")
    hidden = shown.locator(".panel[hidden]").count()
    assert hidden > 0
    shown.emulate_media(media="print", color_scheme="dark")
    shown.set_viewport_size({"width": 703, "height": 1000})  # A4 between margins of 12 mm
    shown.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert shown.locator(".panel[hidden]").count() == 0
    assert shown.locator(".chart").count() == shown.locator(".chart.js-plotly-plot").count()
    assert shown.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert shown.evaluate("document.documentElement.scrollWidth") == 703
    for block in shown.locator(".chart .main-svg, table").all():
        box = block.bounding_box()
        assert box["x"] + box["width"] <= 703
    assert not shown.locator(".chooser").first.is_visible()
    shown.evaluate("dispatchEvent(new Event('afterprint'))")
    assert shown.locator(".panel[hidden]").count() == hidden
    shown.evaluate("addEventListener('beforeprint', () => { document.title = 'printing'; })")
    assert shown.pdf(format="A4").startswith(b"%PDF")
    assert shown.title() == "printing"  # the browser itself says when


EVIL = "<script>alert(1)</script><a href='javascript:alert(2)'>x</a>"


def test_a_label_out_of_a_file_is_text(tmp_path, page_of):
    path = tmp_path / "evil.jsonl"
    made_up_results.write(path)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in (row for group in lines[1:-1] for row in group["rows"]):
        if line["name"] == "tiled":
            line["name"] = EVIL
        for key in ("label", "group"):
            line[key] = line[key].replace("lenet", EVIL)
        line["ratios"] = [ratio | {"peer": EVIL} for ratio in line.get("ratios", [])][:1]
        line["reason"] = line.get("reason") and EVIL
    lines[0]["machine"]["name"] = EVIL
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    shown = page_of(path)  # and open_page fails at a dialogue
    assert EVIL in shown.locator("h1").inner_text()
    assert shown.locator("main a:not(nav a)").count() == 0
    assert EVIL in shown.locator("#trust td").first.inner_text()
    for chart in ("ladder", "caches"):
        ticks = shown.locator(f"#{chart}-{CONV} .ytick text").all_text_contents()
        assert EVIL in ticks
    assert f"to {EVIL}" in shown.locator(f"#ladder-{CONV} .legendtext").all_text_contents()
