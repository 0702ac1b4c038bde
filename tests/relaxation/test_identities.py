"""What holds exactly, whatever the numbers: scaling, envelopes, sums of rows.

Tolerance 1e-8: all that is left is rounding.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import references
from numpy.testing import assert_allclose
from states import by_parameter, cluster, log_derivatives

import mdsens as ms

EXACT = 1e-8


def test_a_cluster_grows_with_its_lengths_and_not_with_its_energies():
    potential, start = cluster()
    relaxed = ms.relax(potential, start, fmax=1e-10)
    observables = lambda p: {"x": (r := ms.relax(p, start, fmax=1e-10)).structure.positions, "E": r.energy}
    rows = log_derivatives(observables, potential)
    total = lambda quantity, letter: sum(
        row for name, row in rows[quantity].items() if name.startswith(letter)
    )
    x = relaxed.structure.positions
    # E = epsilon f(x / sigma) for all epsilons, all sigmas together
    assert_allclose(total("x", "sigma"), x - jnp.mean(x, axis=0), rtol=0, atol=EXACT)
    assert_allclose(total("x", "epsilon"), 0, atol=EXACT)
    assert_allclose(total("E", "epsilon"), relaxed.energy, rtol=0, atol=EXACT)
    assert_allclose(total("E", "sigma"), 0, atol=EXACT)  # no pressure, no cell: no other length


def test_the_derivative_of_a_relaxed_energy_is_the_partial_one():
    # Hellmann-Feynman: the forces vanish, so the motion of the atoms does not count
    potential, start = cluster()
    relaxed = ms.relax(potential, start, fmax=1e-10)
    whole = by_parameter(potential, jax.grad(lambda p: ms.relax(p, start, fmax=1e-10).energy)(potential))
    partial = by_parameter(
        potential, jax.grad(lambda p: ms.energy(p, relaxed.structure, relaxed.neighbors))(potential)
    )
    for name, value in partial.items():
        assert_allclose(whole[name], value, rtol=0, atol=EXACT)


@pytest.mark.validation  # tests/sensitivity/test_analysis.py claims the same of a report, in every run
def test_a_vacancy_at_zero_pressure_has_one_length_and_one_energy():
    case = references.table("stillinger_weber")["sw-si-vacancy-63"]
    potential, start = references.potential(case), references.structure(case)

    def observables(p):
        relaxed = ms.relax(p, start, cell="isotropic", fmax=1e-10)
        x, h = relaxed.structure.positions, relaxed.structure.cell
        return {
            "V": ms.volume(relaxed.structure),
            "E": relaxed.energy,
            "s": (x - jnp.mean(x, axis=0)) @ jnp.linalg.inv(h),
        }

    here, rows = observables(potential), log_derivatives(observables, potential)
    assert_allclose(rows["V"]["sigma"], 3 * here["V"], rtol=EXACT)
    assert_allclose(rows["E"]["sigma"], 0, atol=EXACT)
    assert_allclose(rows["s"]["sigma"], 0, atol=EXACT)
    assert_allclose(rows["V"]["epsilon"], 0, atol=EXACT)
    assert_allclose(rows["E"]["epsilon"], here["E"], rtol=EXACT)
    # every term of the energy is proportional to epsilon, and to A or to lambda
    for quantity, row in rows.items():
        assert_allclose(
            row["A"] + row["lambda"],
            row["epsilon"],
            rtol=0,
            atol=EXACT * (1 + np.abs(row["A"]).max()),
            err_msg=quantity,
        )
    assert np.abs(rows["s"]["lambda"]).max() > 1e-3  # and lambda does move atoms
