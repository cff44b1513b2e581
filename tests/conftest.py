"""What every test may rely on: --require-gpu, --slow, the two places of an array, a browser."""

from __future__ import annotations

import atexit
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

# Workers of pytest-xdist share the cores; without this each would start a thread for every core.
if "PYTEST_XDIST_WORKER" in os.environ:
    share = (os.cpu_count() or 1) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    for library in ("NUMBA", "OPENBLAS", "OMP", "MKL"):
        # Two at least: parallel code must show that its threads do not disturb each other.
        os.environ.setdefault(f"{library}_NUM_THREADS", str(max(share, 2)))

# What a test measures on a GPU, or on the double of one, is not for the user's cache.
os.environ["CONV_KERNEL_LAB_CHOICES"] = tempfile.mkdtemp(prefix="conv-kernel-lab-choices-")
atexit.register(shutil.rmtree, os.environ["CONV_KERNEL_LAB_CHOICES"], ignore_errors=True)

os.environ.pop("KERNELS_PATH", None)  # a person's own kernels are not the lab's to test

GPU_WORDS = re.compile(r"\b(GPU|CUDA|CuPy)\b", re.IGNORECASE)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("conv-kernel-lab")
    group.addoption(
        "--require-gpu",
        action="store_true",
        help="a test skipped for want of a GPU fails",
    )
    group.addoption("--slow", action="store_true", help="run the tests marked slow too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--slow"):
        return
    slow = [item for item in items if item.get_closest_marker("slow")]
    if slow:
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if not item.get_closest_marker("slow")]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu"):
        from kernels import place

        if (problem := place.gpu_problem()) is not None:
            pytest.skip(f"needs a GPU: {problem}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):
    report = yield
    wants_gpu = item.get_closest_marker("gpu") is not None
    return _skip_is_failure(item.config, report, wants_gpu)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector):
    return _skip_is_failure(collector.config, (yield), wants_gpu=False)


def _skip_is_failure(config: pytest.Config, report, wants_gpu: bool):
    """Under --require-gpu, turn a skip for want of a GPU into a failure."""
    expected = hasattr(report, "wasxfail")  # an expected failure is reported as a skip too
    if config.getoption("--require-gpu") and report.skipped and not expected:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if wants_gpu or GPU_WORDS.search(reason):
            report.outcome = "failed"
            report.longrepr = f"--require-gpu: {reason}"
    return report


@pytest.fixture(params=["numpy", pytest.param("cupy", marks=pytest.mark.gpu)])
def xp(request: pytest.FixtureRequest) -> ModuleType:
    """The module of the arrays: the test runs on the host, and on a GPU where there is one."""
    return pytest.importorskip(request.param)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """A headless Chromium, driven by Playwright: the distribution's, or Playwright's own."""
    sync_api = pytest.importorskip(
        "playwright.sync_api", reason="Playwright is not installed (make test installs it)"
    )
    with sync_api.sync_playwright() as playwright:
        names = ("chromium", "chromium-browser", "google-chrome")
        own = playwright.chromium.executable_path
        found = [shutil.which(name) for name in names] + [own if Path(own).exists() else None]
        path = next(filter(None, found), None)
        if path is None:
            pytest.skip("no Chromium: apt install chromium, or python -m playwright install")
        chromium = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def tab(browser: Any) -> Iterator[Any]:
    """One tab for all tests: a new one would compile Plotly anew, which takes two seconds."""
    tab = browser.new_context().new_page()
    yield tab
    tab.context.close()


@pytest.fixture
def open_page(tab: Any) -> Iterator[Callable[..., Any]]:
    """Opens a file in the browser; at the end it must have asked for nothing else nor complained.

    ``open_page(path, width=1200, color_scheme="light")`` returns Playwright's page, which is the
    same at every call.
    """
    complaints, requests = [], []

    def dismiss(dialog: Any) -> None:
        complaints.append(dialog.message)
        dialog.dismiss()

    listeners = {
        "request": lambda request: requests.append(request.url),
        "console": lambda said: complaints.append(said.text),
        "pageerror": lambda error: complaints.append(str(error)),
        "dialog": dismiss,
    }
    for event, listener in listeners.items():
        tab.on(event, listener)

    def open_(path: Path, width: int = 1200, color_scheme: str = "light") -> Any:
        tab.set_viewport_size({"width": width, "height": 900})
        tab.emulate_media(media="screen", color_scheme=color_scheme)
        tab.mouse.move(0, 0)
        tab.goto(path.as_uri())
        return tab

    yield open_
    for event, listener in listeners.items():
        tab.remove_listener(event, listener)
    assert complaints == []
    asked = [url for url in requests if not url.startswith(("file:", "data:", "blob:"))]
    assert asked == []
