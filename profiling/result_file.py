"""The file a benchmark writes: JSON Lines, a header, a line a group, and a line that says "whole".

A group is what was measured together, one pass on one shape by several kernels and peers, a row
each. It is on disk as soon as it is measured. A file without its last line is an unfinished run:
`load` says so, and ``bench --resume`` goes on with it. A run over several devices has a line for
each, before the groups that were measured on it. What a line may hold is declared here once, as
msgspec structs, and held against every file that is read.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, Literal, NamedTuple

import msgspec

from kernels.one_line import one_line

SCHEMA = "conv-kernel-lab bench 1"

# What a benchmark can have measured or counted, so that what reads a file need not ask again.
Seconds = Annotated[float, msgspec.Meta(ge=0, lt=1e9)]
Time = Annotated[float, msgspec.Meta(gt=1e-15, lt=1e9)]
Rate = Annotated[float, msgspec.Meta(gt=0, lt=1e30)]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**62)]
# What is shown: nothing that a terminal acts on. A reason may have several lines.
Word = Annotated[str, msgspec.Meta(pattern=r"^[^\x00-\x1f\x7f-\x9f]*\Z", max_length=2000)]
Reason = Annotated[str, msgspec.Meta(pattern=r"^[^\x00-\x08\x0b-\x1f\x7f-\x9f]*\Z")]

Direction = Literal["forward", "backward_data", "backward_filter", "backward_bias", "backward"]


class ResultFileError(ValueError):
    """A file that is no whole benchmark of this schema; the message, one line, says why."""

    def __init__(self, text: str) -> None:
        super().__init__(one_line(text))


class Ceilings(msgspec.Struct, frozen=True):
    """What the device can do, measured in the same run.

    Attributes
    ----------
    copy
        Bytes a second of a large copy, counting those read and those written.
    read
        Bytes a second of a large reduction.
    gemm
        FLOP/s of a large float32 matrix product, TF32 off.
    peak
        FLOP/s in float32 that the hardware cannot exceed, by its data sheet; of a CPU by the width
        of its vectors and a clock that no processor has. None where unknown.
    launch_s
        Seconds of an empty launch, measured like a kernel.
    cache_bytes
        Size of the last cache before memory.
    tensor_gemm
        FLOP/s of a large matrix product of reduced precision, by its name (``"tf32"``,
        ``"bf16"``); empty where PyTorch could not measure it.
    """

    copy: Rate
    read: Rate
    gemm: Rate
    peak: Rate | None
    launch_s: Time
    cache_bytes: Count
    tensor_gemm: dict[str, Rate] = {}

    def product(self, precision: str) -> float:
        """Return the FLOP/s of a large product in a precision; inf where nobody measured it."""
        return self.gemm if precision == "fp32" else self.tensor_gemm.get(precision, math.inf)


class Header(msgspec.Struct, frozen=True, tag="header", tag_field="line"):
    """The first line: what was asked, where, and of which source.

    Attributes
    ----------
    schema
        `SCHEMA`; another one is refused.
    place
        Where the kernels ran; the tests' double of a GPU is none.
    machine
        As `profiling.machine.describe` gives it; of several devices the first rank's.
    date
        UTC, ISO 8601.
    commit, dirty
        The commit checked out, and whether files differed from it.
    threads
        Host threads that kernels and peers were pinned to.
    suite
        The suites' names, and ``"--shape"``.
    groups
        How many groups the whole file has.
    plan
        Fingerprint of what was asked; a run resumes only its own file.
    ceilings
        Of the device; of several, the first rank's.
    software
        Versions of the peers and of what compiles the kernels, by name.
    """

    schema: str
    place: Literal["cpu", "gpu", "test double"]
    machine: dict[Word, Any]
    date: Word
    commit: Word | None
    dirty: bool
    threads: int
    suite: list[Word]
    groups: int
    plan: Word
    ceilings: Ceilings
    software: dict[Word, Word]


class Device(msgspec.Struct, frozen=True, tag="device", tag_field="line"):
    """One of several devices that a file's groups were measured on.

    Attributes
    ----------
    host
        The machine's name in its network.
    index
        The GPU's number there; None for the machine's CPU.
    identity
        The GPU's UUID by NVML, or where it sits on the PCI bus; None for a CPU.
    machine
        As `profiling.machine.describe` gives it there.
    ceilings
        Its own.
    """

    host: Word
    index: int | None
    identity: Word | None
    machine: dict[str, Any]
    ceilings: Ceilings

    @property
    def name(self) -> str:
        """Which one it is, for a person."""
        return f"CPU of {self.host}" if self.index is None else f"GPU {self.index} of {self.host}"

    @property
    def model(self) -> str:
        """What devices must share for their times to be compared."""
        return model(self.machine, "cpu" if self.index is None else "gpu")


def model(machine: dict[str, Any], place: str) -> str:
    """Return a machine's name; of a CPU with its cores, on which its times depend as much."""
    name = str(machine.get("name", "unknown"))
    return f"{name}, {machine['cores']} cores" if place == "cpu" and "cores" in machine else name


