import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for lenet_idx_files, which several tests share


@pytest.fixture
def idx_folder(tmp_path):
    from lenet_idx_files import write_folder

    return write_folder(tmp_path / "data")
