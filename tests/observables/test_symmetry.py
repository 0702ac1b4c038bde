"""The conventional cell of every crystal system, in any cell of it; and where there is none."""

import ase.build
import jax.numpy as jnp
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, make_supercell
from ase.geometry import cell_to_cellpar
from ase.lattice import BCT, CUB, HEX, MCL, ORC, RHL, TET, TRI
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

import mdsens as ms
from mdsens.errors import InputError
from mdsens.observables import NAMED, named
from mdsens.observables.crystal import conventional, require_cubic

# one lattice of each system: its edges and angles, as crystallographers give them
LATTICES = {
    "cubic": (CUB(3.2), (3.2, 3.2, 3.2, 90, 90, 90)),
    "tetragonal": (TET(3.2, 4.1), (3.2, 3.2, 4.1, 90, 90, 90)),
    "body centered tetragonal": (BCT(3.2, 4.1), (3.2, 3.2, 4.1, 90, 90, 90)),
    "orthorhombic": (ORC(3.0, 3.5, 4.2), (3.0, 3.5, 4.2, 90, 90, 90)),
    "hexagonal": (HEX(3.2, 5.1), (3.2, 3.2, 5.1, 90, 90, 120)),
}


def crystal(name: str) -> ms.Structure:
    lattice, _ = LATTICES[name]
    return ms.Structure.create([[0.1, 0.2, 0.3]], ["Ar"], lattice.tocell().array)


@pytest.mark.parametrize("name", LATTICES)
def test_one_atom_tells_edges_and_angles_of_its_lattice(name):
    structure = crystal(name)
    found = conventional(structure, "a")
    assert_allclose(cell_to_cellpar(np.asarray(found.cell(structure))), LATTICES[name][1], rtol=1e-8)
    assert found.is_cubic == (name == "cubic")


@pytest.mark.parametrize("name", LATTICES)
def test_a_turned_cell_has_the_same_conventional_cell(name):
    structure = crystal(name)
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    turn = turn * np.sign(np.linalg.det(turn))
    turned = structure.deformed(jnp.asarray(turn))
    found = conventional(turned, "a")
    assert_allclose(cell_to_cellpar(np.asarray(found.cell(turned))), LATTICES[name][1], rtol=1e-7)
    # axes of the crystal are unit vectors at right angles
    axes = np.asarray(found.axes)
    assert_allclose(axes @ axes.T, np.eye(3), atol=1e-9)


@settings(max_examples=15)
@given(st.lists(st.integers(-1, 2), min_size=9, max_size=9))
def test_any_cell_of_a_crystal_tells_its_lattice_constant(numbers):
    P = np.reshape(numbers, (3, 3))
    if not 1 <= round(np.linalg.det(P)) <= 4:
        return
    atoms = make_supercell(bulk("NaCl", "rocksalt", a=5.64), P)
    structure = ms.Structure.from_ase(atoms)
    found = conventional(structure, "a", perfect=True)
    assert found.number == 225 and found.is_cubic
    assert_allclose(cell_to_cellpar(np.asarray(found.cell(structure))), [5.64] * 3 + [90] * 3, rtol=1e-8)


@pytest.mark.parametrize("make", [RHL(3.2, 70.0), MCL(3.0, 3.5, 4.2, 75.0), TRI(3.0, 3.5, 4.2, 75, 80, 85)])
def test_crystals_of_low_symmetry_keep_their_volume_by_atoms(make):
    structure = ms.Structure.create([[0, 0, 0]], ["Ar"], make.tocell().array)
    found = conventional(structure, "a")
    multiple = abs(np.linalg.det(np.asarray(found.matrix)))
    # whole numbers of atoms: 3 in the hexagonal cell of a rhombohedral crystal, 1 otherwise
    assert_allclose(multiple, 3 if make.name == "RHL" else 1, rtol=1e-9)
    assert not found.is_cubic


@pytest.mark.parametrize(
    ("name", "number"), [("Si", 227), ("Cu", 225), ("Fe", 229), ("Mg", 194), ("NaCl", 225), ("CsCl", 221)]
)
def test_space_groups_are_those_of_the_books(name, number):
    structures = {
        "NaCl": lambda: bulk("NaCl", "rocksalt", a=5.64),
        "CsCl": lambda: bulk("CsCl", "cesiumchloride", a=4.12),
    }
    atoms = structures.get(name, lambda: bulk(name))()
    found = conventional(ms.Structure.from_ase(atoms), "a")
    assert found.number == number and found.is_cubic == (number != 194)


@pytest.mark.parametrize("pbc", [(True, True, False), (False, False, True), (False,) * 3])
def test_slabs_wires_and_clusters_have_no_conventional_cell(pbc):
    atoms = ase.build.fcc100("Ar", (1, 1, 3), a=5.25, vacuum=8.0)
    atoms.pbc = pbc
    with pytest.raises(InputError, match="a: there is no conventional cell without periodicity in three"):
        conventional(ms.Structure.from_ase(atoms), "a")


def test_two_atoms_at_one_place_have_no_symmetry():
    structure = ms.Structure.create([[0, 0, 0], [0, 0, 0]], ["Ar"] * 2, [5.0] * 3)
    with pytest.raises(InputError, match="spglib finds no symmetry of this structure: two atoms may be"):
        conventional(structure, "a")


@pytest.mark.parametrize("kind", ["vacancy", "antisite", "interstitial"])
def test_a_repeated_cell_with_a_defect_is_no_crystal_of_its_own(kind):
    atoms = bulk("NaCl", "rocksalt", a=5.64, cubic=True).repeat(2)
    if kind == "vacancy":
        del atoms[3]
    elif kind == "antisite":
        atoms.symbols[3] = "Na" if atoms.symbols[3] == "Cl" else "Cl"
    else:
        atoms += Atoms("Na", [[1.41, 1.41, 1.41]])
    with pytest.raises(InputError, match="repeated cell with a defect"):
        conventional(ms.Structure.from_ase(atoms), "lattice_constant", perfect=True)


def test_what_is_cubic_is_asked_for_of_cubic_crystals_only():
    hexagonal = conventional(crystal("hexagonal"), "K")
    with pytest.raises(InputError, match=r"C11_cubic is that of a cubic crystal.*P6/mmm \(191\): use a, c"):
        require_cubic(hexagonal, "C11_cubic", "use a, c.")
    require_cubic(conventional(crystal("cubic"), "K"), "C11_cubic", "")


# --- names ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "suggested"),
    [
        ("enrgy", "energy"),
        ("volum", "volume"),
        ("latice_constant", "lattice_constant"),
        ("formaton", "formation"),
    ],
)
def test_a_misspelled_observable_gets_the_nearest_name(name, suggested):
    with pytest.raises(InputError, match=f"no observable '{name}'. Did you mean '{suggested}'"):
        named([name])


@pytest.mark.parametrize("name", ["C07", "C17", "C71", "C1", "C111", "c11", "C11_frozen", "K_cubic", ""])
def test_a_constant_that_there_is_not_is_refused(name):
    with pytest.raises(InputError, match="no observable "):
        named([name])


@pytest.mark.parametrize("i", range(1, 7))
def test_all_36_constants_have_names(i):
    (observable,) = named([f"C{i}{j}" for j in range(1, 7)])
    assert observable.names == tuple(f"C{i}{j}" for j in range(1, 7))
    assert observable.units == ("GPa",) * 6


def test_every_name_says_its_unit_and_its_state():
    for name in NAMED:
        for observable in named([name], "bulk"):
            assert len(observable.names) == len(observable.units) and all(observable.names)
