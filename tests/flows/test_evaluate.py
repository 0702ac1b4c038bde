"""A flow against its own energy is perfect; the flow of a molecule from its first frames; pictures."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import peroxide
import pytest
from ase.build import molecule
from matplotlib.image import imread
from numpy.testing import assert_allclose
from quick import quick_jit

from mdsens.errors import InputError, OutputExistsError
from mdsens.flows.boltzmann import BoltzmannGenerator
from mdsens.flows.data import ForceData
from mdsens.flows.evaluate import evaluate_on_data, evaluate_on_samples, in_pieces
from mdsens.flows.flow import Flow
from mdsens.flows.internal_coordinates import ZMatrix
from mdsens.flows.layers import Inverted
from mdsens.flows.molecule import MoleculeArchitecture, choose_coordinates
from mdsens.flows.plots import plot_comparison, plot_training
from mdsens.flows.read_data import read_force_data
from mdsens.flows.reference_block import MixedCoordinates
from mdsens.flows.transforms import AffineFamily
from mdsens.molecules.topology import read_molecule

DATA = Path(__file__).parents[2] / "data"
PEROXIDE = peroxide.generator()
SMALL = MoleculeArchitecture(soft_layers=1, stiff_layers=1, hidden=(8,), harmonics=1)


@pytest.fixture(scope="module")
def samples() -> np.ndarray:
    return PEROXIDE.flow.sample(jax.random.key(0), 400)[0]


def shifted(model: BoltzmannGenerator, shift: jax.Array, stretch: jax.Array, x: jax.Array) -> jax.Array:
    """The model's energy, moved by a constant and with a spring on the first bond."""
    bond = model.coordinates.forward(x)[0]["bonds"][0]
    return model.energy(x) + shift + stretch * (bond - peroxide.OO) ** 2


def target(shift: float, stretch: float = 0.0) -> jax.tree_util.Partial:
    return jax.tree_util.Partial(shifted, PEROXIDE, jnp.asarray(shift), jnp.asarray(stretch))


def test_a_flow_stands_for_its_own_energy_and_a_constant_is_a_free_energy(samples):
    for shift in (0.0, 2.5):
        found = evaluate_on_samples(PEROXIDE, target(shift), samples)
        assert found.n_samples == 400
        assert_allclose([found.ess, found.ess_clipped], 1, rtol=1e-9)
        assert_allclose([found.free_energy.value, found.reverse_kl], [shift, 0], atol=1e-9)
        assert found.force_rmse < 1e-8  # kT/nm, of 1000: rounding
        assert_allclose(found.log_weights, -shift, atol=1e-9)


def test_a_stiffer_bond_costs_its_free_energy(samples):
    # a Gaussian of variance s² in u = k (b - b0)²: F = log(1 + 2 k s²) / 2, KL = k s² - F, and <w²> / <w>² by
    # the same integral
    k = 0.5 / peroxide.BOND_WIDTH**2
    found = evaluate_on_samples(PEROXIDE, target(0.0, k), samples)
    assert_allclose(found.free_energy.value, 0.5 * np.log(2), atol=4 * found.free_energy.error)
    kl = 0.5 - 0.5 * np.log(2)
    assert_allclose(found.reverse_kl, kl, atol=4 * found.log_weights.std() / 20)
    assert_allclose(found.ess, np.sqrt(3) / 2, atol=0.1)
    assert found.ess < found.ess_clipped < 1
    # one component of force, 2 k (b - b0) along the bond, shared by two atoms: of 12 components
    assert_allclose(found.force_rmse, 2 * k * peroxide.BOND_WIDTH * np.sqrt(2 / 12), rtol=0.15)
    assert found.force_rmse_clipped < found.force_rmse


def own_data(samples: np.ndarray) -> ForceData:
    energies, forces = in_pieces(PEROXIDE, samples)
    return ForceData(samples, forces, energies + 7.0, peroxide.TEMPERATURE)


