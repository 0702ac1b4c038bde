"""Parameters by name: labels, values, bounds, replacement, and what is said when a name or value is wrong."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

import mdsens as ms
from mdsens.errors import InputError
from mdsens.potentials.base import entry_labels
from mdsens.quantities import evaluate


def binary():
    return ms.LennardJones([1.0, 1.5, 0.5], [1.0, 0.8, 0.88], ("Ni", "Cu"), 2.5)


def two_species():
    return ms.load_potential("cdte-stillinger-weber-1989")


def test_one_species_has_plain_names():
    values = ms.parameter_values(ms.load_potential("si-stillinger-weber-1985"))
    assert list(values) == ["epsilon", "sigma", "a", "lambda", "gamma", "costheta0", "A", "B", "p", "q"]
    assert values["lambda"] == 21.0


def test_several_species_are_named_by_pairs_ordered_pairs_and_triples():
    assert list(ms.parameter_values(binary()))[:3] == ["epsilon[Ni-Ni]", "epsilon[Ni-Cu]", "epsilon[Cu-Cu]"]
    names = list(ms.parameter_values(two_species()))
    assert [n for n in names if n.startswith("gamma")] == [
        "gamma[Cd-Cd]",
        "gamma[Cd-Te]",
        "gamma[Te-Cd]",
        "gamma[Te-Te]",
    ]
    triples = ["Cd-Cd-Cd", "Cd-Cd-Te", "Cd-Te-Te", "Te-Cd-Cd", "Te-Cd-Te", "Te-Te-Te"]
    assert [n for n in names if n.startswith("lambda")] == [f"lambda[{t}]" for t in triples]


def test_mixed_potentials_are_named_by_species():
    mixed = ms.LennardJones([1.0, 1.5], [1.0, 0.9], ("Ar", "Kr"), mixing="arithmetic")
    assert list(ms.parameter_values(mixed)) == ["epsilon[Ar]", "epsilon[Kr]", "sigma[Ar]", "sigma[Kr]"]


def test_labels_of_three_species_list_every_pair_and_triple_once():
    kinds = ("A", "B", "C")
    assert entry_labels(kinds, "pair") == ("A-A", "A-B", "A-C", "B-B", "B-C", "C-C")
    assert len(entry_labels(kinds, "ordered pair")) == 9
    assert len(set(entry_labels(kinds, "triple"))) == 3 * 6


def test_units_and_bounds_come_with_the_form():
    entries = {e.name: e for e in ms.parameter_entries(ms.load_potential("cu-morse"))}
    assert entries["alpha"].unit == "1/Å"
    assert (entries["D0"].lower, entries["D0"].upper) == (0.0, np.inf)


def test_replaced_values_are_read_back_and_the_old_potential_keeps_its_own():
    old = binary()
    new = ms.replace_parameters(old, {"epsilon[Ni-Cu]": 1.7, "sigma[Cu-Cu]": 0.9})
    assert ms.parameter_values(new) == {
        **ms.parameter_values(old),
        "epsilon[Ni-Cu]": 1.7,
        "sigma[Cu-Cu]": 0.9,
    }
    assert ms.parameter_values(old)["epsilon[Ni-Cu]"] == 1.5


def test_replacement_is_differentiable():
    energy = lambda value: jnp.sum(ms.replace_parameters(binary(), {"epsilon[Ni-Cu]": value}).epsilon ** 2)
    assert_allclose(jax.grad(energy)(1.7), 3.4)


def test_unknown_name_suggests_the_nearest():
    with pytest.raises(InputError, match=r"no parameter 'epsilon\[Cu-Ni\]'. Did you mean 'epsilon\[Ni-Cu\]'"):
        ms.replace_parameters(binary(), {"epsilon[Cu-Ni]": 1.0})


def test_value_outside_its_bounds_is_refused():
    with pytest.raises(InputError, match=r"sigma\[Ni-Ni\] = -1 Å lies outside its bounds \(0, inf\)"):
        ms.replace_parameters(binary(), {"sigma[Ni-Ni]": -1.0})


def test_nan_and_negative_values_are_found_by_name():
    bad = ms.LennardJones([1.0, np.nan, 0.5], [1.0, 0.8, 0.88], ("Ni", "Cu"), 2.5)
    with pytest.raises(InputError, match=r"epsilon\[Ni-Cu\] = nan eV"):
        ms.check_parameters(bad)


def test_integers_are_parameters_like_any_other():
    # q = 0 once became an integer array, which JAX does not differentiate
    silicon = ms.StillingerWeber(2, 2, 2, 21, 1, -0.3, 7, 0.6, 4, 0, elements=("Si",))
    assert len(ms.parameter_values(silicon)) == 10
    assert len(jax.tree.leaves(jax.grad(lambda p: p.epsilon * 1.0)(silicon))) == 10


def test_wrong_number_of_values_says_the_order_expected():
    with pytest.raises(
        InputError,
        match=r"epsilon has shape \(2,\); species Ni, Cu need 3 values, in the order Ni-Ni, Ni-Cu, Cu-Cu",
    ):
        ms.LennardJones([1.0, 1.0], [1.0, 1.0, 1.0], ("Ni", "Cu"), 2.5)
    with pytest.raises(InputError, match=r"D0 has shape \(\); species Ni, Cu need 3 values"):
        ms.Morse(0.3, 1.4, 2.9, ("Ni", "Cu"), 6.0)


def test_unknown_mixing_and_missing_cutoff_say_what_to_use():
    with pytest.raises(InputError, match="use None, 'arithmetic' or 'geometric'"):
        ms.LennardJones(1.0, 1.0, ("Ar",), mixing="lorentz")
    with pytest.raises(InputError, match="Shifted needs a finite cutoff_radius"):
        ms.LennardJones(1.0, 1.0, ("Ar",), cut=ms.Shifted())
    with pytest.raises(InputError, match="must be positive"):
        ms.Morse(1.0, 1.0, 1.0, ("Ar",), cutoff_radius=-2.0)
    with pytest.raises(InputError, match="0 <= onset < 1"):
        ms.Smooth(onset=1.0)
    with pytest.raises(InputError, match="cutoff_radius = '8': give one real number in Å"):
        ms.LennardJones(1.0, 1.0, ("Ar",), "8")
    with pytest.raises(
        InputError, match=r"cut must be an AbstractCut, not str \('smooth'\)\. Write cut=ms\.Smooth"
    ):
        ms.LennardJones(1.0, 1.0, ("Ar",), 8.0, "smooth")
    with pytest.raises(InputError, match="onset = 'late': give one real number"):
        ms.Smooth(onset="late")


def test_element_without_parameters_is_named():
    gold = ms.Structure.create([[0, 0, 0], [2, 0, 0]], ["Ni", "Au"])
    with pytest.raises(InputError, match="no parameters for Au; it knows Ni, Cu"):
        ms.energy_forces_stress(binary(), gold)


# --- species


@pytest.fixture(scope="module")
def alloy():
    """Ten atoms of two kinds at random places in a sheared cell."""
    rng = np.random.default_rng(1)
    cell = 6.0 * np.eye(3) + 0.5 * rng.normal(size=(3, 3))
    return ms.Structure.create(rng.uniform(0, 6.0, (10, 3)), rng.choice(["Si", "Ge"], 10), cell)


def test_two_species_with_the_numbers_of_one_have_its_energy(alloy):
    silicon = ms.load_potential("si-stillinger-weber-1985")
    entries = {"lambda_": 6, "costheta0": 6, "gamma": 4}
    arrays = {
        name: np.full(entries.get(name, 3), getattr(silicon, name)) for name in silicon.parameter_fields()
    }
    twins = ms.StillingerWeber(**arrays, elements=("Si", "Ge"))
    only = ms.Structure.create(alloy.positions, ["Si"] * 10, alloy.cell)
    neighbors = ms.neighbors_of(silicon, alloy)
    result, sites = jax.jit(lambda p: (evaluate(p, alloy, neighbors), p.site_energies(alloy, neighbors)))(
        twins
    )
    one = ms.energy_forces_stress(silicon, only)
    for a, b in zip(one, result, strict=True):
        assert_allclose(a, b, atol=1e-11 * float(jnp.abs(one.forces).max()))
    # and the energies of the atoms add up to it
    assert_allclose(jnp.sum(sites), one.energy, rtol=1e-12)


@pytest.mark.parametrize("mixing", ["arithmetic", "geometric"])
def test_mixed_parameters_are_those_of_the_rule(alloy, mixing):
    epsilon, sigma = np.array([0.01, 0.03]), np.array([2.0, 2.4])
    mean = {"arithmetic": sigma.mean(), "geometric": np.sqrt(sigma.prod())}[mixing]
    mixed = ms.LennardJones(epsilon, sigma, ("Si", "Ge"), 5.0, ms.Smooth(), mixing)
    explicit = ms.LennardJones(
        [epsilon[0], np.sqrt(epsilon.prod()), epsilon[1]],
        [sigma[0], mean, sigma[1]],
        ("Si", "Ge"),
        5.0,
        ms.Smooth(),
    )
    neighbors = ms.neighbors_of(mixed, alloy)
    assert_allclose(ms.energy(mixed, alloy, neighbors), ms.energy(explicit, alloy, neighbors), rtol=1e-13)


def test_cell_in_which_an_atom_meets_its_own_image():
    # two atoms, cell vectors shorter than the cutoff: angles between images of one and the same atom count
    silicon = ms.load_potential("si-stillinger-weber-1985")
    half = 2.45
    cell = np.array([[0.1, half, half], [half, 0.0, half], [half, half, -0.1]])
    assert np.linalg.norm(cell, axis=1).max() < float(silicon.cutoff)
    x = np.array([[0.0, 0, 0], [1.3, 1.1, 1.25]])
    repeats = np.stack(np.meshgrid([0, 1], [0, 1], [0, 1], indexing="ij"), -1).reshape(-1, 3)
    one = ms.Structure.create(x, ["Si"] * 2, cell)
    eight = ms.Structure.create((x + (repeats @ cell)[:, None]).reshape(-1, 3), ["Si"] * 16, 2 * cell)
    assert_allclose(8 * ms.energy(silicon, one), ms.energy(silicon, eight), rtol=1e-13)