class Timing(msgspec.Struct, frozen=True):
    """Repeated measurements of one launch, cold or hot.

    Attributes
    ----------
    median_s, low_s, high_s
        Median of the samples and its 95 % interval, seconds a launch.
    samples_s
        In the order taken, seconds a launch.
    launches
        How many launches one sample averages over.
    method
        ``"events"``, ``"graph"``, ``"queue"`` or ``"eager"``, see `profiling.clock_gpu`; or
        ``"perf_counter"``, see `profiling.clock_cpu`.
    stable
        Whether the stopping rule was met before its time was up.
    unstable_because
        Why not, for a person; empty where stable.
    """

    median_s: Time
    low_s: Seconds
    high_s: Seconds
    samples_s: Annotated[list[Seconds], msgspec.Meta(min_length=1)]
    launches: Count
    method: Word
    stable: bool
    unstable_because: Reason = ""


class Sensors(msgspec.Struct, frozen=True):
    """What the device's sensors said; None where there is none to ask.

    Attributes
    ----------
    sm_clock_mhz, memory_clock_mhz
        Clocks; of a CPU the mean over its cores, and None.
    temperature_c
        Degrees Celsius.
    throttled
        Reasons that held the clock down, as NVML names them.
    """

    sm_clock_mhz: float | None = None
    memory_clock_mhz: float | None = None
    temperature_c: float | None = None
    throttled: list[Word] = []


class Check(msgspec.Struct, frozen=True):
    """What the judge saw of this very shape before the clock ran.

    Attributes
    ----------
    elements, total
        Output elements that were compared with the judge, and all there are.
    worst
        Largest error as a share of its bound; None where an element is no number.
    """

    elements: Count
    total: Count
    worst: float | None


class Ratio(msgspec.Struct, frozen=True):
    """A peer's time over this kernel's, from samples taken in turns: above 1 the kernel is faster.

    Attributes
    ----------
    peer
        Its name.
    state
        Which of the two timings.
    median, low, high
        The ratio of medians and its 95 % interval.
    """

    peer: Word
    state: Literal["cold", "hot"]
    median: Rate
    low: Rate
    high: Rate


class Resource(msgspec.Struct, frozen=True):
    """What one GPU function of a kernel takes, by ptxas.

    Attributes
    ----------
    function
        Its name.
    registers
        Of a thread.
    shared_bytes
        Of a block, static.
    spill_bytes
        That a thread moves to and from local memory for want of registers.
    arch
        What it was compiled for.
    """

    function: Word
    registers: Count
    shared_bytes: Count
    spill_bytes: Count
    arch: Word


