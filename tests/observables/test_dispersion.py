"""Waves in crystals: frequencies and velocities against phonopy, identities, what cannot be asked for."""

import functools

import ase.build
import numpy as np
import pytest
from numpy.testing import assert_allclose

import mdsens as ms
from mdsens.errors import InputError
from mdsens.observables import phonon, phonon_velocity
from mdsens.observables.dispersion import VELOCITY
from mdsens.observables.force_constants import Repetition
from mdsens.observables.observable import State
from mdsens.observables.primitive import PrimitiveCell
from mdsens.observables.supercells import Supercell
from mdsens.units import THZ

ARGON = ms.LennardJones(0.0104, 3.405, elements=("Ar",), cutoff_radius=8.5)
X, L, SLANT = [0.5, 0.5, 0], ["1/2", "1/2", "1/2"], [0.25, 0.5, 0.75]

# the constants of phonopy and LAMMPS are older than CODATA 2018: THz per sqrt(eV/Å²/u)
THEIRS = 15.633302299
# phonopy 4.10.0 on the force constants of the relaxed crystal in 8 x 8 x 8 primitive cells
ARGON_SLANT = [1.2808507750896172, 1.6259239959548264, 1.625923995954828]
ARGON_VELOCITY = {(1, 2): 7.6380981149273754, (3,): 11.73270993367727}  # Å THz along z at [1/4, 1/4, 0]
# the same for silicon (Stillinger, Weber) in 6 x 6 x 6 cells, at [1/3, 0, 0]
SILICON = [
    3.99980490076525,
    3.999804900765254,
    8.805825247909166,
    15.506868655287402,
    17.057109788249903,
    17.057109788249917,
]


@functools.cache
def argon():
    return ms.relax(ARGON, ms.Structure.from_ase(ase.build.bulk("Ar", "fcc", a=5.3)), cell="full", fmax=1e-11)


def measured(observable, relaxed):
    """The value alone."""
    state = relaxed.equilibrium
    bound = observable.bound({"structure": state})
    return np.asarray(
        bound.measure(state.potential, {"structure": State(state.structure, state.neighbors)})[0]
    )


def test_frequencies_and_sensitivities_of_argon_are_those_of_phonopy():
    # tests/data/references/README.md: phonopy with forces of LAMMPS by differences, good to 2e-7
    values, rows = ms.first_order(argon(), [phonon(X), phonon(L)], ["epsilon"], mode="forward")
    assert_allclose(
        values[:3] / THZ * THEIRS, [1.2971329205062838, 1.297132920506284, 1.8919933214128675], rtol=2e-7
    )
    assert_allclose(
        values[3:] / THZ * THEIRS, [0.8626732183497251, 0.8626732183497255, 1.8866019698027703], rtol=2e-7
    )
    # omega goes as sqrt(epsilon), and the crystal does not move
    assert_allclose(rows[:, 0] * 0.0104, values / 2, rtol=1e-8)
    assert_allclose(measured(phonon(SLANT), argon()) / THZ * THEIRS, ARGON_SLANT, rtol=0, atol=1e-9)


@pytest.mark.parametrize("mode", ["forward", "reverse"])
def test_a_group_of_modes_follows_the_relaxation(mode):
    observable = phonon(X, modes=[1, 2])
    _, row = ms.first_order(argon(), observable, ["sigma", "epsilon"], mode=mode)

    def again(sigma):
        changed = ms.replace_parameters(ARGON, {"sigma": sigma})
        crystal = ms.relax(changed, argon().structure, cell="full", fmax=1e-11)
        return float(measured(observable, crystal))

    step = 1e-4
    twin = (again(3.405 + step) - again(3.405 - step)) / (2 * step)
    assert_allclose(row[0, 0], twin, rtol=1e-6)  # step² times third derivatives, 1e-8 times some hundred


def test_silicon_through_relaxation_scales_with_energy_and_length():
    silicon = ms.load_potential("si-stillinger-weber-1985")
    start = ms.Structure.from_ase(ase.build.bulk("Si", "diamond", a=5.43))
    relaxed = ms.relax(silicon, start, cell="isotropic", fmax=1e-11)
    values, rows = ms.first_order(relaxed, phonon(["1/3", 0, 0]), ["epsilon", "sigma"], mode="forward")
    assert_allclose(values / THZ * THEIRS, SILICON, rtol=0, atol=1e-9)
    # the mass is no parameter: omega goes as sqrt(epsilon) / sigma
    assert_allclose(rows * [silicon.epsilon, silicon.sigma] / values[:, None], [[0.5, -1.0]] * 6, rtol=1e-7)


