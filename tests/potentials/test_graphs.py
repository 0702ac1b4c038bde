"""Networks: the graph that they see, and what follows from it for any of them."""

from types import SimpleNamespace

import graph_network
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from graph_network import CUTOFF, network, random_params
from numpy.testing import assert_allclose

import mdsens as ms
from mdsens.errors import InputError
from mdsens.neighbors import lists
from mdsens.potentials.graphs import GraphPotential
from mdsens.potentials.networks import from_jax_md_nequip, from_nequix
from mdsens.relaxation import walk


@pytest.fixture(scope="module")
def potential():
    return graph_network.potential()


@pytest.fixture(scope="module")
def crystal():
    return graph_network.crystal()


@pytest.mark.parametrize("pbc", [(True, True, False), (False, False, False)])
def test_slabs_and_clusters_have_the_forces_of_their_energy(potential, crystal, pbc):
    structure = ms.Structure.create(crystal.positions, crystal.symbols, crystal.cell, pbc=pbc)
    neighbors = ms.find_neighbors(structure, CUTOFF)
    direction = np.random.default_rng(2).normal(size=(6, 3))
    energy = lambda t: ms.energy(potential, structure.at(structure.positions + t * direction), neighbors)
    slope = -np.vdot(ms.energy_forces_stress(potential, structure, neighbors).forces, direction)
    # the step leaves 1e-10 of the third derivative, and rounding of the energy 1e-15 / 1e-5
    assert_allclose((energy(1e-5) - energy(-1e-5)) / 2e-5, slope, atol=1e-9)


def test_the_volume_of_a_relaxed_crystal_follows_all_weights_by_one_adjoint(potential, crystal):
    def volume(p):
        return ms.volume(ms.relax(p, crystal, cell="isotropic", fmax=1e-12, solver=ms.NewtonCG()).structure)

    gradient = jax.grad(volume)(potential)
    rng = np.random.default_rng(3)
    direction = jax.tree.map(lambda w: jnp.asarray(rng.normal(size=w.shape)) * 0.1, potential)
    slope = sum(jax.tree.leaves(jax.tree.map(jnp.vdot, gradient, direction)))
    moved = lambda t: volume(jax.tree.map(lambda w, d: w + t * d, potential, direction))
    # What Newton steps leave over changes with the weights too: hence 1e-12 eV/Å.
    assert_allclose((moved(1e-4) - moved(-1e-4)) / 2e-4, slope, rtol=1e-6)
    assert gradient.params["layers"][0]["mix"].shape == (3, 3) and gradient.params["rounds"] == 2


def test_a_relaxation_with_its_certificate_traces_a_network_once(crystal, monkeypatch):
    calls = []

    def counted(*graph):
        calls.append(len(graph))
        return network(*graph)

    # steps are no programs, which would hold the network again
    monkeypatch.setattr(walk, "advance", None)
    potential = GraphPotential(counted, random_params(), CUTOFF, ("Si", "O"))
    relaxed = ms.relax(potential, crystal, cell="isotropic", solver=ms.NewtonCG())
    assert relaxed.equilibrium.certificate.is_minimum
    assert calls == [5]


def shift_of_a_neighbor(potential, states):
    structure, _ = states["structure"]
    return (structure.positions[3, 0] - structure.positions[0, 0],)


