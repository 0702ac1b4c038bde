"""Reference tables of independent codes (LAMMPS, matscipy, ASE).

Kept in tests/data/references with their source.
"""

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
from agreement import note

import mdsens as ms

FOLDER = Path(__file__).parent / "data" / "references"


@functools.cache
def table(name: str) -> dict[str, Any]:
    """Cases of one table by their id. Parameters of Tersoff's silicon are called by their last name."""
    short = lambda record: {key.removeprefix("Si-Si-Si."): value for key, value in record.items()}
    content = json.loads((FOLDER / f"{name}.json").read_text(), object_hook=short)
    return {case["id"]: case for case in content["cases"]}


def structure(case: dict[str, Any]) -> ms.Structure:
    s = case["structure"]
    cell = s["cell"] if any(s["pbc"]) else None
    return ms.Structure.create(s["positions"], s["symbols"], cell, s["pbc"], masses=case.get("masses"))


def potential(case: dict[str, Any]) -> ms.Potential:
    """The potential of a case (Stillinger-Weber, Tersoff, Lennard-Jones and Morse tables)."""
    p = case["potential"]
    symbols = tuple(dict.fromkeys(case["structure"]["symbols"]))
    if p["style"] == "stillinger-weber":
        return ms.StillingerWeber(
            **{"lambda_" if k == "lambda" else k: v for k, v in p["parameters"].items()}, elements=symbols
        )
    if p["style"] == "tersoff":
        return ms.Tersoff(**{**p["parameters"], "m": int(p["parameters"]["m"])}, elements=symbols)
    # how the interaction ends, by its name in LAMMPS
    cut = (
        ms.ForceShifted()
        if "smooth/linear" in p["lammps"]
        else ms.Shifted()
        if "shift yes" in p["lammps"]
        else ms.Truncated()
    )
    if p["style"] == "morse":
        return ms.Morse(**p["parameters"], elements=symbols, cutoff_radius=p["cutoff"], cut=cut)
    assert p["style"] == "lennard-jones"
    if "epsilon_12" in p["parameters"]:  # types 1 and 2 are called Ar and Kr
        values = {
            name: [p["parameters"][f"{name}_{pair}"] for pair in ("11", "12", "22")]
            for name in ("epsilon", "sigma")
        }
        symbols = ("Ar", "Kr")
    else:
        values = p["parameters"]
    return ms.LennardJones(**values, elements=symbols, cutoff_radius=p["cutoff"] or np.inf, cut=cut)


def flat_name(name: str) -> str:
    """Our name of a parameter of the tables: sigma_12 is sigma[Ar-Kr]."""
    for label, pair in (("11", "Ar-Ar"), ("12", "Ar-Kr"), ("22", "Kr-Kr")):
        name = name.replace(f"_{label}", f"[{pair}]")
    return name


def assert_agrees(mine: Any, record: dict[str, Any], what: str = "") -> None:
    """The tables' own rule: |mine - value| <= max(10 error, 1e-7 max|value|, 1e-8)."""
    value, error = np.asarray(record["value"], float), record.get("error", 0.0)
    note(what, mine, value)
    off = float(np.max(np.abs(np.asarray(mine) - value)))
    allowed = max(10 * error, 1e-7 * float(np.max(np.abs(value))), 1e-8)
    assert off <= allowed, f"{what}: off by {off:.2e}, allowed {allowed:.2e} (stated error {error:.1e})"
