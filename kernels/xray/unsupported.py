"""What to do about CUDA that the emulator does not take."""

from __future__ import annotations

import re

GUARD = "put it between '#ifndef CONV_KERNEL_LAB_EMULATOR' and '#endif'"
FLOAT32 = "X-ray a float32 variant of the kernel: the addresses are what counts"
DIRECT = "use plain loads and stores for the X-ray, guarded by CONV_KERNEL_LAB_EMULATOR"

# By the names that the emulator's messages have for them.
ADVICE = {
    "cooperative groups": "use __syncthreads(), __syncwarp() and the shuffles instead",
    "tensor cores (wmma)": FLOAT32,
    "half precision": FLOAT32,
    "bfloat16": FLOAT32,
    "8-bit floats": FLOAT32,
    "asynchronous copies": DIRECT,
    "libcu++": DIRECT,
    "CUB": "write the block's reduction or scan with shuffles, or X-ray the kernel around it",
    "cuRAND": "pass random numbers in as an array (--arg r=random:float32:N)",
    "textures": DIRECT,
    "surfaces": DIRECT,
    "launches from the device": f"this is host code, or a nested launch: {GUARD}",
    "inline PTX": f"write it in CUDA C for the emulator, or {GUARD}",
}
# Names of the host's side of CUDA: a whole program was given instead of its kernels.
HOST = re.compile(r"\b(cuda[A-Z]\w*|cublas\w*|cudnn\w*)\b|expected primary-expression before '<'")


def with_advice(message: str) -> str:
    """Return the emulator's message, and the way out where it is about CUDA that it lacks."""
    for feature, advice in ADVICE.items():
        if f"does not support {feature}" in message:
            return f"{message}; {advice}"
    if HOST.search(message):
        return f"{message}; the X-ray runs kernels, no host code: {GUARD}"
    if "there is no kernel in it" in message:
        return f"{message.split(' (')[0]}; of a template name an instance: --kernel 'name<float>'"
    return message
