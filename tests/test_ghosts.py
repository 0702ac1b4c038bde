"""Structures of different sizes are filled up with ghosts: nobody sees them, and programs are shared."""

import dataclasses

import ase.build
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compilations import compilations
from numpy.testing import assert_allclose

import mdsens as ms
from mdsens import ghosts
from mdsens.ghosts import list_with_ghosts, list_without_ghosts, with_ghosts, without_ghosts
from mdsens.observables import elastic_constants
from mdsens.relaxation.memory import forget

SILICON = ms.load_potential("si-stillinger-weber-1985")


def silicon(n: int) -> ms.Structure:
    atoms = ase.build.bulk("Si", cubic=True, a=5.431)[:n]
    atoms.rattle(0.02, seed=n)
    return ms.Structure.from_ase(atoms)


def test_twenty_to_two_hundred_atoms_need_five_sizes_and_large_ones_waste_little():
    sizes = np.array([ghosts.size_for(n) for n in range(1, 5001)])
    n = np.arange(1, 5001)
    assert np.all(sizes >= n) and np.all(np.diff(sizes) >= 0)
    assert all(ghosts.size_for(size) == size for size in set(sizes.tolist()))
    assert len(set(sizes[19:200].tolist())) == 5
    assert sizes[19:200].sum() / n[19:200].sum() < 1.26
    assert np.max(sizes[256:1000] / n[256:1000]) < 1 + 1 / 8
    assert np.max(sizes[1024:] / n[1024:]) < 1 + 1 / 16
    assert (sizes[256:] / n[256:]).mean() < 1.04


def test_what_ghosts_were_added_to_comes_back_as_it_was():
    structure = ms.Structure.create(
        np.random.default_rng(0).normal(size=(5, 3)),
        ["Si", "C", "C", "Si", "C"],
        [4.0, 5.0, 6.0],
        fixed=[False, True, False, False, False],
        charges=[1.0, -0.5, -0.5, 1.0, -1.0],
    )
    neighbors = ms.find_neighbors(structure, 3.0, 0.5)
    filled = with_ghosts(structure)
    assert filled.n_atoms == 8 and float(filled.count) == 5 and float(jnp.sum(filled.charges)) == 0
    assert np.all(np.asarray(filled.fixed)[5:]) and with_ghosts(filled) is filled
    filled_list = list_with_ghosts(neighbors, filled)
    for was, comes in (
        (structure, without_ghosts(filled)),
        (neighbors, list_without_ghosts(filled_list, 5)),
    ):
        assert jax.tree.structure(was) == jax.tree.structure(comes)
        assert all(np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, (was, comes)), strict=True))


def salt(**options):
    crystal = ase.build.bulk("NaCl", "rocksalt", a=5.6, cubic=True)
    crystal.rattle(0.1, seed=0)
    return ms.Ewald(**options), ms.Structure.from_ase(crystal[:6])


IONS = dict(charge=[1.0, -1.0], elements=("Na", "Cl"), cutoff_radius=5.0)
# no Johnson-like form is special: one form for each way in which energies come about
CASES = {
    "angles": lambda: (SILICON, silicon(7)),
    "bond orders": lambda: (ms.load_potential("si-tersoff-1988-t3"), silicon(7)),
    "a sum": lambda: (SILICON + 0.1 * SILICON, silicon(7)),
    "mapped": lambda: (ms.mapped(SILICON, {"Si": "Si", "C": None}), silicon(6)),
    "embedded atoms": lambda: (ms.load_potential("cu-gupta-1993"), copper()),
    "Ewald": lambda: salt(**IONS),
    "Ewald, a cluster": lambda: (salt(**IONS)[0], cluster()),
    "damped charges": lambda: (ms.Wolf(**IONS), salt(**IONS)[1]),
}


def copper() -> ms.Structure:
    atoms = ase.build.bulk("Cu", a=3.6, cubic=True) * (2, 1, 1)
    atoms.rattle(0.1, seed=0)
    return ms.Structure.from_ase(atoms[:7])


def cluster() -> ms.Structure:
    return ms.Structure.create(3.0 * np.eye(5, 3) + 0.1, ["Na", "Cl", "Na", "Cl", "Na"])


@pytest.mark.parametrize("case", CASES)
def test_no_form_sees_ghosts(case):
    potential, structure = CASES[case]()
    assert potential.ghosts and ghosts.size_for(structure.n_atoms) > structure.n_atoms
    plain = ms.energy_forces_stress(potential, structure, ms.neighbors_of(potential, structure))
    filled = with_ghosts(structure)
    neighbors = ms.neighbors_of(potential, filled)
    found = ms.energy_forces_stress(potential, filled, neighbors)
    n = structure.n_atoms
    assert_allclose(found.energy, plain.energy, rtol=1e-13)
    assert_allclose(found.forces[:n], plain.forces, rtol=0, atol=1e-12)
    assert np.all(np.asarray(found.forces)[n:] == 0)
    assert_allclose(found.stress, plain.stress, rtol=0, atol=1e-12)
    assert np.array_equal(potential.contacts(filled, neighbors)[:n], np.ones(n, bool))


