"""The conformance test passes what is right, and names what is wrong with broken potentials."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from far_charges import FarCharges, four
from jaxtyping import Array, Float, Int
from numpy.testing import assert_allclose

import mdsens as ms
from mdsens.errors import ConformanceError, InputError, MDSensError
from mdsens.potentials.base import parameter
from mdsens.testing import central_difference, check_awkward_points, check_potential

# --- central differences
# -----------------------------------------------------------------------------------------


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


# --- potentials that are right
# -----------------------------------------------------------------------------------


def rattled(symbols, spacing, seed=0):
    """Eight atoms of a strained, rattled fcc or zincblende cell small enough for several images of a pair."""
    from ase.build import bulk

    rng = np.random.default_rng(seed)
    atoms = bulk("GaAs", "zincblende", a=spacing, cubic=True)
    strain = np.eye(3) + 0.05 * rng.normal(size=(3, 3))
    positions = atoms.positions + 0.03 * spacing * rng.normal(size=(8, 3))
    return ms.Structure.create(positions @ strain, symbols, atoms.cell.array @ strain)


RIGHT = {
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
    report = check_potential(*RIGHT[name])
    assert report.holds
    assert len(report.checks) >= 15
    periodic = any(RIGHT[name][1].pbc)
    assert bool(report.left_out) == (not periodic)
    # what is allowed leaves no room for a mistake: differences are right to ten digits, the rest to 14
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


# --- potentials that are wrong
# -----------------------------------------------------------------------------------


FAULTS = ("force", "parameter", "field", "direction", "first atom", "per atom", "beyond")


class Bumper(ms.Potential):
    """phi(r) = k (1 - r / 2)³ up to r = 2, with as much of each fault as asked for (compiled once)."""

    k: Float[Array, ""] = parameter("eV", lower=0.0)
    faults: Int[Array, "faults"] = eqx.field(converter=jnp.asarray)  # whole numbers are no parameters
    root_at_cutoff: bool = eqx.field(static=True, default=False)
    elements: tuple[str, ...] = eqx.field(static=True, default=())
    source: str = eqx.field(static=True, default="")

    @classmethod
    def with_fault(cls, name):
        return cls(1.0, [int(name == fault) for fault in FAULTS])

    @property
    def cutoff(self):
        return jnp.asarray(2.0)

    def energy(self, structure, neighbors):
        force, theta, field, direction, first, per_atom, beyond = 1e-5 * self.faults
        d = neighbors.vectors(structure)
        r = jnp.sqrt(jnp.sum(d * d, axis=-1))
        k = self.k + theta * (
            jax.lax.stop_gradient(self.k) - self.k
        )  # the value of k, not all of its derivative
        phi = k * jnp.where(r < 2.0, 1 - r / 2, 0.0) ** 3
        if self.root_at_cutoff:
            phi = jnp.where(r <= 2.0, jnp.sqrt(jnp.where(r <= 2.0, 2.0 - r, 1.0)) ** 6, 0.0)
        phi = phi + force * (phi - jax.lax.stop_gradient(phi))  # the value of phi, too much of its derivative
        phi = phi * (1 + direction * d[:, 2] ** 2)
        phi = phi * (1 + first * ((neighbors.i == 0) | (neighbors.j == 0)))
        phi = phi + beyond * jnp.where(neighbors.valid, jnp.exp(-r), 0.0)
        n = structure.n_atoms
        return jnp.sum(phi) * (1 - per_atom + per_atom / n) + field * jnp.sum(
            jnp.sin(structure.positions[:, 0])
        )


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
    return ms.Structure.create(
        rng.uniform(0, 3.0, (5, 3)), ["Ar"] * 5, 3.0 * np.eye(3) + 0.2 * rng.normal(size=(3, 3))
    )


@pytest.mark.parametrize(
    ("fault", "claims"),
    [
        ("none", set()),
        ("force", {FORCES, STRESS, ROW}),
        ("parameter", {ROW, FORCE_ROW}),
        # an image elsewhere feels another field, and so does the second half of a doubled cell
        ("field", {SHIFT, TURN, IMAGES, DOUBLE}),
        ("direction", {TURN}),
        ("first atom", {ORDER, DOUBLE}),
        ("per atom", {DOUBLE}),
        ("beyond", {SPARE, DOUBLE}),
    ],
)
def test_one_part_in_a_hundred_thousand_that_is_wrong_is_named_and_nothing_else(five, fault, claims):
    report = check_potential(Bumper.with_fault(fault), five, clusters=False, throw=False)
    assert {check.claim for check in report.checks if not check.holds} == claims
    assert report.holds == (fault == "none")


def test_derivative_lost_exactly_at_the_cutoff_is_found():
    pair = ms.Structure.create([[0, 0, 0], [0.9, 0, 0]], ["Ar", "Ar"])
    checks = check_awkward_points(Bumper(1.0, np.zeros(len(FAULTS)), root_at_cutoff=True), pair)
    assert [check.claim for check in checks if not check.holds] == ["finite for a pair exactly at the cutoff"]


def test_failing_claim_is_raised_with_its_numbers(five):
    with pytest.raises(
        ConformanceError, match=r"Bumper does not conform.*forces.* off by \d\.\de-\d\d eV/Å, allowed"
    ) as caught:
        check_potential(Bumper.with_fault("force"), five, clusters=False)
    assert isinstance(caught.value, MDSensError)
    assert isinstance(caught.value, AssertionError)
    assert not caught.value.partial.holds


class SaysLocal(FarCharges):
    """The same charges, said to end at the radius of the list."""

    local = True


def test_a_form_that_only_says_it_is_local_is_found():
    close = four().at(0.4 * four().positions + 0.1 * jnp.eye(4, 3))
    report = check_potential(SaysLocal(1.0, 1.0), close, clusters=False, throw=False)
    failing = [str(check) for check in report.checks if not check.holds]
    assert len(failing) == 1
    assert failing[0].startswith(
        "FAILS  atoms out of range of each other feel nothing of each other, as a local"
    )
    assert check_potential(FarCharges(1.0, 1.0), four(), clusters=False).holds
