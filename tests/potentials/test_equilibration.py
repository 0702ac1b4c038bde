"""Charges that flow: dense solves, two atoms in closed form, the constraint, derivatives at both orders."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.special import erf

import mdsens as ms
from mdsens.errors import InputError
from mdsens.units import COULOMB

CHI, ETA, WIDTH = np.array([2.8, 8.6]), np.array([4.6, 9.9]), np.array([0.9, 0.7])
CLUSTER = ms.Structure.create(
    [[0, 0, 0], [2.4, 0.3, 0], [0.2, 2.6, 0.3], [0.1, -0.2, 2.7], [2.5, 2.4, 0.3]],
    ["Na", "Cl", "Cl", "Na", "Cl"],
)


def flowing(**options):
    settings = dict(electronegativity=CHI, hardness=ETA, width=WIDTH, elements=("Na", "Cl"))
    return ms.ChargeEquilibration(**(settings | options))


def salt():
    import ase.build

    atoms = ase.build.bulk("NaCl", "rocksalt", a=5.6, cubic=True)
    atoms.rattle(0.2, seed=0)
    return ms.Structure.create(atoms.positions, atoms.numbers, atoms.cell.array)


def test_charges_of_a_cluster_are_those_of_a_dense_solve():
    potential = flowing(total_charge=0.5)
    kinds = np.array([0, 1, 1, 0, 1])
    x = np.asarray(CLUSTER.positions)
    r = np.linalg.norm(x[:, None] - x, axis=-1) + np.eye(5)
    s = np.sqrt(WIDTH[kinds][:, None] ** 2 + WIDTH[kinds] ** 2)
    A = COULOMB * erf(r / (np.sqrt(2) * s)) / r
    np.fill_diagonal(A, ETA[kinds] + COULOMB / (np.sqrt(np.pi) * WIDTH[kinds]))
    whole = np.block([[A, np.ones((5, 1))], [np.ones((1, 5)), np.zeros((1, 1))]])
    exact = np.linalg.solve(whole, [*-CHI[kinds], 0.5])
    near = ms.neighbors_of(potential, CLUSTER)
    flow = potential.settled(CLUSTER, near)
    assert_allclose(flow.charges, exact[:5], rtol=1e-10)
    assert_allclose(flow.potential, -exact[5], rtol=1e-10)
    q = exact[:5]
    assert_allclose(ms.energy(potential, CLUSTER), CHI[kinds] @ q + q @ A @ q / 2, rtol=1e-12)
    # what one more charge costs
    assert_allclose(jax.grad(ms.energy)(potential, CLUSTER).total_charge, -exact[5], rtol=1e-9)


def test_a_crystal_is_neutral_and_its_charges_make_the_energy_stationary():
    potential, structure = flowing(cutoff_radius=8.0), salt()
    near = ms.neighbors_of(potential, structure)
    flow = potential.settled(structure, near)
    assert_allclose(jnp.sum(flow.charges), 0.0, atol=1e-12)
    slope = jax.grad(lambda q: potential._unconstrained(q, structure, near))(flow.charges)
    assert_allclose(slope, flow.potential, rtol=1e-9)


def test_narrow_clouds_far_apart_are_points_of_ewalds_sum():
    structure = salt()
    potential = flowing(
        hardness=[1e6, 1e6], electronegativity=[-1e6, 1e6], width=[0.3, 0.3], cutoff_radius=8.0
    )
    near = ms.neighbors_of(potential, structure)
    # stiff atoms: q = -+1 up to what fields do, a millionth
    q = np.asarray(potential.charges(structure, near))
    assert_allclose(q, [1.0, -1.0] * 4, rtol=1e-4)


def test_forces_follow_the_parameters_at_both_orders():
    potential = flowing(total_charge=0.3)
    near = ms.neighbors_of(potential, CLUSTER)

    @jax.jit
    def force(t):
        moved = flowing(
            electronegativity=CHI + t, hardness=ETA + t**2, width=WIDTH * (1 + t), total_charge=0.3 + t
        )
        return -jax.grad(lambda x: moved.energy(CLUSTER.at(x), near))(CLUSTER.positions)

    slope = jax.jit(lambda t: jax.jvp(force, (t,), (1.0,))[1])
    bend = jax.jit(lambda t: jax.jvp(slope, (t,), (1.0,))[1])
    # sixth order differences: their error is 0.01⁶ of a derivative, and little is lost to rounding
    weights, step = np.array([1, -9, 45, -45, 9, -1]) / 60, 0.01
    places = np.array([3, 2, 1, -1, -2, -3])
    for function, derivative in ((force, slope), (slope, bend)):
        values = np.stack([function(0.1 + step * k) for k in places])
        twin = np.tensordot(weights, values, 1) / step
        assert_allclose(derivative(0.1), twin, rtol=0, atol=1e-8 * np.abs(twin).max())


@pytest.mark.parametrize(
    ("options", "match"),
    [
        (dict(elements=()), "elements|shape"),
        (dict(hardness=[1.0]), "hardness"),
        (dict(accuracy=1.0), "accuracy"),
        (dict(cutoff_radius=-1.0), "cutoff_radius"),
        (dict(solver=1), "solver"),
    ],
)
def test_what_is_wrong_is_said(options, match):
    with pytest.raises(InputError, match=match):
        flowing(**options)


def test_a_crystal_with_a_charge_and_clouds_beyond_the_cutoff_are_refused():
    with pytest.raises(InputError, match=r"total_charge = 1 e .*background=True"):
        ms.energy(flowing(total_charge=1.0), salt())
    with pytest.raises(InputError, match=r"clouds wider than 0.\d+ Å overlap beyond cutoff_radius = 5"):
        ms.energy(flowing(cutoff_radius=5.0), salt())
    wire = ms.Structure.create(
        [[0, 0, 0], [2.5, 0, 0]], ["Na", "Cl"], [5.0, 9.0, 9.0], pbc=(True, False, False)
    )
    with pytest.raises(InputError, match="ChargeEquilibration sums over"):
        ms.energy(flowing(), wire)


def test_a_file_keeps_the_potential(tmp_path):
    ms.save_potential(flowing(), tmp_path / "flow.toml")
    assert_allclose(
        ms.energy(ms.load_potential(tmp_path / "flow.toml"), CLUSTER), ms.energy(flowing(), CLUSTER)
    )
