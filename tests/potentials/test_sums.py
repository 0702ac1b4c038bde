"""A sum of potentials is the sum of their energies, forces, stress and derivatives, and a potential."""

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase.build import bulk
from far_charges import FarCharges, four
from numpy.testing import assert_allclose

import mdsens as ms
from mdsens.errors import InputError

MORSE = ms.Morse(0.34, 1.36, 2.87, ("Cu",), 5.0)
BUMP = ms.SoftSphere(3.0, 0.2, 2.5, ("Cu",))
LJ = ms.LennardJones([0.1, 0.2, 0.3], [2.2, 2.3, 2.4], ("Ni", "Cu"), 4.5)
SUM = MORSE + 0.5 * BUMP + LJ


@pytest.fixture(scope="module")
def copper():
    """Four atoms off the sites of a fcc crystal."""
    atoms = bulk("Cu", "fcc", a=3.6, cubic=True)
    atoms.rattle(0.1, seed=1)
    return ms.Structure.from_ase(atoms)


def test_energy_forces_stress_and_derivatives_are_those_of_the_parts(copper):
    neighbors = ms.neighbors_of(SUM, copper)

    @jax.jit
    def everything(potential):
        slope = jax.grad(lambda p: p.energy(copper, neighbors))(potential)
        sites = potential.site_energies(copper, neighbors)
        return ms.quantities.evaluate(potential, copper, neighbors), sites, slope

    whole, sites, slope = everything(SUM)
    parts = [everything(p) for p in (MORSE, BUMP, LJ)]
    weights = (1.0, 0.5, 1.0)
    for mine, *theirs in zip((*whole, sites), *((*p[0], p[1]) for p in parts), strict=True):
        assert_allclose(mine, sum(w * t for w, t in zip(weights, theirs, strict=True)), atol=1e-13)
    for mine, weight, part in zip(slope.parts, weights, parts, strict=True):
        jax.tree.map(lambda a, b, w=weight: assert_allclose(a, w * b, atol=1e-13), mine, part[2])


@pytest.mark.validation
def test_a_form_and_its_half_twice_relax_alike(copper):
    # The sum has the parameters twice, and moves with the two together as the form does with one.
    twice = 0.5 * MORSE + 0.5 * MORSE

    def volume(potential):
        return ms.volume(ms.relax(potential, copper, cell="isotropic").structure)

    (value, slope), (wanted, exact) = (jax.value_and_grad(volume)(p) for p in (twice, MORSE))
    assert_allclose(value, wanted, rtol=1e-10)
    for name in ("D0", "alpha", "r0"):
        # halves of D0 count by halves, and so do those of the others
        both = sum(getattr(part, name) for part in slope.parts)
        assert_allclose(both, getattr(exact, name), rtol=1e-7, atol=1e-9)


def test_parameters_are_named_by_their_part():
    assert list(ms.parameter_values(SUM)) == [
        *["Morse.D0", "Morse.alpha", "Morse.r0"],
        *["SoftSphere.diameter", "SoftSphere.epsilon", "SoftSphere.alpha"],
        *[f"LennardJones.{p}[{pair}]" for p in ("epsilon", "sigma") for pair in ("Ni-Ni", "Ni-Cu", "Cu-Cu")],
    ]
    twice = MORSE + MORSE
    assert list(ms.parameter_values(twice))[::3] == ["Morse.1.D0", "Morse.2.D0"]
    other = ms.replace_parameters(twice, {"Morse.2.D0": 0.5})
    assert (float(other.parts[0].D0), float(other.parts[1].D0)) == (0.34, 0.5)


def test_sums_of_sums_are_one_sum_and_know_what_their_parts_say():
    assert [type(part).__name__ for part in SUM.parts] == ["Morse", "SoftSphere", "LennardJones"]
    assert SUM.weights == (1.0, 0.5, 1.0) and (2.0 * SUM).weights == (2.0, 1.0, 2.0)
    assert SUM.elements == ("Cu",) and float(SUM.cutoff) == 5.0
    assert SUM.local and SUM.twice_differentiable
    assert not (ms.LennardJones(0.1, 2.0, ()) + FarCharges(1.0, 1.0)).local
    copy = pickle.loads(pickle.dumps(SUM))
    assert jax.tree.structure(copy) == jax.tree.structure(SUM)


def test_an_atom_interacts_if_it_does_through_any_part(copper):
    # 4 Å apart the spheres touch nothing, and Morse reaches
    pair = ms.Structure.create([[0, 0, 0], [4.0, 0, 0], [30.0, 0, 0]], ["Cu"] * 3)
    neighbors = ms.neighbors_of(SUM, pair)
    assert not np.any(BUMP.contacts(pair, neighbors))
    assert np.array_equal(SUM.contacts(pair, neighbors), [True, True, False])
    # and a part without a list makes every atom interact
    both = ms.Morse(0.3, 1.3, 2.8, (), 2.0) + FarCharges(1.0, 1.0)
    assert np.all(both.contacts(four(), ms.neighbors_of(both, four())))


def test_a_sum_survives_being_written(tmp_path):
    ms.save_potential(SUM, tmp_path / "sum.toml")
    copy = ms.load_potential(tmp_path / "sum.toml")
    assert jax.tree.structure(copy) == jax.tree.structure(SUM)
    assert ms.parameter_values(copy) == ms.parameter_values(SUM)
    text = (tmp_path / "sum.toml").read_text()
    (tmp_path / "sum.toml").write_text(text.replace("D0 = 0.34", "D0 = -0.34"))
    with pytest.raises(InputError, match=r"sum\.toml: part 0: parameter D0 = -0\.34 eV lies outside"):
        ms.load_potential(tmp_path / "sum.toml")


def test_every_part_must_know_every_atom(copper):
    with pytest.raises(InputError, match=r"no element in common .*Every part of a sum must know every atom"):
        MORSE + ms.LennardJones(0.1, 2.0, ("Ar",))
    nickel = ms.Structure.create(copper.positions, ["Ni"] * 4, copper.cell)
    with pytest.raises(InputError, match=r"Morse has no parameters for Ni.*Every part of a sum"):
        ms.energy_forces_stress(SUM, nickel)


def test_what_cannot_be_added_is_an_error():
    with pytest.raises(TypeError):
        MORSE + 1.0
    with pytest.raises(InputError, match="the weight of a potential = 'half'"):
        "half" * MORSE
    with pytest.raises(InputError, match="at least one potential"):
        ms.SumPotential(())
    with pytest.raises(InputError, match="1 weights for 2 potentials"):
        ms.SumPotential((MORSE, BUMP), (1.0,))
    with pytest.raises(InputError, match="a part of a sum must be a Potential"):
        ms.SumPotential((MORSE, jnp.ones(3)))
