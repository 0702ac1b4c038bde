"""Training: reaches the density that the data come from, resumes bit for bit, stops at what is not finite."""

import equinox as eqx
import h5py
import jax
import jax.numpy as jnp
import numpy as np
import peroxide
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from mdsens.errors import FileFormatError, InputError, NonFiniteError, OutputExistsError
from mdsens.flows.boltzmann import BoltzmannGenerator, energies_and_forces
from mdsens.flows.data import ForceData
from mdsens.flows.files import load
from mdsens.flows.flow import Flow
from mdsens.flows.layers import Elementwise
from mdsens.flows.losses import Loss
from mdsens.flows.molecule import MoleculeArchitecture
from mdsens.flows.train import Schedule, held_out_terms, read_history, train
from mdsens.flows.transforms import AffineFamily, CircleMixture

SCHEDULE = Schedule(steps=60, batch=64, evaluate_every=20, learning_rate=1e-2, warmup=5)


@pytest.fixture(scope="module")
def data() -> ForceData:
    """Samples of peroxide with three preferred torsions; forces and energies of their density are exact."""
    plain = peroxide.generator().flow
    raw = jnp.array([[-2.0, 0.0, 0.5, 0.3, 0.0, 0.1, -0.1, 0.5, 0.2, 0.0, 0.3, 0.0, 1.0]])
    torsion = Elementwise("torsions", CircleMixture(3), raw)
    flow = Flow((*plain.layers.layers, torsion), plain.base)
    positions, _ = flow.sample(jax.random.key(0), 1000)
    energies, forces = energies_and_forces(flow, jnp.asarray(positions))
    return ForceData(positions, np.asarray(forces), np.asarray(energies), peroxide.TEMPERATURE)


@pytest.fixture(scope="module")
def untrained(data) -> BoltzmannGenerator:
    architecture = MoleculeArchitecture(
        CircleMixture(4), AffineFamily(), soft_layers=0, stiff_layers=0, hidden=(8,), harmonics=1
    )
    flow = architecture.build(peroxide.generator().coordinates, data.positions, jax.random.key(1))
    return BoltzmannGenerator(flow, peroxide.SPECIES, peroxide.TEMPERATURE).astype(jnp.float32)


@pytest.fixture(scope="module")
def trained(data, untrained, tmp_path_factory):
    path = tmp_path_factory.mktemp("train") / "model.h5"
    return path, train(untrained, data, schedule=SCHEDULE, checkpoint=path)


def test_forces_count_with_their_weights_and_likelihood_with_its_own(data, untrained):
    some = data.rows(slice(0, 64))
    wrong = some.forces.copy()
    wrong[32:] = 1e3
    # twice the mean weight for the frames whose forces are right, none for the others
    weights = jnp.repeat(jnp.array([2.0, 0.0]), 32)
    loss, key, flow = jax.jit(Loss().__call__), jax.random.key(0), untrained.flow
    _, terms = loss(flow, some.positions, jnp.asarray(wrong), key, None, weights)
    energies, own = energies_and_forces(flow, jnp.asarray(some.positions))
    expected = np.mean((np.asarray(own) - some.forces)[:32] ** 2)
    assert_allclose(terms["force_mse"], expected, rtol=1e-4)  # float32
    assert_allclose(terms["nll"], np.mean(energies), rtol=1e-5)
    counted = held_out_terms(flow, some.positions, wrong, True, None, np.asarray(weights))
    assert_allclose([counted["nll"], counted["force_mse"]], [terms["nll"], expected], rtol=1e-4)


def test_training_reaches_the_density_of_the_data(data, trained):
    _, done = trained
    _, held_out = data.split(SCHEDULE.held_out)
    # the entropy of the held-out frames is known, and the KL divergence to it is never negative but for their
    # fluctuation
    excess = done.history["held_out/nll"][-1] - held_out.energies.mean()
    assert -0.1 < excess < 0.15
    # harmonic bonds are learned from the forces to a few percent
    assert done.history["held_out/force_rmse"][-1] < 0.1 * np.sqrt(np.mean(held_out.forces**2))
    assert_array_equal(done.history["step"], [20, 40, 60])


def test_a_training_that_was_cut_off_ends_with_the_same_bits(data, untrained, trained, tmp_path):
    whole, path = trained[1], tmp_path / "model.h5"
    train(untrained, data, schedule=SCHEDULE, checkpoint=path, stop_after=30)
    assert read_history(path)["step"][-1] == 30
    again = train(untrained, data, schedule=SCHEDULE, checkpoint=path, resume=True)
    jax.tree.map(
        assert_array_equal, eqx.filter(again.model, eqx.is_array), eqx.filter(whole.model, eqx.is_array)
    )
    assert again.history["held_out/nll"][-1] == whole.history["held_out/nll"][-1]


