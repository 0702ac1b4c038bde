"""The conventional cell: found in any cell of a crystal, refused for defect cells."""

import numpy as np
import pytest
from ase.build import bulk, make_supercell
from ase.geometry import cell_to_cellpar, cellpar_to_cell

import mdsens as ms
from mdsens.observables import lattice_constant, named
from mdsens.observables.crystal import conventional
from mdsens.relaxation.equilibrium import Equilibrium

ARGON = ms.load_potential("ar-lennard-jones")
EDGE = 5.26


def cubic():
    return bulk("Ar", "fcc", a=EDGE, cubic=True)


def turned_primitive():
    atoms = bulk("Ar", "fcc", a=EDGE)
    atoms.set_cell(cellpar_to_cell(cell_to_cellpar(atoms.cell)), scale_atoms=True)
    return atoms


CELLS = {
    "primitive": turned_primitive,
    "cubic": cubic,
    "repeated": lambda: cubic().repeat(2),
    "slanted": lambda: make_supercell(cubic(), [[1, 1, 0], [0, 2, 1], [0, 0, 3]]),
}


@pytest.mark.parametrize("kind", CELLS)
def test_conventional_cell_is_found_in_any_cell(kind):
    structure = ms.Structure.from_ase(CELLS[kind]())
    found = conventional(structure, "a", perfect=True)
    cell = np.asarray(found.cell(structure))
    assert found.is_cubic
    np.testing.assert_allclose(cell @ cell.T, EDGE**2 * np.eye(3), atol=1e-9)


@pytest.mark.parametrize("name", ["lattice_constant", "a"])
def test_a_defect_cell_has_no_lattice_constant_though_it_is_cubic(name):
    atoms = cubic().repeat(2)
    del atoms[0]
    states = {"structure": Equilibrium.at(ARGON, ms.Structure.from_ase(atoms))}
    (observable,) = named([name])
    with pytest.raises(ms.errors.InputError, match="repeated cell with a defect"):
        observable.bound(states)
    (value,) = lattice_constant(cells=8).bound(states).measure(ARGON, states)
    assert float(value) == pytest.approx(EDGE, rel=1e-12)
