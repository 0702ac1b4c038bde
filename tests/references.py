"""Reference tables of independent codes (LAMMPS, matscipy, ASE), kept in tests/data/references with their source."""

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np

import mdsens as ms

FOLDER = Path(__file__).parent / "data" / "references"


@functools.cache
def table(name: str) -> dict[str, Any]:
    """Cases of one table by their id."""
    return {case["id"]: case for case in json.loads((FOLDER / f"{name}.json").read_text())["cases"]}


def structure(case: dict[str, Any]) -> ms.Structure:
    s = case["structure"]
    cell = s["cell"] if any(s["pbc"]) else None
    return ms.Structure.create(s["positions"], s["symbols"], cell, s["pbc"], masses=case.get("masses"))


def assert_agrees(mine: Any, record: dict[str, Any], what: str = "") -> None:
    """The tables' own rule: |mine - value| <= max(10 error, 1e-7 max|value|, 1e-8)."""
    value, error = np.asarray(record["value"], float), record.get("error", 0.0)
    off = float(np.max(np.abs(np.asarray(mine) - value)))
    allowed = max(10 * error, 1e-7 * float(np.max(np.abs(value))), 1e-8)
    assert off <= allowed, f"{what}: off by {off:.2e}, allowed {allowed:.2e} (stated error {error:.1e})"