def test_a_flow_agrees_with_its_own_frames(samples):
    data, seen = own_data(samples), []
    found = evaluate_on_data(PEROXIDE, data, seen.append)
    assert found.n_frames == 400 and seen == [400]
    assert found.force_rmse < 1e-8 and found.energy_std < 1e-9
    assert_allclose(found.nll, data.energies.mean() - 7, rtol=1e-12)
    assert_allclose(found.nll_error, data.energies.std() / 20, rtol=1e-12)
    assert_allclose(found.force_rms, np.sqrt(np.mean(data.forces**2)), rtol=1e-12)
    # the entropy of five Gaussians and an angle, less the mean of the volume element 2 sum log b + sum log
    # sin t
    rare = data.energies.copy()
    rare[[3, 8]] -= 6.0  # much more likely than the flow says
    assert found.missed == 0 and evaluate_on_data(PEROXIDE, data._replace(energies=rare)).missed == 2
    of_one = evaluate_on_data(PEROXIDE, data._replace(weights=1.0 * (np.arange(400) == 7)))
    assert_allclose(of_one.nll, data.energies[7] - 7, rtol=1e-12)
    none = evaluate_on_data(PEROXIDE, data._replace(weights=np.zeros(400)))
    assert_allclose([none.nll, none.nll_error], [found.nll, found.nll_error], rtol=1e-12)
    gaussians = (
        5 * 0.5 * np.log(2 * np.pi * np.e)
        + 3 * np.log(peroxide.BOND_WIDTH)
        + 2 * np.log(peroxide.ANGLE_WIDTH)
    )
    volume = 4 * np.log(peroxide.OH) + 2 * np.log(peroxide.OO) + 2 * np.log(np.sin(peroxide.ANGLE))
    assert_allclose(found.nll, gaussians + np.log(2 * np.pi) + volume, atol=4 * found.nll_error)
    without = evaluate_on_data(PEROXIDE, data._replace(forces=None, energies=None))
    assert (
        np.isnan([without.force_rmse, without.force_rms, without.energy_std]).all()
        and without.nll == found.nll
    )


def test_frames_of_something_else_are_refused(samples):
    data = own_data(samples)
    with pytest.raises(InputError, match="the flow is of 4 atoms, the data of 3: not the same molecule"):
        evaluate_on_data(PEROXIDE, data._replace(positions=samples[:, :3]))
    with pytest.raises(InputError, match="the flow stands for 300 K, the data for 310 K"):
        evaluate_on_data(PEROXIDE, data._replace(temperature=310.0))
    still = np.repeat(samples[:1], 40, axis=0)
    with pytest.raises(InputError, match="3 of 3 bonds are rigid"):
        evaluate_on_data(PEROXIDE, data._replace(positions=still))


def colors(path: Path) -> int:
    """How many different colors a picture has."""
    picture = imread(path)
    assert picture.shape[0] > 300 and picture.shape[1] > 300
    return len(np.unique(np.round(255 * picture[..., :3]) @ [1, 256, 256**2]))


def test_pictures_are_not_blank_and_overwrite_nothing(samples, tmp_path):
    steps = np.arange(1, 5) * 10
    history = {"step": steps, "learning_rate": 1e-3 / steps}
    for name in ("nll", "force_rmse"):
        history |= {f"train/{name}": 100.0 / steps, f"held_out/{name}": 110.0 / steps}
    plot_training(tmp_path / "training.png", history)
    data = own_data(samples)
    plot_comparison(
        tmp_path / "comparison.png",
        data=samples,
        samples=samples[::-1],
        torsions=((0, 1, 2, 3), (3, 2, 1, 0)),
        forces=(data.forces, data.forces),
        energies=(data.energies, data.energies),
    )
    plot_comparison(tmp_path / "single.png", data=samples, samples=samples, torsions=((0, 1, 2, 3),))
    for name in ("training", "comparison", "single"):
        assert colors(tmp_path / f"{name}.png") > 20
    before = (tmp_path / "single.png").read_bytes()
    with pytest.raises(OutputExistsError, match="exists"):
        plot_training(tmp_path / "single.png", history)
    assert (tmp_path / "single.png").read_bytes() == before and len(list(tmp_path.iterdir())) == 3


