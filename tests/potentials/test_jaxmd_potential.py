"""jax-md's energy functions as potentials, against ours of the same form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

import mdsens as ms
from mdsens.errors import InputError
from mdsens.potentials.jaxmd import JaxMDPotential

SIZE = 7.0  # Å, edge of the cell
DIAMETER = 2.6


@pytest.fixture(scope="module")
def jax_md():
    return pytest.importorskip("jax_md", reason="jax-md is not installed")


@pytest.fixture(scope="module")
def structure():
    """12 soft spheres in a sheared cell that is just thicker than two cutoffs, many of them in contact."""
    positions = np.random.default_rng(2).uniform(0, SIZE, (12, 3))
    cell = SIZE * np.array([[1.0, 0, 0], [0.2, 1.0, 0], [-0.1, 0.15, 1.0]])
    return ms.Structure.create(positions, ["Ar"] * 12, cell)


@pytest.fixture(scope="module")
def ours():
    return ms.SoftSphere(DIAMETER, 3.0, 2.5, ("Ar",))


@pytest.fixture(scope="module")
def theirs(jax_md, structure):
    """The same spheres by jax-md, for each form of neighbor list."""
    displacement, _ = jax_md.space.periodic_general(structure.cell.T, fractional_coordinates=False)
    all_pairs = jax_md.energy.soft_sphere_pair(displacement)
    _, by_list = jax_md.energy.soft_sphere_neighbor_list(displacement, structure.cell.T)
    parameters = {"sigma": DIAMETER, "epsilon": 3.0, "alpha": 2.5}
    units = {"sigma": "Å", "epsilon": "eV", "alpha": "1"}

    def build(form):
        return JaxMDPotential(
            by_list if form else all_pairs, parameters, DIAMETER, neighbor_format=form, units=units
        )

    return build


@pytest.mark.parametrize("form", [None, "dense", "sparse", "ordered-sparse"])
def test_energy_forces_stress_and_parameter_derivatives_are_those_of_our_form(ours, theirs, structure, form):
    # A generous skin: pairs within it occur as several images, of which jax-md may see only one.
    neighbors = ms.find_neighbors(structure, DIAMETER, skin=0.4 * SIZE)

    @jax.jit
    def all_of(potential):
        result = ms.energy_forces_stress(potential, structure, neighbors)
        return result, jax.grad(lambda p: ms.energy(p, structure, neighbors))(potential)

    mine, slope = all_of(ours)
    found, their_slope = all_of(theirs(form))
    assert float(mine.energy) > 0.1  # spheres do touch
    for a, b in zip(found, mine, strict=True):
        assert_allclose(a, b, atol=1e-11)
    assert_allclose(their_slope.parameters["sigma"], slope.diameter, rtol=1e-10)
    assert_allclose(their_slope.parameters["epsilon"], slope.epsilon, rtol=1e-10)
    assert_allclose(their_slope.parameters["alpha"], slope.alpha, rtol=1e-10)


def test_names_of_parameters_are_those_of_the_function(theirs):
    potential = theirs(None)
    assert ms.parameter_values(potential) == {"sigma": DIAMETER, "epsilon": 3.0, "alpha": 2.5}
    softer = ms.replace_parameters(potential, {"epsilon": 1.0})
    assert ms.parameter_values(softer)["epsilon"] == 1.0
    assert [e.unit for e in ms.parameter_entries(potential)] == ["1", "eV", "Å"]


def test_trees_of_parameters_are_named_by_their_keys():
    potential = JaxMDPotential(lambda R, net: jnp.sum(R), {"net": {"w": np.zeros((2, 1)), "b": [0.5]}}, 2.0)
    assert list(ms.parameter_values(potential)) == ["net.b.0", "net.w[0][0]", "net.w[1][0]"]
    changed = ms.replace_parameters(potential, {"net.w[1][0]": 3.0})
    assert_allclose(changed.parameters["net"]["w"], [[0.0], [3.0]])


def test_any_function_of_positions_relaxes_and_is_differentiated():
    def spring(positions, *, stiffness, length):
        return stiffness * (jnp.linalg.norm(positions[1] - positions[0]) - length) ** 2

    def bond_length(potential):
        x = ms.relax(potential, dimer, fmax=1e-9, solver=ms.NewtonCG()).structure.positions
        return jnp.linalg.norm(x[1] - x[0])

    dimer = ms.Structure.create([[0, 0, 0], [1.1, 0.3, 0.2]], ["Ar", "Ar"])
    slope = jax.grad(bond_length)(JaxMDPotential(spring, {"stiffness": 2.0, "length": 1.3}, np.inf))
    # at rest the bond has the length of the spring, however stiff it is
    assert_allclose(slope.parameters["length"], 1.0, atol=1e-9)
    assert_allclose(slope.parameters["stiffness"], 0.0, atol=1e-9)


def test_cell_thinner_than_two_cutoffs_is_refused(theirs):
    small = ms.Structure.create(np.zeros((1, 3)), ["Ar"], np.eye(3) * 1.9 * DIAMETER)
    with pytest.raises(InputError, match="thick, less than twice the cutoff"):
        ms.energy_forces_stress(theirs(None), small)


def test_cell_that_shrinks_below_two_cutoffs_is_an_error(theirs, structure):
    potential = theirs(None)
    neighbors = ms.find_neighbors(structure, DIAMETER)
    with pytest.raises(Exception, match="thinner than two cutoffs"):
        ms.energy(potential, structure.deformed(0.7 * jnp.eye(3)), neighbors).block_until_ready()


def test_slab_is_refused(theirs):
    slab = ms.Structure.create(np.zeros((1, 3)), ["Ar"], np.eye(3) * 9, pbc=[True, True, False])
    with pytest.raises(InputError, match="periodic along all cell vectors or none"):
        ms.energy_forces_stress(theirs(None), slab)


def test_bad_options_say_what_to_use():
    with pytest.raises(InputError, match="dense, sparse, ordered-sparse"):
        JaxMDPotential(lambda R: 0.0, {}, 1.0, neighbor_format="rows")
    with pytest.raises(InputError, match="must be positive"):
        JaxMDPotential(lambda R: 0.0, {}, 0.0)