def test_the_checkpoint_is_the_model_with_its_history(trained):
    path, done = trained
    jax.tree.map(
        assert_array_equal, eqx.filter(load(path), eqx.is_array), eqx.filter(done.model, eqx.is_array)
    )
    history = read_history(path)
    assert_array_equal(history["step"], [20, 40, 60])
    assert {"train/nll", "train/force_rmse", "held_out/nll", "held_out/force_rmse", "learning_rate"} < set(
        history
    )


def test_every_frame_is_seen_once_before_any_is_seen_again():
    schedule = Schedule(batch=7, seed=3)
    seen = np.concatenate([schedule.rows(step, 21) for step in range(6)])
    assert_array_equal(np.sort(seen[:21]), np.arange(21))
    assert_array_equal(np.sort(seen[21:]), np.arange(21))
    assert not np.array_equal(seen[:21], seen[21:])
    across = np.concatenate(
        [Schedule(batch=8, seed=3).rows(step, 21) for step in range(6)]
    )  # batches that cross an epoch
    assert_array_equal(across[:42], seen)


def test_learning_rate_rises_and_falls():
    rate = Schedule(steps=1000, warmup=100, learning_rate=2e-3, final=0.1).rate
    assert_allclose([float(rate(step)) for step in (0, 100, 1000)], [2e-4, 2e-3, 2e-4], rtol=1e-5)  # float32
    assert float(rate(500)) < float(rate(200))


def test_a_loss_that_is_not_finite_stops_with_the_last_good_model(data, untrained, tmp_path):
    path = tmp_path / "model.h5"
    schedule = Schedule(steps=60, batch=64, evaluate_every=5, learning_rate=1e-2, warmup=5)
    broken = ForceData(data.positions.copy(), data.forces, data.energies, data.temperature)
    row = schedule.rows(12, 900)[0]  # of the first epoch: no step before saw it
    broken.positions[row, 1] = broken.positions[row, 0]
    with pytest.raises(
        NonFiniteError,
        match=r"before step 15.*training nll.*The model of step 10 is good.*Lower learning_rate",
    ) as raised:
        train(untrained, broken, schedule=schedule, checkpoint=path)
    good = raised.value.partial
    assert good.history["step"][-1] == 10 and np.isfinite(good.history["held_out/nll"]).all()
    jax.tree.map(
        assert_array_equal, eqx.filter(load(path), eqx.is_array), eqx.filter(good.model, eqx.is_array)
    )


def test_progress_is_told_at_every_look(data, untrained):
    seen = []
    train(untrained, data, schedule=SCHEDULE, progress=seen.append, stop_after=20)
    assert [now.step for now in seen] == [20]
    assert seen[0].steps == 60 and seen[0].seconds > 0 and set(seen[0].held_out) == {"nll", "force_rmse"}


def test_wrong_input_is_refused(data, untrained, trained, tmp_path):
    path, _ = trained
    without = data._replace(forces=None)
    with pytest.raises(InputError, match="force matching needs forces"):
        train(untrained, without, schedule=SCHEDULE)
    for name in ("weights", "force_weights"):
        nothing = data._replace(**{name: np.zeros(data.n_frames)})
        with pytest.raises(InputError, match="all frames to train on have weight 0 in the"):
            train(untrained, nothing, schedule=SCHEDULE)
    with pytest.raises(InputError, match="batch = 2000 is more than the 900 frames"):
        train(untrained, data, schedule=Schedule(batch=2000))
    with pytest.raises(OutputExistsError, match="exists"):
        train(untrained, data, schedule=SCHEDULE, checkpoint=path)
    with pytest.raises(InputError, match="another training: its schedule"):
        train(untrained, data, schedule=Schedule(steps=61), checkpoint=path, resume=True)
    with pytest.raises(InputError, match="another training: its data"):
        train(untrained, data.rows(slice(0, 900)), schedule=SCHEDULE, checkpoint=path, resume=True)
    other = tmp_path / "other.h5"
    with h5py.File(other, "w") as file:
        file["positions"] = np.zeros(3)
    with pytest.raises(FileFormatError, match="holds no flow"):
        train(untrained, data, schedule=SCHEDULE, checkpoint=other, resume=True)
    for wrong in ({"steps": 0}, {"learning_rate": -1.0}, {"held_out": 1.5}, {"final": 0.0}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            Schedule(**wrong)
