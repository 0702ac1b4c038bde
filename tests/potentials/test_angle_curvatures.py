"""Second derivatives of bond angles written out are those that differentiation finds."""

import numpy as np
import pytest
from ase.build import bulk
from numpy.testing import assert_allclose

import mdsens as ms
from mdsens.neighbors import find_neighbors
from mdsens.potentials.shells import ShellPotential, Surroundings

CASES = {
    "si-stillinger-weber-1985": bulk("Si", "diamond", a=5.43, cubic=True),
    "cdte-stillinger-weber-1989": bulk("CdTe", "zincblende", a=6.48, cubic=True),
}


def surroundings(name: str) -> tuple[ShellPotential, ms.Structure, Surroundings]:
    atoms = CASES[name].copy()
    atoms.rattle(0.2, seed=1)
    potential, structure = ms.load_potential(name), ms.Structure.from_ase(atoms)
    # with pairs beyond the cutoff, and unused places
    neighbors = find_neighbors(structure, float(potential.cutoff), 0.6)
    return potential, structure, potential._surroundings(structure, neighbors)


@pytest.mark.parametrize("name", CASES)
def test_curvatures_of_shells_are_the_derivatives_of_their_gradients(name):
    potential, structure, around = surroundings(name)
    rows = around.all_rows(structure.positions)
    written_out = np.asarray(potential.shell_curvatures(structure, around, rows))
    found = np.asarray(ShellPotential.shell_curvatures(potential, structure, around, rows))
    assert_allclose(written_out, found, rtol=0, atol=1e-13 * np.abs(found).max())
    assert_allclose(written_out, np.transpose(written_out, (0, 2, 1, 4, 3)), rtol=0, atol=1e-13)
    unused = np.asarray(around.neighbors.near) == around.neighbors.nobody
    assert unused.any()
    assert not written_out[unused].any()


def test_rows_left_empty_have_no_curvature():
    potential, structure, around = surroundings("si-stillinger-weber-1985")
    # rows of more than four neighbors are left empty
    rows = around.some_rows(structure.positions, np.arange(8), 4)
    curvatures = np.asarray(potential.shell_curvatures(structure, around, rows))
    empty = np.all(np.asarray(rows.near) == around.neighbors.nobody, axis=1)
    assert empty.any()
    assert not curvatures[empty].any()
