"""Networks of other packages with random weights: energies and forces are those of their own programs.

They are no dependencies: `pip install mlip`; `pip install --no-deps apax`, beside e3x, clu and einops.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

import mdsens as ms
from mdsens.errors import InputError
from mdsens.testing import check_potential

pytestmark = pytest.mark.filterwarnings("default")  # of the packages that they import
CUTOFF = 3.2
KINDS = ("O", "Si")


@pytest.fixture(scope="module")
def crystal():
    """A rattled cell of 8 atoms that is thinner than two cutoffs."""
    from ase.build import bulk

    atoms = bulk("Si", cubic=True)
    atoms.symbols[[1, 4, 6]] = "O"
    atoms.rattle(0.1, seed=1)
    return ms.Structure.from_ase(atoms)


def network_of_mlip(name):
    models = pytest.importorskip("mlip.models", reason="mlip is not installed: pip install mlip")
    from mlip.data import DatasetInfo

    energies = {8: -1.0, 14: -2.0}
    info = DatasetInfo(
        atomic_energies_map=energies,
        graph_cutoff_angstrom=CUTOFF,
        avg_num_neighbors=8.0,
        avg_r_min_angstrom=2.0,
    )
    form = getattr(models, name)
    small = {"num_layers": 1, "num_channels": 4}
    if name == "Nequip":
        small = {"num_layers": 1, "node_irreps": "4x0e+4x1o", "num_rbf": 4, "l_max": 1}
    if name == "Visnet":
        small["num_heads"] = 2
    network = form(form.Config(**small), info)
    return models.ForceField.from_mlip_network(network, seed=0)


@pytest.mark.parametrize("name", ["Mace", "Nequip", "Visnet"])
def test_networks_of_mlip_have_the_energies_and_forces_of_its_calculator(name, crystal):
    force_field = network_of_mlip(name)
    from mlip.simulation.ase.mlip_ase_calculator import MLIPForceFieldASECalculator

    potential = ms.from_mlip(force_field)
    assert potential.elements == KINDS and float(potential.cutoff) == CUTOFF
    atoms = crystal.to_ase()
    atoms.calc = MLIPForceFieldASECalculator(atoms, edge_capacity_multiplier=1.5, force_field=force_field)
    found = ms.energy_forces_stress(potential, crystal)
    # whatever the network computes in float64; the calculator hands over float32 at some places
    assert_allclose(found.energy, atoms.get_potential_energy(), rtol=1e-6)
    assert_allclose(found.forces, atoms.get_forces(), atol=1e-5 * np.abs(found.forces).max())


def test_mace_of_mlip_conforms(crystal):
    assert check_potential(ms.from_mlip(network_of_mlip("Mace")), crystal, clusters=False).holds


def network_of_apax():
    config = pytest.importorskip("apax.config.model_config", reason="apax is not installed")
    settings = config.GMNNConfig(
        basis={"name": "gaussian", "n_basis": 4, "r_min": 0.5, "r_max": CUTOFF},
        nn=[8, 8],
        n_radial=3,
        n_contr=4,
        descriptor_dtype="fp64",
        readout_dtype="fp64",
    )
    plain = settings.model_dump()
    model = settings.get_builder()(plain).build_energy_model(scale=1.0, shift=0.0, apply_mask=False)
    start = (jnp.eye(2, 3), jnp.array([8, 14]), jnp.array([[0, 1], [1, 0]]))
    return model, model.init(jax.random.key(0), *start, jnp.zeros(3), jnp.zeros((2, 3)))


def test_a_network_of_apax_has_the_energy_of_its_own_model_in_a_cluster(crystal):
    model, params = network_of_apax()
    potential = ms.from_apax(model, params, KINDS)
    assert float(potential.cutoff) == CUTOFF
    cluster = ms.Structure.create(crystal.positions, crystal.species)
    x = np.asarray(cluster.positions)
    i, j = np.nonzero(~np.eye(8, dtype=bool))
    near = np.linalg.norm(x[j] - x[i], axis=1) < CUTOFF
    pairs = jnp.asarray(np.stack([i, j])[:, near])
    free = (jnp.zeros(3), jnp.zeros((near.sum(), 3)))
    energy, _ = model.apply(params, cluster.positions, cluster.species, pairs, *free)
    assert_allclose(ms.energy(potential, cluster), energy, rtol=1e-10)
    assert check_potential(potential, crystal, clusters=False).holds


def test_what_needs_more_than_the_graph_is_refused():
    from types import SimpleNamespace

    pytest.importorskip("mlip.graph", reason="mlip is not installed: pip install mlip")
    coulomb = SimpleNamespace(mlip_network=SimpleNamespace(config=SimpleNamespace(use_coulomb_term=True)))
    with pytest.raises(InputError, match="charges at long range"):
        ms.from_mlip(SimpleNamespace(predictor=coulomb))


def test_corrections_beside_a_network_of_apax_are_refused():
    from types import SimpleNamespace

    with pytest.raises(InputError, match="adds empirical corrections"):
        ms.from_apax(SimpleNamespace(corrections=["zbl"]), {}, KINDS)
