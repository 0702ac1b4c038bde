"""Averages of elastic constants, and constants by the energy: closed forms, and a crystal under pressure."""

import ase.build
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

import mdsens as ms
from mdsens.observables.averages import AVERAGES, energy_constants
from mdsens.observables.elastic import elastic_constants

NAMES = ["C11", "C12", "C44", "C11_energy", "C12_energy", "C44_energy", "K", *AVERAGES]


def isotropic(K, G):
    C = np.zeros((6, 6))
    C[:3, :3] = K - 2 * G / 3
    C[range(3), range(3)] = K + 4 * G / 3
    C[range(3, 6), range(3, 6)] = G
    return jnp.array(C)


def test_an_isotropic_body_has_its_own_moduli_by_every_average():
    K, G = 3.0, 1.7
    found = {name: float(average(isotropic(K, G))) for name, average in AVERAGES.items()}
    for kind in ("voigt", "reuss", "hill"):
        assert_allclose([found[f"K_{kind}"], found[f"G_{kind}"]], [K, G], rtol=1e-12)
    assert_allclose(found["E_hill"], 9 * K * G / (3 * K + G))
    assert_allclose(found["nu_hill"], found["E_hill"] / (2 * G) - 1)


def test_voigt_is_above_reuss_for_any_stable_crystal():
    raw = np.random.default_rng(3).normal(size=(6, 6))
    C = jnp.array(raw @ raw.T + np.eye(6))
    for modulus in "KG":
        voigt, reuss = (float(AVERAGES[f"{modulus}_{kind}"](C)) for kind in ("voigt", "reuss"))
        assert voigt > reuss > 0


def test_averages_of_a_cubic_crystal_are_those_of_its_three_constants():
    C11, C12, C44 = 166.0, 64.0, 80.0
    C = isotropic(1.0, 1.0) * 0 + jnp.diag(jnp.array([C11 - C12] * 3 + [C44] * 3)).at[:3, :3].add(C12)
    found = {name: float(average(C)) for name, average in AVERAGES.items()}
    assert_allclose([found["K_voigt"], found["K_reuss"]], (C11 + 2 * C12) / 3)
    assert_allclose(found["G_voigt"], (C11 - C12 + 3 * C44) / 5)
    assert_allclose(found["G_reuss"], 5 * (C11 - C12) * C44 / (4 * C44 + 3 * (C11 - C12)))


def test_under_pressure_constants_of_stress_and_of_energy_are_two_things():
    potential = ms.LennardJones(0.0104, 3.405, elements=("Ar",), cutoff_radius=8.5)
    start = ms.Structure.from_ase(ase.build.bulk("Ar", "fcc", a=5.2, cubic=True))
    relaxed = ms.relax(potential, start, cell="isotropic", pressure=0.02)
    C = elastic_constants(potential, relaxed)
    by_energy = energy_constants(C, relaxed.stress)
    places = {"C11": (0, 0), "C12": (0, 1), "C44": (3, 3)}
    found = {name: float(C[place]) for name, place in places.items()}
    found |= {f"{name}_energy": float(by_energy[place]) for name, place in places.items()}
    structure = relaxed.structure
    neighbors = ms.neighbors_of(potential, structure, 0.5)

    def energy(eta):
        # F^T F = 1 + 2 eta: F is the root
        values, vectors = jnp.linalg.eigh(jnp.eye(3) + 2 * eta)
        F = vectors @ jnp.diag(jnp.sqrt(values)) @ vectors.T
        return potential.energy(structure.deformed(F), neighbors) / ms.volume(structure)

    def along(first, second):
        at = lambda a, b: float(energy(a * first + b * second))
        h = 1e-3
        return (at(h, h) - at(h, -h) - at(-h, h) + at(-h, -h)) / (4 * h * h)

    shear = jnp.zeros((3, 3)).at[0, 1].set(0.5).at[1, 0].set(0.5)
    xx, yy = jnp.diag(jnp.array([1.0, 0, 0])), jnp.diag(jnp.array([0, 1.0, 0]))
    # atoms stay at their centers of inversion; the difference is off by h² times sixth derivatives
    assert_allclose(found["C11_energy"], along(xx, xx), rtol=1e-3)
    assert_allclose(found["C12_energy"], along(xx, yy), rtol=1e-3)
    assert_allclose(found["C44_energy"], along(shear, shear), rtol=1e-3)
    # with sigma = -p: C11 - p, C12 + p, C44 - p are the constants by stress
    p = 0.02
    for name, shift in {"C11": p, "C12": -p, "C44": p}.items():
        assert_allclose(found[f"{name}_energy"] - found[name], shift, rtol=1e-6)


@pytest.mark.validation  # all names at once, and their derivatives
def test_names_under_pressure_follow_the_parameters():
    potential = ms.LennardJones(0.0104, 3.405, elements=("Ar",), cutoff_radius=8.5)
    start = ms.Structure.from_ase(ase.build.bulk("Ar", "fcc", a=5.2, cubic=True))

    def state(epsilon):
        changed = ms.replace_parameters(potential, {"epsilon": epsilon})
        return ms.relax(changed, start, cell="isotropic", pressure=0.02, fmax=1e-11)

    values, rows = ms.first_order(state(0.0104), NAMES, ["epsilon"])
    h = 1e-6
    up, down = (ms.first_order(state(0.0104 + s), NAMES, ["epsilon"])[0] for s in (h, -h))
    assert_allclose(rows[:, 0], (up - down) / (2 * h), rtol=1e-5, atol=1e-4)
    assert_allclose(values[3] - values[0], 0.02 * ms.units.GPA, rtol=1e-6)


def test_without_stress_both_are_the_same():
    C = isotropic(2.0, 1.0)
    assert_allclose(energy_constants(C, jnp.zeros((3, 3))), C)
    # a uniform tension along x alone keeps the symmetry of the Voigt matrix in its own block
    changed = energy_constants(C, jnp.diag(jnp.array([0.1, 0, 0])))
    assert_allclose(changed[0, 0] - C[0, 0], 0.1 - 0.2)


def test_constants_of_hcp_keep_the_bulk_modulus_between_its_bounds():
    potential = ms.LennardJones(0.0104, 3.405, elements=("Ar",), cutoff_radius=8.5)
    start = ms.Structure.from_ase(ase.build.bulk("Ar", "hcp", a=3.76, c=6.14))
    C = elastic_constants(potential, ms.relax(potential, start, cell="full"))
    K = ms.observables.bulk_modulus(C)
    assert_allclose(K, AVERAGES["K_reuss"](C), rtol=1e-12)
    assert float(AVERAGES["K_voigt"](C)) >= float(K)
    gradient = jax.grad(AVERAGES["G_hill"])(C)
    assert_allclose(jnp.sum(gradient * C), AVERAGES["G_hill"](C), rtol=1e-10)  # of first degree in C


@pytest.mark.parametrize("name", ["nu_hill", "G_hill_clamped", "C12_energy_clamped"])
def test_names_have_their_units(name):
    (found,) = ms.observables.named([name])
    assert found.names == (name,) and found.units == ("" if name.startswith("nu") else "GPa",)
