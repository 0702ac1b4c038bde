"""Gauss-Newton without a matrix: tables of embedded atoms are found, killed fits go on with the same bits."""

import ase.build
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array, Float
from numpy.testing import assert_array_equal

import mdsens as ms
from mdsens.datasets import Dataset, Rattle, generate
from mdsens.errors import InputError, NonFiniteError
from mdsens.fitting import ForceMatching, fit_matrix_free, parity
from mdsens.potentials.base import parameter


def copper() -> ms.EAM:
    """Smooth tables of 16 knots."""
    r, x = 0.3 * np.arange(16), 0.25 * np.arange(16)
    well = np.maximum(1 - r / 4.4, 0)
    return ms.EAM(
        F=-x / (0.3 + np.sqrt(x)),
        rho=8 * well**4 * np.exp(-0.2 * r),
        rphi=r * well**3 * (np.exp(-r) * 30 - 1),
        elements=("Cu",),
        drho=0.25,
        dr=0.3,
        cutoff_radius=4.3,
    )


def off(potential: ms.EAM) -> ms.EAM:
    """Every knot up to 15 % elsewhere."""
    rng = np.random.default_rng(0)
    values = ms.parameter_values(potential)
    return ms.replace_parameters(
        potential, {name: v * (1 + 0.15 * rng.uniform(-1, 1)) for name, v in values.items()}
    )


@pytest.fixture(scope="module")
def term() -> ForceMatching:
    crystal = ms.Structure.from_ase(ase.build.bulk("Cu", cubic=True))
    return ForceMatching(generate(copper(), crystal, [Rattle(0.1, 0.04), Rattle(0.2, 0.06)], count=4))


def test_tables_are_found_from_forces_and_a_killed_fit_goes_on_with_the_same_bits(term, tmp_path):
    seen = []
    whole = fit_matrix_free(off(copper()), term, enough=3e-3, progress=seen.append)
    assert whole.status == "converged"
    before, after = (parity(p, term.data).forces.rmse for p in (off(copper()), whole.potential))
    assert after < 1e-3 * before
    assert [p.loss for p in seen] == whole.losses[1:].tolist()
    file = tmp_path / "fit.h5"
    fit_matrix_free(off(copper()), term, enough=3e-3, max_steps=2, checkpoint=file)
    resumed = fit_matrix_free(off(copper()), term, enough=3e-3, checkpoint=file, resume=True)
    for a, b in zip(jax.tree.leaves(whole.potential), jax.tree.leaves(resumed.potential), strict=True):
        assert_array_equal(a, b)
    assert_array_equal(whole.losses, resumed.losses)
    other = ForceMatching(term.data, huber=2.0)
    with pytest.raises(InputError, match=r"is the file of another fit: its huber is None, and here 2.0"):
        fit_matrix_free(off(copper()), other, checkpoint=file, resume=True)


def test_what_is_frozen_stays_and_a_true_potential_is_left_alone(term):
    fitted = fit_matrix_free(off(copper()), term, frozen=("F", "rho"), max_steps=1).potential
    assert_array_equal(fitted.F, off(copper()).F)
    assert np.any(fitted.rphi != off(copper()).rphi)
    done = fit_matrix_free(copper(), term)
    assert done.status == "converged" and len(done.losses) == 1


def test_faults_are_named(term):
    with pytest.raises(InputError, match="energies that are fitted along join all batches"):
        fit_matrix_free(copper(), ForceMatching(term.data, shift_energies=True))
    with pytest.raises(InputError, match="leaves no parameter to fit"):
        fit_matrix_free(copper(), term, frozen=("F", "r"))
    crystal = term.data[0].structure
    lying = crystal.at(crystal.positions.at[1].set(crystal.positions[0]))
    on_top = ForceMatching(Dataset.create([lying], energies=[0.0]))
    with pytest.raises(NonFiniteError, match="the loss at the start is inf"):
        fit_matrix_free(ms.LennardJones(0.4, 2.3, elements=("Cu",), cutoff_radius=4.3), on_top)


class Rooted(ms.PairPotential):
    """phi(r) = sqrt(K) (1 - r / 4)^3 up to 4 Å: NaN below K = 0, without a derivative at it."""

    K: Float[Array, "..."] = parameter("eV", text="strength")
    elements: tuple[str, ...] = eqx.field(static=True, default=("Cu",))
    source: str = eqx.field(static=True, default="a test")

    @property
    def cutoff(self):
        return jnp.asarray(4.0)

    def pair_energies(self, r, pair):
        well = jnp.maximum(1 - r / 4.0, 0.0) ** 3
        return jnp.sqrt(self.K if pair is None else self.K[pair]) * well


@pytest.fixture(scope="module")
def weak() -> ForceMatching:
    crystal = ms.Structure.from_ase(ase.build.bulk("Cu", cubic=True))
    return ForceMatching(generate(Rooted(K=0.01), crystal, [Rattle(0.1)], count=1))


def test_a_step_to_where_the_loss_is_nan_is_not_taken_and_the_fit_goes_on_with_shorter_ones(weak):
    # a full step from K leads to 2 sqrt(K K_true) - K, which is negative for K > 4 K_true
    seen = []
    fitted = fit_matrix_free(Rooted(K=1.0), weak, progress=seen.append)
    assert not seen[0].taken and np.isfinite(fitted.losses).all()
    assert fitted.losses[1] == fitted.losses[0]
    assert np.all(np.diff(fitted.losses) <= 0)
    assert float(fitted.potential.K) == pytest.approx(0.01, rel=1e-3)


def test_a_loss_without_a_derivative_stops_the_fit_with_the_last_good_parameters(weak, tmp_path):
    file = tmp_path / "fit.h5"
    message = r"the loss of the start is \S+, and its derivative is not finite"
    with pytest.raises(NonFiniteError, match=message) as caught:
        fit_matrix_free(Rooted(K=0.0), weak, checkpoint=file)
    assert float(caught.value.partial.potential.K) == 0.0
    assert len(caught.value.partial.losses) == 1
    assert file.exists()
