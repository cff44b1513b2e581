"""The kernels that a model runs on: rows of `kernels.table`, as the options name them."""

from __future__ import annotations

from typing import NamedTuple

from kernels import cases, table
from lenet import classic
from lenet.device import Device
from lenet.errors import OptionError

LENET5 = "lenet5"
BLOCK = "conv2d_relu_pool"
NO_BLOCK = "none"
POOL_OPERATIONS = ("max_pool2d", "avg_pool2d")


class Choice(NamedTuple):
    """The kernels a model runs on: rows of `kernels.table`, by name.

    Attributes
    ----------
    conv
        A conv2d row.
    pool_operation
        ``"max_pool2d"`` or ``"avg_pool2d"``.
    pool
        A row of it.
    block
        A conv2d_relu_pool row that does the work of all three, or ``"none"``.
    """

    conv: str
    pool_operation: str
    pool: str
    block: str = NO_BLOCK

    def __str__(self) -> str:
        if self.block != NO_BLOCK:
            return f"block {self.block}"
        return f"conv {self.conv}, {self.pool_operation.partition('_')[0]}-pool {self.pool}"

    def simulated(self, device: Device) -> list[str]:
        """Return the rows' names that run on Numba's simulator there."""
        if device.name != "cpu" or self.block != NO_BLOCK:
            return []
        rows = table.find("conv2d", self.conv), table.find(self.pool_operation, self.pool)
        return [row.name for row in rows if "simulator" in row.places]


def choose_kernels(
    conv: str,
    pool: str,
    device: Device,
    *,
    block: str = "auto",
    activation: str = "relu",
    model: str = LENET5,
) -> Choice:
    """Return the rows that ``--conv``, ``--pool`` and ``--block`` name, if the device can run them.

    Parameters
    ----------
    conv
        A conv2d row's name or ``"auto"``.
    pool
        A row of max_pool2d or, if it has none of that name, of avg_pool2d (``"max"`` and ``"avg"``
        are the CUDA C rows); ``"max:cpu"`` and ``"avg:cpu"`` name both. ``"auto"`` is max-pooling.
    device
        Where they are to run.
    block
        A conv2d_relu_pool row's name, in place of the other two; ``"none"``; or ``"auto"``: a
        block where conv and pool are ``"auto"`` too, the model has ReLU and max-pooling, and the
        device has one.
    activation, model
        The model's own. The classic's pooling is of avg_pool2d, and no block does its work.

    Raises
    ------
    OptionError
        An unknown name, a row that cannot run on the device or does not take LeNet's layers, or a
        block beside names that it would leave unused; the message lists those that can.
    """
    if model == classic.NAME:
        pool = "avg:auto" if pool == "auto" else pool
        if block not in ("auto", NO_BLOCK):
            raise OptionError(f"--block {block}: --model {model} has no such block; leave it out")
        block = NO_BLOCK
    kind, colon, name = pool.rpartition(":")
    operation = f"{kind}_pool2d"
    if not colon:
        in_max = name == "auto" or name in table.names("max_pool2d")
        operation = "max_pool2d" if in_max else "avg_pool2d"
    if operation not in POOL_OPERATIONS or (name != "auto" and name not in table.names(operation)):
        there = [f"{op[:3]}:{row}" for op in POOL_OPERATIONS for row in ("auto", *table.names(op))]
        raise OptionError(f"--pool {pool}: no such pooling kernel; there are {', '.join(there)}")
    if model == classic.NAME and operation != "avg_pool2d":
        raise OptionError(f"--pool {pool}: --model {model} adds up what it pools; give avg:auto")
    if conv != "auto" and conv not in table.names("conv2d"):
        there = ["auto", *table.names("conv2d")]
        raise OptionError(f"--conv {conv}: no such kernel; there are {', '.join(there)}")
    runnable = _runnable("--conv", "conv2d", conv, device)
    if reason := cases.refuses_lenet(table.find("conv2d", runnable)):
        there = [row.name for row in table.rows("conv2d") if not cases.refuses_lenet(row)]
        raise OptionError(f"--conv {conv}: it {reason}; LeNet's layers take {', '.join(there)}")
    choice = Choice(
        runnable,
        operation,
        _runnable("--pool", operation, name, device),
    )
    if block == NO_BLOCK:
        return choice
    if block not in ("auto", *table.names(BLOCK)):
        there = ["auto", NO_BLOCK, *table.names(BLOCK)]
        raise OptionError(f"--block {block}: no such kernel; there are {', '.join(there)}")
    unlike = (
        [f"--conv {conv}"] * (conv != "auto")
        + [f"--pool {pool}"] * (name != "auto" or operation != "max_pool2d")
        + [f"--activation {activation}"] * (activation != "relu")
    )
    if block == "auto":
        default = table.default(BLOCK, on_gpu=device.name == "gpu")
        return choice if unlike or not default else choice._replace(block=default)
    if unlike:
        raise OptionError(
            f"--block {block}: it is a convolution with ReLU and max-pooling in one; leave out "
            f"{' and '.join(unlike)}, or the block"
        )
    return choice._replace(block=_runnable("--block", BLOCK, block, device))


def _runnable(option: str, operation: str, name: str, device: Device) -> str:
    """Return a row's name, "auto" resolved, if it can run on the device."""
    name = table.find(operation, name, like=device.xp.empty(0) if name == "auto" else None).name
    places = {"gpu"} if device.name == "gpu" else {"cpu", "emulator", "simulator"}
    can = [row.name for row in table.rows(operation) if places.intersection(row.places)]
    if name not in can:
        raise OptionError(
            f"{option} {name}: it does not run with --device {device.name}; "
            f"there {operation} has {', '.join(can)}"
        )
    return name
