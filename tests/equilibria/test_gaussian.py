"""The Gaussian state: harmonic limit, oscillators against quadrature, derivatives, what melts."""

import ase.build
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.optimize import fsolve

import mdsens as ms
from mdsens.equilibria.gaussian import _begin, _step, forward_backward
from mdsens.equilibria.members import gaussian_members
from mdsens.equilibria.symmetry import SpaceGroup
from mdsens.errors import InputError, MeltedError, NotConvergedError
from mdsens.potentials.base import parameter
from mdsens.units import ACCELERATION, BOLTZMANN, PLANCK


class Well(ms.Potential):
    """a x² / 2 + b x³ / 3 + c x⁴ / 4 of the distance along x of atom 1 from where it is 9 Å from atom 0."""

    a: float = parameter("eV/Å²", per=None)
    b: float = parameter("eV/Å³", per=None)
    c: float = parameter("eV/Å⁴", per=None)
    elements: tuple[str, ...] = eqx.field(static=True, default=())
    source: str = eqx.field(static=True, default="")
    local = False

    @property
    def cutoff(self):
        return jnp.asarray(jnp.inf)

    def energy(self, structure, neighbors):
        x = structure.positions[1, 0] - structure.positions[0, 0] - 9
        return self.a * x**2 / 2 + self.b * x**3 / 3 + self.c * x**4 / 4


def oscillator(x=0.0):
    fixed = np.ones((2, 3), bool)
    fixed[1, 0] = False
    return ms.Structure.create([[-9, 0, 0], [x, 0, 0]], ["Si", "Si"], fixed=fixed)


MEMBERS = dict(members=2000)  # of one dimension: their averages are good to a thousandth and better


def exact(a, b, c, T, start=(0.0, 0.01)):
    """Mean and variance of the Gaussian, whose moments are known: <x²> = m² + s, <x³> = m³ + 3 m s, ..."""

    def equations(unknowns):
        m, s = unknowns
        force = a * m + b * (m**2 + s) + c * (m**3 + 3 * m * s)
        curvature = a + 2 * b * m + 3 * c * (m**2 + s)
        return force, curvature * s / (BOLTZMANN * T) - 1

    return fsolve(equations, start, xtol=1e-13)


def test_an_oscillator_with_odd_and_even_terms_has_the_moments_of_its_equations():
    T = 400.0
    state = ms.gaussian_state(Well(3.0, 2.0, 20.0), oscillator(), T, **MEMBERS)
    m, s = exact(3.0, 2.0, 20.0, T)
    assert_allclose(state.structure.positions[1, 0], m, rtol=1e-3)
    assert_allclose(state.covariance[3, 3], s, rtol=1e-3)


def test_its_free_energy_is_above_that_of_quadrature_and_near_it():
    T, well = 400.0, Well(3.0, 2.0, 20.0)
    kT = BOLTZMANN * T
    x = np.linspace(-3, 3, 20001)
    U = 3.0 * x**2 / 2 + 2.0 * x**3 / 3 + 20.0 * x**4 / 4
    mass = float(oscillator().masses[1])
    hbar = 1e3 * PLANCK / (2 * np.pi)
    # of position and momentum: Z = (2 pi m kT)^1/2 / h times the integral over x
    wave = np.sqrt(mass * kT / ACCELERATION / (2 * np.pi)) / hbar
    F = -kT * np.log(wave * np.trapezoid(np.exp(-U / kT), x))
    found = float(ms.gaussian_state(well, oscillator(), T, **MEMBERS).free_energy)
    assert F < found + 1e-6 < F + 0.02 * kT + 1e-6


def test_a_double_well_is_held_in_the_middle_by_temperature():
    T = 800.0
    state = ms.gaussian_state(Well(-1.0, 0.0, 30.0), oscillator(), T, **MEMBERS)
    _, s = exact(-1.0, 0.0, 30.0, T)
    assert_allclose(state.structure.positions[1, 0], 0.0, atol=1e-9)
    assert_allclose(state.covariance[3, 3], s, rtol=2e-3)
    assert state.frequencies[0] > 0


def test_the_quantum_oscillator_has_its_zero_point_motion():
    state = ms.gaussian_state(Well(3.0, 0.0, 0.0), oscillator(), 1.0, quantum=True, members=2)
    hbar = 1e3 * PLANCK / (2 * np.pi)
    omega = np.sqrt(3.0 * ACCELERATION / float(oscillator().masses[1]))
    assert_allclose(state.free_energy, hbar * omega / 2, rtol=1e-10)
    assert_allclose(state.covariance[3, 3], hbar * omega / 2 / 3.0, rtol=1e-10)


@pytest.mark.parametrize(
    ("mode", "quantum"), [pytest.param(jax.jacfwd, True, marks=pytest.mark.validation), (jax.jacrev, False)]
)
def test_derivatives_by_parameters_and_temperature_are_those_of_the_state(mode, quantum):
    def spread(t):
        well = Well(3.0 + t[0], 2.0 * (1 + t[0]), 20.0)
        state = ms.gaussian_state(well, oscillator(), 400.0 + t[1], quantum=quantum, members=16, rtol=1e-12)
        return jnp.stack([state.structure.positions[1, 0], state.covariance[3, 3], state.free_energy])

    step = np.array([1e-3, 0.1])
    columns = [(spread(jnp.asarray(s)) - spread(jnp.asarray(-s))) / (2 * np.sum(s)) for s in np.diag(step)]
    assert_allclose(mode(spread)(jnp.zeros(2)), np.stack(columns, 1), rtol=1e-5, atol=1e-9)


