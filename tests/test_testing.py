"""The conformance test passes what is right, and names what is wrong with each of a row of broken potentials."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array, Float
from numpy.testing import assert_allclose

import mdsens as ms
from mdsens.errors import ConformanceError, InputError, MDSensError
from mdsens.potentials.base import parameter
from mdsens.testing import central_difference, check_potential

# --- central differences -----------------------------------------------------------------------------------------


def test_difference_has_the_form_and_the_numbers_of_jacfwd():
    def f(p):
        return {"area": p["a"] * jnp.outer(p["b"], p["b"]), "sine": jnp.sin(p["a"])}

    x = {"a": 1.3, "b": np.array([0.5, -2.0])}
    exact, twin = jax.jacfwd(f)(x), central_difference(f, x, 1e-3, order=4)
    assert jax.tree.structure(exact) == jax.tree.structure(twin)
    # step⁴ / 30 of the fifth derivative is 3e-14; rounding over the step 1e-13
    jax.tree.map(lambda a, b: assert_allclose(a, b, atol=1e-12), exact, twin)


@pytest.mark.parametrize("order", [2, 4])
def test_error_falls_with_the_order_of_the_step(order):
    error = lambda step: abs(float(central_difference(np.exp, 0.3, step, order=order)) - np.exp(0.3))
    assert_allclose(error(0.1) / error(0.05), 2**order, rtol=0.02)


def test_function_is_called_as_it_is_with_potentials_whole():
    potential = ms.LennardJones(1.0, 1.0, ("Ar",))
    seen = []
    slope = central_difference(lambda p: seen.append(type(p)) or float(p.epsilon) ** 2, potential)
    assert set(seen) == {ms.LennardJones}
    assert_allclose(slope.epsilon, 2.0)
    assert_allclose(slope.sigma, 0.0)


def test_leaves_that_are_no_floats_are_held():
    slope = central_difference(lambda p: p["x"] * p["n"], {"x": 2.0, "n": 3})
    assert slope["n"] is None
    assert_allclose(slope["x"], 3.0)


# --- potentials that are right -----------------------------------------------------------------------------------


def rattled(symbols, spacing, seed=0):
    """Eight atoms of a strained, rattled fcc or zincblende cell, small enough for several images of a pair."""
    from ase.build import bulk

    rng = np.random.default_rng(seed)
    atoms = bulk("GaAs", "zincblende", a=spacing, cubic=True)
    strain = np.eye(3) + 0.05 * rng.normal(size=(3, 3))
    positions = atoms.positions + 0.03 * spacing * rng.normal(size=(8, 3))
    return ms.Structure.create(positions @ strain, symbols, atoms.cell.array @ strain)


RIGHT = {
    "stillinger-weber for two species": (ms.load_potential("cdte-stillinger-weber-1989"), rattled(["Cd", "Te"] * 4, 6.5)),
    "binary lennard-jones, truncated": (
        ms.LennardJones([1.0, 1.5, 0.5], [1.0, 0.8, 0.88], ("Ar", "Kr"), 2.5, ms.Truncated()),
        rattled(["Ar", "Ar", "Ar", "Kr"] * 2, 2.1),
    ),
    "cluster without cutoff": (
        ms.load_potential("lennard-jones-reduced"),
        ms.Structure.create(rattled(["Ar"] * 8, 2.2).positions, ["Ar"] * 8),
    ),
}


@pytest.mark.parametrize("name", RIGHT)
def test_right_potentials_conform(name):
    # the awkward points of Stillinger-Weber are those of one species, in potentials/test_awkward_points.py
    report = check_potential(*RIGHT[name], clusters="stillinger" not in name)
    assert report.holds
    assert len(report.checks) >= 14
    periodic = any(RIGHT[name][1].pbc)
    assert bool(report.left_out) == (not periodic)
    # what is allowed leaves no room for a mistake: differences are right to ten digits, all else to fourteen
    assert all(check.error <= 0.05 * check.allowed for check in report.checks)


def test_report_reads_line_by_line():
    name = "cluster without cutoff"
    lines = str(check_potential(*RIGHT[name])).splitlines()
    assert lines[0] == "LennardJones: conforms"
    assert lines[1].startswith("holds  forces are minus the gradient of the energy: off by ")
    assert "-      stress: the structure has no volume" in lines
    assert lines[-1] == "-      at the cutoff: there is none"


def test_lonely_atoms_test_nothing_and_are_refused():
    apart = ms.Structure.create([[0, 0, 0], [50, 0, 0]], ["Ar", "Ar"])
    with pytest.raises(InputError, match="no two atoms of this structure interact"):
        check_potential(ms.load_potential("ar-lennard-jones"), apart)


# --- potentials that are wrong -----------------------------------------------------------------------------------


class Bumper(ms.Potential):
    """phi(r) = k (1 - r / 2)³ up to r = 2, and one thing wrong with it."""

    k: Float[Array, ""] = parameter("eV", lower=0.0)
    fault: str = eqx.field(static=True)
    elements: tuple[str, ...] = eqx.field(static=True, default=())
    source: str = eqx.field(static=True, default="")

    @property
    def cutoff(self):
        return jnp.asarray(2.0)

    def energy(self, structure, neighbors):
        d = neighbors.vectors(structure)
        r = jnp.sqrt(jnp.sum(d * d, axis=-1))
        k = jax.lax.stop_gradient(self.k) if self.fault == "parameter without derivative" else self.k
        gap = jnp.where(r < 2.0, 1 - r / 2, 0.0)
        phi = k * gap**3
        x = structure.positions
        match self.fault:
            case "force off by 1e-6":
                phi = _with_wrong_slope(phi)
            case "field in space":
                return jnp.sum(phi) + 1e-6 * jnp.sum(jnp.sin(x[:, 0]))
            case "preferred direction":
                phi = phi * (1 + 1e-6 * d[:, 2] ** 2)
            case "first atom heavier":
                phi = phi * jnp.where((neighbors.i == 0) | (neighbors.j == 0), 1 + 1e-6, 1.0)
            case "energy per atom":
                return jnp.sum(phi) / structure.n_atoms
            case "root at the cutoff":
                phi = k * jnp.where(r <= 2.0, jnp.sqrt(jnp.where(r <= 2.0, 2.0 - r, 1.0)) ** 6, 0.0)
            case "interacts beyond its cutoff":
                phi = phi + jnp.where(neighbors.valid, 1e-6 * jnp.exp(-r), 0.0)
        return jnp.sum(phi)


@jax.custom_jvp
def _with_wrong_slope(phi):
    return phi


@_with_wrong_slope.defjvp
def _(primals, tangents):
    return _with_wrong_slope(*primals), (1 + 1e-6) * tangents[0]


FORCES = "forces are minus the gradient of the energy"
STRESS = "stress times volume is the derivative of the energy by strain"
ROW = "theta dE/dtheta is what a change of theta does"
FORCE_ROW = "dF/dtheta is what a change of parameters does"
SHIFT = "a shift of everything changes nothing"
TURN = "a turn of everything turns forces and stress"
ORDER = "the order of atoms does not matter"
SPARE = "spare slots and pairs beyond the cutoff change nothing"
IMAGES = "it does not matter which image of an atom is given"
DOUBLE = "a cell twice as long has twice the energy"


@pytest.fixture(scope="module")
def five():
    """Five atoms at random places in a sheared cell."""
    rng = np.random.default_rng(3)
    return ms.Structure.create(rng.uniform(0, 3.0, (5, 3)), ["Ar"] * 5, 3.0 * np.eye(3) + 0.2 * rng.normal(size=(3, 3)))


@pytest.mark.parametrize(
    ("fault", "claims"),
    [
        ("force off by 1e-6", {FORCES, STRESS, ROW}),
        ("parameter without derivative", {ROW, FORCE_ROW}),
        # an image elsewhere feels another field, and so does the second half of a doubled cell
        ("field in space", {SHIFT, TURN, IMAGES, DOUBLE}),
        ("preferred direction", {TURN}),
        ("first atom heavier", {ORDER, DOUBLE}),
        ("energy per atom", {DOUBLE}),
        ("root at the cutoff", {"finite for a pair exactly at the cutoff"}),
        ("interacts beyond its cutoff", {SPARE, DOUBLE}),
    ],
)
def test_what_is_wrong_is_named_and_nothing_else(five, fault, claims):
    report = check_potential(Bumper(1.0, fault), five, throw=False)
    assert {check.claim for check in report.checks if not check.holds} == claims
    assert not report.holds


def test_failing_claim_is_raised_with_its_numbers(five):
    with pytest.raises(ConformanceError, match=r"Bumper does not conform.*forces.* off by \d\.\de-\d\d eV/Å, allowed") as caught:
        check_potential(Bumper(1.0, "force off by 1e-6"), five)
    assert isinstance(caught.value, MDSensError)
    assert isinstance(caught.value, AssertionError)
    assert not caught.value.partial.holds
