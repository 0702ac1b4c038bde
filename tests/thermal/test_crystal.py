"""Free energies of crystals: a harmonic one in closed form, springs, and crystals that melt."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array
from numpy.testing import assert_allclose

import mdsens as ms
from mdsens.errors import InputError, MeltedError
from mdsens.potentials.base import parameter
from mdsens.thermal.crystal import HBAR, einstein_free_energy, require_solid, spring_energy
from mdsens.units import ACCELERATION, BOLTZMANN

pytest.importorskip("jax_md", reason="jax-md is not installed")

EDGE, T = 5.3, 50.0
CRYSTAL = ms.Structure.create(
    EDGE * np.array([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]), ["Ar"] * 4, cell=[EDGE] * 3
)
AXES = np.array([1.0, 2.0, 3.0])


class Network(ms.Potential):
    """Springs between all atoms, stiffer along y and z than along x: U = U_0 + kappa/2 sum_c n_c |du_c|²."""

    kappa: Array = parameter("eV/Å²")
    elements: tuple[str, ...] = eqx.field(static=True, default=("Ar",))
    source: str = eqx.field(static=True, default="")

    @property
    def cutoff(self):
        return jnp.asarray(4.0)

    def energy(self, structure, neighbors):
        u = structure.positions - CRYSTAL.positions
        i, j = np.triu_indices(4, 1)
        return -1.0 + 0.5 * self.kappa * jnp.sum(AXES * (u[i] - u[j]) ** 2)


def exact(kappa: float, temperature: float) -> float:
    """Three modes of stiffness N kappa n_c along each axis."""
    kT = BOLTZMANN * temperature
    w = np.sqrt(4 * kappa * AXES / np.asarray(CRYSTAL.masses)[0] * ACCELERATION)
    return float(-1.0 + 3 * kT * np.log(HBAR * w / kT).sum())


def test_a_harmonic_crystal_has_its_free_energy_and_derivatives():
    found = ms.thermal.crystal_free_energy(
        Network(0.05), CRYSTAL, T, windows=3, steps=1000, record_every=10, timestep=8.0, friction=0.02
    )
    assert abs(found.value - exact(0.05, T)) < 3 * found.error
    assert found.error < 0.01 * 9 * BOLTZMANN * T
    assert found.variables == ("kappa", "temperature") and found.variable_units == ("eV/Å²", "K")
    kT = BOLTZMANN * T
    slopes = np.array([9 * kT / 2 / 0.05, (exact(0.05, T) - -1.0) / T - 9 * BOLTZMANN])
    assert np.all(np.abs(found.derivatives - slopes) < 3 * found.derivative_errors)
    assert np.all(found.derivative_errors < 0.1 * np.abs(slopes))
    assert_allclose(found.at_rest + found.springs - found.steps.sum(), found.value)


def test_frequencies_of_atoms_on_springs_are_those_of_their_dynamical_matrix():
    rng = np.random.default_rng(0)
    k, masses = rng.uniform(1, 3, 5), rng.uniform(10, 40, 5)
    # the Hessian of E, by its value at unit displacements: E is quadratic
    unit = np.eye(15).reshape(15, 5, 3)
    E = lambda u: np.asarray(spring_energy(jnp.asarray(u), jnp.asarray(k)))
    both = unit[:, None] + unit[None]
    hessian = E(both) - E(unit)[:, None] - E(unit)[None]
    m = np.repeat(masses, 3)
    squares = np.linalg.eigvalsh(hessian / np.sqrt(np.outer(m, m)))[3:] * ACCELERATION
    kT = BOLTZMANN * 300.0
    by_hand = kT * np.log(HBAR * np.sqrt(squares) / kT).sum()
    assert_allclose(einstein_free_energy(k, masses, 300.0), by_hand, rtol=1e-12)
    # a shift of all atoms costs nothing
    u = rng.normal(size=(5, 3))
    assert_allclose(E(u + 0.7), E(u), rtol=1e-12)


def first_square(potential, states):
    u = states["structure"].structure.positions - CRYSTAL.positions
    return (u[0, 0] ** 2, u[0, 0] * u[1, 0])


def test_atoms_of_a_harmonic_crystal_spread_as_the_inverse_of_its_hessian():
    # <u u> = kT H^+: with H = kappa n_c (N 1 - 1 1^T) along each axis, H^+ = (1 - 1 1^T / N) / (kappa n_c N)
    kT, kappa = BOLTZMANN * T, 0.05
    noise = np.random.default_rng(3).normal(size=(600, 4, 3))
    u = (noise - noise.mean(1, keepdims=True)) * np.sqrt(kT / (4 * kappa * AXES))
    ensemble = frames(np.asarray(CRYSTAL.positions) + u)
    spread = ms.Observable(("xx", "xy"), ("Å²", "Å²"), first_square)
    found = ensemble.average([spread, "heat_capacity", "energy"])
    exact = kT / (4 * kappa) * np.array([3 / 4, -1 / 4])
    for name, value in (("xx", exact[0]), ("xy", exact[1])):
        assert abs(found[name].value - value) < 3 * found[name].error < value * np.sign(value)
        for variable, slope in (("kappa", -value / kappa), ("temperature", value / T)):
            response, error = found.derivative(name, variable)
            assert abs(response - slope) < 3 * error < 3 * abs(slope)
    # nine modes, and the momenta of twelve coordinates
    capacity, error = found["heat_capacity"]
    assert abs(capacity - (9 + 12) / 2 * BOLTZMANN) < 3 * error < BOLTZMANN * 3


def frames(positions):
    potential = Network(0.05)
    return ms.Ensemble.of_frames(potential, CRYSTAL, positions, temperature=T)


def test_a_crystal_that_melts_is_refused_with_the_atom_that_left():
    x = np.repeat(np.asarray(CRYSTAL.positions)[None], 12, axis=0)
    require_solid(frames(x + 5.0), CRYSTAL)  # all atoms together: it drifts
    x[7, 2] += [0.0, 2.9, 0.0]
    with pytest.raises(
        MeltedError, match=r"atom 2 \(Ar\) is 2.17 Å from its site in frame 7 of 12"
    ) as raised:
        require_solid(frames(x), CRYSTAL)
    assert "25 % of the atoms" in str(raised.value) and "melts" in str(raised.value)
    assert len(raised.value.partial.frames) == 12


def test_what_is_no_crystal_has_no_free_energy():
    cluster = ms.Structure.create(CRYSTAL.positions, ["Ar"] * 4)
    with pytest.raises(InputError, match=r"periodic in three directions"):
        ms.thermal.crystal_free_energy(Network(0.05), cluster, T)
    held = ms.Structure.create(CRYSTAL.positions, ["Ar"] * 4, [EDGE] * 3, fixed=[True, False, False, False])
    with pytest.raises(InputError, match=r"3 coordinates held"):
        ms.thermal.crystal_free_energy(Network(0.05), held, T)
    with pytest.raises(InputError, match=r"windows = 1"):
        ms.thermal.crystal_free_energy(Network(0.05), CRYSTAL, T, windows=1)
    with pytest.raises(InputError, match=r"temperature = 0"):
        ms.thermal.crystal_free_energy(Network(0.05), CRYSTAL, 0.0)
