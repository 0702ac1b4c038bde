"""Second derivatives through relaxation: the same rule, differentiated once more."""

import jax
import jax.numpy as jnp
import pytest
import references
from numpy.testing import assert_allclose
from states import cluster

import mdsens as ms


def start_of(case):
    """Relaxed positions of the table.

    Free clusters there are superposed on these, which is the gauge of a relaxation too.
    """
    return references.structure(case).at(jnp.asarray(case["values"]["positions"]["value"]))


def in_logarithms(potential, names):
    """ln(theta) / ln(theta0) -> potential, at zero; parameters by their names in the tables."""
    names = [references.flat_name(name) for name in names]
    values = ms.parameter_values(potential)
    return lambda s: ms.replace_parameters(
        potential, {name: values[name] * jnp.exp(s[k]) for k, name in enumerate(names)}
    )


def second_derivatives(case_id):
    case = references.table("second_order")[case_id]
    return references.potential(case), start_of(case), case["second_derivatives"]


def check_curvatures_of_positions(potential, start, rows):
    along = in_logarithms(potential, list(rows))
    positions = lambda s: ms.relax(along(s), start, fmax=1e-11).structure.positions
    for k, (name, row) in enumerate(rows.items()):
        e = jnp.zeros(len(rows)).at[k].set(1.0)
        slope = lambda s, e=e: jax.jvp(positions, (s,), (e,))[1]
        references.assert_agrees(jax.jvp(slope, (0 * e,), (e,))[1], row, f"positions, {name}")


def test_energy_and_positions_of_a_cluster_have_the_curvatures_of_the_tables():
    potential, start, rows = second_derivatives("second-order-lj13-binary-cluster")
    names = rows["energy"]["parameters"]
    at = in_logarithms(potential, names)
    mine = jax.hessian(lambda s: ms.relax(at(s), start, fmax=1e-11).energy)(jnp.zeros(len(names)))
    assert_allclose(mine, mine.T, rtol=0, atol=1e-9)
    references.assert_agrees(mine, rows["energy"], "energy")
    check_curvatures_of_positions(potential, start, rows["positions"])


def test_hessian_of_an_observable_is_the_finite_difference_of_its_gradient():
    potential, start = cluster()

    def spread(p):  # an observable of the relaxed positions that turning the cluster leaves alone
        x = ms.relax(p, start, fmax=1e-11).structure.positions
        x = x - jnp.mean(x, axis=0)
        return jnp.sum(jnp.sum(x * x, axis=1) ** 2)

    gradient = jax.grad(spread)
    H = jax.jacfwd(gradient)(potential)
    h = 1e-4
    for name, value in ms.parameter_values(potential).items():
        ahead, behind = (gradient(ms.replace_parameters(potential, {name: value + s * h})) for s in (1, -1))
        twin = jax.tree.map(lambda a, b: (a - b) / (2 * h), ahead, behind)
        field, column = name.split("[")[0], potential.labels("epsilon").index(name.split("[")[1][:-1])
        for other in ("epsilon", "sigma"):
            # truncation: h² times a fourth derivative; the numbers reach 1e3
            assert_allclose(
                getattr(getattr(H, other), field)[:, column], getattr(twin, other), rtol=1e-5, atol=1e-4
            )


@pytest.mark.validation
def test_curvatures_of_a_vacancy_are_those_of_the_table():
    potential, start, rows = second_derivatives("second-order-sw-si-vacancy-63")
    # The gradient of a relaxed energy is the partial one (Hellmann-Feynman), so one derivative of it is the
    # Hessian.
    names = rows["energy"]["parameters"]
    at = in_logarithms(potential, names)

    def gradient(s):
        relaxed = ms.relax(at(s), start, fmax=1e-11)
        return jax.grad(lambda s: ms.energy(at(s), relaxed.structure, relaxed.neighbors))(s)

    references.assert_agrees(jax.jacfwd(gradient)(jnp.zeros(len(names))), rows["energy"], "energy")
    check_curvatures_of_positions(potential, start, rows["positions"])
