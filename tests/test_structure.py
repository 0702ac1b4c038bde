"""Structures: what goes in comes out, in ASE's words too, and what makes no sense is refused."""

import dataclasses

import ase.build
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase.constraints import FixAtoms, FixBondLengths, FixCartesian, FixedLine, FixedPlane, FixScaled
from numpy.testing import assert_allclose, assert_array_equal

import mdsens as ms
from mdsens.errors import InputError


@pytest.fixture
def slab() -> ase.Atoms:
    """Two species, tilted cell, open along z, atoms held in three ways."""
    atoms = ase.build.fcc111("Cu", (2, 2, 3), vacuum=5.0)
    atoms.symbols[3] = "Ni"
    atoms.rattle(0.1, seed=1)
    atoms.set_constraint(
        [
            FixAtoms([0, 1]),
            FixCartesian([2, 4], mask=(True, False, True)),
            FixCartesian(5, mask=(False, False, True)),
        ]
    )
    masses = atoms.get_masses()
    masses[7] = 64.9  # an isotope
    atoms.set_masses(masses)
    return atoms


def test_atoms_of_ase_come_back_as_they_were(slab):
    structure = ms.Structure.from_ase(slab)
    back = structure.to_ase()
    assert_array_equal(back.positions, slab.positions)
    assert_array_equal(back.cell.array, slab.cell.array)
    assert_array_equal(back.pbc, slab.pbc)
    assert_array_equal(back.numbers, slab.numbers)
    assert_array_equal(back.get_masses(), slab.get_masses())
    assert structure.symbols == list(slab.symbols)
    assert structure.pbc == (True, True, False)


def test_constraints_become_fixed_coordinates_and_constraints_again(slab):
    structure = ms.Structure.from_ase(slab)
    expected = np.zeros((12, 3), bool)
    expected[[0, 1]] = True
    expected[[2, 4]] = (True, False, True)
    expected[5, 2] = True
    assert_array_equal(structure.fixed, expected)
    again = ms.Structure.from_ase(structure.to_ase())
    assert_array_equal(again.fixed, expected)
    # ASE holds what we hold
    moved = structure.to_ase()
    moved.set_positions(moved.positions + 0.3)
    assert_allclose(moved.positions - slab.positions, np.where(expected, 0, 0.3), atol=1e-14)


def test_what_a_structure_does_not_keep_is_carried_over_from_other_atoms(slab):
    slab.set_tags(range(12))
    slab.info["source"] = "tests"
    slab.set_initial_charges(np.linspace(-1, 1, 12))
    slab.set_array("site", np.arange(12) ** 2)
    structure = ms.Structure.from_ase(slab)
    carried = structure.deformed(1.1 * jnp.eye(3)).to_ase(like=slab)
    assert_array_equal(carried.get_tags(), range(12))
    assert_array_equal(carried.get_array("site"), np.arange(12) ** 2)
    assert_array_equal(carried.get_initial_charges(), slab.get_initial_charges())
    assert carried.info["source"] == "tests"
    # the structure decides on all that it keeps itself
    assert_allclose(carried.positions, 1.1 * slab.positions, rtol=1e-14)
    assert_allclose(carried.cell.array, 1.1 * slab.cell.array, rtol=1e-14)
    pure = ms.Structure.create(slab.positions, ["Ag"] * 12, slab.cell.array, True).to_ase(like=slab)
    assert set(pure.symbols) == {"Ag"} and pure.pbc.all() and not pure.constraints
    assert set(slab.symbols) == {"Cu", "Ni"}
    with pytest.raises(ms.errors.InputError, match="like has 11 atoms and the structure 12"):
        structure.to_ase(like=slab[:11])


@pytest.mark.parametrize("name", ["structure.extxyz", "POSCAR", "structure.cif", "structure.xyz.gz"])
def test_files_that_ase_reads_are_read(tmp_path, name):
    atoms = ase.build.bulk("NaCl", "rocksalt", a=5.64, cubic=True)
    atoms.write(tmp_path / name)
    structure = ms.read_structure(tmp_path / name)
    # cif and POSCAR write fractions with a dozen digits and may order atoms by element
    assert sorted(structure.symbols) == sorted(atoms.symbols)
    assert_allclose(structure.cell if any(structure.pbc) else atoms.cell, atoms.cell.array, atol=1e-6)


