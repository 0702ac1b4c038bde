"""Networks trained on forces: the loss falls, a run that was cut off ends with the same bits."""

import ase.build
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_array_equal

import mdsens as ms
from mdsens.datasets import Dataset, Rattle, generate, split
from mdsens.errors import InputError, NonFiniteError
from mdsens.fitting import LabelTolerances, load_trained, parity, train_potential
from mdsens.potentials.networks import jax_md_graph
from mdsens.training import Schedule

SILICON = ms.load_potential("si-stillinger-weber-1985")
SCHEDULE = Schedule(steps=30, batch=3, learning_rate=3e-2, warmup=2, evaluate_every=10)
TOLERANCES = LabelTolerances(energy=0.05, forces=0.5, stress=None)


def energies(params, vectors, species, senders, receivers):
    """A density of neighbors, and a small network of it."""
    square = (vectors**2).sum(-1)
    bumps = jnp.exp(-((jnp.sqrt(square)[:, None] - jnp.linspace(2.0, 3.5, 4)) ** 2) / 0.3)
    near = jnp.where(square < 16.0, (1 - square / 16.0) ** 2, 0.0)[:, None] * bumps
    density = jax.ops.segment_sum(near, receivers, num_segments=len(species))
    return jnp.tanh(density @ params["w1"] + params["b1"]) @ params["w2"] + params["b2"]


def network(seed: int = 0) -> ms.GraphPotential:
    rng = np.random.default_rng(seed)
    shapes = {"w1": (4, 6), "b1": (6,), "w2": (6,)}
    params = {name: 0.5 * rng.normal(size=shape) for name, shape in shapes.items()}
    return ms.GraphPotential(energies, {**params, "b2": -4.3}, cutoff=4.0, elements=("Si",))


@pytest.fixture(scope="module")
def data():
    start = ms.Structure.from_ase(ase.build.bulk("Si", cubic=True))
    return split(generate(SILICON, start, Rattle(0.1), count=10), validation=0.2, test=0.1)


def squares(potential, part) -> float:
    """The loss, out of the errors of another program path."""
    found = parity(potential, part)
    return (found.energy.rmse / TOLERANCES.energy) ** 2 + (found.forces.rmse / TOLERANCES.forces) ** 2


def weights(potential) -> list:
    return jax.tree.leaves(potential.weights)


def test_the_loss_falls_and_a_run_cut_off_ends_with_the_same_bits(data, tmp_path):
    options = {"schedule": SCHEDULE, "tolerances": TOLERANCES}
    whole = train_potential(network(), data, **options)
    loss = whole.history["held_out/loss"]
    assert loss[-1] < loss[0]
    start, end = (squares(p, data.validation) for p in (network(), whole.potential))
    assert end < 0.7 * start
    np.testing.assert_allclose(end, loss.min(), rtol=1e-9)
    file = tmp_path / "net.h5"
    train_potential(network(), data, checkpoint=file, stop_after=13, **options)
    resumed = train_potential(network(), data, checkpoint=file, resume=True, **options)
    for a, b in zip(weights(whole.potential), weights(resumed.potential), strict=True):
        assert_array_equal(a, b)
    for a, b in zip(weights(load_trained(network(1), file)), weights(whole.potential), strict=True):
        assert_array_equal(a, b)
    with pytest.raises(InputError, match="checkpoint of another training: its tolerances"):
        train_potential(network(), data, schedule=SCHEDULE, checkpoint=file, resume=True)
    with pytest.raises(InputError, match="these are parameters of another potential"):
        load_trained(SILICON, file)
    from matplotlib.image import imread

    whole.plot(tmp_path / "curve.png")
    assert np.ptp(imread(tmp_path / "curve.png")) > 0.5


def test_what_is_frozen_stays(data):
    schedule = Schedule(steps=1, batch=3, evaluate_every=1)
    trained = train_potential(network(), data, schedule=schedule, tolerances=TOLERANCES, frozen=("w1", "b"))
    before, after = network().weights, trained.last.weights
    assert_array_equal(before["w1"], after["w1"])
    assert_array_equal(before["b2"], after["b2"])
    assert np.any(before["w2"] != after["w2"])