def test_architectures_have_names():
    smooth, spline = (MoleculeArchitecture.of(name, hidden=(8,)) for name in ("smooth", "spline"))
    assert smooth.hidden == spline.hidden == (8,) and type(smooth.line) is not type(spline.line)
    # of as many parameters
    assert (
        abs(smooth.circle.n_raw - spline.circle.n_raw) <= 1
        and abs(smooth.line.n_raw - spline.line.n_raw) <= 3
    )
    with pytest.raises(InputError, match="transforms = 'nonsense': there are 'smooth' and 'spline'"):
        MoleculeArchitecture.of("nonsense")


@quick_jit
def energies(flow: Flow, frames: jax.Array) -> jax.Array:
    return jax.vmap(flow.energy)(frames)


def test_the_flow_of_a_peptide_knows_its_soft_torsions():
    data, peptide = (
        read_force_data(DATA / "alanine-dipeptide.h5"),
        read_molecule(DATA / "alanine-dipeptide.pdb"),
    )
    coordinates = choose_coordinates(peptide.topology, data.positions)
    assert isinstance(coordinates, ZMatrix)
    flow = SMALL.build(coordinates, data.positions, jax.random.key(0))
    assert {name: base.n for name, base in flow.base.items()} == {"stiff": 55, "soft": 5}
    model = BoltzmannGenerator(flow, peptide.species, data.temperature, peptide.pdb)
    atoms = {str(atom).split("-")[1] + str(atom.residue.index): atom.index for atom in peptide.topology.atoms}
    phi = tuple(atoms[name] for name in ("C0", "N1", "CA1", "C1"))
    psi = tuple(atoms[name] for name in ("N1", "CA1", "C1", "N2"))
    found = set(model.rotatable) | {row[::-1] for row in model.rotatable}
    assert len(model.rotatable) == 2 and {phi, psi} <= found
    # centered and scaled to the frames it is a crude density of them already: 55 white numbers have a sum of
    # squares of 55, which differs by sqrt(2 * 55) from frame to frame
    nll = np.asarray(energies(flow, jnp.asarray(data.positions[::40], float)))
    assert np.isfinite(nll).all() and nll.std() < np.sqrt(2 * 55)
    with pytest.raises(InputError, match="no inverse"):
        SMALL.build(coordinates, data.positions[:50], jax.random.key(0))
    with pytest.raises(InputError, match="frames must be finite positions"):
        SMALL.build(coordinates, np.full((100, 22, 3), np.nan), jax.random.key(0))


def test_the_flow_of_a_ring_without_soft_torsions_samples_what_it_evaluates():
    pyrrole, rng = molecule("C4H4NH"), np.random.default_rng(5)
    frames = 0.1 * pyrrole.positions + 0.004 * rng.normal(size=(300, 10, 3))
    coordinates = choose_coordinates(pyrrole, frames)
    assert isinstance(coordinates, MixedCoordinates)
    gaussian = MoleculeArchitecture(line=AffineFamily(), stiff_layers=1, hidden=(8,))
    flow = gaussian.build(coordinates, frames, jax.random.key(0))
    assert {name: base.n for name, base in flow.base.items()} == {"stiff": 24, "soft": 0}
    assert any(isinstance(layer, Inverted) for layer in flow.layers.layers)
    x, log_p = quick_jit(lambda flow, keys: jax.vmap(flow.draw)(keys))(
        flow, jax.random.split(jax.random.key(1), 8)
    )
    assert_allclose(-energies(flow, x), log_p, rtol=1e-9)
    assert np.abs(x - x.mean(1, keepdims=True)).max() < 0.3  # nm: a ring, not a cloud