def test_a_frame_of_a_trajectory_is_picked_by_its_index(tmp_path):
    frames = [ase.Atoms("Ar", positions=[[k, 0, 0]]) for k in range(3)]
    ase.io.write(tmp_path / "walk.extxyz", frames)
    assert float(ms.read_structure(tmp_path / "walk.extxyz").positions[0, 0]) == 2
    assert float(ms.read_structure(tmp_path / "walk.extxyz", index=1).positions[0, 0]) == 1


def test_a_file_that_is_no_structure_is_an_error(tmp_path):
    with pytest.raises(ms.errors.FileFormatError, match=r"no structure file '.*nothing.xyz'"):
        ms.read_structure(tmp_path / "nothing.xyz")
    for name in ("notes.extxyz", "POSCAR", "notes"):
        (tmp_path / name).write_text("This is no structure.\n")
        with pytest.raises(ms.errors.FileFormatError, match="ASE guesses the format from the name"):
            ms.read_structure(tmp_path / name)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"positions": [[0.0, 0.0], [1.0, 1.0]]}, r"shape \(2, 2\).*fix z"),
        ({"positions": np.zeros((0, 3)), "species": []}, "at least one atom"),
        ({"species": ["Si", "Sj"]}, "'Sj' is no chemical symbol. Did you mean 'S"),
        ({"species": ["Si"]}, "1 species for 2 positions"),
        ({"species": [14, 119]}, "atomic number 119"),
        ({"masses": [28.0]}, "give 2 positive ones"),
        ({"masses": [28.0, 0.0]}, "give 2 positive ones"),
        ({"fixed": [True]}, r"fixed has shape \(1,\)"),
        ({"cell": np.eye(2)}, r"cell has shape \(2, 2\)"),
        ({"cell": [4.0, 4.0, 0.0], "pbc": True}, "periodic along cell vector 3"),
        ({"cell": None, "pbc": (True, False, False)}, "periodic along cell vector 1"),
        ({"cell": [[4.0, 0, 0], [8, 0, 0], [0, 0, 4]]}, "linearly dependent"),
    ],
)
def test_arrays_that_make_no_structure_are_refused(changes, message):
    arrays = {"positions": [[0.0, 0, 0], [1.0, 1, 1]], "species": ["Si", "Si"], "cell": [4.0, 4.0, 4.0]}
    ms.Structure.create(**arrays)
    with pytest.raises(ms.errors.InputError, match=message):
        ms.Structure.create(**{**arrays, **changes})


def test_a_constraint_on_more_than_coordinates_is_refused(slab):
    slab.set_constraint(FixBondLengths([(0, 1)]))
    with pytest.raises(ms.errors.InputError, match=r"FixBondLengths.*set_constraint"):
        ms.Structure.from_ase(slab)


def test_by_default_a_structure_is_periodic_where_it_has_cell_vectors():
    positions, species = [[0.0, 0, 0]], ["Ar"]
    assert ms.Structure.create(positions, species).pbc == (False, False, False)
    assert ms.Structure.create(positions, species, [4.0, 4.0, 4.0]).pbc == (True, True, True)
    assert ms.Structure.create(positions, species, [[4.0, 0, 0], [0, 4, 0], [0, 0, 0]]).pbc == (
        True,
        True,
        False,
    )
    assert ms.Structure.create(positions, species, [4.0, 4.0, 4.0], pbc=False).pbc == (False, False, False)


def test_volume_follows_a_deformation_and_its_derivative_is_exact():
    structure = ms.Structure.create([[0.0, 0, 0]], ["Ar"], [[4.0, 0, 0], [1, 5, 0], [-1, 2, 6]])
    F = jnp.array([[1.1, 0.1, 0], [0.1, 0.9, 0.2], [0, 0.2, 1.0]])
    assert_allclose(ms.volume(structure.deformed(F)), 120 * np.linalg.det(F), rtol=1e-14)
    # dV/dF = V F^-T at F = 1
    assert_allclose(
        jax.grad(lambda F: ms.volume(structure.deformed(F)))(jnp.eye(3)), 120 * np.eye(3), atol=1e-12
    )
    assert float(ms.volume(ms.Structure.create([[0.0, 0, 0]], ["Ar"]))) == 0


