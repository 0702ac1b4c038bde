"""Ewald's sum on a mesh: the sum itself to the accuracy asked for, with its derivatives; what it refuses."""

import dataclasses

import ase.build
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

import mdsens as ms
from mdsens.errors import InputError
from mdsens.observables import LatticeVibrations
from mdsens.potentials.particle_mesh import fast_size, spline_factors, splines
from mdsens.relaxation.memory import forget
from mdsens.units import COULOMB

IONS = dict(charge=[1.0, -1.0], elements=("Na", "Cl"))
CUTOFF = 8.0
CORE = ms.BornMayerHuggins(
    A=[0.26, 0.21, 0.16],
    sigma=[2.3, 2.7, 3.2],
    rho=[0.32] * 3,
    C=[1.0, 7.0, 72.0],
    D=[0.5, 8.7, 145.0],
    elements=("Na", "Cl"),
    cutoff_radius=CUTOFF,
)
NACL = 1.74756459463318219063  # Madelung's constant, for the distance of neighbors


def salt(skew=True):
    atoms = ase.build.bulk("NaCl", "rocksalt", a=5.6, cubic=True)
    if skew:
        atoms.rattle(0.3, seed=1)
        strain = np.array([[1.0, 0.2, 0.1], [0.0, 1.1, -0.3], [0.1, 0.0, 0.9]])
        atoms.set_cell(atoms.cell.array @ strain, scale_atoms=True)
    return ms.Structure.from_ase(atoms)


def on_mesh(structure, **options):
    return ms.ParticleMeshEwald.for_structure(structure, **IONS, cutoff_radius=CUTOFF, **options)


def quantities(potential, structure):
    """Energy, forces, derivatives by the cell; two derivatives of the forces along a direction."""
    neighbors = ms.neighbors_of(potential, structure, 0.3)
    direction = np.random.default_rng(0).normal(size=structure.positions.shape)

    def energy(x, cell):
        return potential.energy(dataclasses.replace(structure, positions=x, cell=cell), neighbors)

    @jax.jit
    def all_of_them(x, cell):
        slope = lambda t: jax.grad(energy)(x + t * direction, cell)
        bend = lambda t: jax.jvp(slope, (t,), (1.0,))[1]
        by_cell = jax.grad(energy, 1)(x, cell)
        return energy(x, cell), slope(0.0), by_cell, bend(0.0), jax.jvp(bend, (0.0,), (1.0,))[1]

    names = ("energy", "forces", "cell", "second", "third")
    return dict(zip(names, all_of_them(structure.positions, structure.cell), strict=True))


@pytest.fixture(scope="module")
def exact():
    return quantities(ms.Ewald(**IONS, accuracy=1e-15, cutoff_radius=CUTOFF), salt())


# each derivative multiplies what is left out by the shortest wave that counts
@pytest.mark.parametrize(
    ("accuracy", "order"), [pytest.param(1e-6, 6, marks=pytest.mark.validation), (1e-9, 8)]
)
def test_energy_and_its_derivatives_up_to_the_third_are_those_of_the_sum(exact, accuracy, order):
    found = quantities(on_mesh(salt(), accuracy=accuracy, order=order), salt())
    for factor, name in zip((1, 10, 10, 100, 1000), exact, strict=True):
        largest = np.abs(exact[name]).max()
        assert_allclose(found[name], exact[name], atol=factor * accuracy * largest, err_msg=name)


def test_splines_are_positive_add_up_to_one_and_are_each_others_slope():
    u = np.linspace(0, 1, 11)[:-1]
    for order in (6, 10, 16):
        values = np.array(splines(u, order))
        assert np.all(values >= 0)
        assert_allclose(values.sum(axis=0), 1.0, rtol=1e-14)
        # M_n'(u) = M_{n-1}(u) - M_{n-1}(u - 1)
        lower = np.array([*splines(u, order - 1), 0 * u])
        slope = lower - np.roll(lower, 1, axis=0)
        step = 1e-5
        differences = (np.array(splines(u + step, order)) - np.array(splines(u - step, order))) / (2 * step)
        assert_allclose(differences[:, 1:], slope[:, 1:], atol=1e-9)


