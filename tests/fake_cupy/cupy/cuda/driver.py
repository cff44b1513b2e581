"""cupy.cuda.driver of the double."""


class CUDADriverError(RuntimeError):
    """What the driver refuses."""
