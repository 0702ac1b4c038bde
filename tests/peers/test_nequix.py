"""Nequix-MP-1, a foundation model of 707 658 weights: its own numbers, and derivatives by all of them.

Fetch nequix-mp-1.nqx from the public repository atomicarchitects/nequix (MIT), and say where it lies in
NEQUIX_MP_1. The energies are those of that package's own tests.
"""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

import mdsens as ms

pytestmark = [
    pytest.mark.validation,
    pytest.mark.peer,
    pytest.mark.filterwarnings("default"),  # of the packages that it imports
]
FILE = os.environ.get("NEQUIX_MP_1", "")


@pytest.fixture(scope="module")
def potential():
    if not os.path.isfile(FILE):
        pytest.skip("the weights are not there: NEQUIX_MP_1 names no file")
    pytest.importorskip("nequix.model", reason="nequix is not installed")
    return ms.from_nequix(FILE)


@pytest.fixture(scope="module")
def silicon():
    from ase.build import bulk

    return ms.Structure.from_ase(bulk("Si", a=5.43))


def test_energy_and_stress_are_those_of_the_package(potential, silicon):
    found = ms.energy_forces_stress(potential, silicon)
    assert_allclose(found.energy, -10.834069, atol=1e-5)  # theirs is float32
    assert_allclose(np.diag(found.stress), -0.026995424, atol=1e-5)


def test_lattice_elastic_constants_and_the_steepest_direction_of_the_weights(potential, silicon):
    def lattice_constant(p):
        relaxed = ms.relax(p, silicon, cell="isotropic", fmax=1e-10, solver=ms.NewtonCG())
        return jnp.cbrt(4 * ms.volume(relaxed.structure))

    value, gradient = jax.value_and_grad(lattice_constant)(potential)
    assert_allclose(value, 5.50367, atol=1e-5)
    norm = jnp.sqrt(sum(jnp.sum(w**2) for w in gradient.weights.values()))
    assert_allclose(norm, 0.765478, rtol=1e-5)
    moved = lambda t: lattice_constant(jax.tree.map(lambda w, g: w + t / norm * g, potential, gradient))
    # the step's own error is its square times a third derivative of some 1e2
    assert_allclose((moved(3e-4) - moved(-3e-4)) / 6e-4, norm, rtol=1e-5)

    relaxed = ms.relax(potential, silicon, cell="isotropic", fmax=1e-10, solver=ms.NewtonCG())
    C = np.asarray(ms.observables.elastic_constants(potential, relaxed)) * ms.units.GPA
    assert_allclose([C[0, 0], C[0, 1], C[3, 3]], [161.94, 78.09, 57.81], atol=0.01)
