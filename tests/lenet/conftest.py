import importlib.util
import sys
from pathlib import Path

import pytest

# Test files are imported by path (importlib mode); their shared module is made known here.
_spec = importlib.util.spec_from_file_location(
    "lenet_idx_files", Path(__file__).with_name("idx_files.py")
)
_module = importlib.util.module_from_spec(_spec)
sys.modules["lenet_idx_files"] = _module
_spec.loader.exec_module(_module)


@pytest.fixture
def idx_folder(tmp_path):
    return _module.write_folder(tmp_path / "data")


@pytest.fixture(scope="session")
def squares_folder(tmp_path_factory):
    return _module.write_folder(tmp_path_factory.mktemp("squares"))