@pytest.mark.validation
def test_velocities_are_those_of_phonopy_and_scale_with_energy():
    for modes, right in ARGON_VELOCITY.items():
        velocity = measured(phonon_velocity([0.25, 0.25, 0], modes=modes), argon())
        assert_allclose(
            velocity / THZ * THEIRS, [0, 0, right / 10], rtol=1e-9, atol=1e-12
        )  # 1 Å THz is 0.1 km/s
    values, rows = ms.first_order(argon(), phonon_velocity([0.25, 0.25, 0], mode=3), ["epsilon"])
    assert_allclose(rows[2, 0] * 0.0104, values[2] / 2, rtol=1e-7)


@pytest.mark.validation
def test_long_waves_run_with_the_speed_of_sound():
    # along [001]: the longitudinal wave has rho v² = C11; the next term goes as the square of the wave vector
    velocity = measured(phonon_velocity(["1/24", "1/24", 0], mode=3), argon())[2]
    (c11,), _ = ms.first_order(argon(), ["C11"], ["epsilon"])
    density = 39.948 / float(ms.volume(argon().structure))
    sound = VELOCITY * np.sqrt(c11 / ms.units.GPA / density)
    assert_allclose(velocity, sound, rtol=5e-3)


def test_a_conventional_cell_has_the_waves_of_its_primitive_cell():
    cubic = ms.Structure.from_ase(ase.build.bulk("Ar", "fcc", a=5.3, cubic=True))
    relaxed = ms.relax(ARGON, cubic, cell="isotropic", fmax=1e-11)
    assert_allclose(measured(phonon(SLANT), relaxed) / THZ * THEIRS, ARGON_SLANT, rtol=0, atol=1e-9)


# --- what cannot be asked for ---------------------------------------------------------------------


REFUSED = {
    "single": (phonon(X, mode=1), r"mode 1 belongs to a group of equal modes at 1.2971 THz.*modes=\[1, 2\]"),
    "two groups": (phonon(X, modes=[2, 3]), r"mode 2 belongs to a group.*ask for modes=\[1, 2\]"),
    "not there": (phonon(X, mode=4), "there are 3 modes, counted from 1"),
    "alone": (phonon(X, modes=[3, 3]), r"mode 3 is alone.*ask for modes=\[3\]"),
    "shift": (phonon([0, 0, 0], mode=1), "mode 1 is a shift of the whole crystal"),
    "at rest": (phonon_velocity([0, 0, 0]), "modes at rest or unstable have no velocity"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_modes_that_have_no_derivative_are_refused(case):
    observable, message = REFUSED[case]
    with pytest.raises(InputError, match=message):
        observable.bound({"structure": argon().equilibrium})


def test_a_cluster_has_no_waves_and_a_slab_none_across():
    cluster = ms.Equilibrium.at(ARGON, ms.Structure.create([[0.0, 0, 0], [3.8, 0, 0]], ["Ar"] * 2))
    with pytest.raises(InputError, match=r"not periodic.*ask for gamma_phonon"):
        phonon(X).bound({"structure": cluster})
    layer = ase.build.fcc111("Ar", (1, 1, 1), a=5.3, vacuum=8.0)
    layer.pbc = (True, True, False)
    slab = ms.Equilibrium.at(ARGON, ms.Structure.from_ase(layer))
    with pytest.raises(InputError, match=r"does not repeat along cell vector 3.*q\[2\] must be 0"):
        phonon(L).bound({"structure": slab})


def test_what_is_tied_to_atoms_or_has_no_end_is_refused():
    bonds = ms.HarmonicBonds(k=[1.0], r0=[3.7], types=("Ar-Ar",), atoms=[[0, 1]], kind=[0])
    crystal = ms.Structure.from_ase(ase.build.bulk("Ar", "hcp", a=3.7, c=6.1))
    tied = ms.Equilibrium.at(bonds, crystal)
    with pytest.raises(InputError, match="was made for particular atoms, by their numbers"):
        phonon(X).bound({"structure": tied})
    salt = ms.Structure.from_ase(ase.build.bulk("NaCl", "rocksalt", a=5.6))
    ions = ms.load_potential("nacl-fumi-tosi")
    with pytest.raises(InputError, match=r"interactions without end.*differences of `phonon`"):
        phonon_velocity(X, mode=6).bound({"structure": ms.Equilibrium.at(ions, salt)})
    with pytest.raises(InputError, match=r"supercell of 27000 cells has 27000 atoms, above 20000"):
        one = PrimitiveCell.same(1)
        Repetition.of(argon().equilibrium, one, Supercell.diagonal((30, 30, 30)), "this")
