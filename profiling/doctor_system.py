"""What Linux says of this machine in files: read below `ROOT`, which the tests replace."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path("/")
NVIDIA = "0x10de"


def read(path: str) -> str | None:
    """Return a file's text without the blanks around it, or None where it cannot be read."""
    try:
        return (ROOT / path).read_text(errors="replace").strip()
    except OSError:
        return None


def in_container() -> bool:
    """Tell whether this is a Docker or Podman container."""
    return (ROOT / ".dockerenv").exists() or (ROOT / "run/.containerenv").exists()


def driver_release() -> str | None:
    """Return the release of the NVIDIA kernel module, ``"580.95.05"``; None where not loaded."""
    found = re.search(r"\b\d{3,}\.\d+(\.\d+)?\b", read("proc/driver/nvidia/version") or "")
    return found[0] if found else None


def has_nvidia_device() -> bool:
    """Tell whether a device of NVIDIA's is on the PCI bus."""
    devices = (ROOT / "sys/bus/pci/devices").glob("*/vendor")
    return any(read(str(path.relative_to(ROOT))) == NVIDIA for path in devices)


def has_capability(*bits: int) -> bool:
    """Tell whether this process has one of some Linux capabilities, by their numbers."""
    found = re.search(r"^CapEff:\s*([0-9a-f]+)", read("proc/self/status") or "", re.MULTILINE)
    return found is not None and any(int(found[1], 16) >> bit & 1 for bit in bits)