def test_waves_are_those_of_the_splines_at_the_points_of_the_mesh():
    # sum_g M(u - g) exp(2 pi i m g / K) b(m) = exp(2 pi i m u / K) at whole u: here u = 0
    points, order, m = 20, 8, 3
    spread = np.array(splines(0.0, order))  # M(u - g) at g = 0, -1, ...
    transform = np.sum(spread * np.exp(-2j * np.pi * m * np.arange(order) / points))
    assert_allclose(spline_factors(points, order)[m] * abs(transform) ** 2, 1.0, rtol=1e-13)


def test_sizes_of_a_mesh_are_even_and_fast():
    assert [fast_size(x) for x in (1, 7, 11, 13.5, 97, 125.1)] == [2, 8, 12, 16, 100, 128]


def test_rock_salt_has_its_madelung_constant():
    crystal = salt(skew=False)
    mesh = on_mesh(crystal, accuracy=1e-12)
    assert_allclose(ms.energy(mesh, crystal) / 4, -COULOMB * NACL / 2.8, rtol=1e-11)


@pytest.mark.validation
def test_a_relaxed_edge_and_its_derivative_by_the_charges_are_those_of_the_sum():
    crystal = salt(skew=False)
    mesh, total = on_mesh(crystal, accuracy=1e-12), ms.Ewald(**IONS, accuracy=1e-12, cutoff_radius=CUTOFF)

    def edge(scale, coulomb):
        forget()
        charged = dataclasses.replace(coulomb, charge=scale * coulomb.charge)
        return ms.relax(CORE + charged, crystal, cell="isotropic", fmax=1e-9).structure.cell[0, 0]

    found, wanted = (jax.value_and_grad(edge)(1.0, coulomb) for coulomb in (mesh, total))
    assert_allclose(found, wanted, rtol=1e-9)


def test_a_mesh_is_written_and_read(tmp_path):
    potential = on_mesh(salt())
    ms.save_potential(potential, tmp_path / "salt.toml")
    again = ms.load_potential(tmp_path / "salt.toml")
    assert (again.mesh, again.order, again.accuracy) == (potential.mesh, potential.order, potential.accuracy)


def test_a_cluster_is_the_plain_sum():
    cluster = ms.Structure.create(salt().positions, salt().symbols)
    assert_allclose(ms.energy(on_mesh(salt()), cluster), ms.energy(ms.Ewald(**IONS), cluster), rtol=1e-14)


def test_a_mesh_that_is_too_coarse_for_the_cell_is_refused_with_one_that_is_not():
    potential = on_mesh(salt(skew=False))
    long = salt(skew=False).deformed(1.5 * jnp.eye(3))
    with pytest.raises(InputError, match=r"too coarse for cell vectors of .*for_structure"):
        ms.relax(potential, long)


def test_supercells_are_refused_with_the_remedy():
    crystal = salt(skew=False)
    with pytest.raises(InputError, match="mesh that was made for one cell"):
        LatticeVibrations.of(ms.relax(CORE + on_mesh(crystal), crystal), 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"order": 7}, "even one from 6 to 16"),
        ({"order": 4}, "6 or more"),
        ({"order": 18}, "even one from 6 to 16"),
        ({"accuracy": 1e-20}, "accuracy"),
        ({"mesh": (4, 20, 20)}, "10 or more"),
        ({"mesh": (20, 20)}, "three cell vectors"),
    ],
)
def test_settings_out_of_range_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        ms.ParticleMeshEwald(**IONS, **{"mesh": (20, 20, 20), **options})


def test_a_cluster_has_no_mesh():
    cluster = ms.Structure.create(salt().positions, salt().symbols)
    with pytest.raises(InputError, match="needs a periodic cell"):
        on_mesh(cluster)