class Row(msgspec.Struct, frozen=True):
    """One kernel, or one peer, on one shape.

    Attributes
    ----------
    operation, name, direction
        ``"conv2d"``, ``"tiled"``, ``"forward"``; a peer's name begins with its package:
        ``"torch"``, ``"torch channels_last graph"``, ``"cupy"``.
    kind
        One of ours, or a peer.
    language
        ``"cuda_c"``, ``"numba"``, ``"numpy"``, or a peer's package and version.
    label
        The shape's name in its suite, ``"lenet conv1 N=64"``: what a chart's axis says.
    group
        The label without what the suite sweeps, ``"lenet conv1"``: what a chart's line says.
    shape
        Every field of the `Conv2dShape`, `BlockShape` or `PoolShape`.
    dtype, precision
        Of the tensors, and of the arithmetic (``"fp32"``, ``"tf32"`` ...).
    flops
        Of the direct algorithm, taps on padding counted: what TFLOP/s refer to.
    least_flops, least_bytes
        What this algorithm cannot do without: the floor a measured time is held against.
    input_bytes
        The part of `least_bytes` that is read.
    source
        SHA-256 of the kernel's source files, first 16 digits; None for a peer.
    status
        ``"timed"``; ``"failed"`` by the judge; ``"skipped"``.
    reason
        Why it was not timed; else empty.
    check
        What the judge saw; None for a row that was skipped.
    cold, hot
        With the caches overwritten before, and with what the last launch left in them.
    ratios
        To the peers of the same run.
    resources
        Of its GPU functions; empty where they are not known.
    before, after
        The sensors.
    device
        The number of the file's device line that it was measured on, from 0; None in a file of one
        device, which has no such line.
    """

    operation: Literal["conv2d", "conv2d_relu_pool", "max_pool2d", "avg_pool2d"]
    name: Word
    direction: Direction
    kind: Literal["kernel", "peer"]
    language: Word
    label: Word
    group: Word
    shape: dict[str, Count]
    dtype: Literal["float32", "float64"]
    precision: Word
    flops: Count
    least_flops: Count
    least_bytes: Count
    input_bytes: Count
    status: Literal["timed", "failed", "skipped"]
    reason: Reason = ""
    source: str | None = None
    check: Check | None = None
    cold: Timing | None = None
    hot: Timing | None = None
    ratios: list[Ratio] = []
    resources: list[Resource] = []
    before: Sensors = Sensors()
    after: Sensors = Sensors()
    device: int | None = None

    def __post_init__(self) -> None:
        """Refuse a shape without a batch, in whose order rows are shown."""
        if "n" not in self.shape:
            raise ValueError("a shape without n, the images")

    @property
    def key(self) -> tuple[Any, ...]:
        """What identifies a row in a file, and across files."""
        return self.operation, self.direction, tuple(self.shape.items()), self.dtype, self.name


class Group(msgspec.Struct, frozen=True, tag="group", tag_field="line"):
    """A line of rows that were measured together."""

    rows: list[Row]


class End(msgspec.Struct, frozen=True, tag="end", tag_field="line"):
    """The last line of a whole file.

    Attributes
    ----------
    rows
        How many there are.
    seconds
        Wall seconds of the run, or of the last one of a run that was resumed.
    """

    rows: int
    seconds: float


class Results(NamedTuple):
    """A file's contents; `path` is for messages, `end` is None for an unfinished run."""

    path: Path
    header: Header
    rows: list[Row]
    end: End | None
    devices: tuple[Device, ...] = ()

    def device(self, row: Row) -> Device | None:
        """Return what a row was measured on; None in a file of one device."""
        return None if row.device is None else self.devices[row.device]

    def ceilings(self, row: Row) -> Ceilings:
        """Return what the device can do that a row was measured on."""
        device = self.device(row)
        return device.ceilings if device else self.header.ceilings

    def model(self, row: Row) -> str:
        """Return the model of the device that a row was measured on."""
        device = self.device(row)
        return device.model if device else model(self.header.machine, self.header.place)

    def by_model(self) -> list[Results]:
        """Return the rows of each model of device apart, with a header that speaks of it."""
        parts: dict[str, list[Row]] = {}
        for row in self.rows if self.devices else ():
            parts.setdefault(self.model(row), []).append(row)
        found = []
        for name, rows in parts.items():
            first = next(device for device in self.devices if device.model == name)
            about = msgspec.structs.replace(
                self.header, machine=first.machine, ceilings=first.ceilings
            )
            found.append(self._replace(header=about, rows=rows))
        return found or [self]


_WAY_OUT = "the command that began it, with --resume, goes on with it"
_LINE = msgspec.json.Decoder(Header | Device | Group | End)


