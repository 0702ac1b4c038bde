"""Potentials written for LAMMPS: LAMMPS computes their energies, forces and stresses."""

import dataclasses

import numpy as np
import pytest
from ase.build import bulk
from lammps_program import compare, files_of_lammps, lammps_program, single_point, some_of

import mdsens as ms

files_of_lammps()  # skips with the reason where there is no LAMMPS


def crystal(kinds, kind: str, a: float, seed: int = 0) -> ms.Structure:
    """A rattled, sheared cell, kinds at random."""
    rng = np.random.default_rng(seed)
    atoms = bulk("Si", kind, a=a, cubic=True)
    positions = atoms.positions + rng.normal(scale=0.03 * a, size=atoms.positions.shape)
    shear = np.eye(3) + np.tril(rng.uniform(-0.05, 0.05, (3, 3)))
    return ms.Structure.create(positions @ shear, rng.choice(kinds, len(atoms)), atoms.cell.array @ shear)


def moved(name: str, size: float = 0.05) -> ms.Potential:
    """A parameter set after a fit: every number that may be is a little elsewhere."""
    potential = ms.load_potential(name)
    rng = np.random.default_rng(0)
    values = {n: v * (1 + size * rng.uniform(-1, 1)) for n, v in ms.parameter_values(potential).items()}
    return ms.replace_parameters(potential, values)


def alloy(finnis_sinclair: bool) -> ms.EAM:
    """Smooth tables of two species."""
    x, r = 0.02 * np.arange(400), 0.01 * np.arange(500)
    well = np.maximum(1 - r / 4.5, 0.0)
    rho = [c * well**4 * np.exp(-0.2 * r) for c in (8.0, 6.0, 7.0, 5.0)[: 4 if finnis_sinclair else 2]]
    rphi = [c * r * well**3 * (np.exp(-r) * 30 - 1) for c in (1.0, 0.8, 1.2)]
    F = [-c * x / (0.3 + np.sqrt(x)) for c in (1.0, 1.3)]
    return ms.EAM(
        F=F, rho=rho, rphi=rphi, elements=("Ni", "Al"), drho=0.02, dr=0.01, cutoff_radius=4.6,
        finnis_sinclair=finnis_sinclair,
    )  # fmt: skip


def snap() -> ms.SNAP:
    part = next(p for p in ms.load_potential("w-snap-2017").parts if isinstance(p, ms.SNAP))
    return dataclasses.replace(part, beta=part.beta * 1.01)


# file, potential, pair style, lattice, its constant
CASES = [
    ("si.sw", lambda: moved("si-stillinger-weber-1985"), "sw", "diamond", 5.43),
    ("cdte.sw", lambda: moved("cdte-stillinger-weber-1989"), "sw", "diamond", 6.48),
    ("si.tersoff", lambda: moved("si-tersoff-1988-t3", 0.01), "tersoff", "diamond", 5.43),
    ("sic.tersoff", lambda: moved("sic-tersoff-1989", 0.01), "tersoff", "diamond", 4.4),
    ("nial.eam.alloy", lambda: alloy(False), "eam/alloy", "fcc", 3.6),
    ("nial.eam.fs", lambda: alloy(True), "eam/fs", "fcc", 3.6),
    ("w.snapcoeff", snap, "snap", "bcc", 3.17),
]


@pytest.mark.parametrize(
    ("name", "build", "style", "lattice", "a"),
    some_of(CASES, lambda case: case[0], ("si.sw", "si.tersoff", "nial.eam.fs")),
)
def test_lammps_has_the_energy_forces_and_stress_of_what_was_written(
    name, build, style, lattice, a, tmp_path
):
    potential = build()
    ms.save_potential(potential, tmp_path / name)
    structure = crystal(potential.elements, lattice, a)
    files = f"{tmp_path / name}"
    if style == "snap":
        files += f" {tmp_path / 'w.snapparam'}"
    kinds = list(potential.elements)
    commands = [f"pair_style {style}", f"pair_coeff * * {files} {' '.join(kinds)}"]
    with lammps_program() as program:
        expected = single_point(program, structure, kinds, commands)
    # rounding of sums over hundreds of neighbors and angles
    compare(potential, structure, expected, 1e-9)
