from pathlib import Path

import pytest

from kernels import emulator

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def shared():
    names = ["scale<float, 3>", "scale<int,2>", "inner::spaced"]
    return emulator.load(HERE / "shared.cu", name_expressions=names)


@pytest.fixture(scope="session")
def warps():
    return emulator.load(HERE / "warps.cu")


@pytest.fixture(scope="session")
def atomics():
    return emulator.load(HERE / "atomics.cu")


@pytest.fixture(scope="session")
def language():
    return emulator.load(HERE / "language.cu", defines={"FACTOR": "1.5f"})


@pytest.fixture(scope="session")
def faults():
    return emulator.load(HERE / "faults.cu")


@pytest.fixture(params=["forward", "reverse", "random"])
def any_order(request):
    with emulator.settings(order=request.param, seed=3):
        yield request.param