def test_certified_derivatives_by_weights_are_those_of_relaxing_again(potential, crystal):
    shift = ms.Observable(names=("shift",), units=("Å",), function=shift_of_a_neighbor)
    names = ["core", "layers.1.mix[0][2]"]
    how = {"cell": "isotropic", "fmax": 1e-12, "solver": ms.NewtonCG()}
    observed = ["volume", shift, "C44"]
    report = ms.sensitivities(
        observed, potential, crystal, parameters=names, second_order=False, check_minimum=True, **how
    )
    assert report.certificate["structure"].is_minimum
    theta = dict(zip(names, report.theta, strict=True))

    def relaxed_again(name, step):
        moved = ms.replace_parameters(potential, {name: theta[name] + step})
        state = ms.relax(moved, crystal, **how)
        x = np.asarray(state.structure.positions)
        C = ms.observables.elastic_constants(moved, state)
        return np.array([ms.volume(state.structure), x[3, 0] - x[0, 0], C[3, 3] * ms.units.GPA])

    for k, name in enumerate(names):
        step = 1e-3 * abs(theta[name])
        slopes = [(relaxed_again(name, h) - relaxed_again(name, -h)) / (2 * h) for h in (step, 2 * step)]
        wanted = (4 * slopes[0] - slopes[1]) / 3
        found = report.clamped[:, k] + report.relaxation[:, k]
        # extrapolated, differences err by the fourth power of the step
        assert_allclose(found, wanted, rtol=1e-6, err_msg=name)


def test_a_cutoff_within_which_more_pairs_lie_than_a_list_holds_is_refused(potential, crystal):
    far = GraphPotential(network, random_params(), 3000.0, ("Si", "O"))
    with pytest.raises(InputError, match=r"pairs .* lie within 3000 Å .*Take a cutoff below"):
        ms.energy(far, crystal)


def test_features_of_all_edges_that_the_memory_does_not_hold_are_refused(potential, crystal, monkeypatch):
    kept = potential.bytes_per_pair()
    # distance, envelope and features of two layers, three numbers each, of either edge; and no megabyte
    assert 2 * 8 * 10 < kept < 1e4
    assert (potential + potential).bytes_per_pair() == kept
    mapped = ms.mapped(potential, {"Si": "Si", "O": "O"})
    assert mapped.heavy and mapped.bytes_per_pair() == kept
    monkeypatch.setattr(lists, "FEW_PAIRS", 1)
    monkeypatch.setattr(lists, "device_memory", lambda: 10 * kept)
    with pytest.raises(
        InputError, match=r"the forces take .* bytes of each, .* hold 1.0e\+01. Take a cutoff"
    ):
        ms.energy(potential, crystal)


def test_sensitivities_by_selected_weights_and_along_directions(potential, crystal):
    relaxed = ms.relax(potential, crystal, solver=ms.NewtonCG())
    names = ["core", "layers.1.mix[0][2]"]
    values, jacobian = ms.first_order(relaxed, ["energy"], names)
    exact = jax.grad(lambda p: ms.energy(p, relaxed.structure, relaxed.neighbors))(potential)
    assert_allclose(jacobian[0], [exact.weights["core"], exact.weights["layers.1.mix"][0, 2]], rtol=1e-8)

    along = potential.along(steepest=exact)
    values_along, slope = ms.first_order(ms.relax(along, crystal, solver=ms.NewtonCG()), ["energy"])
    assert_allclose(values_along, values, rtol=1e-12)
    assert_allclose(slope[0, 0], sum(float(jnp.sum(w**2)) for w in exact.weights.values()), rtol=1e-8)
    with pytest.raises(InputError, match="no directions"):
        potential.along()
    with pytest.raises(InputError, match="belongs to another network"):
        potential.along(a=along)


def test_weights_are_named_by_their_place_and_float32_becomes_float64(potential):
    assert potential.weights["core"].dtype == jnp.float64
    assert "layers.0.radial" in potential.weights and "rounds" not in potential.weights
    stiffer = ms.replace_parameters(potential, {"layers.0.radial[1][2]": 4.0})
    assert stiffer.params["layers"][0]["radial"][1, 2] == 4.0
    again = GraphPotential(network, random_params(), CUTOFF, ("Si", "O"))
    assert again.rest == potential.rest and hash(again.rest) == hash(potential.rest)  # compiles once