def test_a_plane_of_atoms_with_z_fixed_relaxes_in_the_plane():
    # Discs that interact with nearest neighbors only: the triangular lattice has the distance of the minimum,
    # 2^(1/6) sigma.
    sigma, a = 3.4, 3.7
    cell = np.array([[a, 0, 0], [a / 2, a * np.sqrt(3) / 2, 0], [0, 0, 5]])
    rattle = np.random.default_rng(0).normal(scale=0.05, size=(4, 2))
    positions = np.array([[0, 0, 0], cell[0], cell[1], cell[0] + cell[1]]) + np.pad(rattle, ((0, 0), (0, 1)))
    structure = ms.Structure.create(
        positions, ["Ar"] * 4, 2 * cell, (True, True, False), fixed=np.tile([False, False, True], (4, 1))
    )
    potential = ms.LennardJones(0.01, sigma, elements=("Ar",), cutoff_radius=1.6 * sigma, cut=ms.Truncated())
    relaxed = ms.relax(
        potential,
        structure,
        cell=(True, True, False, False, False, True),
        solver=ms.NewtonCG(),
        check_minimum=False,
    ).structure
    # converged to 1e-8 eV/Å against a curvature of 0.05 eV/Å²
    assert_allclose(np.linalg.norm(relaxed.cell[:2], axis=1), 2 * 2 ** (1 / 6) * sigma, rtol=1e-6)
    assert_array_equal(relaxed.positions[:, 2], 0)
    assert_array_equal(relaxed.cell[2], [0, 0, 10])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pbc": "F"}, "pbc = 'F': give one bool or three"),
        ({"pbc": ["T", "F", "F"]}, "pbc = .*give one bool or three"),
        ({"pbc": [True, False]}, r"pbc has shape \(2,\)"),
        ({"species": [14.9, 14]}, r"species 14\.9: give a chemical symbol or a whole atomic number"),
        ({"species": [True, True]}, "species True"),
        ({"species": [None, 14]}, "species None"),
        ({"species": [np.nan, 14]}, "species nan"),
        ({"species": "SiSi"}, "species = 'SiSi': give one symbol"),
        ({"species": None}, "species = None"),
        ({"positions": [[0.0, 0, 0], [1.0, 1]]}, "give coordinates"),
        ({"positions": [["a", "b", "c"]] * 2}, "positions = .*real numbers"),
        ({"positions": None}, "positions = None"),
        ({"positions": [[0.0, 0, None], [1, 1, 1]]}, "positions = .*real numbers"),
        ({"positions": [[0.0, 0, np.nan], [1, 1, 1]]}, r"positions\[0, 2\] = nan"),
        ({"cell": [[np.nan, 0, 0], [0, 4, 0], [0, 0, 4]]}, r"cell\[0, 0\] = nan"),
        ({"cell": [4.0, 4.0, np.inf]}, r"cell\[2\] = inf"),
        ({"masses": [28.0, np.nan]}, r"masses\[1\] = nan"),
        ({"masses": [28.0, -1.0]}, "give 2 positive ones"),
        ({"fixed": ["F", "F"]}, "fixed = .*give one bool per atom"),
        ({"fixed": [[True], [False]]}, r"fixed has shape \(2, 1\)"),
    ],
)
def test_values_that_python_would_bend_are_refused(changes, message):
    arrays = {"positions": [[0.0, 0, 0], [1.0, 1, 1]], "species": ["Si", "Si"], "cell": [4.0, 4.0, 4.0]}
    with pytest.raises(ms.errors.InputError, match=message):
        ms.Structure.create(**{**arrays, **changes})


def test_a_cell_vector_that_means_nothing_is_dropped():
    two_equal = [[4.0, 0, 0], [4.0, 0, 0], [0, 0, 4.0]]
    free = ms.Structure.create([[0.0, 0, 0]], ["Ar"], two_equal, pbc=False)
    assert_array_equal(free.cell, [[4.0, 0, 0], [0, 0, 0], [0, 0, 4.0]])
    # the periodic one of the two stays
    wire = ms.Structure.create([[0.0, 0, 0]], ["Ar"], two_equal, pbc=[False, True, False])
    assert_array_equal(wire.cell[0], np.zeros(3))
    with pytest.raises(ms.errors.InputError, match="linearly dependent: vector 2"):
        ms.Structure.create([[0.0, 0, 0]], ["Ar"], two_equal, pbc=[True, True, False])


@pytest.mark.parametrize("times", [(2, 1, 1), (1, 3, 1), (2, 3, 1)])
def test_repeated_cells_are_those_of_ase(slab, times):
    ours, theirs = ms.Structure.from_ase(slab).repeat(times), ms.Structure.from_ase(slab.repeat(times))
    assert_allclose(ours.positions, theirs.positions, atol=1e-13)
    assert_allclose(ours.cell, theirs.cell, atol=1e-13)
    for name in ("species", "masses", "fixed"):
        assert_array_equal(getattr(ours, name), getattr(theirs, name))
    assert ours.pbc == theirs.pbc


