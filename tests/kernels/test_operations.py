import subprocess
import sys


def test_the_public_names_stay_what_they_are_when_kernels_are_imported():
    # The package of conv2d's kernels must not take the function's place (kernels.conv2d).
    code = """
import importlib, kernels, kernels.table
before = [getattr(kernels, name) for name in kernels.__all__]
for row in kernels.table.rows():
    if row.name == "reference":
        importlib.import_module(row.module)
assert [getattr(kernels, name) for name in kernels.__all__] == before
assert all(map(callable, before))
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
