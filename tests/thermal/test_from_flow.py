"""Samples of a flow as those of a potential: all count where the flow is the potential."""

import equinox as eqx
import jax.numpy as jnp
import peroxide
import pytest
from jaxtyping import Array
from numpy.testing import assert_allclose

import mdsens as ms
from mdsens.errors import InputError, NotConvergedError
from mdsens.flows.boltzmann import BoltzmannGenerator
from mdsens.potentials.base import parameter
from mdsens.units import BOLTZMANN

kT = BOLTZMANN * peroxide.TEMPERATURE


class AsLearned(ms.Potential):
    """The energy of the flow, and a spring between the oxygens beside it."""

    stiffness: Array = parameter("eV/Å²", per=None)
    generator: BoltzmannGenerator
    elements: tuple[str, ...] = eqx.field(static=True, default=("H", "O"))
    source: str = eqx.field(static=True, default="")

    @property
    def cutoff(self):
        return jnp.asarray(jnp.inf)

    def energy(self, structure, neighbors):
        x = structure.positions
        bond = jnp.linalg.norm(x[2] - x[1]) - 10 * peroxide.OO
        return kT * self.generator.energy(x / 10) + self.stiffness * bond**2 / 2


@pytest.fixture(scope="module")
def potential():
    return AsLearned(0.0, peroxide.generator())


def test_all_samples_count_where_the_flow_is_the_potential(potential):
    ensemble = ms.thermal.sample_flow(potential.generator, potential, samples=400, seed=1)
    assert_allclose(ensemble.effective.share, 1.0, rtol=1e-9)
    assert ensemble.replicas == 0 and ensemble.temperature == peroxide.TEMPERATURE
    found = ensemble.average("distance(1, 2)")
    value, error = found["distance(1, 2)"]
    width = 10 * peroxide.BOND_WIDTH
    assert abs(value - 10 * peroxide.OO) < 3 * error
    assert_allclose(error, width / 20, rtol=0.1)
    # a spring at the mean of a Gaussian makes it narrower, and does not move it
    slope, error = found.derivative("distance(1, 2)", "stiffness")
    assert abs(slope) < 3 * error
    stiff = ensemble.reweighted({"stiffness": kT / width**2})
    assert 0.7 < stiff.effective.share < 1.0


def test_flows_of_other_atoms_and_other_potentials_are_refused(potential):
    with pytest.raises(InputError, match=r"generator must be a BoltzmannGenerator, not Flow"):
        ms.thermal.sample_flow(potential.generator.flow, potential)
    with pytest.raises(InputError, match=r"LennardJones has no parameters for H, O"):
        ms.thermal.sample_flow(potential.generator, ms.load_potential("ar-lennard-jones"), samples=20)
    far = AsLearned(1e6, potential.generator)
    with pytest.raises(NotConvergedError, match=r"independent samples are left"):
        ms.thermal.sample_flow(potential.generator, far, samples=50)