def test_weights_are_grouped_by_the_layer_in_their_names():
    names = {"layers": [{"w": 3.0, "b": 4.0}, {"w": 1.0}], "params": {"dense_0": {"w": 2.0}}, "shift": 5.0}
    grouped = GraphPotential(network, names, CUTOFF, ())
    assert grouped.layers() == {
        "layers.0": ("layers.0.b", "layers.0.w"),
        "layers.1": ("layers.1.w",),
        "params.dense_0": ("params.dense_0.w",),
        "shift": ("shift",),
    }
    norms = {"layers.0": 5.0, "layers.1": 1.0, "params.dense_0": 2.0, "shift": 5.0}
    assert grouped.norms_by_layer() == norms


def test_a_layer_that_grows_changes_the_energy_by_all_of_its_weights(potential, crystal):
    neighbors = ms.find_neighbors(crystal, CUTOFF)
    energy = lambda p: p.energy(crystal, neighbors)
    by_weights, by_layers = (jax.grad(energy)(p) for p in (potential, potential.along_layers()))
    assert set(by_layers.weights) == set(potential.layers())
    for layer, names in potential.layers().items():
        wanted = sum(jnp.vdot(potential.weights[name], by_weights.weights[name]) for name in names)
        assert_allclose(by_layers.weights[layer], wanted, rtol=1e-12, atol=1e-14)


def test_a_table_of_a_million_weights_shows_the_ends_of_each_array():
    weights = {"first": np.zeros((1000, 900)), "last": np.ones(3)}
    large = GraphPotential(network, weights, CUTOFF, ())
    table = ms.parameter_table(large)
    assert len(table.rows) == 6 and "first[999][899]" in str(table) and "899998 more" in str(table)
    assert ms.replace_parameters(large, {"last[1]": 2.0}).weights["last"][1] == 2.0
    with pytest.raises(InputError, match="Its parameters: first, last"):
        ms.replace_parameters(large, {"middle[0]": 2.0})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"site_energies": "net"}, "give a function of params"),
        ({"params": {"layers": 3}}, "hold no floating array"),
        ({"cutoff": -1.0}, "cutoff = -1.0"),
        ({"elements": ("Xx",)}, "no chemical symbol"),
    ],
)
def test_what_makes_no_network_is_refused(changes, message):
    good = {"site_energies": network, "params": {"w": 1.0}, "cutoff": 3.0, "elements": ("Si",)}
    with pytest.raises(InputError, match=message):
        GraphPotential(**(good | changes))


def test_a_network_in_float32_or_with_another_number_of_energies_is_refused(crystal):
    low = lambda params, vectors, *_: jnp.zeros(7, jnp.float32)
    with pytest.raises(InputError, match="computes in float32"):
        ms.energy(GraphPotential(low, {"w": 1.0}, CUTOFF, ()), crystal)
    short = lambda params, vectors, *_: jnp.zeros(6)
    with pytest.raises(InputError, match=r"shape \(6,\) for 6 atoms and the spare one"):
        ms.energy(GraphPotential(short, {"w": 1.0}, CUTOFF, ()), crystal)


def test_a_network_of_the_total_energy_has_no_energies_of_atoms(crystal):
    total = GraphPotential(lambda p, v, *_: p["w"] * jnp.sum(v[:-1] ** 2) / 1e3, {"w": 1.0}, CUTOFF, ())
    neighbors = ms.find_neighbors(crystal, CUTOFF)
    assert np.isfinite(float(ms.energy(total, crystal, neighbors)))
    with pytest.raises(InputError, match="none for each atom"):
        total.site_energies(crystal, neighbors)


def test_a_network_of_jax_md_needs_an_element_for_each_of_its_species():
    with pytest.raises(InputError, match="1 elements for a network of 2"):
        from_jax_md_nequip(SimpleNamespace(n_elements=2), {}, ("Si",))


def test_a_package_that_is_missing_is_named_with_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "nequix.model", None)
    (tmp_path / "model.nqx").write_text("{}")
    with pytest.raises(InputError, match="pip install --no-deps nequix"):
        from_nequix(tmp_path / "model.nqx")
    with pytest.raises(InputError, match="no Nequix model"):
        from_nequix(tmp_path / "other.nqx")