def load(path: Path, *, unfinished: bool = False) -> Results:
    """Read a result file and hold every line against the schema.

    Parameters
    ----------
    path
        The file.
    unfinished
        Take also a run that did not end; a last line that was cut off is left out.

    Raises
    ------
    ResultFileError
        No such file, an empty one, another schema, a line that does not fit it, or an unfinished
        run that was not asked for.
    """
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ResultFileError(f"{path}: {error.strerror or error}") from None
    if not text.strip():
        raise ResultFileError(f"{path}: the file is empty; python -m profiling bench -o FILE")
    *whole, rest = text.split(b"\n")
    lines = [_decode(path, number, line) for number, line in enumerate(whole, 1)]
    if rest and not unfinished:
        raise ResultFileError(f"{path}: the last line is cut off; {_WAY_OUT}")
    if not lines or not isinstance(header := lines[0], Header):
        raise ResultFileError(f"{path}: line 1 is no header; this is not a benchmark's file")
    for line in lines:
        about = line.machine if isinstance(line, (Header, Device)) else {"name": ""}
        for key, value in about.items():
            if isinstance(value, str) and one_line(value) != value:
                raise ResultFileError(f"{path}: a machine's {key} is {value!r}; expected a line")
        if not isinstance(about.get("name"), str):
            raise ResultFileError(f"{path}: a machine's name is {about.get('name')!r}, no text")
    groups = [line for line in lines if isinstance(line, Group)]
    rows = [row for group in groups for row in group.rows]
    devices = tuple(line for line in lines if isinstance(line, Device))
    end = last if isinstance(last := lines[-1], End) else None
    if len(groups) + len(devices) != len(lines) - 1 - (end is not None):
        raise ResultFileError(f"{path}: a header or an end in the middle: two files in one?")
    numbers: set[int | None] = {*range(len(devices))} or {None}
    if strays := {row.device for row in rows} - numbers:
        raise ResultFileError(
            f"{path}: rows of device {min(map(str, strays))}, and {len(devices)} lines of devices; "
            "lines were lost or added"
        )
    if len({row.key for row in rows}) < len(rows):
        raise ResultFileError(f"{path}: two rows of one kernel on one shape: two files in one?")
    if end is None and not unfinished:
        raise ResultFileError(
            f"{path}: an unfinished run, {len(groups)} of {header.groups} shapes and passes; "
            f"{_WAY_OUT}"
        )
    if end is not None and (rest or len(groups) != header.groups or len(rows) != end.rows):
        raise ResultFileError(
            f"{path}: {len(groups)} groups of {len(rows)} rows, but the header says "
            f"{header.groups} groups and the end {end.rows} rows; lines were lost or added"
        )
    return Results(path, header, rows, end, devices)


class Writer:
    """Writes a result file line by line, each on disk before the next is measured.

    Parameters
    ----------
    path
        The file. A new one must not exist; one that is resumed must.
    header
        The first line of a new file; None to go on with an unfinished one.

    Raises
    ------
    ResultFileError
        A file that exists, or cannot be written.
    """

    def __init__(self, path: Path, header: Header | None) -> None:
        try:
            if header is None:
                self._cut_torn_line(path)
            self._file = path.open("ab" if header is None else "xb")
        except FileExistsError:
            raise ResultFileError(
                f"{path} exists; choose another name, or --resume to go on with it"
            ) from None
        except OSError as error:
            raise ResultFileError(f"{path}: {error.strerror or error}") from None
        if header is not None:
            self.add(header)

    def add(self, line: Header | Device | Group | End) -> None:
        """Append a line and see it to the disk."""
        self._file.write(msgspec.json.encode(line) + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    @staticmethod
    def _cut_torn_line(path: Path) -> None:
        with path.open("rb+") as file:
            file.truncate(file.read().rfind(b"\n") + 1)


def _decode(path: Path, number: int, line: bytes) -> Header | Device | Group | End:
    if number == 1:
        schema = _schema_of(line)
        if schema != SCHEMA:
            raise ResultFileError(f"{path}: schema {schema!r}; expected {SCHEMA!r}")
    try:
        return _LINE.decode(line)
    except (ValueError, RecursionError) as error:  # msgspec's own are ValueErrors too
        raise ResultFileError(f"{path}, line {number}: {error}") from None


def _schema_of(line: bytes) -> Any:
    """Return what a first line says of its schema, before anything else is asked of it."""
    try:
        found = msgspec.json.decode(line)
    except (ValueError, RecursionError):
        return None
    return found.get("schema") if isinstance(found, dict) else None