def test_a_loss_that_is_nan_stops_with_the_last_good_parameters(data, tmp_path):
    import optax

    with pytest.raises(NonFiniteError, match=r"is not finite.*is good") as caught:
        train_potential(
            network(),
            data,
            schedule=SCHEDULE,
            tolerances=TOLERANCES,
            optimizer=optax.sgd(lambda step: jnp.where(step < 12, 1e-6, jnp.inf)),
            checkpoint=tmp_path / "net.h5",
        )
    good = load_trained(network(1), tmp_path / "net.h5")
    assert all(np.isfinite(w).all() for w in weights(good))
    assert caught.value.partial.best_step == 10


def test_structures_of_different_sizes_are_trained_on_in_groups(data):
    small = ms.Structure.from_ase(ase.build.bulk("Si"))
    pairs = split(generate(SILICON, small, Rattle(0.1), count=6, seed=1), validation=0.3, test=0.2)
    mixed = data._replace(train=data.train + pairs.train, validation=data.validation + pairs.validation)
    schedule = Schedule(steps=4, batch=3, evaluate_every=4)
    trained = train_potential(network(), mixed, schedule=schedule, tolerances=TOLERANCES)
    # groups of 2 and of 8 atoms add up to the loss of all
    loss = trained.history["held_out/loss"][-1]
    np.testing.assert_allclose(loss, squares(trained.last, mixed.validation), rtol=1e-9)


def test_data_that_cannot_be_trained_on_are_refused(data):
    with pytest.raises(InputError, match="Divide it first"):
        train_potential(network(), data.train)
    with pytest.raises(InputError, match="the validation part of the data is empty"):
        train_potential(network(), data._replace(validation=Dataset(())))
    bare = Dataset.create(data.train.structures)
    with pytest.raises(InputError, match="the train part of the data has no labels"):
        train_potential(network(), data._replace(train=bare))


def small_nequip() -> ms.GraphPotential:
    """NequIP with random weights."""
    nequip = pytest.importorskip("jax_md._nn.nequip", reason="jax-md is not installed")
    settings = nequip.default_config()
    settings.graph_net_steps, settings.n_elements, settings.r_max = 1, 2, 4.0
    settings.hidden_irreps, settings.sh_irreps, settings.num_basis = "4x0e+2x1o", "1x0e+1x1o", 4
    settings.radial_net_n_hidden, settings.radial_net_n_layers, settings.scalar_mlp_std = 8, 1, 1.0
    settings.n_neighbors, settings.scale, settings.shift = 10.0, 1.0, 0.0
    model = nequip.model_from_config(settings)
    spare = jax_md_graph(jnp.eye(2), jnp.ones((1, 3)), jnp.zeros(1, int), jnp.zeros(1, int))
    params = jax.jit(model.init)(jax.random.key(0), spare)
    return ms.from_jax_md_nequip(model, params, ("Si", "O"))


@pytest.mark.validation
def test_a_nequip_learns_forces_and_resumes(tmp_path):
    potential = small_nequip()
    start = ms.Structure.from_ase(ase.build.bulk("Si", cubic=True))
    data = split(generate(SILICON, start, Rattle(0.1), count=10), validation=0.2, test=0.1)
    options = {"schedule": Schedule(steps=20, batch=2, evaluate_every=5, learning_rate=1e-2)}
    options["tolerances"] = LabelTolerances(energy=None, forces=0.5, stress=None)
    whole = train_potential(potential, data, **options)
    loss = whole.history["held_out/loss"]
    assert loss.min() < loss[0]
    file = tmp_path / "net.h5"
    train_potential(potential, data, checkpoint=file, stop_after=7, **options)
    resumed = train_potential(potential, data, checkpoint=file, resume=True, **options)
    for a, b in zip(weights(whole.potential), weights(resumed.potential), strict=True):
        assert_array_equal(a, b)
