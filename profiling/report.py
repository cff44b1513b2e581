"""Result files as one HTML page that needs no network: charts to point at, and what they rest on.

The page is written beside the first file, with the ending .html, unless -o names another place. A
page that this command wrote before is replaced; any other file is only with --force.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from kernels import page
from profiling import dot_charts, looks, scatter_charts, series, trust
from profiling.result_file import ResultFileError
from profiling.series import Pass, Series, timings

PLACES = {"cpu": "a CPU", "gpu": "a GPU", "test double": "the tests' double of a GPU"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument(
        "files", nargs="+", type=Path, metavar="FILE",
        help="what `bench` wrote; several are shown side by side",
    )  # fmt: skip
    parser.add_argument(
        "-o", "--output", type=Path, metavar="PAGE",
        help="the page (default: beside the first file, FILE.html)",
    )  # fmt: skip
    parser.add_argument(
        "--force", action="store_true", help="replace also a file that is no page of this lab"
    )


def run(args: argparse.Namespace) -> int:
    """Write the page, say where it is, and return the exit code."""
    output = args.output or args.files[0].with_suffix(".html")
    try:
        files = series.load(args.files)
        problem = _refused(output, args)
        if problem is None:
            output.write_text(build(files), encoding="utf-8")
    except (ResultFileError, OSError) as error:
        problem = f"{output}: {error.strerror}" if isinstance(error, OSError) else str(error)
    if problem is not None:
        print(f"report: {problem}", file=sys.stderr)
        return 2
    print(f"{output}  {output.stat().st_size / 1e6:.1f} MB")
    return 0


def build(files: Sequence[Series]) -> str:
    """Return the page of some files.

    Parameters
    ----------
    files
        As `series.load` gives them.
    """
    sections = [page.Section("measured", "What was measured", _measured(files))]
    if series.passes(files):
        sections += [
            page.Section("ladder", "The ladder", _ladder(files)),
            page.Section("roofline", "Roofline", _roofline(files)),
            page.Section("batch", "Time against batch", _batch(files)),
            page.Section("caches", "Cold against hot", _caches(files)),
        ]
    sections += [
        page.Section("resources", "Resources", _resources(files)),
        page.Section("trust", "What the figures rest on", _trust(files)),
    ]
    machines = dict.fromkeys(str(file.header.machine.get("name", "unknown")) for file in files)
    dates = sorted({file.header.date[:10] for file in files})
    when = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
    return page.render(
        f"Convolution kernels on {' and '.join(machines)}",
        f"Measured {when}. Each kernel was held against the float64 judge before the clock ran.",
        sections,
    )


def _measured(files: Sequence[Series]) -> str:
    parts = [_mixed(files), _unlike(files), trust.machines(files)]
    if devices := trust.devices(files):
        parts.append(page.paragraph("Measured on, each with ceilings of its own:") + devices)
    for file in files:
        if file.header.dirty:
            parts.append(
                page.paragraph(
                    f"{file.name}: the source had changes that were not committed; the commit "
                    "alone does not bring these figures back.", "warning",
                )
            )  # fmt: skip
        if file.header.place not in ("cpu", "gpu"):
            text = (
                f"{file.name} ran on {PLACES[file.header.place]}: its times say nothing of a GPU."
            )
            parts.append(page.paragraph(text, "warning"))
    timed = [(f, row) for f in files for which in series.passes(files) for row in f.timed(which)]
    every = [(file, row, state) for file, row in timed for state, _ in timings(row)]
    unstable = sum(not looks.is_stable(row, state) for _, row, state in every)
    impossible = sum(looks.is_impossible(*entry) for entry in every)
    if unstable:
        text = f"Not stable: {unstable} of {len(every)} timings; a ring marks them in the charts."
        parts.append(page.paragraph(text, "warning"))
    if impossible:
        text = (
            f"Faster than the hardware can be: {impossible} of {len(every)} timings; a cross marks "
            "them in the charts. The kernel, the check or the clock is wrong there."
        )
        parts.append(page.paragraph(text, "warning"))
    if not every:
        parts.append(page.paragraph("Nothing was timed, so that no chart is drawn.", "warning"))
    missing = trust.not_timed(files)
    if missing:
        parts.append(page.paragraph("Not timed:") + missing)
    return "".join(parts)


def _ladder(files: Sequence[Series]) -> str:
    lead = page.paragraph(
        "How many times as fast as the peers each kernel is: right of the line at 1 it is faster. "
        "The ratios come from samples taken in turns; bars are their 95 % intervals. At the right "
        "edge, the floor (the least time at the measured ceilings) as a share of the time. Each "
        "group's largest shape; caches cold where that was measured."
    )

    def panel(which: Pass) -> str:
        fig, alone = dot_charts.ladder(files, which)
        note = ""
        if alone:
            note = page.paragraph(
                f"No peer was timed on {', '.join(alone)}: there the ratio is to the first rung, "
                f"{series.FIRST_RUNG}, or without one to the slowest kernel, and has no interval.",
                "note",
            )
        name = f"ladder-{_slug(which)}"
        return note + page.figure(fig, name, f"Ratio to the peers, {which.title}")

    return _mixed(files) + lead + _choice("ladder-pass", files, panel)


def _roofline(files: Sequence[Series]) -> str:
    lead = page.paragraph(
        "How far each kernel is below what the device can do: the slope is a large copy, the flat "
        "top a large float32 matrix product, both measured in the same run. A point stands at the "
        "operations of the direct algorithm over the bytes that must move at least, so that all "
        "kernels of a shape are above one another; each group's largest shape is drawn larger. Hot "
        "points come with a press on their name below; caches may lift them above the slope."
    )
    panels = []
    for which in series.passes(files):
        for i, file in enumerate(files):
            if file.timed(which):
                fig = scatter_charts.roofline(file, which)
                title = f"{which.title}, {file.name}" if len(files) > 1 else which.title
                name = f"roofline-{_slug(which)}-{i}"
                panels.append((title, page.figure(fig, name, f"Roofline, {title}")))
    return lead + page.choice("roofline-pass", "Pass", panels)


def _batch(files: Sequence[Series]) -> str:
    lead = page.paragraph(
        "What an image costs as the batch grows. A line that falls is paying for launches and idle "
        "processors; where it is flat, the device is full. Bars are 95 % intervals."
    )
    panels, single = [], []
    for which in series.passes(files):
        for i, sweep in enumerate(series.sweeps(files, which)):
            fig = scatter_charts.against_batch(files, which, sweep)
            title = f"{which.title}: {sweep.title}"
            if fig is None:
                single.append(title)
                continue
            name = f"batch-{_slug(which)}-{i}"
            panels.append((title, page.figure(fig, name, f"Time an image by batch, {title}")))
    note = f"With one batch alone, and so not drawn: {', '.join(single)}." if single else ""
    chosen = page.choice("batch-group", "Group", panels) if panels else ""
    return _mixed(files) + (lead + chosen if panels else "") + page.paragraph(note, "note")


def _caches(files: Sequence[Series]) -> str:
    lead = page.paragraph(
        "Cold: the caches were overwritten before each sample, as a layer finds them whose input "
        "came from elsewhere. Hot: they hold what the launch before left there. Where the two are "
        "far apart, a benchmark that only repeats a launch flatters the kernel. Each group's "
        "smallest and largest shape."
    )

    def panel(which: Pass) -> str:
        fig = dot_charts.cold_and_hot(files, which)
        return page.figure(fig, f"caches-{_slug(which)}", f"Cold and hot times, {which.title}")

    return _mixed(files) + lead + _choice("caches-pass", files, panel)


def _resources(files: Sequence[Series]) -> str:
    table = trust.resources(files)
    if not table:
        return page.paragraph("None: the files hold no GPU function.")
    lead = (
        "What the compiler gave each GPU function: registers of a thread, static shared memory of "
        "a block, and what a thread spills to memory for want of registers."
    )
    return page.paragraph(lead) + table


def _trust(files: Sequence[Series]) -> str:
    lead = page.paragraph(
        "Every row. Under a kernel: its precision, and the hash of its source or a peer's version. "
        "A time is the median, then its 95 % interval, then samples \u00d7 the launches that each "
        "averages over, and the clock. Checked: output elements held against the judge, and the "
        "largest error as a share of its bound. Clocks are those before and after."
    )
    panels = [
        (f"{which.title}: {group}", trust.lines(files, which, group))
        for which in series.passes(files, timed=False)
        for group in series.groups(files, which)
    ]
    return lead + page.choice("trust-group", "Group", panels)


def _choice(name: str, files: Sequence[Series], panel: Callable[[Pass], str]) -> str:
    return page.choice(name, "Pass", [(p.title, panel(p)) for p in series.passes(files)])


def _mixed(files: Sequence[Series]) -> str:
    places = dict.fromkeys(file.header.place for file in files)
    if len(places) == 1:
        return ""
    names = {place: [f.name for f in files if f.header.place == place] for place in places}
    of = [f"{', '.join(names[place])} ran on {PLACES[place]}" for place in places]
    return page.paragraph(f"Not alike, side by side: {'; '.join(of)}.", "warning")


def _unlike(files: Sequence[Series]) -> str:
    """Warn of files with several models of device, which the page shows apart."""
    models: dict[Path, list[str]] = {}
    for file in files:
        if file.devices:
            models.setdefault(file.results.path, []).append(file.devices[0][0].model)
    return "".join(
        page.paragraph(
            f"{path.name} was measured on unlike devices, {' and '.join(names)}: each is shown as "
            "a file of its own, with the shapes and passes that it was handed.", "warning",
        )
        for path, names in models.items()
        if len(names) > 1
    )  # fmt: skip


def _refused(output: Path, args: argparse.Namespace) -> str | None:
    """Return why the page must not be written there, if it must not."""
    if output.resolve() in [path.resolve() for path in args.files]:
        return f"{output} is one of the result files; name another with -o"
    if output.is_file() and not args.force and not page.is_ours(output):
        return f"{output} is no page of this lab; name another with -o, or replace it with --force"
    return None


def _slug(which: Pass) -> str:
    return "-".join(which).replace("_", "-")