def crystal():
    return ms.Structure.from_ase(ase.build.bulk("Ar", "fcc", a=5.26, cubic=True))


ARGON = ms.LennardJones(0.0104, 3.40, ("Ar",), 6.5, ms.Smooth(0.8))
SMALL = dict(cell="isotropic", members=32)


@pytest.mark.validation
def test_the_cold_crystal_is_the_harmonic_one():
    relaxed = ms.relax(ARGON, crystal(), cell="isotropic", fmax=1e-10)
    state = ms.gaussian_state(ARGON, relaxed.structure, 1e-3, **SMALL)
    near = ms.neighbors_of(ARGON, relaxed.structure)
    H = jax.hessian(lambda x: ARGON.energy(relaxed.structure.at(x), near))(relaxed.structure.positions)
    # expansion and softening are linear in T: 1e-6 of what they are at a few kelvin
    assert_allclose(state.force_constants, H.reshape(12, 12), rtol=0, atol=1e-5)
    assert_allclose(state.structure.cell, relaxed.structure.cell, rtol=1e-5)
    assert state.operations == 192


def test_shifts_that_break_the_symmetry_of_the_crystal_are_no_unknowns():
    # else 1 - dT/dx is singular, and adjoint solves of averages over few members go on for ever
    setting, x = _begin(ARGON, crystal(), 20.0, "isotropic", False, 32, 0, True)
    noise = jnp.asarray(np.random.default_rng(0).normal(size=x.m.shape))
    image = _step(x._replace(m=noise), ARGON, BOLTZMANN * 20.0, 0.0, setting)
    still = _step(x, ARGON, BOLTZMANN * 20.0, 0.0, setting)
    assert_allclose(image.m, 0, atol=1e-12)
    assert_allclose(image.phi, still.phi, rtol=0, atol=1e-12)


@pytest.mark.validation
def test_a_crystal_expands_by_its_temperature_and_gives_way_to_pressure():
    relaxed = ms.relax(ARGON, crystal(), cell="isotropic", fmax=1e-10).structure

    def volume(t, p):
        state = ms.gaussian_state(ARGON, relaxed, t, pressure=p, rtol=1e-11, **SMALL)
        return ms.volume(state.structure)

    slopes = jax.grad(volume, argnums=(0, 1))(20.0, 0.0)
    by_temperature = (volume(20.5, 0.0) - volume(19.5, 0.0)) / 1.0
    by_pressure = (volume(20.0, 1e-5) - volume(20.0, -1e-5)) / 2e-5
    assert_allclose(slopes, [by_temperature, by_pressure], rtol=1e-3)
    assert slopes[0] > 0 > slopes[1]


def test_a_crystal_that_would_melt_is_reported():
    with pytest.raises((MeltedError, NotConvergedError), match=r"melt|unstable|not found"):
        ms.gaussian_state(ARGON, crystal(), 400.0, cell="isotropic", members=32, max_steps=40)


def test_members_have_the_moments_of_a_gaussian():
    xi = gaussian_members(64, 5)
    assert_allclose(xi.mean(axis=0), 0, atol=1e-15)
    assert_allclose(xi.T @ xi / 64, np.eye(5), atol=1e-13)
    with pytest.raises(InputError, match="members = 8: 5 directions need an even number, 10 at least"):
        gaussian_members(8, 5)


def test_forward_backward_steps_reach_the_harmonic_covariance():
    rng = np.random.default_rng(0)
    A = rng.normal(size=(4, 4))
    H = A @ A.T + np.eye(4)
    S = np.eye(4)
    for _ in range(400):
        S = forward_backward(S, H, 0.5 / np.linalg.norm(H, 2))
    assert_allclose(S, np.linalg.inv(H), rtol=1e-6, atol=1e-9)


def test_an_average_over_the_space_group_keeps_what_has_the_symmetry():
    structure = crystal()
    group = SpaceGroup.of(structure)
    near = ms.neighbors_of(ARGON, structure)
    H = jax.hessian(lambda x: ARGON.energy(structure.at(x), near))(structure.positions).reshape(12, 12)
    assert_allclose(group.matrix(H), H, atol=1e-12)
    noise = np.random.default_rng(0).normal(size=(12, 12))
    once = group.matrix(jnp.asarray(noise + noise.T))
    assert_allclose(group.matrix(once), once, atol=1e-12)
    assert_allclose(
        group.vector(jnp.asarray(noise[:4, :3])), np.tile(noise[:4, :3].mean(0) * 0, (4, 1)), atol=1e-12
    )


@pytest.mark.parametrize(
    ("options", "match"),
    [
        (dict(temperature=0.0), "temperature = .*above 0"),
        (dict(temperature=-5.0), "temperature"),
        (dict(members=8), "members = 8"),
        (dict(rtol=0.0), "rtol"),
        (dict(max_steps=0), "max_steps"),
        (dict(pressure=np.nan), "pressure"),
    ],
)
def test_what_is_wrong_is_said(options, match):
    settings = dict(temperature=20.0) | options
    with pytest.raises(InputError, match=match):
        ms.gaussian_state(ARGON, crystal(), **settings)


def test_second_derivatives_are_refused_with_the_remedy():
    free_energy = lambda t: ms.gaussian_state(Well(3.0, 0.0, 0.0), oscillator(), t, members=2).free_energy
    for twice in (jax.grad(jax.grad(free_energy)), jax.hessian(free_energy)):
        with pytest.raises(InputError, match="differentiable once"):
            twice(300.0)
