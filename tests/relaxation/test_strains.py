"""Whatever strains are free, the Cauchy stress reaches its target in each of them, and nothing moves on."""

import itertools

import ase.build
import jax
import numpy as np
import pytest
from numpy.testing import assert_allclose

import mdsens as ms
from mdsens.strain import to_voigt

COPPER = ms.Morse(0.3429, 1.3588, 2.866, elements=("Cu",), cutoff_radius=6.5, cut=ms.ForceShifted())


def sheared() -> ms.Structure:
    """An fcc crystal of copper under a shear of 6 %: its strains are far from small."""
    atoms = ase.build.bulk("Cu", "fcc", a=3.6, cubic=True)
    atoms.set_cell(atoms.cell.array @ np.array([[1, 0.06, 0], [0.06, 1, 0], [0, 0, 1]]), scale_atoms=True)
    return ms.Structure.from_ase(atoms)


def check(mask: tuple[bool, ...]) -> None:
    relaxed = ms.relax(COPPER, sheared(), cell=mask, fmax=1e-9)
    stress = np.asarray(to_voigt(relaxed.stress))[list(mask)]
    # fmax counts a stress as a force on an atom's face of 5 Å²
    assert_allclose(stress, 0, atol=1e-9 / 4, err_msg=str(mask))
    again = ms.relax(COPPER, relaxed.structure, cell=mask, fmax=1e-8)
    assert int(again.steps) == 0


@pytest.mark.parametrize("mask", [(0, 0, 0, 0, 0, 1), (1, 0, 0, 0, 0, 1)], ids=["xy alone", "xx and xy"])
def test_a_shear_free_without_its_diagonals_loses_its_own_stress(mask):
    check(tuple(map(bool, mask)))


@pytest.mark.validation
@pytest.mark.parametrize("mask", list(itertools.product([False, True], repeat=6))[1:], ids=str)
def test_every_mask_reaches_its_stress(mask):
    check(mask)


def test_strains_whose_forces_have_no_energy_have_the_right_derivative():
    # in both modes: the Jacobian of these forces is not symmetric
    mask = (True, False, False, False, False, True)

    def corner(alpha):
        potential = ms.replace_parameters(COPPER, {"alpha": alpha})
        cell = ms.relax(potential, sheared(), cell=mask, fmax=1e-11).structure.cell
        return cell[0, 1] + cell[0, 0]

    alpha = float(COPPER.alpha)
    # relaxed to 1e-11 eV/Å, steps of 1e-4: rounding 1e-7 of a derivative of order one, truncation 1e-8
    twin = (float(corner(alpha + 1e-4)) - float(corner(alpha - 1e-4))) / 2e-4
    assert_allclose([jax.grad(corner)(alpha), jax.jacfwd(corner)(alpha)], twin, rtol=1e-6)


def test_a_slab_without_vacuum_vector_relaxes_in_its_plane():
    atoms = ase.build.fcc100("Cu", (1, 1, 3), a=3.6)
    atoms.cell[2] = 0
    atoms.pbc = (True, True, False)
    mask = (True, True, False, False, False, False)
    bare = ms.relax(COPPER, ms.Structure.from_ase(atoms), cell=mask, fmax=1e-9).structure
    atoms.cell[2] = (0, 0, 30)
    padded = ms.relax(COPPER, ms.Structure.from_ase(atoms), cell=mask, fmax=1e-9).structure
    assert_allclose(bare.cell[:2], padded.cell[:2], atol=1e-8)