@pytest.mark.parametrize("times", [2, (1, 1, 2), (1, 1), 0, 1.5, "2", None, (2, 1, True)])
def test_repeats_that_make_no_cell_are_refused(slab, times):
    with pytest.raises(ms.errors.InputError, match="times = "):
        ms.Structure.from_ase(slab).repeat(times)


@pytest.mark.parametrize("given", ["atoms.xyz", None, [ase.Atoms("Ar")], np.zeros((2, 3))])
def test_what_is_no_atoms_is_refused_by_from_ase(given):
    with pytest.raises(ms.errors.InputError, match="atoms "):
        ms.Structure.from_ase(given)


@pytest.mark.parametrize(
    ("constraint", "expected"),
    [
        (FixedPlane(0, (0, 0, 1)), (False, False, True)),
        (FixedLine(0, (0, -2, 0)), (True, False, True)),
        (FixScaled(0, (True, True, True)), (True, True, True)),
        # the plane of the two free vectors of the surface is that of x and y
        (FixScaled(0, (False, False, True)), (False, False, True)),
    ],
)
def test_constraints_along_axes_become_fixed_coordinates(slab, constraint, expected):
    slab.set_constraint(constraint)
    assert_array_equal(ms.Structure.from_ase(slab).fixed[0], expected)


@pytest.mark.parametrize(
    ("constraint", "message"),
    [
        (FixedPlane(0, (0, 1, 1)), "FixedPlane has the direction"),
        (FixedLine(0, (1, 1, 0)), "FixedLine has the direction"),
        (FixScaled(0, (True, False, False)), r"FixScaled \(F T T\).*no cartesian coordinate is held"),
    ],
)
def test_constraints_askew_are_refused_with_the_reason(slab, constraint, message):
    slab.set_constraint(constraint)
    with pytest.raises(ms.errors.InputError, match=message):
        ms.Structure.from_ase(slab)


def test_the_call_that_makes_a_structure_is_named(slab):
    from mdsens.structure import require_structure

    structure = ms.Structure.from_ase(slab)
    assert require_structure(structure) is structure
    for value, hint in ((slab, "from_ase"), ("POSCAR", "read_structure"), (None, "Structure.create")):
        with pytest.raises(ms.errors.InputError, match=hint):
            require_structure(value)


# --- charges


@pytest.fixture
def salt() -> ms.Structure:
    charges = [1.0, -1.0, 0.9, -0.9, 1.1, -1.1, 1.0, -1.0]
    atoms = ase.build.bulk("NaCl", "rocksalt", a=5.6, cubic=True)
    return ms.Structure.create(atoms.positions, atoms.numbers, atoms.cell.array, charges=charges)


def test_charges_go_with_the_atoms(salt):
    assert_array_equal(salt.at(2 * salt.positions).charges, salt.charges)
    assert_array_equal(salt.deformed(1.1 * jnp.eye(3)).charges, salt.charges)
    assert_array_equal(salt.repeat((2, 1, 1)).charges, np.tile(salt.charges, 2))


def test_charges_pass_through_ase_and_its_files(salt, tmp_path):
    assert_array_equal(salt.to_ase().get_initial_charges(), salt.charges)
    assert_array_equal(ms.Structure.from_ase(salt.to_ase()).charges, salt.charges)
    ms.write_structure(tmp_path / "salt.extxyz", salt)
    assert_array_equal(ms.read_structure(tmp_path / "salt.extxyz").charges, salt.charges)


def test_structures_without_charges_have_no_more_leaves_than_before(salt):
    plain = dataclasses.replace(salt, charges=None)
    assert len(jax.tree.leaves(plain)) == 5
    assert "initial_charges" not in plain.to_ase().arrays
    assert ms.Structure.from_ase(plain.to_ase()).charges is None


@pytest.mark.parametrize(
    ("charges", "message"),
    [
        ([1.0, -1.0], r"charges have shape \(2,\): give 8"),
        ([np.nan] * 8, r"charges\[0\] = nan.*must be finite"),
        (["a"] * 8, r"charges = .*as real numbers"),
    ],
)
def test_charges_that_are_none_are_refused(salt, charges, message):
    with pytest.raises(InputError, match=message):
        ms.Structure.create(salt.positions, salt.species, salt.cell, charges=charges)
