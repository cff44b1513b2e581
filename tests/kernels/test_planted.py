"""The check is itself proved: it passes every healthy kernel and rejects every planted fault."""

from __future__ import annotations

import functools

import pytest
from planted import PLANTS, Plant

from kernels import cases, check, table
from kernels.source import CudaSource


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.name.replace(" ", "-"))
def test_a_planted_fault_is_rejected(plant: Plant, tmp_path, monkeypatch):
    row = table.find(plant.operation, plant.row)
    *path, name = plant.source.split(".")
    module = functools.reduce(getattr, path, row.launchers)
    faulty = CudaSource(plant.write(tmp_path), **getattr(module, name).defines)
    monkeypatch.setattr(module, name, faulty)

    rejected = next(
        (
            result
            for result in check.check_row(row, cases.fixed(plant.operation), "emulator")
            # In float64 a rounded factor is no fault of one bit: float32 must show it.
            if not result.ok and result.dtype == "float32"
        ),
        None,
    )

    assert rejected is not None, f"{plant.name}: every shape passed"
    assert "Compile" not in rejected.message, rejected.message


def test_there_are_enough_plants_with_distinct_names():
    assert len({plant.name for plant in PLANTS}) == len(PLANTS) >= 20
