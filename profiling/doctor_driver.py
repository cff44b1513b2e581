"""The NVIDIA driver, asked directly: it answers where CuPy is missing or broken."""

from __future__ import annotations

import ctypes
import os
from typing import Any, NamedTuple

from profiling import doctor_system, prerequisites
from profiling.doctor_probe import Finding

OLDEST = (12, 0)
# Of CUdevice_attribute.
CAPABILITY_MAJOR, CAPABILITY_MINOR = 75, 76
NO_DEVICE = 100

INSTALL = "sudo apt install nvidia-driver (Ubuntu: sudo ubuntu-drivers install), and reboot"
LOG = "sudo dmesg | grep -i nvrm"  # where the kernel module says what is wrong
MENDS = {  # by CUresult
    34: "unset LD_LIBRARY_PATH (it names CUDA's stubs directory, whose libcuda is an empty one)",
    802: "sudo systemctl start nvidia-fabricmanager",
    803: "sudo reboot (the kernel module and libcuda are of different releases)",
    804: "unset LD_LIBRARY_PATH (it names a cuda-compat directory, not made for this GPU)",
    999: "sudo modprobe nvidia_uvm",
}


class Device(NamedTuple):
    """A CUDA device, as the driver describes it.

    Attributes
    ----------
    name
        ``"NVIDIA H100 80GB HBM3"``.
    capability
        Compute capability, ``(9, 0)``.
    memory_bytes
        Of its memory.
    bus_id
        PCI address, by which NVML finds the same device.
    """

    name: str
    capability: tuple[int, int]
    memory_bytes: int
    bus_id: str


class DriverError(RuntimeError):
    """The driver refused a call; `code` is its CUresult."""

    def __init__(self, code: int, name: str) -> None:
        super().__init__(f"{name} ({code})")
        self.code = code


def devices() -> list[Device]:
    """Return the CUDA devices that this process may use.

    Raises
    ------
    OSError
        libcuda is not there.
    DriverError
        It is, and does not work.
    """
    library = ctypes.CDLL("libcuda.so.1")
    _call(library, "cuInit", 0)
    count = ctypes.c_int()
    _call(library, "cuDeviceGetCount", ctypes.byref(count))
    return [_device(library, ordinal) for ordinal in range(count.value)]


def _device(library: Any, ordinal: int) -> Device:
    handle, memory = ctypes.c_int(), ctypes.c_size_t()
    name, bus_id = ctypes.create_string_buffer(256), ctypes.create_string_buffer(64)
    capability = ctypes.c_int(), ctypes.c_int()
    _call(library, "cuDeviceGet", ctypes.byref(handle), ordinal)
    _call(library, "cuDeviceGetName", name, len(name), handle)
    _call(library, "cuDeviceTotalMem_v2", ctypes.byref(memory), handle)
    _call(library, "cuDeviceGetPCIBusId", bus_id, len(bus_id), handle)
    for figure, attribute in zip(capability, (CAPABILITY_MAJOR, CAPABILITY_MINOR), strict=True):
        _call(library, "cuDeviceGetAttribute", ctypes.byref(figure), attribute, handle)
    return Device(
        name.value.decode(),
        (capability[0].value, capability[1].value),
        memory.value,
        bus_id.value.decode(),
    )


def _call(library: Any, function: str, *args: Any) -> None:
    code = getattr(library, function)(*args)
    if code:
        name = ctypes.c_char_p()
        library.cuGetErrorName(code, ctypes.byref(name))
        raise DriverError(code, (name.value or b"an unknown error").decode())


def probe() -> list[Finding]:
    """Look at the driver and at the first device."""
    version = prerequisites.driver_cuda_version()
    if version is None:
        return [_no_driver()]
    release = doctor_system.driver_release()
    found = f"{f'release {release}, ' if release else ''}CUDA {version[0]}.{version[1]} at most"
    if version < OLDEST:
        return [Finding("driver", "broken", f"{found}; the lab needs 12.0", INSTALL)]
    try:
        there = devices()
    except OSError:
        found = f"{found}, but no libcuda.so.1 to call it by"
        return [Finding("driver", "broken", found, _mend_library())]
    except DriverError as error:
        if error.code != NO_DEVICE:
            found = f"{found}; cuInit fails: {error}"
            return [Finding("driver", "broken", found, MENDS.get(error.code, LOG))]
        there = []
    driver = Finding("driver", "OK", found)
    if not there:
        return [driver, _no_device()]
    first = there[0]
    text = (
        f"{first.name}, compute capability {first.capability[0]}.{first.capability[1]}, "
        f"{first.memory_bytes / 2**30:.1f} GiB"
    )
    if len(there) > 1:
        text += f"; the first of {len(there)}"
    return [driver, Finding("device", "OK", text)]


def _no_driver() -> Finding:
    if doctor_system.driver_release():
        found = "the kernel module is loaded, but there is no libcuda.so.1"
        return Finding("driver", "missing", found, _mend_library())
    if doctor_system.has_nvidia_device():
        found = "there is an NVIDIA device, but no driver for it"
        return Finding("driver", "missing", found, INSTALL)
    return Finding(
        "driver", "missing", "no NVIDIA driver, and no NVIDIA device on the PCI bus",
        "nothing to mend for the emulator; on a machine with an NVIDIA GPU: make gpu",
    )  # fmt: skip


def _mend_library() -> str:
    if doctor_system.in_container():
        return "docker run --gpus all -e NVIDIA_DRIVER_CAPABILITIES=compute,utility ..."
    return "sudo apt install libcuda1 (Ubuntu: libnvidia-compute-RELEASE), and sudo ldconfig"


def _no_device() -> Finding:
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if hidden is not None:
        found = f"CUDA_VISIBLE_DEVICES={hidden!r} leaves no device"
        return Finding("device", "missing", found, "unset CUDA_VISIBLE_DEVICES")
    mend = "docker run --gpus all ..." if doctor_system.in_container() else "nvidia-smi -L"
    return Finding("device", "missing", "the driver sees no device", mend)