def test_a_form_with_an_energy_of_its_own_gets_no_ghosts_unless_it_says_so():
    class Constant(type(SILICON)):
        def energy(self, structure, neighbors):
            return super().energy(structure, neighbors) + 1.0 * structure.n_atoms

    values = {field.name: getattr(SILICON, field.name) for field in dataclasses.fields(SILICON)}
    own, structure = Constant(**values), silicon(7)
    assert not own.ghosts and not (own + SILICON).ghosts
    assert_allclose(ms.energy(own, structure), ms.energy(SILICON, structure) + 7, rtol=1e-13)


def relaxation(n: int) -> dict:
    """All that a relaxation says, from a start with n atoms in a cell that is free."""
    relaxed = ms.relax(SILICON, silicon(n), cell="isotropic", fmax=1e-9)
    certificate = relaxed.equilibrium.certificate
    return dict(
        steps=int(relaxed.steps),
        positions=relaxed.structure.positions,
        cell=relaxed.structure.cell,
        energy=relaxed.energy,
        forces=relaxed.forces,
        stress=relaxed.stress,
        lowest=certificate.lowest_curvature,
        condition=certificate.condition,
        mode=np.abs(certificate.mode),
        unknowns=certificate.unknowns,
        gauge=certificate.gauge,
        stiffness=elastic_constants(SILICON, relaxed),
    )


def gradients(n: int) -> dict:
    """Derivatives through a relaxation, by parameters and by the structure that a user has."""

    def stretched(potential, positions):
        relaxed = ms.relax(potential, silicon(n).at(positions), cell="isotropic", fmax=1e-9)
        return ms.volume(relaxed.structure) + jnp.sum(relaxed.structure.positions**2) + relaxed.energy

    by_parameters, by_positions = jax.grad(stretched, argnums=(0, 1))(SILICON, silicon(n).positions)
    return dict(
        by_parameters=[float(leaf) for leaf in jax.tree.leaves(by_parameters)], by_positions=by_positions
    )


def test_another_number_of_atoms_compiles_nothing():
    relaxation(8)
    with compilations() as compiled:
        fewer = relaxation(7)
    assert len(fewer["positions"]) == 7
    assert compiled == []


def disordered(rng: np.random.Generator) -> ms.Structure:
    """16 to 200 atoms of diamond, every seventh missing, the others displaced."""
    sizes = [(1, 1, 3), (2, 2, 1), (1, 2, 3), (2, 2, 2), (2, 3, 2), (3, 3, 2), (3, 3, 3)]
    atoms = ase.build.bulk("Si", cubic=True, a=5.431).repeat(sizes[rng.integers(len(sizes))])
    kept = atoms[rng.random(len(atoms)) > 0.15]
    kept.positions += 0.1 * rng.normal(size=kept.positions.shape)
    return ms.Structure.from_ase(kept)


@pytest.mark.validation
def test_a_hundred_structures_of_many_sizes_compile_few_walks_and_hardly_anything_late():
    rng = np.random.default_rng(0)
    structures = [disordered(rng) for _ in range(100)]
    assert len({structure.n_atoms for structure in structures}) > 40
    with compilations() as compiled:
        counts = []
        watch = lambda progress: counts.append(len(compiled))
        ms.relax_batch(SILICON, structures, fmax=1e-3, progress=watch)
    # three sizes, a walk by forces and one by curvatures for each; and where a row of curvatures is outgrown
    walks = [name for name in compiled if "advance" in name]
    assert len(walks) <= 6 + 1, walks
    # what is compiled late is next to nothing
    assert counts[-1] - counts[len(counts) // 2] <= 5


def test_a_derivative_of_another_number_of_atoms_compiles_small_change_only():
    gradients(8)
    seconds = []

    def listen(event: str, duration: float, **_) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            seconds.append(duration)

    jax.monitoring.register_event_duration_secs_listener(listen)
    gradients(7)
    jax.monitoring.unregister_event_duration_listener(listen)
    # where arrays are being differentiated, they are cut and filled up by operations of JAX
    assert len(seconds) < 30 and max(seconds, default=0) < 0.5


def test_relaxations_steps_certificates_and_derivatives_are_those_without_ghosts(monkeypatch):
    with_them = relaxation(7) | gradients(7)
    forget()
    monkeypatch.setattr(type(SILICON), "ghosts", False)
    without = relaxation(7) | gradients(7)
    for name, value in without.items():
        found = with_them[name]
        assert np.shape(found) == np.shape(value)
        # the softest mode, 0.5 eV/Å², magnifies what rounding leaves of the forces: 1e-13 of 30 eV/Å
        assert_allclose(found, value, rtol=1e-10, atol=1e-10, err_msg=name)


def test_calculators_of_ase_share_what_is_compiled():
    from mdsens.calculators import MDSens

    atoms = ase.build.bulk("Si", a=5.431, cubic=True)
    atoms.rattle(0.02, seed=0)
    atoms.calc = MDSens(SILICON)
    assert atoms.calc.get_hessian(atoms).shape == (24, 24)
    with compilations() as compiled:
        fewer = atoms[:7]
        fewer.calc = atoms.calc
        forces, hessian = fewer.get_forces(), atoms.calc.get_hessian(fewer)
        again = atoms.get_forces()
    assert compiled == []
    assert forces.shape == (7, 3) and hessian.shape == (21, 21) and again.shape == (8, 3)
    assert_allclose(forces, ms.energy_forces_stress(SILICON, ms.Structure.from_ase(fewer)).forces, atol=1e-12)
